package master

import (
	"context"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Subscribe returns the decisions from now on, each after it can be read here.
// See [store.Subscribers] for when the channel is closed.
func (m *Master) Subscribe(ctx context.Context) <-chan crm.Change { return m.changes.Subscribe(ctx) }

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
		m.changes.Publish(list)
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
				if e.Left || len(list) > store.MaxUnread {
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
