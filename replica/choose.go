package replica

import (
	"cmp"
	"slices"
	"time"
)

const (
	// rttGain is the weight of a new measurement in a smoothed round trip.
	rttGain = 0.25
	// A candidate is better only by at least a fifth and at least 5 ms, or it would
	// not be felt.
	betterRatio = 0.8
	betterBy    = 5 * time.Millisecond
	// betterFor is how long a candidate must have been better before the node moves
	// to it.
	betterFor = 3 * time.Minute
	// dwell is the least time between two moves that nothing has forced.
	dwell = 10 * time.Minute
	// restAfter is how long a candidate that could not be used is tried last, at
	// first; it doubles up to restMost while that goes on.
	restAfter = 30 * time.Second
	restMost  = time.Hour
)

// A candidate is a node that may serve this one, as far as is known.
type candidate struct {
	addr   string
	rtt    time.Duration // smoothed; 0: never measured
	at     time.Time     // when it was last asked, whether it answered or not
	down   bool          // it did not answer when it was last asked
	better time.Time     // since when it has been better than the one in use; zero: it is not
	rest   time.Duration // how long it is tried last after the next failure; 0: restAfter
	until  time.Time     // it is tried last until then
}

// A choice says whom to talk to. It knows no clock: time is an argument. The
// nodes in it are those that known names, in that order.
//
// Simple version: the nearest. What complicates it: round trips vary, so the node
// in use is left only for one that was clearly better for a while; and one that
// could not be used is not the first to be tried again, however near it is.
type choice struct {
	list  []*candidate
	using string    // address in session; "" none
	moved time.Time // when the node last moved by its own will
	avoid string    // is tried last: it may hold what is wrong
}

// know makes the candidates those addresses, in order of preference while nothing
// is measured.
func (c *choice) know(addrs []string) {
	var list []*candidate
	for _, addr := range addrs {
		k := c.find(addr)
		if k == nil {
			k = &candidate{addr: addr}
		}
		list = append(list, k)
	}
	c.list = list
}

func (c *choice) find(addr string) *candidate {
	for _, k := range c.list {
		if k.addr == addr {
			return k
		}
	}
	return nil
}

// measured notes a round trip. What could be used is up.
func (c *choice) measured(addr string, rtt time.Duration, now time.Time) {
	k := c.find(addr)
	if k == nil {
		return
	}
	rtt = max(rtt, time.Millisecond/2) // clocks may not tell less
	if k.rtt == 0 || k.down {
		k.rtt = rtt
	}
	k.rtt += time.Duration(rttGain * float64(rtt-k.rtt))
	k.at, k.down = now, false
}

// unreachable notes that a candidate did not answer.
func (c *choice) unreachable(addr string, now time.Time) {
	if k := c.find(addr); k != nil {
		k.at, k.down, k.better = now, true, time.Time{}
	}
}

// failed notes that there was no session with a candidate, or that one ended that
// this node did not end.
func (c *choice) failed(addr string, now time.Time) {
	if c.using == addr {
		c.using = ""
	}
	k := c.find(addr)
	if k == nil || now.Before(k.until) {
		return // it was tried only because all others failed too
	}
	rest := max(k.rest, restAfter)
	k.until, k.rest, k.better = now.Add(rest), min(2*rest, restMost), time.Time{}
}

// begun notes that a session with a candidate began.
func (c *choice) begun(addr string) {
	c.using = addr
	for _, k := range c.list {
		k.better = time.Time{}
	}
}

// lasted notes that the session in use has been good for a while.
func (c *choice) lasted() {
	if k := c.find(c.using); k != nil {
		k.rest, k.until = 0, time.Time{}
	}
}

// order returns whom to try, in that order: the nearest first, those that are not
// measured after them as they were named, and last those that could not be used a
// little while ago.
func (c *choice) order(now time.Time) []string {
	class := func(k *candidate) int {
		switch {
		case k.addr == c.avoid:
			return 4
		case k.down:
			return 3
		case now.Before(k.until):
			return 2
		case k.rtt == 0:
			return 1
		}
		return 0
	}
	list := slices.Clone(c.list)
	slices.SortStableFunc(list, func(a, b *candidate) int { return cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(a.rtt, b.rtt)) })
	var out []string
	for _, k := range list {
		out = append(out, k.addr)
	}
	return out
}

// look compares the candidates with the one in use and returns which to move to,
// "" to stay.
func (c *choice) look(now time.Time) (to string) {
	in := c.find(c.using)
	if in == nil || in.rtt == 0 {
		return ""
	}
	var best *candidate
	for _, k := range c.list {
		if k == in || !clearly(k, in) || now.Before(k.until) || k.addr == c.avoid {
			k.better = time.Time{}
			continue
		}
		if k.better.IsZero() {
			k.better = now
		}
		if best == nil || k.rtt < best.rtt {
			best = k
		}
	}
	if best == nil || now.Sub(best.better) < betterFor || !c.moved.IsZero() && now.Sub(c.moved) < dwell {
		return ""
	}
	return best.addr
}

// clearly reports whether k is better than in.
func clearly(k, in *candidate) bool {
	return !k.down && k.rtt > 0 && k.rtt <= in.rtt-betterBy && float64(k.rtt) <= betterRatio*float64(in.rtt)
}

// strangers returns who was never asked, if there is more than one to choose from.
func (c *choice) strangers() (out []string) {
	for _, k := range c.list {
		if k.at.IsZero() && len(c.list) > 1 {
			out = append(out, k.addr)
		}
	}
	return out
}

// due returns whom to measure in a round: who was never asked or would be moved to,
// and of the others the one asked longest ago.
func (c *choice) due() []string {
	in := c.find(c.using)
	var out []string
	var oldest *candidate
	for _, k := range c.list {
		switch {
		case k.addr == c.using:
		case k.at.IsZero(), in != nil && in.rtt > 0 && clearly(k, in):
			out = append(out, k.addr)
		case oldest == nil || k.at.Before(oldest.at):
			oldest = k
		}
	}
	if oldest != nil {
		out = append(out, oldest.addr)
	}
	return out
}
