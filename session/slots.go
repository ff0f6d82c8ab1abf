package session

import (
	"slices"
	"sync"
	"time"
)

const (
	// maxCatchUps is how many sessions read and send a part of a catch-up at once:
	// each holds up to partBudget, twice while it is encoded, and they share the
	// disk with the live ones.
	maxCatchUps = 16
	// slotLease is how long a part on its way counts: a replica behind a slow line
	// must not hold up those that are quick.
	slotLease = 5 * time.Second
)

// Slots are the places of those that catch up, first come, first served. A
// session takes one for each part, so that all of a storm move on in turn. The
// zero value is ready; any goroutine may use it.
type slots struct {
	mu      sync.Mutex // protects the rest
	taken   int
	waiting []*slot
}

// A slot is a place, or a wait for one.
type slot struct {
	granted chan struct{} // closed when it is a place
	left    bool
}

// enter asks for a place. Whoever asks must leave.
func (s *slots) enter() *slot {
	t := &slot{granted: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, t)
	s.admit()
	return t
}

// admit grants what is free. The caller holds mu.
func (s *slots) admit() {
	for s.taken < maxCatchUps && len(s.waiting) > 0 {
		close(s.waiting[0].granted)
		s.waiting = s.waiting[1:]
		s.taken++
	}
}

// leave gives a place back, or stops waiting for it. Leaving again does nothing.
func (s *slots) leave(t *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.left {
		return
	}
	t.left = true
	if i := slices.Index(s.waiting, t); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	s.taken--
	s.admit()
}
