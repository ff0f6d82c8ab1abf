package syncproto

import (
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// MaxDrift is how far ahead of the own clock an observed reading may be and
// still be adopted. It is the error a measured offset may have: a greater one is
// a slow clock, which the master corrects by that offset. Adopting the reading
// as well would correct it twice and date an offline edit into the future.
const MaxDrift = 500 * time.Millisecond

// A Clock gives a node's hybrid logical time. Its readings strictly increase,
// whatever the wall clock does. It is safe for concurrent use.
type Clock struct {
	Now func() time.Time // the wall clock

	mu   sync.Mutex // protects last
	last crm.HLC    // the greatest reading given, restored or adopted
}

// Tick returns the reading for an event now, greater than all before it.
func (c *Clock) Tick() crm.HLC {
	now := c.wall()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = c.last.Next(now)
	return c.last
}

// wall returns the wall clock in Unix milliseconds; a board without a battery
// may believe in a year that a reading cannot hold.
func (c *Clock) wall() int64 { return max(0, c.Now().UnixMilli()) }

// Observe makes later readings greater than h, the effective time of a decided
// Mutation, unless h is more than MaxDrift ahead of the own clock.
func (c *Clock) Observe(h crm.HLC) {
	if h > crm.NewHLC(c.wall()+MaxDrift.Milliseconds()) {
		return
	}
	c.Restore(h)
}

// Restore makes later readings greater than last, the greatest reading that
// this node has stored, so that a clock set back over a restart does no harm.
func (c *Clock) Restore(last crm.HLC) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, last)
}

// Offset returns how far the answering clock is ahead of the asking one, and
// the round trip without the answerer's own time, from the Unix milliseconds at
// which the question left (t1) and arrived (t2) and the answer left (t3) and
// arrived (t4): t1 and t4 by the asking clock, t2 and t3 by the answering one
// (RFC 5905 §8). The offset is wrong by at most half the round trip. rtt is
// never negative.
func Offset(t1, t2, t3, t4 int64) (offset, rtt time.Duration) {
	return millis(((t2 - t1) + (t3 - t4)) / 2), max(0, millis((t4-t1)-(t3-t2)))
}

// millis clamps to about 270 years, because a peer's times are what it says.
func millis(ms int64) time.Duration {
	const most = 1 << 43
	return time.Duration(max(-most, min(most, ms))) * time.Millisecond
}
