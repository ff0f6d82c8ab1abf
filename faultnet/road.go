package faultnet

import (
	"math/rand/v2"
	"time"
)

// A road decides when what enters one direction of one connection arrives. It
// has no clock and moves nothing.
type road struct {
	rand *rand.Rand
	free time.Time // when the line will have carried all that entered
	last time.Time // arrival of the latest piece of a stream
}

// newRoad gives each direction of each connection its own randomness.
func newRoad(seed, connection uint64, w way) road {
	return road{rand: rand.New(rand.NewPCG(seed, connection<<1|uint64(w)))}
}

// segments says when n bytes of a stream arrive that are sent now, and how many
// segments were lost on the way. The segments of one piece are retransmitted side
// by side; nothing arrives before what was sent before it.
func (r *road) segments(now time.Time, l Line, n int) (arrival time.Time, lost int) {
	stall, lost := r.stall(l, (n+segmentSize-1)/segmentSize)
	arrival = r.carry(now, l, n).Add(l.Delay + r.jitter(l) + stall)
	if arrival.Before(r.last) {
		arrival = r.last
	}
	r.last = arrival
	return arrival, lost
}

// maxRetries bounds the retransmissions of one segment: with the timeout
// doubling from 200 ms, eight stall it for 51 s.
const maxRetries = 8

// stall draws the losses of k segments and the retransmissions they take: a
// stream waits for the longest recovery.
func (r *road) stall(l Line, k int) (longest time.Duration, lost int) {
	if l.Loss == 0 {
		return 0, 0
	}
	for range k {
		var wait time.Duration
		rto := l.RTO
		if rto == 0 {
			rto = defaultRTO
		}
		for try := 0; try < maxRetries && r.rand.Float64() < l.Loss; try++ {
			lost++
			wait += rto
			rto *= 2
		}
		longest = max(longest, wait)
	}
	return longest, lost
}

// A fate is when the copies of a datagram arrive: none if it is lost.
type fate struct {
	arrivals  []time.Time
	reordered bool
}

// datagram draws the fate of a datagram of n bytes that is sent now.
func (r *road) datagram(now time.Time, l Line, n int) fate {
	if l.Flow != Clear || r.rand.Float64() < l.Loss {
		return fate{}
	}
	var f fate
	sent := r.carry(now, l, n)
	arrival := sent.Add(l.Delay + r.jitter(l))
	if r.rand.Float64() < l.Reorder {
		f.reordered = true
		arrival = arrival.Add(l.ReorderBy)
	}
	f.arrivals = append(f.arrivals, arrival)
	if r.rand.Float64() < l.Duplicate {
		f.arrivals = append(f.arrivals, sent.Add(l.Delay+r.jitter(l)))
	}
	return f
}

func (r *road) jitter(l Line) time.Duration {
	if l.Jitter == 0 {
		return 0
	}
	return time.Duration(r.rand.Int64N(int64(l.Jitter) + 1))
}

// carry says when a line of limited rate has carried n bytes: a token bucket of
// Burst bytes, kept as the time at which it will be empty (the virtual scheduling
// form of ITU-T I.371's generic cell rate algorithm).
func (r *road) carry(now time.Time, l Line, n int) time.Time {
	if l.Rate == 0 {
		r.free = time.Time{}
		return now
	}
	burst := l.Burst
	if burst == 0 {
		burst = defaultBurst
	}
	if full := now.Add(-duration(burst, l.Rate)); r.free.Before(full) {
		r.free = full
	}
	r.free = r.free.Add(duration(n, l.Rate))
	if r.free.Before(now) {
		return now
	}
	return r.free
}

// duration is how long n bytes take at rate bytes a second.
func duration(n, rate int) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}
