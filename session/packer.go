package session

import (
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A packer fills one batch from one transaction.
type packer struct {
	*Feed
	tx    *store.Tx
	batch *syncproto.Batch
	left  int // bytes
}

// outcomes lists what became of the replica's Mutations since the Cursor, where
// that is more than acceptance. If they are very many, their messages are left
// out: the attention list has them.
func (p *packer) outcomes() error {
	size := 0
	for o, err := range p.tx.Outcomes(p.node, p.decided) {
		if err != nil {
			return err
		}
		if o.Rev <= p.cursor {
			continue
		}
		if size += syncproto.OutcomeSize(o); size > syncproto.BatchBudget/2 {
			o.Message = ""
		}
		p.batch.Outcomes = append(p.batch.Outcomes, o)
	}
	return nil
}

// items adds changed records in order of the feed. If they do not fit, the batch
// becomes a part.
func (p *packer) items() error {
	m, err := p.merge()
	if err != nil {
		return err
	}
	defer m.stop()
	for m.more() {
		at, entry := m.head()
		it, ok, err := p.item(at.territory, entry)
		if err != nil {
			return err
		}
		if ok {
			if p.left -= it.Size(); p.left < 0 && len(p.batch.Items) > 0 {
				p.cut(at)
				return nil
			}
			p.batch.Items = append(p.batch.Items, it)
		}
		p.Feed.digests[at.territory] = true
		p.advance(at)
		if err := m.next(); err != nil {
			return err
		}
	}
	return nil
}

// advance notes that everything up to at has been sent.
func (p *packer) advance(at place) {
	for _, w := range p.ways {
		if w.at.compare(at) < 0 {
			w.at = at
		}
	}
}

// cut ends the batch before the entry at next.
func (p *packer) cut(next place) {
	p.batch.Final = false
	p.batch.Upto = next.rev - 1
}

// item returns what the replica must be told of an entry; ok is false if that
// is nothing.
func (p *packer) item(t crm.TerritoryID, entry store.FeedEntry) (it syncproto.Item, ok bool, err error) {
	w := p.ways[t]
	below, mends := entry.Rev <= p.cursor && !w.mend.IsEmpty(), w.mend.Has(p.tx.BucketOf(entry.ID))
	if below && (entry.Left || !mends) {
		return it, false, nil
	}
	r, err := p.tx.Record(entry.Entity, entry.ID)
	if err != nil {
		return it, false, err
	}
	it = syncproto.Item{Kind: syncproto.ItemRecord, Entity: entry.Entity, ID: entry.ID}
	switch {
	case entry.Left:
		if entry.Rev <= w.skip || r != nil && p.tells(r) && !p.circle.relays() {
			return it, false, nil // never sent, or its new territory's feed has it
		}
		it.Kind, it.Rev = syncproto.ItemLeft, entry.Rev
		if p.version >= versionRelays {
			it.Territory = t
		}
		return it, true, nil
	case r == nil:
		return it, false, &crm.Error{Code: crm.CodeCorrupt, Op: "read feed", Item: entry.ID.String(), Message: "the feed names a record that is not there; run `tradepost check`"}
	case r.Deleted:
		if entry.Rev <= w.skip || below {
			return it, false, nil
		}
		it.Kind = syncproto.ItemDeleted
	}
	if !w.whole && !mends {
		r, it.Partial = syncproto.Delta(r, p.cursor)
	}
	it.Body = crm.AppendRecord(nil, r)
	return it, true, nil
}

// tells reports whether the feed of its territory tells the replica what became
// of r.
func (p *packer) tells(r *crm.Record) bool {
	w := p.ways[r.Territory]
	return w != nil && !(r.Deleted && r.Stamp.Rev <= w.skip)
}

// digests adds those of the territories that changed since they were last sent.
func (p *packer) digests() error {
	for _, t := range sortedKeys(p.Feed.digests) {
		if p.ways[t] == nil {
			continue
		}
		d, err := p.tx.Digest(t)
		if err != nil {
			return err
		}
		sum := syncproto.TerritoryDigest{Territory: t}
		copy(sum.Sum[:], d[:])
		p.batch.Digests = append(p.batch.Digests, sum)
	}
	return nil
}

// sums adds the bucket sums that a Repair wants, of the territories granted.
func (p *packer) sums() error {
	for _, t := range sortedKeys(p.wants) {
		if !p.wants[t].IsEmpty() || p.ways[t] == nil {
			continue
		}
		buckets, err := p.tx.Buckets(t)
		if err != nil {
			return err
		}
		p.batch.Sums = append(p.batch.Sums, *syncproto.SumsOf(t, buckets))
	}
	return nil
}
