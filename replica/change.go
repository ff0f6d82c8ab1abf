package replica

import (
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A change is the step from one prefix of the master's order to another: the
// items that came, and once applied what they changed here.
type change struct {
	r       *Replica
	batch   *syncproto.Batch
	items   []syncproto.Item
	whole   []crm.TerritoryID
	notes   []crm.Outcome
	version uint16 // of the protocol
	told    bool   // see pull

	buckets buckets // that come whole
	wants   buckets // of the repair that a final batch answers

	tx      *store.Tx
	touched []store.RecordKey // traces of the changes
	all     bool              // anything may have changed: schema, site, territories
	changed []crm.Change
	dropped map[store.RecordKey]dropped // with what comes whole or was lost, and not put again
	mended  map[crm.TerritoryID]int     // records that a repair has changed
	cured   []suspicion
	left    bool  // records left: their bytes are in free pages
	moved   bool  // the base is of another timeline now
	lost    *lost // what was decided in the timeline that is left; nil: the base does not move
	newest  crm.HLC
}

// A dropped record was in the territory.
type dropped struct {
	territory crm.TerritoryID
	was       body
}

// finish applies everything up to a final batch in one base transaction, and
// then settles and re-folds the journal.
func (c *change) finish() error {
	var err error
	if c.r.position().isMoving() {
		err = c.r.turn(c.apply, c.settle)
	} else if err = c.r.base.Update(c.apply); err == nil {
		err = c.settle()
	}
	if err != nil {
		return fmt.Errorf("apply up to %d, settle up to %d: %w", c.batch.To, c.batch.Decided, err)
	}
	return c.r.applied(c)
}

// apply does the work of the base transaction, in tx.
func (c *change) apply(tx *store.Tx) error {
	c.tx = tx
	return c.located(c.commit())
}

// commit makes the steps of apply. Whatever fails, nothing of it is kept.
func (c *change) commit() error {
	p, err := readPosition(c.tx)
	if err != nil {
		return err
	}
	if p.rev != c.batch.From || c.batch.To < p.rev {
		return badBatch("(%d, %d] does not continue %d", c.batch.From, c.batch.To, p.rev)
	}
	for _, step := range []func(position) error{c.noteLost, c.dropWhole, c.dropBuckets, c.applyItems, c.trim, c.dropForeign, c.keepCircle, c.record, c.verify, c.cure, c.judgeLost} {
		if err := step(p); err != nil {
			return err
		}
	}
	return nil
}

// dropWhole empties the territories that come whole, but on a bootstrap, which
// began with an empty base.
func (c *change) dropWhole(p position) error {
	whole, err := stagedWhole(c.tx)
	if err != nil {
		return err
	}
	c.whole = slices.Compact(slices.Sorted(slices.Values(slices.Concat(whole, c.whole))))
	if p.rev == 0 {
		return nil
	}
	for _, t := range c.whole {
		if _, err := c.dropTerritory(t); err != nil {
			return err
		}
	}
	return nil
}

// dropTerritory drops the territory's records and remembers which they were.
func (c *change) dropTerritory(t crm.TerritoryID) (int, error) {
	c.remember()
	for e, err := range c.tx.Feed(t, 0) {
		if err != nil {
			return 0, err
		}
		if !e.Left {
			c.dropped[store.RecordKey{Entity: e.Entity, ID: e.ID}] = dropped{territory: t}
		}
	}
	return c.empty(t)
}

// empty drops all that the territory has, whatever state it is in.
func (c *change) empty(t crm.TerritoryID) (int, error) {
	n, err := c.tx.DropTerritory(t)
	if crm.CodeOf(err) == crm.CodeCorrupt { // rows that lead nowhere
		for b := range syncproto.AllBuckets().All() {
			if _, err := c.tx.DropBucket(t, b); err != nil {
				return 0, err
			}
		}
		n, err = c.tx.DropTerritory(t)
	}
	if err != nil {
		return n, err
	}
	return n, c.tx.RecomputeDigests(t) // of nothing: what was dropped may not have been what was summed up
}

// remember prepares for records to be dropped: which pending Mutations depend on
// them is not looked up one by one.
func (c *change) remember() {
	if c.dropped == nil {
		c.dropped = map[store.RecordKey]dropped{}
	}
	c.all = true
}

// record writes where the base stands now.
func (c *change) record(position) error {
	for _, o := range c.notes {
		if err := c.tx.PutOutcome(o); err != nil {
			return err
		}
	}
	if err := setNumber(c.tx, metaDecided, uint64(c.batch.Decided)); err != nil {
		return err
	}
	for _, name := range []string{metaStaged, metaWhole, metaBuckets} {
		if err := c.tx.SetMeta(name, nil); err != nil {
			return err
		}
	}
	c.left = c.left || len(c.dropped) > 0
	if c.left {
		if err := setNumber(c.tx, metaCompact, uint64(c.batch.To)); err != nil {
			return err
		}
	}
	if err := c.settleTimeline(); err != nil {
		return err
	}
	return c.tx.SetRev(c.batch.To)
}

// begins reports whether the journal must ask the base anew what is decided: the
// base was filled, or is of another timeline now.
func (c *change) begins() bool { return c.moved || c.batch.From == 0 }
