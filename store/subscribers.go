package store

import (
	"context"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
)

// MaxUnread bounds the changes that wait for one subscriber.
const MaxUnread = 1024

// Subscribers are those who want to know what changes at a node. The zero value
// has none. Its methods may be called by any goroutine.
type Subscribers struct {
	mu   sync.Mutex               // protects subs; a leaf: nothing waits while it is held
	subs map[chan crm.Change]bool // open channels
}

// Subscribe returns the changes from now on. The channel is closed when ctx
// ends, or earlier if more than MaxUnread changes wait in it: the subscriber has
// then missed some and must read again what it shows.
func (s *Subscribers) Subscribe(ctx context.Context) <-chan crm.Change {
	c := make(chan crm.Change, MaxUnread)
	s.mu.Lock()
	if s.subs == nil {
		s.subs = map[chan crm.Change]bool{}
	}
	s.subs[c] = true
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(c)
	})
	return c
}

// drop closes c, once.
func (s *Subscribers) drop(c chan crm.Change) {
	if s.subs[c] {
		delete(s.subs, c)
		close(c)
	}
}

// Publish hands out changes in order. Who has no room for all of them is
// disconnected, never skipped.
func (s *Subscribers) Publish(list []crm.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.subs {
		if len(list) > cap(c)-len(c) {
			s.drop(c)
			continue
		}
		for _, ch := range list {
			c <- ch
		}
	}
}
