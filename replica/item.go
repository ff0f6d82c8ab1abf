package replica

import (
	"errors"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// applyItems writes the items, those that were staged first.
func (c *change) applyItems(p position) error {
	if p.staged == 0 || p.rev == 0 {
		if err := c.putStagedMetadata(); err != nil {
			return err
		}
		return c.writeItems(true, true)
	}
	for i := range c.items {
		if err := stageItem(c.tx, &c.items[i]); err != nil {
			return err
		}
	}
	if _, err := c.putStaged(); err != nil {
		return err
	}
	return c.tx.ClearStage()
}

// put writes one item. What was there before matters to nobody while an empty
// base is filled.
func (c *change) put(it *syncproto.Item) error {
	var old *crm.Record
	if c.batch.From > 0 || it.Partial || it.Kind == syncproto.ItemLeft {
		var err error
		old, err = c.tx.Record(it.Entity, it.ID)
		if _, damaged := errors.AsType[*store.Damage](err); damaged && !it.Partial {
			err, c.all = nil, true // what comes takes its place, whatever it was
		}
		if err != nil {
			return err
		}
	}
	now, err := c.stateOf(it, old)
	if err != nil {
		return err
	}
	if it.Territory != 0 && c.r.relay != nil {
		if err := c.tx.MarkLeft(store.RecordKey{Entity: it.Entity, ID: it.ID}, it.Territory, it.Rev); err != nil {
			return err
		}
	}
	if it.Kind == syncproto.ItemLeft && now != nil {
		return nil
	}
	c.note(it, old, now)
	if now == nil {
		_, err := c.tx.Drop(it.Entity, it.ID)
		return err
	}
	return c.tx.Put(now)
}

// stateOf returns the record as the item leaves it, nil if it left. What lives in
// another territory than the one it left, or came back, stays.
func (c *change) stateOf(it *syncproto.Item, old *crm.Record) (*crm.Record, error) {
	if it.Kind == syncproto.ItemLeft {
		if it.Territory != 0 && old != nil && (old.Territory != it.Territory || old.Stamp.Rev > it.Rev) {
			return old, nil
		}
		return nil, nil
	}
	rec, err := crm.DecodeRecord(it.Entity, it.ID, it.Body)
	if err != nil {
		return nil, badBatch("%v", err)
	}
	if rec.Deleted != (it.Kind == syncproto.ItemDeleted) {
		return nil, badBatch("record %s is deleted: %v, and comes as %s", rec.ID, rec.Deleted, it.Kind)
	}
	if it.Partial {
		part := rec
		if rec = syncproto.MergePartial(old, part); rec == nil {
			missing := &divergence{found: buckets{}, what: fmt.Sprintf("record %s is not here", it.ID)}
			missing.found.addBucket(part.Territory, c.tx.BucketOf(it.ID))
			return nil, missing
		}
	}
	if len(c.wants) > 0 || len(c.whole) > 0 {
		old = nil // what is here may be what is to be mended
	}
	return rec, plausibleRecord(old, rec, c.batch.To)
}

// note remembers what the item changes for pending Mutations and readers.
func (c *change) note(it *syncproto.Item, old, now *crm.Record) {
	k := store.RecordKey{Entity: it.Entity, ID: it.ID}
	d, was := c.dropped[k]
	delete(c.dropped, k)
	if old == nil && now == nil && !was {
		return
	}
	if now != nil && !now.Deleted && c.mends(now) {
		if d.was == bodyOf(now) {
			return
		}
		c.mend(now.Territory, now.Stamp.Rev)
	}
	ch := crm.Change{Entity: it.Entity, Record: it.ID, Rev: it.Rev, Left: now == nil}
	c.left = c.left || now == nil
	if now != nil {
		ch.Rev, ch.Deleted = now.Stamp.Rev, now.Deleted
		c.newest = max(c.newest, now.Stamp.HLC)
	}
	if c.batch.From == 0 {
		return
	}
	c.changed = append(c.changed, ch)
	if now != nil {
		c.r.sawEdit(now.Stamp)
	}
	if it.Entity < crm.FirstEntity && it.Entity != crm.EntityAttention && it.Entity != crm.EntityPurge {
		c.all = true
	}
	if !c.all && (old != nil || now != nil) {
		c.touched = changes(c.touched, c.tx.Schema(), old, now)
	}
}

// mend counts a record that a repair has changed: not one that was decided since.
func (c *change) mend(t crm.TerritoryID, rev crm.Rev) {
	if rev > c.batch.From {
		return
	}
	if c.mended == nil {
		c.mended = map[crm.TerritoryID]int{}
	}
	c.mended[t]++
}
