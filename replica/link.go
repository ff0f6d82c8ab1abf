package replica

import (
	"math"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A link is what the node knows of the masters. Replica.mu protects it.
type link struct {
	talk                      *Talk     // nil while there is no session
	session                   *session  // the goroutines around talk; nil if it is driven without
	addr                      string    // of the master in session, or the last one
	masters                   []string  // addresses a master named
	left                      time.Time // when the last session ended; zero: there was none
	trouble                   error     // why there is no session, or why the outbox does not move
	rtt                       time.Duration
	offset                    time.Duration // how far the master's clock is ahead
	head                      crm.Rev       // the highest one heard of
	asOf                      time.Time     // when the base was known to be the leader's head; zero: never
	second                    bool          // who serves this node has its head from another one: it says how old that is
	heads                     []headAt      // heads above the Cursor, ascending
	backup                    crm.Rev       // what the masters' backup covers
	lineage                   crm.Lineage   // that the masters told last
	spoken                    uint16        // version of the protocol; 0: there was no session yet
	choice                    choice        // among who may serve this node
	moves                     int           // how often the node went to a nearer one, since Open
	avoid                     string        // address of a master that did not cure a divergence: tried last
	repaired, repairedRecords int           // territories, and records that their repairs changed, since Open
	verified                  crm.Rev       // the last Rev at which digests were compared and equal
}

// A headAt says that a master's head was rev at a time not before at.
type headAt struct {
	rev crm.Rev
	at  time.Time
}

// maxHeads bounds the heads remembered while the Cursor catches up.
const maxHeads = 64

// heardHead notes that the leader's head was rev at the time at, by this node's
// clock; zero: nobody knows when. Whom this node asks may know less than it does.
func (l *link) heardHead(rev, cursor crm.Rev, at time.Time) {
	l.head = max(l.head, rev)
	if rev <= cursor && at.After(l.asOf) {
		l.asOf = at
	}
	switch n := len(l.heads); {
	case n > 0 && l.heads[n-1].rev > rev:
	case n > 0 && l.heads[n-1].rev == rev:
		if at.After(l.heads[n-1].at) {
			l.heads[n-1].at = at
		}
	case n == maxHeads:
		l.heads = append(l.heads[1:], headAt{rev, at})
	default:
		l.heads = append(l.heads, headAt{rev, at})
	}
	l.settleAsOf(cursor)
}

// settleAsOf moves asOf on to the newest head that the Cursor has reached.
func (l *link) settleAsOf(cursor crm.Rev) {
	for len(l.heads) > 0 && l.heads[0].rev <= cursor {
		if at := l.heads[0].at; at.After(l.asOf) {
			l.asOf = at
		}
		l.heads = l.heads[1:]
	}
	l.head = max(l.head, cursor)
}

// ageUnknown is the age of a head of which who tells it does not know when it was
// the leader's.
const ageUnknown = math.MaxUint32

// told returns when a head was the leader's that was asked for at the time asked
// and told with that age; zero: nobody knows.
func told(asked time.Time, ageMillis uint32) time.Time {
	if ageMillis == ageUnknown {
		return time.Time{}
	}
	return asked.Add(-time.Duration(ageMillis) * time.Millisecond)
}

// change edits the link and wakes those who wait for it.
func (r *Replica) change(edit func(*link)) {
	r.mu.Lock()
	edit(&r.link)
	r.mu.Unlock()
	r.moved.fire()
}

// heard notes a head that was told in answer to what was asked, and how the clock
// of who told it compares.
func (r *Replica) heard(head crm.Rev, asked time.Time, ageMillis uint32, offset, rtt time.Duration) {
	r.mu.Lock()
	l := &r.link
	l.offset, l.rtt, l.second = offset, rtt, ageMillis > 0
	l.choice.measured(l.choice.using, rtt, r.cfg.Now())
	l.heardHead(head, r.pos.rev, told(asked, ageMillis))
	r.mu.Unlock()
	r.moved.fire()
	r.cfg.Metrics.clockOffset.Set(offset.Seconds())
	r.cfg.Metrics.rtt.Observe(rtt.Seconds())
	r.measureLag()
}

// heardLeader notes what the leader has answered.
func (r *Replica) heardLeader(head crm.Rev, asked time.Time) {
	r.change(func(l *link) { l.heardHead(head, r.pos.rev, asked) })
	r.measureLag()
}
