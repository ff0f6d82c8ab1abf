package store

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/tradepost-crm/tradepost/crm"
)

// Record returns the live record or its tombstone, or nil if there is neither.
func (tx *Tx) Record(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	s, err := tx.stored(RecordKey{e, id})
	return s.record, err
}

// stored is a record with the bytes it was decoded from, which stay valid until
// the next write.
type stored struct {
	record *crm.Record // nil: there is none
	body   []byte
}

func (tx *Tx) stored(k RecordKey) (stored, error) {
	if v := tx.liveValue(k); v != nil {
		return tx.decode(k, v, false)
	}
	if v := tx.get(bucketDead, tx.recordKey(k)); v != nil {
		return tx.decode(k, v, true)
	}
	return stored{}, nil
}

// liveValue returns the sealed value of a live record, nil if there is none.
func (tx *Tx) liveValue(k RecordKey) []byte {
	b := tx.liveBucket(k.Entity)
	if b == nil {
		return nil
	}
	return b.Get(k.ID[:])
}

// decode reads the value of live or dead.
func (tx *Tx) decode(k RecordKey, v []byte, dead bool) (stored, error) {
	r, body, err := tx.decodeRecord(k, v)
	if err == nil && r.Deleted != dead {
		err = fmt.Errorf("deleted is %v", r.Deleted)
	}
	if err != nil {
		return stored{}, tx.f.damaged(k, err)
	}
	return stored{r, body}, nil
}

func (t *transaction) decodeRecord(k RecordKey, v []byte) (*crm.Record, []byte, error) {
	body, err := unseal(t.recordKey(k), v)
	if err != nil {
		return nil, nil, err
	}
	r, err := crm.DecodeRecord(k.Entity, k.ID, body)
	return r, body, err
}

// String names the record in errors.
func (k RecordKey) String() string { return fmt.Sprintf("record %s of entity %d", k.ID, k.Entity) }

// liveBucket returns the entity's bucket, nil if it has no records.
func (tx *Tx) liveBucket(e crm.EntityID) *table {
	for _, l := range tx.live {
		if l.entity == e {
			return l.table
		}
	}
	b := tx.open(tx.top(bucketLive).Bucket(entityKey(e)))
	if b != nil {
		tx.keepLive(e, b)
	}
	return b
}

// A liveTable is the opened bucket of one entity.
type liveTable struct {
	entity crm.EntityID
	table  *table
}

func (tx *Tx) keepLive(e crm.EntityID, b *table) {
	// Ids ascend with time, so pages fill from the left and may stay full.
	b.FillPercent = fullPages
	tx.live = append(tx.live, liveTable{e, b})
}

// fullPages is how full bbolt leaves the pages it splits where keys come in
// order.
const fullPages = 0.9

func (tx *Tx) makeLiveBucket(e crm.EntityID) (*table, error) {
	if b := tx.liveBucket(e); b != nil {
		return b, nil
	}
	made, err := tx.top(bucketLive).CreateBucket(entityKey(e))
	if err != nil {
		return nil, tx.f.failure("write live", err)
	}
	b := tx.open(made)
	tx.keepLive(e, b)
	return b, nil
}

// Put inserts or replaces the record, live or deleted. In the same step it
// moves the record's feed row to r.Stamp.Rev, leaves a marker in the territory
// it came from, and keeps index rows, words, the digest and counters right. A
// changed metadata record takes effect at the next call of Schema and at Commit.
// A record that cannot be read is replaced too, which takes time in proportion
// to the file and is counted in [Stats]; if pages are damaged it is an error of
// code corrupt. r is not kept.
func (tx *Tx) Put(r *crm.Record) error {
	k := RecordKey{r.Entity, r.ID}
	old, from, err := tx.replaced(k)
	if err != nil {
		return err
	}
	if err := tx.unlist(k, old); err != nil {
		return err
	}
	if from != 0 && from != r.Territory {
		if err := tx.leave(k, from, r); err != nil {
			return err
		}
	}
	if err := tx.write(k, r, old.record); err != nil {
		return err
	}
	tx.note(k)
	tx.metadataChanged(r.Entity)
	if err := tx.replaceRows(old.record, r); err != nil {
		return err
	}
	return tx.raiseNumber(r)
}

// replaced returns what is about to be replaced and its territory, 0 if there is
// none. What cannot be read it has expunged.
func (tx *Tx) replaced(k RecordKey) (stored, crm.TerritoryID, error) {
	old, err := tx.stored(k)
	switch {
	case crm.CodeOf(err) == crm.CodeCorrupt:
		from, err := tx.expunge(k)
		return stored{}, from[k], err
	case err != nil || old.record == nil:
		return stored{}, 0, err
	}
	return old, old.record.Territory, nil
}

// leave marks that r went from one territory to another. A marker of the same
// Rev in the one it comes to is of no use any more: it came back.
func (tx *Tx) leave(k RecordKey, from crm.TerritoryID, r *crm.Record) error {
	tx.rows.delete(0, tx.rows.feedRow(spaceLeft, r.Territory, r.Stamp.Rev, k))
	return tx.rows.put(0, tx.rows.feedRow(spaceLeft, from, r.Stamp.Rev, k))
}

// MarkLeft notes that the record left the territory at rev, whether it was here
// or not, for those below who are behind.
func (tx *Tx) MarkLeft(k RecordKey, from crm.TerritoryID, rev crm.Rev) error {
	return tx.rows.put(0, tx.rows.feedRow(spaceLeft, from, rev, k))
}

