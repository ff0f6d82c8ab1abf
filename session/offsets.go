package session

import "time"

// offsets estimates how far the own clock is ahead of a node's. A round trip
// that took long says little, so the quickest of the last ones counts.
type offsets struct {
	samples [8]offsetSample
	n       int
	first   int64 // milliseconds, before there is a sample
}

type offsetSample struct{ offset, rtt time.Duration }

func (o *offsets) guess(ms int64) { o.first = ms }

func (o *offsets) sample(offset, rtt time.Duration) {
	o.samples[o.n%len(o.samples)] = offsetSample{offset, rtt}
	o.n++
}

// best returns the estimate in milliseconds.
func (o *offsets) best() int64 {
	s, ok := o.quickest()
	if !ok {
		return o.first
	}
	return s.offset.Milliseconds()
}

// quickest returns the sample of the shortest round trip.
func (o *offsets) quickest() (offsetSample, bool) {
	if o.n == 0 {
		return offsetSample{}, false
	}
	best := o.samples[0]
	for _, s := range o.samples[:min(o.n, len(o.samples))] {
		if s.rtt < best.rtt {
			best = s
		}
	}
	return best, true
}
