package syncproto

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"iter"
	"math/bits"

	"github.com/tradepost-crm/tradepost/crm"
)

// BatchBudget is the Size, in bytes, at which a sender adds no more to a Batch.
// The item that goes over it still fits the frame, with 3,000 digests.
const BatchBudget = 1 << 20

// MaxBody bounds the encoding of one record in an Item, in bytes.
const MaxBody = 1<<20 - 64<<10

// A Batch is a step of the feed. Applied in one transaction, a final Batch moves
// the base, together with what was staged for it, from the prefix From to the
// prefix To. A Batch that is not final is staged.
type Batch struct {
	Timeline uint64
	From, To crm.Rev // (From, To]
	Final    bool
	Upto     crm.Rev           // of one that is not final: all changes up to here have been sent; <= To
	Decided  crm.Seq           // the replica's Mutations up to here are decided at To
	Outcomes []crm.Outcome     // of these, the ones that are not plainly accepted
	Whole    []crm.TerritoryID // territories whose records come whole: drop what is not among them
	Items    []Item
	Digests  []TerritoryDigest // at To; of a final Batch

	// From version 3.
	Repair  uint32         // Number of the last Repair of the session that the feed went back for; 0: none
	Sums    []BucketSums   // at To, of the territories that the Repair wants them of; of a final Batch
	Buckets []WholeBuckets // that the Repair wants: their records come whole, drop what is not among them
	Nodes   []NodeState    // of nodes that the receiver may serve, where they moved since From
	Trimmed crm.Rev        // tombstones and markers up to here are needed by nobody any more
}

// BucketSums are the digests of a territory's 256 buckets, cut short.
type BucketSums struct {
	Territory crm.TerritoryID
	Sums      [256 * BucketSum]byte // bucket 0 first
}

// BucketSum is the size of one of BucketSums, in bytes. Two buckets that differ
// have equal sums once in 2^64 times; the territory's digest then still differs.
const BucketSum = 8

// Of returns the sum of bucket b.
func (s *BucketSums) Of(b byte) []byte { return s.Sums[int(b)*BucketSum:][:BucketSum] }

// Set sets the sum of bucket b: the first bytes of the SHA-256 of the bucket as
// it is stored (docs/format.md).
func (s *BucketSums) Set(b byte, stored []byte) {
	sum := sha256.Sum256(stored)
	copy(s.Of(b), sum[:])
}

// SumsOf returns the sums of a territory with these buckets, as store.Tx.Buckets
// returns them.
func SumsOf[B interface{ Append([]byte) []byte }](t crm.TerritoryID, buckets *[256]B) *BucketSums {
	s := &BucketSums{Territory: t}
	for i, b := range buckets {
		s.Set(byte(i), b.Append(nil))
	}
	return s
}

// Differ returns the buckets whose sums are not those of u.
func (s *BucketSums) Differ(u *BucketSums) (set BucketSet) {
	for b := range 256 {
		if !bytes.Equal(s.Of(byte(b)), u.Of(byte(b))) {
			set.Add(byte(b))
		}
	}
	return set
}

// WholeBuckets names buckets of a territory.
type WholeBuckets struct {
	Territory crm.TerritoryID
	Set       BucketSet
}

// A BucketSet is a set of a territory's buckets: bucket b is bit b%8 of byte b/8.
type BucketSet [32]byte

// Add adds a bucket.
func (s *BucketSet) Add(b byte) { s[b/8] |= 1 << (b % 8) }

// AllBuckets is the set of all buckets of a territory.
func AllBuckets() (s BucketSet) {
	for i := range s {
		s[i] = 0xff
	}
	return s
}

// Or returns the buckets that are in either set.
func (s BucketSet) Or(u BucketSet) BucketSet {
	for i := range s {
		s[i] |= u[i]
	}
	return s
}

// Covers reports whether all buckets of u are in s.
func (s BucketSet) Covers(u BucketSet) bool { return s.Or(u) == s }

// IsEmpty reports whether no bucket is in the set.
func (s BucketSet) IsEmpty() bool { return s == BucketSet{} }

// All yields the buckets in the set in order.
func (s BucketSet) All() iter.Seq[byte] {
	return func(yield func(byte) bool) {
		for b := range 256 {
			if s.Has(byte(b)) && !yield(byte(b)) {
				return
			}
		}
	}
}

// Has reports whether the bucket is in the set.
func (s BucketSet) Has(b byte) bool { return s[b/8]&(1<<(b%8)) != 0 }

// Len returns how many buckets are in the set.
func (s BucketSet) Len() (n int) {
	for _, b := range s {
		n += bits.OnesCount8(b)
	}
	return n
}

// A NodeState is where the masters' history of a node stands at Batch.To, for a
// relay that serves it.
type NodeState struct {
	Node        crm.NodeID
	Incarnation crm.Incarnation
	LastSeq     crm.Seq
	LastHash    crm.ChainHash
}

// A TerritoryDigest is the start of the store's digest of a territory.
type TerritoryDigest struct {
	Territory crm.TerritoryID
	Sum       [16]byte
}

// ItemKind says what became of a record. Numbers are sent: never renumber.
type ItemKind uint8

// The kinds of item.
const (
	ItemRecord  ItemKind = 1 // the record lives: Body
	ItemDeleted ItemKind = 2 // a tombstone: Body
	ItemLeft    ItemKind = 3 // it left Territory at Rev: drop it, unless it came back or lives in another one
)

