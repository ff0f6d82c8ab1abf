package sim

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A Timeline is everything that was decided under one timeline number: the
// decisions, and each record as every decision left it. It is computed from the
// log by a model of its own, so that what nodes hold can be compared with it.
type Timeline struct {
	ID        uint64
	Lineage   crm.Lineage   // what a Rev of an earlier one means here
	At        time.Duration // when it began
	Begin     crm.Rev       // the Rev at which the run, or the restore, found it
	Decisions []Decision    // of the Revs after Begin, in order, without a gap
	States    map[store.RecordKey][]*crm.Record
	parent    *Timeline // that it goes on from at Begin; nil: it is the first
	digests   map[crm.TerritoryID][]digestAt
	buckets   map[crm.TerritoryID]*[store.DigestBuckets]store.Bucket
}

// A Decision is a Mutation of the log, judged for the first time.
type Decision struct {
	At          time.Duration // when a master first applied it
	Index       uint64        // in the log
	Rev         crm.Rev
	Node        crm.NodeID
	Incarnation crm.Incarnation
	Seq         crm.Seq
	Edit        EditID // 0: no edit of the Script
	Mutation    *crm.Mutation
	Outcome     crm.Outcome
	Writes      []*crm.Record // as it left them
}

// A digestAt is a territory's digest from a Rev on.
type digestAt struct {
	rev crm.Rev
	sum store.Digest
}

func newTimeline(id uint64, begin crm.Rev, found iter.Seq[*crm.Record]) *Timeline {
	t := &Timeline{ID: id, Lineage: crm.Lineage{Timeline: id}, Begin: begin, States: map[store.RecordKey][]*crm.Record{}, digests: map[crm.TerritoryID][]digestAt{},
		buckets: map[crm.TerritoryID]*[store.DigestBuckets]store.Bucket{}}
	touched := map[crm.TerritoryID]bool{}
	for r := range found {
		t.States[keyOf(r)] = []*crm.Record{r}
		t.add(r, touched)
	}
	t.sum(begin, touched)
	return t
}

// Head returns the newest Rev.
func (t *Timeline) Head() crm.Rev { return t.Begin + crm.Rev(len(t.Decisions)) }

// Decision returns what was decided at rev, nil if that was before the run.
func (t *Timeline) Decision(rev crm.Rev) *Decision {
	if rev <= t.Begin || rev > t.Head() {
		return nil
	}
	return &t.Decisions[rev-t.Begin-1]
}

// Of returns what was decided about an edit, nil if nothing was.
func (t *Timeline) Of(e EditID) *Decision {
	i := slices.IndexFunc(t.Decisions, func(d Decision) bool { return d.Edit == e })
	if i < 0 || e == 0 {
		return nil
	}
	return &t.Decisions[i]
}

// State returns the record, or its tombstone, as it was at rev; nil if there was
// neither.
func (t *Timeline) State(k store.RecordKey, rev crm.Rev) *crm.Record {
	if rev < t.Begin && t.parent != nil {
		return t.parent.State(k, rev)
	}
	states := t.States[k]
	i, _ := slices.BinarySearchFunc(states, rev+1, func(r *crm.Record, rev crm.Rev) int { return cmp.Compare(r.Stamp.Rev, rev) })
	if i == 0 {
		return nil
	}
	return states[i-1]
}

