package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/tradepost-crm/tradepost/crm"
)

// PutOverlay keeps the record as the pending Mutations would leave it, deleted
// ones too: a deleted record in the overlay hides the one in the base. s is the
// schema of the base and decides which rows the record gets. A record that cannot
// be read is replaced too, as [Tx.Put] does it.
func (tx *JTx) PutOverlay(s *crm.Schema, r *crm.Record) error {
	k := RecordKey{r.Entity, r.ID}
	old, _, err := tx.replaced(k)
	if err != nil {
		return err
	}
	key := k.bytes()
	if err := tx.put(bucketOverlay, key, closeSeal(key, crm.AppendRecord(make([]byte, sealSize, 256), r))); err != nil {
		return err
	}
	return tx.overlayRows(s, k, old, r)
}

// DropOverlay removes the record from the overlay, if it is there.
func (tx *JTx) DropOverlay(s *crm.Schema, e crm.EntityID, id crm.RecordID) error {
	k := RecordKey{e, id}
	old, ok, err := tx.replaced(k)
	if err != nil || !ok {
		return err
	}
	if err := tx.delete(bucketOverlay, k.bytes()); err != nil {
		return err
	}
	return tx.overlayRows(s, k, old, nil)
}

// replaced returns the record of the overlay that is about to be replaced or
// dropped, and whether there is one. One that cannot be read is nil, and its rows
// are deleted.
func (tx *JTx) replaced(k RecordKey) (old *crm.Record, ok bool, err error) {
	old, err = tx.Overlay(k.Entity, k.ID)
	if crm.CodeOf(err) != crm.CodeCorrupt {
		return old, old != nil, err
	}
	if err := tx.mendable(); err != nil {
		return nil, false, err
	}
	tx.noteLost(k)
	return nil, true, tx.rows.deleteLost(map[RecordKey]bool{k: true})
}

// overlayRows changes the rows of one record, or rebuilds all rows if the ones
// in the file were made under another schema.
func (tx *JTx) overlayRows(s *crm.Schema, k RecordKey, old, now *crm.Record) error {
	tx.note(k)
	tx.written = true
	ok, err := tx.rowsFollow(s)
	if err != nil {
		return err
	}
	if !ok {
		return tx.rebuildRows(s)
	}
	e := s.EntityByID(k.Entity)
	return tx.rows.replace(k.Entity, e, old, e, now)
}

// rowsFollow reports whether the overlay's rows are those that s asks for.
func (tx *JTx) rowsFollow(s *crm.Schema) (bool, error) {
	if tx.layout == 0 {
		var err error
		if tx.layout, err = tx.number(bucketSelf, "layout"); err != nil {
			return false, err
		}
	}
	return tx.layout == tx.layouts.of(s), nil
}

func (tx *JTx) rebuildRows(s *crm.Schema) error {
	if err := tx.rows.clear(); err != nil {
		return err
	}
	for r, err := range tx.overlayRecords(nil) {
		if err != nil {
			return err
		}
		if err := tx.rows.replace(r.Entity, nil, nil, s.EntityByID(r.Entity), r); err != nil {
			return err
		}
	}
	tx.layout = tx.layouts.of(s)
	return tx.setNumber(bucketSelf, "layout", tx.layout)
}

// Overlay returns the record in the overlay, nil if there is none.
func (tx *JTx) Overlay(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	k := RecordKey{e, id}
	v := tx.get(bucketOverlay, tx.recordKey(k))
	if v == nil {
		return nil, nil
	}
	return tx.decodeOverlay(k, v)
}

func (tx *JTx) decodeOverlay(k RecordKey, v []byte) (*crm.Record, error) {
	r, _, err := tx.decodeRecord(k, v)
	if err != nil {
		return nil, tx.f.corrupt("overlay "+k.String(), err)
	}
	return r, nil
}

// HasOverlay reports whether any record is in the overlay.
func (tx *JTx) HasOverlay() bool {
	k, _ := tx.top(bucketOverlay).Cursor().First()
	return k != nil
}

// overlays reports whether any record of the entity is in the overlay; entity 0
// stands for all.
func (tx *JTx) overlays(e crm.EntityID) bool {
	if e == 0 {
		return tx.HasOverlay()
	}
	key := entityKey(e)
	k, _ := tx.top(bucketOverlay).seek(key)
	return bytes.HasPrefix(k, key)
}

func (tx *JTx) hasOverlay(k RecordKey) bool { return tx.top(bucketOverlay).has(tx.recordKey(k)) }

// Overlaid yields the keys of all records in the overlay, by entity and id. The
// transaction must not be written meanwhile.
func (tx *JTx) Overlaid() iter.Seq[RecordKey] {
	return func(yield func(RecordKey) bool) {
		for k := range tx.overlaid(nil) {
			if !yield(k) {
				return
			}
		}
	}
}

