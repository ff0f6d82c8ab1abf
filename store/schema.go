package store

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// Schema returns the live schema. In a writable transaction it takes in the
// metadata records changed so far and rebuilds the rows whose definition they
// change, which costs time in proportion to the records concerned. If the
// metadata does not form a schema the one before stands and Commit will fail.
func (tx *Tx) Schema() *crm.Schema {
	if tx.schemaStale {
		tx.schemaStale = false
		tx.schemaErr = tx.reloadSchema()
	}
	return tx.schema
}

// SchemaErr returns why the metadata as changed in this transaction cannot be
// committed, nil if it can.
func (tx *Tx) SchemaErr() error {
	tx.Schema()
	return tx.schemaErr
}

func (tx *Tx) metadataChanged(e crm.EntityID) {
	if e == crm.EntityEntity || e == crm.EntityField {
		tx.schemaStale = true
	}
}

// loadSchema sets the schema of a transaction that begins.
func (tx *Tx) loadSchema() (err error) {
	tx.rows = rowTable{t: tx.transaction}
	if tx.generation, err = tx.number(bucketState, "schema"); err != nil {
		return err
	}
	if tx.schema = tx.db.schemas.get(tx.generation); tx.schema != nil {
		return nil
	}
	if tx.schema, err = tx.buildSchema(); err != nil {
		return err
	}
	if !tx.Writable() {
		tx.db.schemas.put(tx.generation, tx.schema)
	}
	return nil
}

func (tx *Tx) buildSchema() (*crm.Schema, error) {
	entities, err := collect(tx.Scan(crm.EntityEntity))
	if err != nil {
		return nil, err
	}
	fields, err := collect(tx.Scan(crm.EntityField))
	if err != nil {
		return nil, err
	}
	s, err := crm.SchemaOf(entities, fields)
	if err != nil {
		return nil, &crm.Error{Code: crm.CodeInvalid, Op: "build schema", Item: tx.f.path, Message: "the metadata records do not form a schema", Err: err}
	}
	return s, nil
}

func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var out []T
	for v, err := range seq {
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (tx *Tx) reloadSchema() error {
	now, err := tx.buildSchema()
	if err != nil {
		return err
	}
	old := tx.schema
	for _, e := range now.Entities {
		if err := tx.reindex(e.ID, old.EntityByID(e.ID), e); err != nil {
			return err
		}
	}
	for _, e := range old.Entities {
		if now.EntityByID(e.ID) == nil {
			if err := tx.reindex(e.ID, e, nil); err != nil {
				return err
			}
		}
	}
	tx.schema = now
	tx.generation++
	if err := tx.setNumber(bucketState, "schema", tx.generation); err != nil {
		return err
	}
	return tx.setNumber(bucketState, "layout", rowLayout(now))
}

// reindex rewrites the rows of the entity's records from one definition to
// another, either of which may be nil.
func (tx *Tx) reindex(id crm.EntityID, old, now *crm.Entity) error {
	if entityLayout(old) == entityLayout(now) {
		return nil
	}
	for r, err := range tx.every(id) {
		if err != nil {
			return err
		}
		if err := tx.rows.replace(id, old, r, now, r); err != nil {
			return err
		}
	}
	return nil
}

// replaceRows keeps the rows of one record right. Either may be nil.
func (tx *Tx) replaceRows(old, now *crm.Record) error {
	id := crm.EntityID(0)
	if now != nil {
		id = now.Entity
	} else {
		id = old.Entity
	}
	e := tx.schema.EntityByID(id)
	return tx.rows.replace(id, e, old, e, now)
}

// entityLayout spells what of a definition decides which rows a record has.
func entityLayout(e *crm.Entity) string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	for _, x := range e.Indexes {
		fmt.Fprintf(&b, "index %d", x.ID)
		for _, name := range x.Fields {
			fmt.Fprintf(&b, " %d:%s", e.Field(name).ID, e.Field(name).Kind)
		}
	}
	for _, f := range e.Fields {
		if f.Search {
			fmt.Fprintf(&b, " search %d", f.ID)
		}
	}
	for _, name := range e.Title {
		fmt.Fprintf(&b, " title %d", e.Field(name).ID)
	}
	return b.String()
}

// rowVersion numbers the derivation of rows in rows.go together with the keys
// and words of package crm. Raise it when they change: files then rebuild their
// rows when they are opened. History: 1, the first.
const rowVersion = 1

// rowLayout is a fingerprint of all that decides which rows a file has.
func rowLayout(s *crm.Schema) uint64 {
	h := fnv.New64a()
	binary.Write(h, binary.BigEndian, uint32(rowVersion))
	for _, e := range s.Entities {
		fmt.Fprintf(h, "%d %s\n", e.ID, entityLayout(e))
	}
	return h.Sum64()
}

// upgradeRows rebuilds all rows if another version of the program, with other
// indexes on the entities built into it, wrote the file.
func (db *DB) upgradeRows() error {
	follow := false
	err := db.View(func(tx *Tx) (err error) { follow, err = tx.rowsFollow(); return err })
	if err != nil || follow {
		return err
	}
	return db.Update(func(tx *Tx) error {
		if err := tx.rows.clear(); err != nil {
			return err
		}
		for _, e := range tx.entities() {
			for r, err := range tx.every(e) {
				if err != nil {
					return err
				}
				if err := tx.rows.replace(e, nil, nil, tx.schema.EntityByID(e), r); err != nil {
					return err
				}
			}
		}
		return tx.setNumber(bucketState, "layout", rowLayout(tx.schema))
	})
}

// rowsFollow reports whether the rows are those that this version of the program
// derives from the schema.
func (tx *Tx) rowsFollow() (bool, error) {
	layout, err := tx.number(bucketState, "layout")
	return err == nil && layout == rowLayout(tx.schema), err
}

// entities returns the ids of the entities that have, or had, records.
func (tx *Tx) entities() []crm.EntityID {
	seen := map[crm.EntityID]bool{}
	for _, b := range []bucket{bucketLive, bucketDead} {
		c := tx.top(b).Cursor()
		for k, _ := c.Seek(nil); len(k) >= 2; {
			e := crm.EntityID(binary.BigEndian.Uint16(k))
			seen[e] = true
			next := after(entityKey(e))
			if next == nil {
				break
			}
			k, _ = c.Seek(next)
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// every yields the live records of the entity and then its tombstones.
func (tx *Tx) every(e crm.EntityID) iter.Seq2[*crm.Record, error] {
	return func(yield func(*crm.Record, error) bool) {
		for r, err := range tx.Scan(e) {
			if !yield(r, err) || err != nil {
				return
			}
		}
		c := newRowCursor(source{bucket: tx.top(bucketDead)}, prefixRange(entityKey(e)), false)
		for ; len(c.key) == keySize; c.next() {
			s, err := tx.decode(recordKeyAt(c.key), c.value, true)
			if !yield(s.record, err) || err != nil {
				return
			}
		}
	}
}
