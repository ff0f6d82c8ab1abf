package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

// TestSchemaChangeRebuildsRows defines an entity after its records arrived, then
// adds indexes, then takes them away.
func TestSchemaChangeRebuildsRows(t *testing.T) {
	db := openBase(t)
	a := account(1, 16, 2, "Häusler")
	d := deal(2, a, 2, "First", 100)
	dead := deal(3, a, 2, "Dead", 100)
	dead.Deleted = true
	put(t, db, a, d, dead) // of entities not defined yet
	checkBase(t, db)
	search := func(text string, want int) {
		t.Helper()
		checkBase(t, db)
		view(t, db, func(tx *Tx) error {
			r, err := NewReader(tx, nil)
			if err != nil {
				return err
			}
			hits, err := r.Search(text, nil, 10)
			if len(hits) != want {
				t.Errorf("%q: %d hits, want %d", text, len(hits), want)
			}
			return err
		})
	}
	search("hausler", 0)
	put(t, db, append(metadata(3, accountEntity()), metadata(3, dealEntity())...)...)
	search("hausler", 1)
	view(t, db, func(tx *Tx) error {
		e := tx.Schema().Entity("deal")
		tombs, err := collect(tx.Deleted(crm.Child{Entity: e, Field: e.Field("account")}, a.ID))
		if len(tombs) != 1 || err != nil {
			t.Errorf("Deleted = %v, %v", tombs, err)
		}
		return nil
	})

	changed := accountEntity()
	changed.Fields[0].Search, changed.Fields[3].Indexed = false, true
	changed.Indexes = []crm.Index{{ID: 4, Fields: []string{"city", "name"}}}
	put(t, db, metadata(4, changed)...)
	search("hausler", 0)
	view(t, db, func(tx *Tx) error {
		if x := indexOn(tx.Schema().Entity("account"), tx.Schema().Entity("account").Field("city")); x == nil {
			t.Error("the city is not indexed")
		}
		return nil
	})
	put(t, db, metadata(5, accountEntity())...)
	search("hausler", 1)
}

// TestSchemaWithinTransaction sees a change at once, and none of it after a
// rollback.
func TestSchemaWithinTransaction(t *testing.T) {
	db := openBase(t)
	undone := errors.New("undone")
	err := db.Update(func(tx *Tx) error {
		for _, r := range metadata(2, accountEntity()) {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		if tx.Schema().Entity("account") == nil || tx.Schema().Version != 2 {
			t.Error("the transaction does not see its own schema")
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatal(err)
	}
	view(t, db, func(tx *Tx) error {
		if tx.Schema().Entity("account") != nil {
			t.Error("a schema outlived its rollback")
		}
		return nil
	})
	err = db.Update(func(tx *Tx) error {
		if err := tx.Put(metadata(2, accountEntity())[1]); err != nil { // a field without its entity
			return err
		}
		if tx.SchemaErr() == nil {
			t.Error("SchemaErr is nil")
		}
		return nil
	})
	if crm.CodeOf(err) != crm.CodeInvalid {
		t.Errorf("Commit of metadata that is no schema: %v", err)
	}
	checkBase(t, db)
}

// TestUpgradeRebuildsRows opens a file whose rows another version wrote.
func TestUpgradeRebuildsRows(t *testing.T) {
	path := smallBase(t)
	db := openBaseAt(t, path)
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.empty(bucketWords), tx.empty(bucketIndex), tx.setNumber(bucketState, "layout", 1))
	})
	db.Close()
	checkBase(t, openBaseAt(t, path))
}

func TestNumbersAndCodes(t *testing.T) {
	db := openBase(t)
	next := func(e crm.EntityID, want int64) {
		t.Helper()
		view(t, db, func(tx *Tx) error {
			if n, err := tx.NextNumber(e); n != want || err != nil {
				t.Errorf("NextNumber(%d) = %d, %v, want %d", e, n, err, want)
			}
			return nil
		})
	}
	next(crm.EntityTerritory, int64(crm.FirstTerritory))
	next(crm.EntityNode, 1)
	territory := func(n int, number int64) *crm.Record {
		r := newRecord(crm.EntityTerritory, recordID(n), crm.Shared, crm.Rev(n))
		setCell(r, crm.TerritoryCode, crm.TextValue(fmt.Sprintf("DE-%d", number)))
		setCell(r, crm.TerritoryName, crm.TextValue("Germany"))
		setCell(r, crm.TerritoryNumber, crm.IntegerValue(number))
		return r
	}
	put(t, db, territory(1, 16), territory(2, 40), territory(3, 17))
	next(crm.EntityTerritory, 41)
	update(t, db, func(tx *Tx) error { _, err := tx.Drop(crm.EntityTerritory, recordID(2)); return err })
	next(crm.EntityTerritory, 41) // numbers are never given twice
	view(t, db, func(tx *Tx) error {
		for code, want := range map[string]crm.TerritoryID{"DE-16": 16, "de-17": 17, "DE-40": 0, "DE-1": 0, "shared": crm.Shared, "headoffice": crm.HeadOffice, "": 0} {
			got, ok, err := tx.TerritoryByCode(code)
			if got != want || ok != (want != 0) || err != nil {
				t.Errorf("TerritoryByCode(%q) = %d, %v, %v, want %d", code, got, ok, err, want)
			}
		}
		if _, err := tx.NextNumber(entityAccount); err == nil {
			t.Error("accounts have numbers")
		}
		return nil
	})
}

// TestLookup finds unique values by their folded form, long ones too.
func TestLookup(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	long := func(end string) string {
		s := "x"
		for len(s) < 120 {
			s += "yz"
		}
		return s + end
	}
	codes := []string{"Häusler-1", long("a"), long("b"), "taken"}
	var all []*crm.Record
	for n, code := range codes {
		r := account(n, 16, 2, "A")
		setCell(r, accountCode, crm.TextValue(code))
		all = append(all, r)
	}
	put(t, db, all...)
	moved := account(3, 16, crm.Pending, "A")
	setCell(moved, accountCode, crm.TextValue("moved"))
	updateJournal(t, j, func(tx *JTx) error {
		var s *crm.Schema
		view(t, db, func(tx *Tx) error { s = tx.Schema(); return nil })
		return tx.PutOverlay(s, moved)
	})
	read(t, db, j, func(r *Reader) error {
		e := r.Schema().Entity("account")
		for code, want := range map[string]int{"hausler-1": 0, "HÄUSLER-1": 0, long("b"): 2, long("a"): 1, long("c"): -1, "taken": -1, "moved": 3, "": -1} {
			id, ok, err := r.Lookup(e, e.Field("code"), crm.TextValue(code))
			if err != nil || ok != (want >= 0) || ok && id != recordID(want) {
				t.Errorf("Lookup(%.20q) = %v, %v, %v, want %d", code, id, ok, err, want)
			}
		}
		if _, _, err := r.Lookup(e, e.Field("city"), crm.TextValue("x")); err == nil {
			t.Error("Lookup by a field without an index succeeded")
		}
		if title, err := r.Title(entityAccount, recordID(3)); title != "A" || err != nil {
			t.Errorf("Title = %q, %v", title, err)
		}
		return nil
	})
}