// String returns the kind's name.
func (k ItemKind) String() string {
	switch k {
	case ItemRecord:
		return "record"
	case ItemDeleted:
		return "deleted"
	case ItemLeft:
		return "left"
	}
	return fmt.Sprintf("item %d", uint8(k))
}

// An Item is one changed record of a Batch.
type Item struct {
	Kind    ItemKind
	Partial bool // Body holds only the cells set after Batch.From; never of ItemLeft
	Entity  crm.EntityID
	ID      crm.RecordID
	Body    []byte  // crm.AppendRecord's bytes; empty of ItemLeft
	Rev     crm.Rev // of ItemLeft, else 0

	// From version 3.
	Territory crm.TerritoryID // of ItemLeft: the one it left; 0: not told
}

// Kind returns KindBatch.
func (*Batch) Kind() Kind { return KindBatch }

func (f *Batch) fields(c *codec) {
	number(c, "timeline", &f.Timeline)
	c.rev("from", &f.From)
	c.rev("to", &f.To)
	c.flag("final", &f.Final)
	c.rev("upto", &f.Upto)
	number(c, "decided", &f.Decided)
	each(c, "outcomes", &f.Outcomes, maxList, minOutcome, func(o *crm.Outcome) { c.outcome("outcome", o) })
	each(c, "whole", &f.Whole, maxList, 1, func(t *crm.TerritoryID) { number(c, "territory", t) })
	each(c, "items", &f.Items, maxList, minItem, func(it *Item) { it.fields(c) })
	each(c, "digests", &f.Digests, maxList, 1+16, func(d *TerritoryDigest) {
		number(c, "territory", &d.Territory)
		c.fixed("sum", d.Sum[:])
	})
	if c.since(3, f.Repair > 0 || len(f.Sums)+len(f.Buckets)+len(f.Nodes) > 0 || f.Trimmed > 0, "repair") {
		f.later(c)
	}
	if f.From > f.To || f.Upto > f.To {
		c.fail("to", "%d is below from %d or upto %d", f.To, f.From, f.Upto)
	}
}

// later walks the fields of version 3.
func (f *Batch) later(c *codec) {
	number(c, "repair (3)", &f.Repair)
	each(c, "sums (3)", &f.Sums, maxList, 1+256*BucketSum, func(s *BucketSums) {
		number(c, "territory", &s.Territory)
		c.fixed("sums", s.Sums[:])
	})
	each(c, "buckets (3)", &f.Buckets, maxList, 1+32, func(w *WholeBuckets) {
		number(c, "territory", &w.Territory)
		c.fixed("set", w.Set[:])
	})
	each(c, "nodes (3)", &f.Nodes, maxList, 3+16, func(n *NodeState) {
		number(c, "node", &n.Node)
		number(c, "incarnation", &n.Incarnation)
		number(c, "last_seq", &n.LastSeq)
		c.fixed("last_hash", n.LastHash[:])
	})
	c.rev("trimmed (3)", &f.Trimmed)
}

// The least that an element takes, in bytes.
const (
	minOutcome = 6
	minItem    = 1 + 1 + 1 + 16 + 1
)

func (it *Item) fields(c *codec) {
	choice(c, "kind", &it.Kind, ItemLeft)
	c.flag("partial", &it.Partial)
	number(c, "entity", &it.Entity)
	c.fixed("id", it.ID[:])
	left := it.Kind == ItemLeft
	if left || c.mode == describing {
		c.rev("rev (left)", &it.Rev)
		if c.since(3, it.Territory != 0, "territory") {
			number(c, "territory (left) (3)", &it.Territory)
		}
	}
	if !left {
		c.bytes("body (record, deleted)", &it.Body, 1, MaxBody)
	}
	if !left && it.Territory != 0 {
		c.fail("territory", "only a record that left names the territory")
	}
	if left && it.Partial {
		c.fail("partial", "a record that left cannot be partial")
	}
}

// Size returns what the item adds to a Batch at most, in bytes.
func (it *Item) Size() int { return minItem + 12 + len(it.Body) }

// Size returns the encoded size of the Batch at most, in bytes: senders end a
// Batch when it reaches BatchBudget.
func (f *Batch) Size() int {
	n := 85 + 5*len(f.Whole) + (5+16)*len(f.Digests) + (5+256*BucketSum)*len(f.Sums) + (5+32)*len(f.Buckets) + (20+16)*len(f.Nodes)
	for _, o := range f.Outcomes {
		n += OutcomeSize(o)
	}
	for i := range f.Items {
		n += f.Items[i].Size()
	}
	return n
}

// OutcomeSize returns what the outcome adds to a Batch at most, in bytes.
func OutcomeSize(o crm.Outcome) int { return 32 + len(o.Code) + len(o.Message) }

// An Applied tells the master how far the replica has come, so that it may drop
// tombstones and markers that nobody needs. It is a hint, sent after fsync.
type Applied struct {
	Cursor  crm.Rev
	LowBase crm.Rev // as in Hello
}

// Kind returns KindApplied.
func (*Applied) Kind() Kind { return KindApplied }

func (f *Applied) fields(c *codec) {
	c.rev("cursor", &f.Cursor)
	c.rev("low_base", &f.LowBase)
}
