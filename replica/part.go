package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// writePart keeps a part of a catch-up: in the stage, so that readers see the
// old prefix until the new one is whole, or at once in a base that nobody reads
// because it is being filled.
func (c *change) writePart() error {
	direct := c.batch.From == 0
	err := c.tryPart(direct, direct)
	if direct && errIsSchema(err) {
		err = c.tryPart(true, false)
	}
	if err != nil {
		return fmt.Errorf("keep items up to %d: %w", c.batch.Upto, err)
	}
	c.r.cfg.Metrics.batchSize.WithLabelValues("base").Observe(float64(len(c.items)))
	c.r.advance(func(p *position) { p.staged, p.target = c.batch.Upto, c.batch.To })
	return nil
}

// tryPart writes the items into the base if direct is set, else into the stage.
// Definitions of entities and fields go there too unless metadata is set:
// half of a catalogue may be no schema.
func (c *change) tryPart(direct, metadata bool) error {
	return c.r.base.Update(func(tx *store.Tx) error {
		c.tx, c.changed, c.touched = tx, nil, nil
		if metadata {
			if err := c.putStagedMetadata(); err != nil {
				return err
			}
		}
		if err := c.writeItems(direct, metadata); err != nil {
			return err
		}
		if metadata {
			if err := c.schemaNow(); err != nil {
				return err
			}
		}
		for _, o := range c.notes {
			if err := tx.PutOutcome(o); err != nil {
				return err
			}
		}
		at := binary.BigEndian.AppendUint64(nil, uint64(c.batch.Upto))
		if err := tx.SetMeta(metaStaged, binary.BigEndian.AppendUint64(at, uint64(c.batch.To))); err != nil {
			return err
		}
		if err := errors.Join(addStagedWhole(tx, c.whole), addStagedBuckets(tx, c.buckets)); err != nil {
			return err
		}
		if !direct {
			return nil // the stage is not the base yet
		}
		return tx.SetTimeline(c.batch.Timeline)
	})
}

// writeItems writes in the order of the keys, so that pages are filled one after
// the other. Of two items that concern the same the later one counts.
func (c *change) writeItems(direct, metadata bool) error {
	sortItems(c.items)
	for i := range c.items {
		it := &c.items[i]
		if i+1 < len(c.items) && sameConcern(it, &c.items[i+1]) {
			continue
		}
		write := stageItem
		if direct && (metadata || !isMetadata(it.Entity)) {
			write = func(_ *store.Tx, it *syncproto.Item) error { return c.put(it) }
		}
		if err := write(c.tx, it); err != nil {
			return err
		}
		if metadata && isMetadata(it.Entity) && (i+1 == len(c.items) || !isMetadata(c.items[i+1].Entity)) {
			if err := c.schemaNow(); err != nil {
				return err
			}
		}
	}
	return nil
}
