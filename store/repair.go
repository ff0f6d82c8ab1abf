package store

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/tradepost-crm/tradepost/crm"
)

// BucketOf returns which of the [DigestBuckets] buckets of its territory a
// record is in.
func (tx *Tx) BucketOf(id crm.RecordID) byte { return RecordKey{ID: id}.digestBucket() }

// BucketRecords yields the live records of one bucket of the territory, by Rev. It
// reads no record, but the keys of the territory's feed: about 50 ns for each
// record of the territory. The transaction must not be written meanwhile.
func (tx *Tx) BucketRecords(t crm.TerritoryID, bucket byte) iter.Seq2[RecordKey, error] {
	return func(yield func(RecordKey, error) bool) {
		for k, err := range tx.feedRecords(t) {
			if (err != nil || k.digestBucket() == bucket) && (!yield(k, err) || err != nil) {
				return
			}
		}
	}
}

// feedRecords yields the live records of the territory as its feed lists them.
func (tx *Tx) feedRecords(t crm.TerritoryID) iter.Seq2[RecordKey, error] {
	return func(yield func(RecordKey, error) bool) {
		c := newRowCursor(source{bucket: tx.rows.bucket(spaceFeed, 0, 0)}, prefixRange(appendTerritory(nil, t)), false)
		for ; c.key != nil; c.next() {
			if len(c.key) != feedKeySize {
				yield(RecordKey{}, tx.f.corrupt("feed", errShort))
				return
			}
			if !yield(recordKeyAt(c.key), nil) {
				return
			}
		}
	}
}

// DropBucket drops, without a trace, all live records of one bucket of the
// territory, and with them what damage may have left of it: records that cannot
// be read, rows that lead nowhere, records that no feed row leads to. It returns
// how many records there were; the bucket's digest is then that of no records.
// Whoever puts the right records in the same transaction has mended the bucket.
// Tombstones and markers stay.
//
// It reads the keys of the territory's feed and of all live records, about 0.1 µs
// for each record of the file, and if a record cannot be read those of all rows.
func (tx *Tx) DropBucket(t crm.TerritoryID, bucket byte) (int, error) {
	at := sumKey{t, bucket}
	listed, err := tx.unlistBucket(at)
	if err != nil {
		return 0, err
	}
	tx.setSum(at, Bucket{}) // what is subtracted from it does not count
	var own, lost []RecordKey
	for _, k := range tx.recountIn(bucket) {
		s, err := tx.stored(k)
		switch {
		case crm.CodeOf(err) == crm.CodeCorrupt && listed[k]:
			lost = append(lost, k)
		case err == nil && s.record.Territory == t:
			own = append(own, k)
		}
	}
	n := len(own) + len(lost)
	for k := range listed {
		if tx.liveValue(k) == nil && !tx.top(bucketDead).has(tx.recordKey(k)) {
			lost = append(lost, k)
		}
	}
	for _, k := range own {
		if _, err := tx.Drop(k.Entity, k.ID); err != nil {
			return 0, err
		}
	}
	if _, err := tx.expunge(lost...); err != nil {
		return 0, err
	}
	tx.setSum(at, Bucket{})
	return n, nil
}

// unlistBucket deletes all feed rows of a bucket and returns the records that
// they lead to.
func (tx *Tx) unlistBucket(at sumKey) (map[RecordKey]bool, error) {
	listed := map[RecordKey]bool{}
	for k, err := range tx.feedRecords(at.territory) {
		if err != nil {
			return nil, err
		}
		if k.digestBucket() == at.bucket {
			listed[k] = true
		}
	}
	of := rowBucket{space: spaceFeed}
	tx.rows.deleteRows(of, prefixRange(appendTerritory(nil, at.territory)), func(key []byte) bool { return listed[recordKeyAt(key)] })
	return listed, nil
}

// recountIn returns the live records of any territory whose id is in the bucket,
// and sets the counts to what it saw.
func (tx *Tx) recountIn(bucket byte) []RecordKey {
	var out []RecordKey
	tx.counts = map[crm.EntityID]uint64{}
	counted := tx.top(bucketCount).Cursor()
	for k, _ := counted.First(); len(k) == 2; k, _ = counted.Next() {
		tx.counts[crm.EntityID(binary.BigEndian.Uint16(k))] = 0
	}
	live := tx.top(bucketLive)
	c := live.Cursor()
	for name, _ := c.First(); len(name) == 2; name, _ = c.Next() {
		e := crm.EntityID(binary.BigEndian.Uint16(name))
		ids := live.Bucket(name).Cursor()
		for id, _ := ids.First(); id != nil; id, _ = ids.Next() {
			tx.counts[e]++
			if len(id) == idSize && id[idSize-1] == bucket {
				out = append(out, RecordKey{e, crm.RecordID(id)})
			}
		}
	}
	return out
}

