package replica

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A body is what a record was before it was dropped, to tell what a repair has
// changed. The zero body is of one that cannot be read, or was not looked at.
type body [sha256.Size]byte

func bodyOf(r *crm.Record) body { return sha256.Sum256(crm.AppendRecord(nil, r)) }

// dropBuckets empties the buckets that come whole.
func (c *change) dropBuckets(p position) error {
	if p.rev == 0 {
		return nil
	}
	all, err := stagedBuckets(c.tx)
	if err != nil {
		return err
	}
	for t, set := range c.buckets {
		all.add(t, set)
	}
	c.buckets = all
	for _, t := range slices.Sorted(maps.Keys(all)) {
		if err := c.dropSet(t, all[t]); err != nil {
			return err
		}
	}
	return nil
}

// dropSet drops the live records of some buckets of a territory, and remembers
// what they were.
func (c *change) dropSet(t crm.TerritoryID, set syncproto.BucketSet) error {
	c.remember()
	for e, err := range c.tx.Feed(t, 0) {
		if err != nil {
			return err
		}
		if e.Left || !set.Has(c.tx.BucketOf(e.ID)) {
			continue
		}
		k := store.RecordKey{Entity: e.Entity, ID: e.ID}
		rec, err := c.tx.Record(k.Entity, k.ID)
		switch {
		case crm.CodeOf(err) == crm.CodeCorrupt:
			c.dropped[k] = dropped{t, body{}}
		case err != nil:
			return err
		case rec != nil && !rec.Deleted:
			c.dropped[k] = dropped{t, bodyOf(rec)}
		}
	}
	if set == syncproto.AllBuckets() {
		_, err := c.empty(t)
		return err
	}
	for b := range set.All() {
		if _, err := c.tx.DropBucket(t, b); err != nil {
			return err
		}
	}
	return nil
}

// mends reports whether the record is in a bucket that came whole.
func (c *change) mends(r *crm.Record) bool { return c.buckets[r.Territory].Has(c.tx.BucketOf(r.ID)) }

// verify compares every territory with the master's, before anything is kept.
func (c *change) verify(position) error {
	wrong := &divergence{found: buckets{}, what: "digests differ", proven: true}
	for _, want := range c.batch.Digests {
		damaged, err := c.recompute(want.Territory)
		if err != nil {
			return err
		}
		got, err := c.tx.Digest(want.Territory)
		if err != nil {
			return err
		}
		if string(got[:len(want.Sum)]) == string(want.Sum[:]) && damaged.IsEmpty() {
			continue
		}
		differ, err := c.differ(want.Territory)
		if err != nil {
			return err
		}
		wrong.found.add(want.Territory, damaged.Or(differ))
	}
	if len(wrong.found) > 0 {
		return wrong
	}
	return nil
}

// recompute makes the digest of a territory under repair anew from its records:
// what was stored may be what is wrong. It returns the buckets that it cannot do
// that for, because records in them are damaged.
func (c *change) recompute(t crm.TerritoryID) (damaged syncproto.BucketSet, err error) {
	if _, asked := c.wants[t]; !asked {
		return damaged, nil
	}
	if err := c.tx.RecomputeDigests(t); err == nil || crm.CodeOf(err) != crm.CodeCorrupt {
		return damaged, err
	}
	for e, err := range c.tx.Feed(t, 0) {
		if err != nil {
			return damaged, err
		}
		if e.Left {
			continue
		}
		rec, err := c.tx.Record(e.Entity, e.ID)
		if err != nil && crm.CodeOf(err) != crm.CodeCorrupt {
			return damaged, err
		}
		if err != nil || rec == nil {
			damaged.Add(c.tx.BucketOf(e.ID))
		}
	}
	return damaged, nil
}

