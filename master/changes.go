package master

import (
	"context"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// maxUnread bounds the changes that wait for a subscriber.
const maxUnread = 1024

// changes hands decisions to subscribers.
type changes struct {
	mu   sync.Mutex               // protects subs
	subs map[chan crm.Change]bool // open channels
}

// Subscribe returns the decisions from now on, each after it can be read here.
// The channel is closed when ctx ends, or earlier if more than 1,024 changes
// wait in it: the subscriber has then missed some and must read again what it
// shows.
func (m *Master) Subscribe(ctx context.Context) <-chan crm.Change {
	c := make(chan crm.Change, maxUnread)
	m.changes.add(c)
	context.AfterFunc(ctx, func() { m.changes.remove(c) })
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

// changeLoop reads what each bbolt commit brought, for subscribers and for the
// count of conflicts.
func (m *Master) changeLoop(ctx context.Context) error {
	seen := m.ledger.head()
	for {
		changed := m.ledger.changed()
		list, head, err := m.changesAfter(seen)
		if err != nil {
			return err
		}
		m.changes.publish(list)
		seen = head
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// changesAfter returns the changes above since, and the head they lead to. More
// than a subscriber can hold are not read to the end.
func (m *Master) changesAfter(since crm.Rev) (list []crm.Change, head crm.Rev, err error) {
	err = m.ledger.db().View(func(tx *store.Tx) error {
		if head, err = tx.Rev(); err != nil || head == since {
			return err
		}
		for t := range tx.Territories() {
			for e, err := range tx.Feed(t, since) {
				if err != nil {
					return err
				}
				if e.Left || len(list) > maxUnread {
					continue
				}
				ch, err := m.changeOf(tx, e)
				if err != nil {
					return err
				}
				list = append(list, ch)
			}
		}
		return nil
	})
	return list, head, err
}

func (m *Master) changeOf(tx *store.Tx, e store.FeedEntry) (crm.Change, error) {
	ch := crm.Change{Entity: e.Entity, Record: e.ID, Rev: e.Rev}
	r, err := tx.Record(e.Entity, e.ID)
	if err != nil || r == nil {
		return ch, err
	}
	ch.Deleted = r.Deleted
	if e.Entity == crm.EntityAttention {
		m.cfg.Metrics.attention(r)
	}
	return ch, nil
}