// RecomputeDigests makes the digest of the territory anew from the live records
// that its feed lists, in about 0.5 µs each. It is for a file whose records
// are right and whose digest is not; a record that cannot be read is an error of
// code corrupt.
func (tx *Tx) RecomputeDigests(t crm.TerritoryID) error {
	var sums [DigestBuckets]Bucket
	for k, err := range tx.feedRecords(t) {
		if err != nil {
			return err
		}
		body, err := unseal(tx.recordKey(k), tx.liveValue(k))
		if err != nil {
			return tx.f.damaged(k, err)
		}
		sums[k.digestBucket()].add(recordHash(k, body))
	}
	for b, sum := range sums {
		tx.setSum(sumKey{t, byte(b)}, sum)
	}
	return nil
}

// expunge removes records and tombstones that cannot be read, with all that was
// derived from them, and returns in which territories they were as far as that
// is known. What was derived is found by the record's key, with which all of
// its rows end; the sum of a bucket that a live one was in is made anew.
func (tx *Tx) expunge(lost ...RecordKey) (map[RecordKey]crm.TerritoryID, error) {
	if len(lost) == 0 {
		return nil, nil
	}
	if err := tx.mendable(); err != nil {
		return nil, err
	}
	set := map[RecordKey]bool{}
	for _, k := range lost {
		set[k] = true
	}
	from := tx.unlistLost(set)
	err := tx.rows.deleteLost(set)
	for _, k := range lost {
		if err == nil {
			err = tx.removeLost(k, from[k])
		}
	}
	return from, err
}

// unlistLost deletes the rows of feed and gone that lead to the records.
func (tx *Tx) unlistLost(lost map[RecordKey]bool) map[RecordKey]crm.TerritoryID {
	from := map[RecordKey]crm.TerritoryID{}
	for _, s := range []space{spaceFeed, spaceGone} {
		tx.rows.deleteRows(rowBucket{space: s}, keyRange{}, func(key []byte) bool {
			if len(key) != feedKeySize || !lost[recordKeyAt(key)] {
				return false
			}
			from[recordKeyAt(key)] = territoryAt(key)
			return true
		})
	}
	return from
}

// removeLost removes the value of a record that cannot be read. t is where it
// was, 0 if that is not known.
func (tx *Tx) removeLost(k RecordKey, t crm.TerritoryID) error {
	tx.note(k)
	tx.noteLost(k)
	tx.metadataChanged(k.Entity)
	if tx.liveValue(k) == nil { // a tombstone, or nothing but rows
		return tx.delete(bucketDead, k.bytes())
	}
	if err := tx.remove(k, false); err != nil {
		return err
	}
	if err := tx.addCount(k.Entity, -1); err != nil || t == 0 {
		return err
	}
	sum := Bucket{}
	for other, err := range tx.BucketRecords(t, k.digestBucket()) {
		if err != nil {
			return err
		}
		if body, err := unseal(tx.recordKey(other), tx.liveValue(other)); err == nil { // who cannot be read is in no sum
			sum.add(recordHash(other, body))
		}
	}
	tx.setSum(sumKey{t, k.digestBucket()}, sum)
	return nil
}

// mendable returns an error of code corrupt if pages are damaged: bbolt, which has
// to walk them all to find what is left of a record, may never come back. Such a
// file is replaced and not mended.
func (t *transaction) mendable() error {
	if t.walked {
		return nil
	}
	err := t.checkPages()
	t.walked = err == nil
	return err
}

// noteLost tells that a record which cannot be read is replaced or dropped: what
// it held is lost to this file.
func (t *transaction) noteLost(k RecordKey) {
	t.lost++
	t.f.opts.Logger.Warn("a record that cannot be read is replaced or dropped", "path", t.f.path, "record", k.String())
}

// deleteLost deletes all rows of records that cannot be read, but those of the
// feed. It reads the keys of all rows.
func (t *rowTable) deleteLost(lost map[RecordKey]bool) error {
	entities := map[crm.EntityID]bool{}
	for k := range lost {
		entities[k.Entity] = true
	}
	for _, s := range []space{spaceRoots, spaceBuried, spaceWords} {
		t.deleteRows(rowBucket{space: s}, keyRange{}, func(key []byte) bool { return len(key) >= keySize && lost[recordKeyAt(key)] })
	}
	return t.t.top(bucketIndex).ForEachBucket(func(name []byte) error {
		if len(name) != 4 {
			return nil
		}
		e, index := crm.EntityID(binary.BigEndian.Uint16(name)), binary.BigEndian.Uint16(name[2:])
		if entities[e] {
			of := rowBucket{spaceIndex, index, e}
			t.deleteRows(of, keyRange{}, func(key []byte) bool { return len(key) >= idSize && lost[RecordKey{e, idAt(key)}] })
		}
		return nil
	})
}

// deleteRows deletes the rows of one bucket in a range whose key is meant.
func (t *rowTable) deleteRows(of rowBucket, rng keyRange, meant func(key []byte) bool) {
	b := t.bucket(of.space, of.entity, of.index)
	if b == nil {
		return
	}
	for c := newRowCursor(source{bucket: b}, rng, false); c.key != nil; c.next() {
		if meant(c.key) {
			t.delete(of.entity, row{space: of.space, index: of.index, key: bytes.Clone(c.key)})
		}
	}
}
