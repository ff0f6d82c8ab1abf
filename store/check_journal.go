package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// Check is [Tx.Check] for the journal: page structure, checksums, the queue's
// counters, the notes of Touch both ways, and the overlay's rows as s, the
// schema of the base, asks for them; nil leaves the rows out.
func (tx *JTx) Check(ctx context.Context, s *crm.Schema) ([]Finding, error) {
	c := &journalCheck{checker{ctx: ctx, t: tx.transaction}, tx, s}
	return c.done(tx.f.guard(c.run))
}

// A journalCheck is a check of the journal file.
type journalCheck struct {
	checker
	tx     *JTx
	schema *crm.Schema
}

func (c *journalCheck) run() error {
	if err := c.tx.rows.flush(); err != nil {
		return err
	}
	for _, step := range []func() error{c.t.checkPages, c.entries, c.queue, c.touched, c.overlay} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *journalCheck) entries() error {
	return c.values(bucketSelf, bucketMeta, bucketSeries, bucketOutbox, bucketTail, bucketOverlay)
}

// queue compares the counters with the outbox.
func (c *journalCheck) queue() error {
	want, err := c.tx.depth()
	if err != nil {
		return err
	}
	highest, err := c.tx.HighestSeq()
	if err != nil {
		return err
	}
	var d Depth
	for e, err := range c.tx.Outbox(0) {
		if err != nil {
			return err
		}
		d.Entries, d.Bytes = d.Entries+1, d.Bytes+len(e.Bytes)
		if e.Seq > highest {
			if err := c.found(bucketOutbox, fmt.Sprint(e.Seq), "above the highest Seq, %d", highest); err != nil {
				return err
			}
		}
	}
	if d != want {
		return c.found(bucketOutbox, "depth", "%d entries of %d bytes, but %d of %d are there", want.Entries, want.Bytes, d.Entries, d.Bytes)
	}
	return nil
}

func (c *journalCheck) touched() error {
	flip := func(b, other bucket, cut int) error {
		return c.each(b, keySize+8, func(k, _ []byte) error {
			if !c.has(other, bytes.Join([][]byte{k[cut:], k[:cut]}, nil)) {
				return c.found(b, fmt.Sprintf("%x", k), "not in %s", other.name)
			}
			return nil
		})
	}
	return errors.Join(flip(bucketTouch, bucketTouched, keySize), flip(bucketTouched, bucketTouch, 8))
}

// overlay compares the rows with the records. Rows of another schema are not
// in use, and their records get new ones at the next write.
func (c *journalCheck) overlay() error {
	if c.schema == nil {
		return nil
	}
	if ok, err := c.tx.rowsFollow(c.schema); err != nil || !ok {
		return err
	}
	return c.rows(&c.tx.rows, c.schema, func(fn func(*crm.Record) error) error {
		for r, err := range c.tx.overlayRecords(nil) {
			if err != nil {
				return err
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		return nil
	})
}
