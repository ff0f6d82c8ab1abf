package wansim

import (
	"math/rand/v2"
	"time"
)

const (
	windowSize  = 1 << 20  // bytes written and not yet known to be read
	segmentSize = 16 << 10 // longest segment, bytes
	ackSize     = 32 << 10 // bytes read at which a reader opens the window though more is queued
)

// A stream is one direction of a connection.
type stream struct {
	fwd, rev *link // the way of the data, the way of the acknowledgements
	rng      *rand.Rand

	queue []segment // written and not yet read, in order
	last  time.Time // latest arrival so far: nothing overtakes it
	used  int       // bytes of the window in use
	read  int       // bytes read and not yet in acks
	acks  []ack
}

// A segment is on its way or has arrived; it is held by a cut while at is zero.
// Held segments are always the tail of their queue.
type segment struct {
	data []byte
	fin  bool // nothing follows
	at   time.Time
}

// An ack reopens the window by n bytes; it is held by a cut while at is zero.
type ack struct {
	n  int
	at time.Time
}

func (s *stream) send(now time.Time, seg segment) {
	if !s.fwd.cut {
		seg.at = s.arrival(now, len(seg.data))
	}
	s.queue = append(s.queue, seg)
	s.used += len(seg.data)
}

// arrival sends n bytes over the open link and returns when they arrive.
func (s *stream) arrival(now time.Time, n int) time.Time {
	at := s.fwd.send(now, n, s.rng)
	if s.fwd.loses(n, s.rng) {
		at = at.Add(s.fwd.rto)
	}
	s.last = later(s.last, at)
	return s.last
}

// take moves what has arrived into p. It returns 0 if nothing has.
func (s *stream) take(now time.Time, p []byte) int {
	n := 0
	for n < len(p) && len(s.queue) > 0 {
		seg := &s.queue[0]
		if seg.fin || !due(seg.at, now) {
			break
		}
		k := copy(p[n:], seg.data)
		n += k
		seg.data = seg.data[k:]
		if len(seg.data) == 0 {
			s.queue[0] = segment{}
			s.queue = s.queue[1:]
		}
	}
	if n > 0 {
		s.acknowledge(now, n)
	}
	return n
}

// acknowledge lets the writer know of n bytes read, in few large steps.
func (s *stream) acknowledge(now time.Time, n int) {
	s.read += n
	if s.read < ackSize && len(s.queue) > 0 {
		return
	}
	a := ack{n: s.read}
	if !s.rev.cut {
		a.at = now.Add(s.rev.delay)
	}
	s.acks = append(s.acks, a)
	s.read = 0
}

// space returns how many bytes may be written now.
func (s *stream) space(now time.Time) int {
	for len(s.acks) > 0 && due(s.acks[0].at, now) {
		s.used -= s.acks[0].n
		s.acks = s.acks[1:]
	}
	return windowSize - s.used
}

// nextAck returns when the window opens further, zero if that is not known.
func (s *stream) nextAck() time.Time {
	if len(s.acks) == 0 {
		return time.Time{}
	}
	return s.acks[0].at
}

// next returns when the oldest unread segment arrives, zero if that is not known.
func (s *stream) next() time.Time {
	if len(s.queue) == 0 {
		return time.Time{}
	}
	return s.queue[0].at
}

// ended reports whether the reader has read everything there will ever be.
func (s *stream) ended(now time.Time) bool {
	return len(s.queue) > 0 && s.queue[0].fin && due(s.queue[0].at, now)
}

// finAt returns when the end of the stream arrives, zero if that is not known.
func (s *stream) finAt() time.Time {
	if k := len(s.queue); k > 0 && s.queue[k-1].fin {
		return s.queue[k-1].at
	}
	return time.Time{}
}

// unacked reports whether the sender still waits to hear that something arrived.
func (s *stream) unacked(now time.Time) bool {
	if k := len(s.queue); k > 0 && s.queue[k-1].at.IsZero() {
		return true
	}
	return !s.last.IsZero() && s.last.Add(s.rev.delay).After(now)
}

// hold keeps back what is on the way over l, which has just been cut.
func (s *stream) hold(l *link, now time.Time) {
	if l == s.fwd {
		for i := range s.queue {
			if seg := &s.queue[i]; seg.at.After(now) {
				seg.at = time.Time{}
				l.bytes -= int64(len(seg.data))
				s.last = now
			}
		}
	}
	if l == s.rev {
		for i := range s.acks {
			if s.acks[i].at.After(now) {
				s.acks[i].at = time.Time{}
			}
		}
	}
}

// resume sends again what was held, l having healed.
func (s *stream) resume(l *link, now time.Time) {
	if l == s.fwd {
		for i := range s.queue {
			if seg := &s.queue[i]; seg.at.IsZero() {
				seg.at = s.arrival(now, len(seg.data))
			}
		}
	}
	if l == s.rev {
		for i := range s.acks {
			if s.acks[i].at.IsZero() {
				s.acks[i].at = now.Add(s.rev.delay)
			}
		}
	}
}
