package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/tradepost-crm/tradepost/crm"
)

var errShort = errors.New("wrong length")

// A Tx is a transaction of the base file. It implements [crm.View] over the
// decided records. It belongs to one goroutine, and what it returns stays valid
// after it ends unless said otherwise.
type Tx struct {
	*transaction
	db     *DB
	reader Reader // of this Tx alone: answers crm.View

	schema      *crm.Schema // that every row in this transaction follows
	generation  uint64      // of schema
	schemaStale bool        // a metadata record changed since schema was built
	schemaErr   error       // why the changed metadata is no schema; Commit fails with it

	live    []liveTable
	rows    rowTable
	scratch []byte                             // of Put
	sums    map[crm.TerritoryID]*territorySums // of each territory whose digest was changed
	counts  map[crm.EntityID]uint64            // counts changed and not yet written
}

var _ crm.View = (*Tx)(nil)

// Rev returns the head of a master or the Cursor of a replica; 0 in a new file.
func (tx *Tx) Rev() (crm.Rev, error) {
	n, err := tx.number(bucketState, "rev")
	return crm.Rev(n), err
}

// SetRev sets what Rev returns.
func (tx *Tx) SetRev(rev crm.Rev) error { return tx.setNumber(bucketState, "rev", uint64(rev)) }

// Timeline returns the number of the cluster's history that Rev counts in.
func (tx *Tx) Timeline() (uint64, error) { return tx.number(bucketState, "timeline") }

// SetTimeline sets what Timeline returns.
func (tx *Tx) SetTimeline(t uint64) error { return tx.setNumber(bucketState, "timeline", t) }

// Commit makes the transaction durable. Whatever it returns, the transaction
// has ended; after an error nothing of it is in the file. The error is of code
// invalid if the metadata records form no schema, disk_full if there was no room.
func (tx *Tx) Commit() error {
	if err := tx.flush(); err != nil {
		_ = tx.Rollback()
		return err
	}
	tx.db.digests.changed(maps.Keys(tx.sums), tx.bolt.ID())
	generation, schema := tx.generation, tx.schema
	if err := tx.commit(); err != nil {
		return err
	}
	tx.db.schemas.put(generation, schema)
	return nil
}

// flush writes what the transaction holds in memory.
func (tx *Tx) flush() error {
	if !tx.Writable() {
		return tx.f.failure("commit", berrors.ErrTxNotWritable)
	}
	tx.Schema()
	return errors.Join(tx.schemaErr, tx.rows.flush(), tx.writeSums(), tx.writeCounts())
}

// Lookup returns the live record whose unique field has the value, by its
// folded form.
func (tx *Tx) Lookup(e *crm.Entity, f *crm.Field, v crm.Value) (crm.RecordID, bool, error) {
	return tx.reader.Lookup(e, f, v)
}

// Children yields the live records of c.Entity whose c.Field is parent, by id.
// The transaction must not be written meanwhile.
func (tx *Tx) Children(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	return tx.reader.Children(c, parent)
}

// Deleted yields the tombstones of c.Entity whose link c.Field is parent, by
// id. The transaction must not be written meanwhile.
func (tx *Tx) Deleted(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	return tx.reader.Deleted(c, parent)
}

// Under yields every live record whose Root is root, but not root itself, by
// entity and id. The transaction must not be written meanwhile.
func (tx *Tx) Under(root crm.RecordID) iter.Seq2[*crm.Record, error] { return tx.reader.Under(root) }

// Refused returns the attention record about the rejected creation of rec.
func (tx *Tx) Refused(rec crm.RecordID) (crm.RecordID, bool, error) {
	v, err := tx.sealed(bucketRefused, rec[:])
	if err != nil || v == nil {
		return crm.RecordID{}, false, err
	}
	if len(v) != idSize {
		return crm.RecordID{}, false, tx.f.corrupt("refused", errShort)
	}
	return crm.RecordID(v), true, nil
}

// SetRefused notes that the creation of rec was rejected, as attention tells.
func (tx *Tx) SetRefused(rec, attention crm.RecordID) error {
	return tx.putSealed(bucketRefused, rec[:], attention[:])
}

// TerritoryByCode returns the number of the territory with that code.
func (tx *Tx) TerritoryByCode(code string) (crm.TerritoryID, bool, error) {
	return tx.reader.TerritoryByCode(code)
}

// NextNumber returns the number that the next territory or node gets: one above
// the highest that any record of the kind ever had in this file.
func (tx *Tx) NextNumber(e crm.EntityID) (int64, error) {
	first, ok := firstNumber[e]
	if !ok {
		return 0, fmt.Errorf("next number: entity %d is not numbered", e)
	}
	n, err := tx.number(bucketState, nextName(e))
	return max(int64(n), first), err
}

var firstNumber = map[crm.EntityID]int64{crm.EntityTerritory: int64(crm.FirstTerritory), crm.EntityNode: 1}

var numberField = map[crm.EntityID]crm.FieldID{crm.EntityTerritory: crm.TerritoryNumber, crm.EntityNode: crm.NodeNumber}

func nextName(e crm.EntityID) string { return "next/" + string(entityKey(e)) }

// raiseNumber keeps NextNumber above the record's number.
func (tx *Tx) raiseNumber(r *crm.Record) error {
	field, ok := numberField[r.Entity]
	if !ok {
		return nil
	}
	next, err := tx.NextNumber(r.Entity)
	if n := r.Value(field).Int(); err == nil && n >= next {
		err = tx.setNumber(bucketState, nextName(r.Entity), uint64(n)+1)
	}
	return err
}

// Count returns how many live records the entity has.
func (tx *Tx) Count(e crm.EntityID) (int, error) {
	if n, ok := tx.counts[e]; ok {
		return int(n), nil
	}
	n, err := tx.storedCount(e)
	return int(n), err
}

func (tx *Tx) storedCount(e crm.EntityID) (uint64, error) {
	v := tx.get(bucketCount, entityKey(e))
	if v == nil {
		return 0, nil
	}
	if len(v) != 8 {
		return 0, tx.f.corrupt(fmt.Sprintf("count of entity %d", e), errShort)
	}
	return binary.BigEndian.Uint64(v), nil
}

func (tx *Tx) addCount(e crm.EntityID, delta int) error {
	n, err := tx.Count(e)
	if err != nil {
		return err
	}
	if tx.counts == nil {
		tx.counts = map[crm.EntityID]uint64{}
	}
	tx.counts[e] = uint64(n + delta)
	return nil
}

func (tx *Tx) writeCounts() error {
	for e, n := range tx.counts {
		if n == 0 {
			if err := tx.delete(bucketCount, entityKey(e)); err != nil {
				return err
			}
			continue
		}
		if err := tx.put(bucketCount, entityKey(e), binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
	}
	tx.counts = nil
	return nil
}
