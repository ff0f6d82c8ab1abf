package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

// The entities of these tests.
const (
	entityAccount crm.EntityID = 16
	entityDeal    crm.EntityID = 17

	accountName  crm.FieldID = 16
	accountTags  crm.FieldID = 17
	accountPhone crm.FieldID = 18
	accountCity  crm.FieldID = 19
	accountCode  crm.FieldID = 20

	dealAccount crm.FieldID = 16
	dealName    crm.FieldID = 17
	dealAmount  crm.FieldID = 18
	dealStage   crm.FieldID = 19
	dealClose   crm.FieldID = 20
)

func accountEntity() *crm.Entity {
	return &crm.Entity{ID: entityAccount, Name: "account", Label: "Account", Home: crm.HomeRoot, Title: []string{"name"}, Fields: []*crm.Field{
		{ID: accountName, Name: "name", Kind: crm.Text, Required: true, Indexed: true, Search: true},
		{ID: accountTags, Name: "tags", Kind: crm.Choices, Indexed: true},
		{ID: accountPhone, Name: "phone", Kind: crm.Phone, Search: true},
		{ID: accountCity, Name: "city", Kind: crm.Text, Search: true},
		{ID: accountCode, Name: "code", Kind: crm.Text, Unique: true},
	}}
}

func dealEntity() *crm.Entity {
	return &crm.Entity{ID: entityDeal, Name: "deal", Label: "Deal", Home: crm.HomeRoot, Parent: "account", Owned: true, Title: []string{"name"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"stage", "amount"}}},
		Fields: []*crm.Field{
			{ID: dealAccount, Name: "account", Kind: crm.Link, Target: "account"},
			{ID: dealName, Name: "name", Kind: crm.Text, Search: true},
			{ID: dealAmount, Name: "amount", Kind: crm.Decimal, Money: true, Indexed: true},
			{ID: dealStage, Name: "stage", Kind: crm.Choice},
			{ID: dealClose, Name: "close_date", Kind: crm.Date},
		}}
}

// metadata returns the records that define e.
func metadata(rev crm.Rev, e *crm.Entity) []*crm.Record {
	var out []*crm.Record
	for _, op := range crm.MetadataOps(e) {
		r := newRecord(op.Entity, op.Record, crm.Shared, rev)
		for _, c := range op.Cells {
			setCell(r, c.Field, c.Value)
		}
		out = append(out, r)
	}
	return out
}

func newRecord(e crm.EntityID, id crm.RecordID, t crm.TerritoryID, rev crm.Rev) *crm.Record {
	return &crm.Record{Entity: e, ID: id, Territory: t, Schema: 1, Entered: rev, Stamp: stampAt(rev)}
}

func stampAt(rev crm.Rev) crm.Stamp {
	return crm.Stamp{Rev: rev, HLC: crm.NewHLC(1_700_000_000_000 + int64(rev&0xffffff)), Node: 7, Seq: crm.Seq(rev), Actor: "ana"}
}

// setCell sets a field under the record's own stamp. Fields must be set in
// ascending order or be there already.
func setCell(r *crm.Record, f crm.FieldID, v crm.Value) {
	c := crm.Cell{Field: f, Value: v, Stamp: r.Stamp}
	for range v.Set() {
		c.Elems = append(c.Elems, r.Stamp)
	}
	if old := r.Cell(f); old != nil {
		*old = c
		return
	}
	r.Cells = append(r.Cells, c)
}

// recordID returns the n-th id of a sequence whose last bytes differ.
func recordID(n int) crm.RecordID {
	id := crm.RecordID{0: 1, 6: 0x70, 8: 0x80}
	id[12], id[13], id[14] = byte(n>>16), byte(n>>8), byte(n)
	id[15] = byte(n * 37)
	return id
}

func account(n int, t crm.TerritoryID, rev crm.Rev, name string) *crm.Record {
	r := newRecord(entityAccount, recordID(n), t, rev)
	r.Root = r.ID
	setCell(r, accountName, crm.TextValue(name))
	return r
}

func deal(n int, of *crm.Record, rev crm.Rev, name string, cents int64) *crm.Record {
	r := newRecord(entityDeal, recordID(n), of.Territory, rev)
	r.Root = of.ID
	setCell(r, dealAccount, crm.LinkValue(of.ID))
	setCell(r, dealName, crm.TextValue(name))
	setCell(r, dealAmount, crm.DecimalValue(cents, 2, "EUR"))
	setCell(r, dealStage, crm.ChoiceValue([]string{"open", "won", "lost"}[n%3]))
	return r
}

func openBase(t testing.TB) *DB {
	t.Helper()
	return openBaseAt(t, filepath.Join(t.TempDir(), "base.db"))
}

func openBaseAt(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(path, Options{NoSync: true, InitialMmap: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// openCatalog is openBase with the entities of these tests.
func openCatalog(t testing.TB) *DB {
	t.Helper()
	db := openBase(t)
	put(t, db, append(metadata(1, accountEntity()), metadata(1, dealEntity())...)...)
	return db
}

func openJournal(t testing.TB) *Journal {
	t.Helper()
	j, err := OpenJournal(filepath.Join(t.TempDir(), "journal.db"), Options{NoSync: true, InitialMmap: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func put(t testing.TB, db *DB, records ...*crm.Record) {
	t.Helper()
	update(t, db, func(tx *Tx) error {
		for _, r := range records {
			if err := tx.Put(r); err != nil {
				return fmt.Errorf("put %s: %w", r.ID, err)
			}
		}
		return nil
	})
}

func update(t testing.TB, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.View(fn); err != nil {
		t.Fatal(err)
	}
}

func updateJournal(t testing.TB, j *Journal, fn func(*JTx) error) {
	t.Helper()
	if err := j.Update(fn); err != nil {
		t.Fatal(err)
	}
}

// read runs fn with a Reader of both files.
func read(t testing.TB, db *DB, j *Journal, fn func(*Reader) error) {
	t.Helper()
	err := j.View(func(jtx *JTx) error {
		return db.View(func(tx *Tx) error {
			r, err := NewReader(tx, jtx)
			if err != nil {
				return err
			}
			return fn(r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkBase(t testing.TB, db *DB) {
	t.Helper()
	view(t, db, func(tx *Tx) error {
		findings, err := tx.Check(context.Background())
		for _, f := range findings {
			t.Error(f)
		}
		return err
	})
	if t.Failed() {
		t.FailNow()
	}
}

func checkJournal(t testing.TB, db *DB, j *Journal) {
	t.Helper()
	read(t, db, j, func(r *Reader) error { return nil })
	err := j.View(func(jtx *JTx) error {
		return db.View(func(tx *Tx) error {
			findings, err := jtx.Check(context.Background(), tx.Schema())
			for _, f := range findings {
				t.Error(f)
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

const maxSeq = ^crm.Seq(0)
