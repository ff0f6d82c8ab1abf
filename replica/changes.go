package replica

import (
	"context"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
)

// maxUnread bounds the changes that wait for a subscriber.
const maxUnread = 1024

// changes hands what happens to subscribers.
type changes struct {
	mu   sync.Mutex               // protects subs
	subs map[chan crm.Change]bool // open channels
}

// Subscribe returns the changes from now on, each after it can be read: edits
// taken here with Rev Pending, and decisions. The channel is closed when ctx
// ends, or earlier if more than 1,024 changes wait in it: the subscriber has
// then missed some and must read again what it shows. A bootstrap and a
// territory that comes whole may bring records without a change.
func (r *Replica) Subscribe(ctx context.Context) <-chan crm.Change {
	c := make(chan crm.Change, maxUnread)
	r.changes.add(c)
	context.AfterFunc(ctx, func() { r.changes.remove(c) })
	return c
}

func (s *changes) add(c chan crm.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		s.subs = map[chan crm.Change]bool{}
	}
	s.subs[c] = true
}

// remove closes c, once.
func (s *changes) remove(c chan crm.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(c)
}

func (s *changes) drop(c chan crm.Change) {
	if s.subs[c] {
		delete(s.subs, c)
		close(c)
	}
}

// publish hands out changes in order. Who has no room for all of them is
// disconnected, never skipped.
func (s *changes) publish(list []crm.Change) {
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