// write stores the record, its feed row and its part of digest and count. old
// is what was there and is unlisted already.
func (tx *Tx) write(k RecordKey, r, old *crm.Record) error {
	key := k.bytes()
	tx.scratch = crm.AppendRecord(append(tx.scratch[:0], make([]byte, sealSize)...), r)
	v := tx.rows.keys.clone(closeSeal(key, tx.scratch))
	if old != nil && old.Deleted != r.Deleted {
		if err := tx.remove(k, old.Deleted); err != nil {
			return err
		}
	}
	if r.Deleted {
		if err := tx.rows.put(0, tx.rows.feedRow(spaceGone, r.Territory, r.Stamp.Rev, k)); err != nil {
			return err
		}
		return tx.put(bucketDead, key, v)
	}
	if err := tx.rows.put(0, tx.rows.feedRow(spaceFeed, r.Territory, r.Stamp.Rev, k)); err != nil {
		return err
	}
	b, err := tx.makeLiveBucket(k.Entity)
	if err != nil {
		return err
	}
	if err := b.Put(k.ID[:], v); err != nil {
		return tx.f.failure("write live", err)
	}
	if err := tx.addCount(k.Entity, 1); err != nil {
		return err
	}
	tx.addSum(k, r.Territory, v[sealSize:])
	return nil
}

// unlist takes the record out of the feed, the digest and the count, but leaves
// its bytes and rows.
func (tx *Tx) unlist(k RecordKey, old stored) error {
	r := old.record
	if r == nil {
		return nil
	}
	if r.Deleted {
		tx.rows.delete(0, tx.rows.feedRow(spaceGone, r.Territory, r.Stamp.Rev, k))
		return nil
	}
	tx.subtractSum(k, r.Territory, old.body)
	if err := tx.addCount(k.Entity, -1); err != nil {
		return err
	}
	tx.rows.delete(0, tx.rows.feedRow(spaceFeed, r.Territory, r.Stamp.Rev, k))
	return nil
}

func (tx *Tx) remove(k RecordKey, dead bool) error {
	if dead {
		return tx.delete(bucketDead, k.bytes())
	}
	return tx.f.failure("delete from live", tx.liveBucket(k.Entity).Delete(k.ID[:]))
}

// Drop removes the record or tombstone without a trace, as a replica does that
// may no longer hold it. It reports whether there was one. One that cannot be
// read is dropped as Put replaces it.
func (tx *Tx) Drop(e crm.EntityID, id crm.RecordID) (bool, error) {
	k := RecordKey{e, id}
	old, err := tx.stored(k)
	if crm.CodeOf(err) == crm.CodeCorrupt {
		_, err := tx.expunge(k)
		return err == nil, err
	}
	if err != nil || old.record == nil {
		return false, err
	}
	if err := tx.unlist(k, old); err != nil {
		return false, err
	}
	if err := tx.remove(k, old.record.Deleted); err != nil {
		return false, err
	}
	tx.note(k)
	tx.metadataChanged(e)
	return true, tx.replaceRows(old.record, nil)
}

// DropTerritory drops all records, tombstones and markers of the territory and
// returns how many records and tombstones there were. [DB.Compact] then takes
// their bytes out of the file.
func (tx *Tx) DropTerritory(t crm.TerritoryID) (int, error) {
	n := 0
	for _, s := range feedSpaces {
		keys, err := tx.feedKeys(s, prefixRange(appendTerritory(nil, t)))
		if err != nil {
			return n, err
		}
		for _, key := range keys {
			if err := tx.dropRow(s, key); err != nil {
				return n, err
			}
		}
		if s != spaceLeft {
			n += len(keys)
		}
	}
	return n, nil
}

// dropRow drops what a row of feed or gone leads to, or a marker.
func (tx *Tx) dropRow(s space, key []byte) error {
	if s == spaceLeft {
		tx.rows.delete(0, row{space: s, key: key})
		return nil
	}
	k := recordKeyAt(key)
	ok, err := tx.Drop(k.Entity, k.ID)
	if err == nil && !ok {
		err = tx.f.corrupt(s.bucket().name+" "+k.String(), errRow)
	}
	return err
}

// feedKeys returns copies of the keys of feed, gone or left in a range.
func (tx *Tx) feedKeys(s space, rng keyRange) ([][]byte, error) {
	var out [][]byte
	for c := newRowCursor(source{bucket: tx.rows.bucket(s, 0, 0)}, rng, false); c.key != nil; c.next() {
		if len(c.key) != feedKeySize {
			return nil, tx.f.corrupt(s.bucket().name, errShort)
		}
		out = append(out, bytes.Clone(c.key))
	}
	return out, nil
}

// Scan yields all live records of the entity by id. The transaction must not be
// written meanwhile.
func (tx *Tx) Scan(e crm.EntityID) iter.Seq2[*crm.Record, error] {
	return func(yield func(*crm.Record, error) bool) {
		b := tx.liveBucket(e)
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if len(k) != idSize {
				yield(nil, tx.f.corrupt("live", errShort))
				return
			}
			s, err := tx.decode(RecordKey{e, crm.RecordID(k)}, v, false)
			if !yield(s.record, err) || err != nil {
				return
			}
		}
	}
}