// Keys returns the keys of all records that there ever were, by entity and id.
func (t *Timeline) Keys() []store.RecordKey {
	out := make([]store.RecordKey, 0, len(t.States))
	for k := range t.States {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

func compareKeys(a, b store.RecordKey) int {
	return cmp.Or(cmp.Compare(a.Entity, b.Entity), bytes.Compare(a.ID[:], b.ID[:]))
}

// Held returns the records of the territories as they were at rev, tombstones
// too.
func (t *Timeline) Held(rev crm.Rev, holds func(crm.TerritoryID) bool) map[store.RecordKey]*crm.Record {
	out := map[store.RecordKey]*crm.Record{}
	for k := range t.States {
		if r := t.State(k, rev); r != nil && holds(r.Territory) {
			out[k] = r
		}
	}
	return out
}

// Live is Held without the tombstones.
func (t *Timeline) Live(rev crm.Rev, holds func(crm.TerritoryID) bool) map[store.RecordKey]*crm.Record {
	out := t.Held(rev, holds)
	maps.DeleteFunc(out, func(_ store.RecordKey, r *crm.Record) bool { return r.Deleted })
	return out
}

// right returns what a site might do at rev.
func (t *Timeline) right(site string, rev crm.Rev) right {
	return rightOf(site, func(e crm.EntityID) (out []*crm.Record) {
		for k := range t.States {
			if k.Entity != e {
				continue
			}
			if r := t.State(k, rev); r != nil && !r.Deleted {
				out = append(out, r)
			}
		}
		slices.SortFunc(out, func(a, b *crm.Record) int { return compareIDs(a.ID, b.ID) })
		return out
	})
}

// Digest returns the digest of a territory's live records at rev.
func (t *Timeline) Digest(territory crm.TerritoryID, rev crm.Rev) store.Digest {
	if rev < t.Begin && t.parent != nil {
		return t.parent.Digest(territory, rev)
	}
	list := t.digests[territory]
	i, _ := slices.BinarySearchFunc(list, rev+1, func(d digestAt, rev crm.Rev) int { return cmp.Compare(d.rev, rev) })
	if i == 0 {
		return store.DigestOf(&[store.DigestBuckets]store.Bucket{})
	}
	return list[i-1].sum
}

// decide adds a decision.
func (t *Timeline) decide(d Decision) {
	touched := map[crm.TerritoryID]bool{}
	for _, r := range d.Writes {
		k := keyOf(r)
		if states := t.States[k]; len(states) > 0 {
			t.subtract(states[len(states)-1], touched)
		}
		t.States[k] = append(t.States[k], r)
		t.add(r, touched)
	}
	t.Decisions = append(t.Decisions, d)
	t.sum(d.Rev, touched)
}

// fork returns a timeline that goes on from rev under another number, as masters
// do that were restored from a backup.
func (t *Timeline) fork(id uint64, at time.Duration, rev crm.Rev) *Timeline {
	return newTimeline(id, rev, func(yield func(*crm.Record) bool) {
		for _, k := range t.Keys() {
			if r := t.State(k, rev); r != nil && !yield(r) {
				return
			}
		}
	}).after(t, at)
}

func (t *Timeline) after(parent *Timeline, at time.Duration) *Timeline {
	var err error
	if t.Lineage, err = parent.Lineage.Restored(t.Begin, t.ID); err != nil {
		panic("sim: timelines are not numbered: " + err.Error())
	}
	t.At, t.parent = at, parent
	return t
}

func (t *Timeline) sum(rev crm.Rev, touched map[crm.TerritoryID]bool) {
	for territory := range touched {
		t.digests[territory] = append(t.digests[territory], digestAt{rev, store.DigestOf(t.buckets[territory])})
	}
}

func (t *Timeline) add(r *crm.Record, touched map[crm.TerritoryID]bool) {
	if b := t.bucket(r, touched); b != nil {
		h, c := hashRecord(r), uint64(0)
		for i := range b.Sum {
			b.Sum[i], c = bits.Add64(b.Sum[i], h[i], c)
		}
		b.Count++
	}
}

func (t *Timeline) subtract(r *crm.Record, touched map[crm.TerritoryID]bool) {
	if b := t.bucket(r, touched); b != nil {
		h, c := hashRecord(r), uint64(0)
		for i := range b.Sum {
			b.Sum[i], c = bits.Sub64(b.Sum[i], h[i], c)
		}
		b.Count--
	}
}

// bucket returns the bucket that counts r, nil for a tombstone.
func (t *Timeline) bucket(r *crm.Record, touched map[crm.TerritoryID]bool) *store.Bucket {
	if r.Deleted {
		return nil
	}
	if t.buckets[r.Territory] == nil {
		t.buckets[r.Territory] = new([store.DigestBuckets]store.Bucket)
	}
	touched[r.Territory] = true
	return &t.buckets[r.Territory][r.ID[len(r.ID)-1]]
}

// hashRecord is the addend of a record as docs/format.md draws it: SHA-256 of
// entity, id and encoding, as a little-endian number.
func hashRecord(r *crm.Record) (h [4]uint64) {
	b := binary.BigEndian.AppendUint16(nil, uint16(r.Entity))
	sum := sha256.Sum256(crm.AppendRecord(append(b, r.ID[:]...), r))
	for i := range h {
		h[i] = binary.LittleEndian.Uint64(sum[8*i:])
	}
	return h
}
