package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Digest stands for all live records of a territory: two files with equal
// digests hold the same records, byte for byte. The digest of no records is
// that of 256 empty buckets.
type Digest [sha256.Size]byte

// DigestBuckets is the number of buckets of a territory. A record is in the one
// that the last byte of its id names.
const DigestBuckets = 256

// A Bucket sums up the records of one bucket, in any order.
type Bucket struct {
	Sum   [4]uint64 // Σ SHA-256(entity ‖ id ‖ record) mod 2²⁵⁶, least significant word first
	Count uint64
}

const bucketSize = 40

func (b *Bucket) add(h [4]uint64) { b.plus(Bucket{h, 1}) }

// plus adds modulo 2²⁵⁶ and 2⁶⁴, so that c may be what subtract made of nothing.
func (b *Bucket) plus(c Bucket) {
	var carry uint64
	for i := range b.Sum {
		b.Sum[i], carry = bits.Add64(b.Sum[i], c.Sum[i], carry)
	}
	b.Count += c.Count
}

func (b *Bucket) subtract(h [4]uint64) {
	var c uint64
	for i := range b.Sum {
		b.Sum[i], c = bits.Sub64(b.Sum[i], h[i], c)
	}
	b.Count--
}

// Append appends the stored form of b: sum:32 count:8, little-endian.
func (b Bucket) Append(dst []byte) []byte {
	for _, w := range b.Sum {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return binary.LittleEndian.AppendUint64(dst, b.Count)
}

func decodeBucket(v []byte) (b Bucket, ok bool) {
	if len(v) != bucketSize {
		return b, false
	}
	for i := range b.Sum {
		b.Sum[i] = binary.LittleEndian.Uint64(v[8*i:])
	}
	b.Count = binary.LittleEndian.Uint64(v[32:])
	return b, true
}

// DigestOf returns the digest of a territory with these buckets.
func DigestOf(buckets *[DigestBuckets]Bucket) Digest {
	all := make([]byte, 0, DigestBuckets*bucketSize)
	for i := range buckets {
		all = buckets[i].Append(all)
	}
	return sha256.Sum256(all)
}

// recordHash returns the addend of a record: the SHA-256 of its key and
// canonical encoding as a little-endian number.
func recordHash(k RecordKey, body []byte) (h [4]uint64) {
	var room [1024]byte
	s := sha256.Sum256(append(appendRecordKey(room[:0], k), body...))
	for i := range h {
		h[i] = binary.LittleEndian.Uint64(s[8*i:])
	}
	return h
}

// digestBucket returns the bucket of its territory that the record is in.
func (k RecordKey) digestBucket() byte { return k.ID[idSize-1] }

type sumKey struct {
	territory crm.TerritoryID
	bucket    byte
}

func (k sumKey) String() string { return fmt.Sprintf("territory %d bucket %d", k.territory, k.bucket) }

func (k sumKey) bytes() []byte {
	return append(appendTerritory(make([]byte, 0, 5), k.territory), k.bucket)
}

// A territorySums is what a transaction changes of the digest of a territory. It
// waits in memory until the transaction commits, so that each bucket is read and
// written once, in the order of the keys.
type territorySums struct {
	change [DigestBuckets]sumChange
	delta  [DigestBuckets]Bucket // of those that are not kept
}

// A sumChange says what a delta does.
type sumChange uint8

const (
	sumKept  sumChange = iota
	sumMoved           // the delta is added to the bucket
	sumSet             // the delta takes the bucket's place
)

// apply changes a bucket.
func (s *territorySums) apply(bucket byte, b *Bucket) {
	switch s.change[bucket] {
	case sumMoved:
		b.plus(s.delta[bucket])
	case sumSet:
		*b = s.delta[bucket]
	}
}

// moved returns the delta of a bucket for change.
func (tx *Tx) moved(k sumKey) *Bucket {
	s := tx.sumsOf(k.territory)
	if s.change[k.bucket] == sumKept {
		s.change[k.bucket], s.delta[k.bucket] = sumMoved, Bucket{}
	}
	return &s.delta[k.bucket]
}

func (tx *Tx) setSum(k sumKey, b Bucket) {
	s := tx.sumsOf(k.territory)
	s.change[k.bucket], s.delta[k.bucket] = sumSet, b
}

func (tx *Tx) sumsOf(t crm.TerritoryID) *territorySums {
	s := tx.sums[t]
	if s == nil {
		if tx.sums == nil {
			tx.sums = map[crm.TerritoryID]*territorySums{}
		}
		s = new(territorySums)
		tx.sums[t] = s
	}
	return s
}

func (tx *Tx) storedSum(k sumKey) (Bucket, error) {
	v := tx.get(bucketDigest, k.bytes())
	if v == nil {
		return Bucket{}, nil
	}
	s, ok := decodeBucket(v)
	if !ok {
		return s, tx.f.corrupt(fmt.Sprintf("digest of territory %d", k.territory), errShort)
	}
	return s, nil
}

// digestOff leaves digests as they are. Only a benchmark sets it, to measure what
// their upkeep costs.
var digestOff bool

func (tx *Tx) addSum(k RecordKey, t crm.TerritoryID, body []byte) {
	if !digestOff {
		tx.moved(sumKey{t, k.digestBucket()}).add(recordHash(k, body))
	}
}

func (tx *Tx) subtractSum(k RecordKey, t crm.TerritoryID, body []byte) {
	if !digestOff {
		tx.moved(sumKey{t, k.digestBucket()}).subtract(recordHash(k, body))
	}
}

// writeSums writes what waits.
func (tx *Tx) writeSums() error {
	for t, s := range tx.sums {
		tx.top(bucketDigest).FillPercent = fullPages // rows of one size, that are replaced in place
		if err := tx.settleSums(t, s); err != nil {
			return err
		}
		values := make([]byte, 0, s.changed()*bucketSize)
		for b := range DigestBuckets {
			if s.change[b] == sumKept {
				continue
			}
			var err error
			if k := (sumKey{t, byte(b)}); s.delta[b].Count == 0 {
				err = tx.delete(bucketDigest, k.bytes())
			} else {
				at := len(values)
				values = s.delta[b].Append(values)
				err = tx.put(bucketDigest, k.bytes(), values[at:len(values):len(values)])
			}
			if err != nil {
				return err
			}
		}
		clear(s.change[:])
	}
	return nil
}

func (s *territorySums) changed() int {
	n := 0
	for _, c := range s.change {
		if c != sumKept {
			n++
		}
	}
	return n
}

// nearby is the number of rows that are walked rather than sought.
const nearby = 16

// settleSums adds to each delta what the file has, so that it is the bucket.
func (tx *Tx) settleSums(t crm.TerritoryID, s *territorySums) error {
	c := tx.top(bucketDigest).Cursor()
	var k, v []byte
	last := -nearby // bucket that k was sought or walked to
	for b := range DigestBuckets {
		if s.change[b] != sumMoved {
			continue
		}
		key := sumKey{t, byte(b)}.bytes()
		if b-last >= nearby {
			k, v = c.Seek(key)
		}
		for k != nil && bytes.Compare(k, key) < 0 {
			k, v = c.Next()
		}
		last = b
		if !bytes.Equal(k, key) {
			continue
		}
		stored, ok := decodeBucket(v)
		if !ok {
			return tx.f.corrupt(fmt.Sprintf("digest of territory %d", t), errShort)
		}
		s.delta[b].plus(stored)
	}
	return nil
}

// Buckets returns the 256 buckets of the territory.
func (tx *Tx) Buckets(t crm.TerritoryID) (*[DigestBuckets]Bucket, error) {
	out := new([DigestBuckets]Bucket)
	prefix := appendTerritory(nil, t)
	c := tx.top(bucketDigest).Cursor()
	for k, v := c.Seek(prefix); len(k) == 5 && string(k[:4]) == string(prefix); k, v = c.Next() {
		b, ok := decodeBucket(v)
		if !ok {
			return nil, tx.f.corrupt(fmt.Sprintf("digest of territory %d", t), errShort)
		}
		out[k[4]] = b
	}
	if s := tx.sums[t]; s != nil {
		for b := range out {
			s.apply(byte(b), &out[b])
		}
	}
	return out, nil
}

// Digest returns the digest of the territory's live records. Committed ones are
// computed once, in about 20 µs.
func (tx *Tx) Digest(t crm.TerritoryID) (Digest, error) {
	cached := tx.sums[t] == nil
	if cached {
		if d, ok := tx.db.digests.get(t, tx.snapshot()); ok {
			return d, nil
		}
	}
	b, err := tx.Buckets(t)
	if err != nil {
		return Digest{}, err
	}
	d := DigestOf(b)
	if cached {
		tx.db.digests.put(t, tx.snapshot(), d)
	}
	return d, nil
}

// snapshot returns the number of the committed transaction that this one sees.
func (tx *Tx) snapshot() int {
	if tx.Writable() {
		return tx.bolt.ID() - 1
	}
	return tx.bolt.ID()
}

// Territories yields, in order, the territories that have a record, live or
// deleted.
func (tx *Tx) Territories() iter.Seq[crm.TerritoryID] {
	return tx.territoriesIn(spaceFeed, spaceGone)
}

// A digestCache keeps digests of committed states. changed must be called
// before the commit that it announces becomes visible.
type digestCache struct {
	mu      sync.Mutex // protects the rest
	last    map[crm.TerritoryID]int
	digests map[crm.TerritoryID]cachedDigest
}

type cachedDigest struct {
	at     int // transaction that saw it
	digest Digest
}

// changed notes that transaction at, if it commits, changes the territories.
func (c *digestCache) changed(ts iter.Seq[crm.TerritoryID], at int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = map[crm.TerritoryID]int{}
	}
	for t := range ts {
		c.last[t] = at
	}
}

// get returns the digest at a snapshot if no change lies between the one it
// was computed at and this.
func (c *digestCache) get(t crm.TerritoryID, snapshot int) (Digest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.digests[t]
	return d.digest, ok && d.at >= c.last[t] && snapshot >= c.last[t]
}

func (c *digestCache) put(t crm.TerritoryID, snapshot int, d Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.digests == nil {
		c.digests = map[crm.TerritoryID]cachedDigest{}
	}
	if old, ok := c.digests[t]; !ok || snapshot > old.at {
		c.digests[t] = cachedDigest{snapshot, d}
	}
}

func (c *digestCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.digests = nil, nil
}
