package wansim

import (
	"sync"
	"time"
)

// A gate is where goroutines wait for a change of what Network.mu guards, or for
// an instant. A sync.Cond would do but for the instant.
type gate struct{ ch chan struct{} }

// wait gives up mu until the gate is woken, the instant until is reached (zero:
// never), or done is closed (nil: never), and takes it again. The caller looks
// again at what it waited for: a gate wakes everybody, for any reason.
func (g *gate) wait(mu *sync.Mutex, until time.Time, done <-chan struct{}) {
	if g.ch == nil {
		g.ch = make(chan struct{})
	}
	changed := g.ch
	mu.Unlock()
	defer mu.Lock()
	var alarm <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-changed:
	case <-alarm:
	case <-done:
	}
}

func (g *gate) wake() {
	if g.ch != nil {
		close(g.ch)
		g.ch = nil
	}
}

// due reports whether the instant t has come; the zero time never comes.
func due(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// first returns the earliest of ts, leaving out those that never come.
func first(ts ...time.Time) time.Time {
	var earliest time.Time
	for _, t := range ts {
		if !t.IsZero() && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	return earliest
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
