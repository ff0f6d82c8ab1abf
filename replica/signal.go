package replica

import "sync"

// A signal wakes everyone who waits for a state to change. A waiter takes the
// channel first, looks at the state, and waits only if it is not content: no
// change is missed, however many come at once.
type signal struct {
	mu sync.Mutex    // protects ch
	ch chan struct{} // closed by fire; nil until someone waits
}

func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