// differ returns the buckets whose sums are not the master's, as far as the batch
// tells. If it does and none differs, the master's own digest is not that of its
// sums, and all buckets are asked for.
func (c *change) differ(t crm.TerritoryID) (set syncproto.BucketSet, err error) {
	for i := range c.batch.Sums {
		if theirs := &c.batch.Sums[i]; theirs.Territory == t {
			ours, err := c.tx.Buckets(t)
			if err != nil {
				return set, err
			}
			if set = syncproto.SumsOf(t, ours).Differ(theirs); set.IsEmpty() {
				set = syncproto.AllBuckets()
			}
			return set, nil
		}
	}
	return set, nil
}

// cure strikes out the suspicions that the change has answered, all digests being
// right, and those about territories that are not held any more.
func (c *change) cure(position) error {
	list, err := suspicionsIn(c.tx)
	if err != nil || len(list) == 0 {
		return err
	}
	a, err := authorOf(c.tx, c.r.cfg.ID.Site)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s suspicion) bool {
		cured := c.answers(s) || !a.writable(s.territory) && !c.compared(s.territory)
		if cured {
			c.cured = append(c.cured, s)
		}
		return cured
	})
	return setSuspicions(c.tx, list)
}

// answers reports whether what came leaves nothing of a suspicion, if the digests
// are right.
func (c *change) answers(s suspicion) bool {
	if !c.compared(s.territory) {
		return false
	}
	if slices.Contains(c.whole, s.territory) {
		return true
	}
	if !s.buckets.IsEmpty() {
		return c.buckets[s.territory].Covers(s.buckets)
	}
	_, some := c.buckets[s.territory]
	return some || slices.ContainsFunc(c.batch.Sums, func(b syncproto.BucketSums) bool { return b.Territory == s.territory })
}

// tellCured makes known what was repaired.
func (r *Replica) tellCured(c *change) error {
	if len(c.cured) == 0 {
		return nil
	}
	for _, s := range c.cured {
		took := r.cfg.Now().Sub(time.UnixMilli(s.since))
		n, records := c.buckets[s.territory].Len(), c.mended[s.territory]
		r.change(func(l *link) { l.repaired, l.repairedRecords = l.repaired+1, l.repairedRecords+records })
		r.cfg.Metrics.repaired.Inc()
		r.cfg.Metrics.repairedBuckets.Add(float64(n))
		r.cfg.Metrics.repairedRecords.Add(float64(records))
		r.cfg.Metrics.suspectSeconds.Add(took.Seconds())
		r.cfg.Logger.Warn("a territory is the masters' again", "territory", s.territory, "buckets", n, "records", records, "whole", slices.Contains(c.whole, s.territory), "suspect_for", took, "rev", c.batch.To)
	}
	return r.readSuspicions()
}

// stagedBuckets returns the buckets that come whole in the catch-up under way.
func stagedBuckets(tx *store.Tx) (buckets, error) {
	v, err := tx.Meta(metaBuckets)
	out := buckets{}
	for ; len(v) >= stagedSet; v = v[stagedSet:] {
		out.add(crm.TerritoryID(binary.BigEndian.Uint32(v)), syncproto.BucketSet(v[4:stagedSet]))
	}
	return out, err
}

// stagedSet is the size of a territory:4 and its buckets:32.
const stagedSet = 4 + 32

func addStagedBuckets(tx *store.Tx, more buckets) error {
	if len(more) == 0 {
		return nil
	}
	all, err := stagedBuckets(tx)
	if err != nil {
		return err
	}
	for t, set := range more {
		all.add(t, set)
	}
	var v []byte
	for _, t := range slices.Sorted(maps.Keys(all)) {
		set := all[t]
		v = append(binary.BigEndian.AppendUint32(v, uint32(t)), set[:]...)
	}
	return tx.SetMeta(metaBuckets, v)
}

// located turns damage that stopped a change into a divergence, so that it is
// repaired.
func (c *change) located(err error) error {
	d, ok := errors.AsType[*store.Damage](err)
	if !ok {
		return err
	}
	found, ok, lost := locate(c.tx, d.Record)
	if lost != nil || !ok {
		return errors.Join(err, lost)
	}
	return &divergence{found: found, what: d.Record.String() + ": " + d.Error()}
}
