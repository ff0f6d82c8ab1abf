package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/tradepost-crm/tradepost/crm"
)

// Check recomputes everything that the transaction's state claims and returns
// what does not hold: the page structure, checksums, the feed row, digest,
// count, index, root and word rows of each record and the other way round. It
// reads the whole file several times. The error is that of ctx or of the file
// system; damage is a Finding.
func (tx *Tx) Check(ctx context.Context) ([]Finding, error) {
	c := &baseCheck{checker: checker{ctx: ctx, t: tx.transaction}, tx: tx,
		sums: map[sumKey]*Bucket{}, counts: map[crm.EntityID]uint64{}}
	return c.done(tx.f.guard(c.run))
}

// A baseCheck is a check of the base file.
type baseCheck struct {
	checker
	tx         *Tx
	sums       map[sumKey]*Bucket
	counts     map[crm.EntityID]uint64
	live, dead int
}

func (c *baseCheck) run() error {
	c.tx.Schema()
	if err := c.tx.rows.flush(); err != nil {
		return err
	}
	for _, step := range []func() error{c.t.checkPages, c.records, c.feed, c.digests, c.countsOf, c.allRows, c.beside} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// every calls fn for all records that can be read.
func (c *baseCheck) every(fn func(k RecordKey, s stored) error) error {
	live := c.tx.top(bucketLive)
	err := live.ForEachBucket(func(name []byte) error {
		e := crm.EntityID(binary.BigEndian.Uint16(name))
		return live.Bucket(name).ForEach(func(id, v []byte) error {
			if len(id) != idSize {
				return c.found(bucketLive, fmt.Sprintf("%x", id), "bad key")
			}
			return c.one(bucketLive, RecordKey{e, crm.RecordID(id)}, v, fn)
		})
	})
	if err != nil {
		return err
	}
	return c.each(bucketDead, keySize, func(k, v []byte) error { return c.one(bucketDead, recordKeyAt(k), v, fn) })
}

func (c *baseCheck) one(b bucket, k RecordKey, v []byte, fn func(k RecordKey, s stored) error) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	s, err := c.tx.decode(k, v, b.name == bucketDead.name)
	if err != nil {
		return c.foundIn(0, b, k, "%v", errors.Unwrap(err))
	}
	return fn(k, s)
}

func (c *baseCheck) records() error {
	return c.every(func(k RecordKey, s stored) error {
		list, t := bucketFeed, s.record.Territory
		if s.record.Deleted {
			list, t = bucketGone, 0
			c.dead++
			if b := c.tx.liveBucket(k.Entity); b != nil && b.Get(k.ID[:]) != nil {
				return c.found(bucketDead, k.String(), "it is live too")
			}
		} else {
			c.live++
			c.counts[k.Entity]++
			c.addSum(k, s)
		}
		if !c.has(list, feedKey(s.record.Territory, s.record.Stamp.Rev, k)) {
			return c.foundIn(t, list, k, "no row at territory %d rev %d", s.record.Territory, s.record.Stamp.Rev)
		}
		return nil
	})
}

func (c *baseCheck) addSum(k RecordKey, s stored) {
	at := sumKey{s.record.Territory, k.digestBucket()}
	if c.sums[at] == nil {
		c.sums[at] = &Bucket{}
	}
	c.sums[at].add(recordHash(k, s.body))
}

// feed looks for rows that no record asks for.
func (c *baseCheck) feed() error {
	for b, want := range map[bucket]int{bucketFeed: c.live, bucketGone: c.dead, bucketLeft: -1} {
		n := 0
		if err := c.each(b, feedKeySize, func(_, _ []byte) error { n++; return nil }); err != nil {
			return err
		}
		if want >= 0 && n != want {
			if err := c.found(b, "all rows", "%d rows for %d records", n, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *baseCheck) digests() error {
	if err := c.tx.writeSumsIfAny(); err != nil {
		return err
	}
	want := maps.Clone(c.sums)
	err := c.each(bucketDigest, 5, func(k, v []byte) error {
		at := sumKey{territoryAt(k), k[4]}
		sum, ok := decodeBucket(v)
		good := ok && want[at] != nil && sum == *want[at]
		delete(want, at)
		if !good {
			return c.notItsSum(at)
		}
		return nil
	})
	for at := range want {
		if err == nil {
			err = c.notItsSum(at)
		}
	}
	return err
}

func (c *checker) notItsSum(at sumKey) error {
	return c.report(Finding{Bucket: bucketDigest.name, Item: at.String(), Detail: "it is not the sum of its records",
		Territory: at.territory, DigestBucket: at.bucket})
}

// writeSumsIfAny brings the file up to what a writable transaction holds in
// memory, so that it can be checked before Commit.
func (tx *Tx) writeSumsIfAny() error {
	if !tx.Writable() {
		return nil
	}
	return errors.Join(tx.writeSums(), tx.writeCounts())
}

func (c *baseCheck) countsOf() error {
	n := 0
	err := c.each(bucketCount, 2, func(k, v []byte) error {
		n++
		e := crm.EntityID(binary.BigEndian.Uint16(k))
		if len(v) != 8 || binary.BigEndian.Uint64(v) != c.counts[e] {
			return c.found(bucketCount, fmt.Sprintf("entity %d", e), "%x, but there are %d records", v, c.counts[e])
		}
		return nil
	})
	if err == nil && n != len(c.counts) {
		err = c.found(bucketCount, "all counts", "%d, but %d entities have records", n, len(c.counts))
	}
	return err
}

func (c *baseCheck) allRows() error {
	return c.rows(&c.tx.rows, c.tx.schema, func(fn func(*crm.Record) error) error {
		return c.every(func(_ RecordKey, s stored) error { return fn(s.record) })
	})
}

// beside checks what stands beside the records.
func (c *baseCheck) beside() error {
	return c.values(bucketState, bucketMeta, bucketStage, bucketRefused, bucketNode, bucketOutcome)
}