// overlaid yields the keys in the overlay that begin with prefix, and whether
// the record is deleted.
func (tx *JTx) overlaid(prefix []byte) iter.Seq2[RecordKey, bool] {
	return func(yield func(RecordKey, bool) bool) {
		c := newRowCursor(source{bucket: tx.top(bucketOverlay)}, prefixRange(prefix), false)
		for ; len(c.key) == keySize; c.next() {
			deleted := len(c.value) > sealSize && crm.EncodedDeleted(c.value[sealSize:])
			if !yield(recordKeyAt(c.key), deleted) {
				return
			}
		}
	}
}

// overlayRecords yields the overlay's records whose key begins with prefix.
func (tx *JTx) overlayRecords(prefix []byte) iter.Seq2[*crm.Record, error] {
	return func(yield func(*crm.Record, error) bool) {
		c := newRowCursor(source{bucket: tx.top(bucketOverlay)}, prefixRange(prefix), false)
		for ; c.key != nil; c.next() {
			if len(c.key) != keySize {
				yield(nil, tx.f.corrupt("overlay", errShort))
				return
			}
			r, err := tx.decodeOverlay(recordKeyAt(c.key), c.value)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Touch notes that the pending Mutation seq concerns the record.
func (tx *JTx) Touch(k RecordKey, seq crm.Seq) error {
	if err := tx.put(bucketTouch, append(k.bytes(), seqKey(seq)...), nil); err != nil {
		return err
	}
	return tx.put(bucketTouched, appendRecordKey(seqKey(seq), k), nil)
}

// Retouch has the pending Mutation seq concern these records and no others, and
// writes only what differs: a Mutation that is folded anew mostly concerns the
// same ones.
func (tx *JTx) Retouch(seq crm.Seq, keys map[RecordKey]bool) error {
	old, err := tx.Touched(seq)
	if err != nil {
		return err
	}
	for _, k := range old {
		if keys[k] {
			continue
		}
		if err := tx.untouch(k, seq); err != nil {
			return err
		}
	}
	for k := range keys {
		if tx.touches(k, seq) {
			continue
		}
		if err := tx.Touch(k, seq); err != nil {
			return err
		}
	}
	return nil
}

// touches reports whether both rows of a Touch are there.
func (tx *JTx) touches(k RecordKey, seq crm.Seq) bool {
	return tx.top(bucketTouched).has(appendRecordKey(seqKey(seq), k)) && tx.top(bucketTouch).has(append(k.bytes(), seqKey(seq)...))
}

// PendingFor yields the pending Mutations above since that concern the record, by
// Seq. The transaction must not be written meanwhile.
func (tx *JTx) PendingFor(k RecordKey, since crm.Seq) iter.Seq2[crm.Seq, error] {
	return func(yield func(crm.Seq, error) bool) {
		key := k.bytes()
		rng := keyRange{lo: append(key, seqKey(since+1)...), hi: after(key)}
		for c := newRowCursor(source{bucket: tx.top(bucketTouch)}, rng, false); c.key != nil; c.next() {
			if len(c.key) != keySize+8 {
				yield(0, tx.f.corrupt("touch", errShort))
				return
			}
			if !yield(crm.Seq(binary.BigEndian.Uint64(c.key[keySize:])), nil) {
				return
			}
		}
	}
}

// Touched returns the records that the pending Mutation seq concerns.
func (tx *JTx) Touched(seq crm.Seq) ([]RecordKey, error) {
	var out []RecordKey
	c := newRowCursor(source{bucket: tx.top(bucketTouched)}, prefixRange(seqKey(seq)), false)
	for ; c.key != nil; c.next() {
		if len(c.key) != 8+keySize {
			return nil, tx.f.corrupt("touched", errShort)
		}
		out = append(out, recordKeyAt(c.key))
	}
	return out, nil
}

// Untouch forgets what Touch noted of seq, and returns it.
func (tx *JTx) Untouch(seq crm.Seq) ([]RecordKey, error) {
	keys, err := tx.Touched(seq)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if err := tx.untouch(k, seq); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (tx *JTx) untouch(k RecordKey, seq crm.Seq) error {
	if err := tx.delete(bucketTouch, append(k.bytes(), seqKey(seq)...)); err != nil {
		return fmt.Errorf("untouch %d: %w", seq, err)
	}
	if err := tx.delete(bucketTouched, appendRecordKey(seqKey(seq), k)); err != nil {
		return fmt.Errorf("untouch %d: %w", seq, err)
	}
	return nil
}
