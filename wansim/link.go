package wansim

import (
	"math"
	"math/rand/v2"
	"time"
)

// mss is the payload of one packet in bytes: the unit in which loss is drawn.
const mss = 1460

// A link carries bytes one way between two sites, or within one.
type link struct {
	from, to  string
	delay     time.Duration // one way
	rto       time.Duration // by how much a lost segment comes late
	bandwidth int64         // bytes/s; 0 is unlimited
	loss      float64       // of one packet
	jitter    float64       // longest extra delay, as a fraction of delay

	cut   bool
	cuts  int       // times it was cut: tells a traveller that it was lost on the way
	free  time.Time // when everything sent so far has left
	bytes int64     // payload carried; what a cut stops on its way is taken off again
}

// set cuts or heals the link. A cut empties what it had still to send: that is
// sent again after the heal.
func (l *link) set(cut bool, now time.Time) {
	l.cut = cut
	if cut {
		l.cuts++
		l.free = now
	}
}

// send puts n bytes behind what the link has still to send and returns when they
// arrive, were none lost.
func (l *link) send(now time.Time, n int, rng *rand.Rand) time.Time {
	l.bytes += int64(n)
	l.free = later(l.free, now)
	if l.bandwidth > 0 {
		l.free = l.free.Add(time.Duration(int64(n) * int64(time.Second) / l.bandwidth))
	}
	at := l.free.Add(l.delay)
	if l.jitter > 0 {
		at = at.Add(time.Duration(rng.Float64() * l.jitter * float64(l.delay)))
	}
	return at
}

// loses draws whether any packet of n bytes is lost.
func (l *link) loses(n int, rng *rand.Rand) bool {
	if l.loss <= 0 {
		return false
	}
	packets := max(1, (n+mss-1)/mss)
	return rng.Float64() >= math.Pow(1-l.loss, float64(packets))
}
