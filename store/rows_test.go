package store

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// Rows wait in memory, and whoever reads them in the same transaction must find
// them as if they did not.
func TestTx_ReadsRowsItWrote(t *testing.T) {
	db := openCatalog(t)
	one, two := account(1, 16, 2, "One"), account(2, 16, 3, "Two")
	setCell(one, accountCode, crm.TextValue("c1"))
	update(t, db, func(tx *Tx) error {
		s := tx.Schema()
		e := s.EntityByID(entityAccount)
		code := func(v string) (id crm.RecordID) {
			t.Helper()
			id, _, err := tx.Lookup(e, e.FieldByID(accountCode), crm.TextValue(v))
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		feed := func() (revs []crm.Rev) {
			for f, err := range tx.Feed(16, 0) {
				if err != nil {
					t.Fatal(err)
				}
				revs = append(revs, f.Rev)
			}
			return revs
		}
		steps := []struct {
			do   func() error
			c1   crm.RecordID
			c2   crm.RecordID
			feed []crm.Rev
		}{
			{func() error { return tx.Put(one) }, one.ID, crm.RecordID{}, []crm.Rev{2}},
			{func() error { return tx.Put(two) }, one.ID, crm.RecordID{}, []crm.Rev{2, 3}},
			{func() error {
				moved := account(1, 16, 4, "One")
				setCell(moved, accountCode, crm.TextValue("c2"))
				return tx.Put(moved)
			}, crm.RecordID{}, one.ID, []crm.Rev{3, 4}},
			{func() error { return tx.Put(one) }, one.ID, crm.RecordID{}, []crm.Rev{2, 3}},
			{func() error { _, err := tx.Drop(one.Entity, one.ID); return err }, crm.RecordID{}, crm.RecordID{}, []crm.Rev{3}},
			{func() error {
				_, err := tx.Drop(two.Entity, two.ID)
				return err
			}, crm.RecordID{}, crm.RecordID{}, nil},
			{func() error { return tx.Put(one) }, one.ID, crm.RecordID{}, []crm.Rev{2}},
		}
		for i, step := range steps {
			if err := step.do(); err != nil {
				return err
			}
			if i%2 == 1 {
				continue // two changes of a row may wait at once
			}
			if code("c1") != step.c1 || code("c2") != step.c2 {
				t.Errorf("step %d: c1 is %s and c2 is %s", i, code("c1"), code("c2"))
			}
			if diff := cmp.Diff(step.feed, feed()); diff != "" {
				t.Errorf("step %d: feed: -want +got\n%s", i, diff)
			}
		}
		findings, err := tx.Check(context.Background())
		for _, f := range findings {
			t.Error(f)
		}
		return err
	})
	checkBase(t, db)
}

// Many rows of one bucket in one transaction, in no order, and most of them
// twice: the last change counts.
func TestTx_LastChangeOfARowCounts(t *testing.T) {
	db := openCatalog(t)
	update(t, db, func(tx *Tx) error {
		for n := range 3 * bulk {
			k := n * 7919 % bulk
			if err := tx.Put(account(k, 16, crm.Rev(2+n), fmt.Sprintf("Account %d of round %d", k, n/bulk))); err != nil {
				return err
			}
		}
		return nil
	})
	checkBase(t, db)
	read(t, db, openJournal(t), func(r *Reader) error {
		hits, err := r.Search("account 4000", nil, 10)
		if len(hits) != 1 || hits[0].Title != "Account 4000 of round 2" {
			t.Errorf("%+v", hits)
		}
		return err
	})
}

// A Reader over a writable journal stays true while the journal is written.
func TestReader_FollowsOverlay(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	base := account(1, 16, 2, "Base")
	put(t, db, base, deal(10, base, 2, "Old deal", 100))
	updateJournal(t, j, func(jtx *JTx) error {
		return db.View(func(tx *Tx) error {
			r, err := NewReader(tx, jtx)
			if err != nil {
				return err
			}
			s := tx.Schema()
			e := s.EntityByID(entityDeal)
			q := query.List{Entity: e}
			if q.Where, err = query.Parse(s, e, `account.name == "Base" || account.name == "Renamed"`); err != nil {
				return err
			}
			names := func() (out []string) {
				t.Helper()
				p, err := r.List(q)
				if err != nil {
					t.Fatal(err)
				}
				n, err := r.Count(entityDeal)
				if err != nil || n != len(p.Records) {
					t.Errorf("count %d of %d: %v", n, len(p.Records), err)
				}
				for _, rec := range p.Records {
					far, _ := r.Title(entityAccount, rec.Value(dealAccount).Link())
					out = append(out, rec.Value(dealName).Str()+" of "+far)
				}
				slices.Sort(out)
				return out
			}
			want := func(want ...string) {
				t.Helper()
				if diff := cmp.Diff(want, names()); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			}
			want("Old deal of Base")
			if err := jtx.PutOverlay(s, deal(11, base, crm.Pending, "New deal", 50)); err != nil {
				return err
			}
			want("New deal of Base", "Old deal of Base")
			if err := jtx.PutOverlay(s, account(1, 16, crm.Pending, "Renamed")); err != nil {
				return err
			}
			want("New deal of Renamed", "Old deal of Renamed")
			gone := deal(10, base, crm.Pending, "Old deal", 100)
			gone.Deleted = true
			if err := jtx.PutOverlay(s, gone); err != nil {
				return err
			}
			want("New deal of Renamed")
			for _, k := range []RecordKey{{entityDeal, gone.ID}, {entityAccount, base.ID}, {entityDeal, recordID(11)}} {
				if err := jtx.DropOverlay(s, k.Entity, k.ID); err != nil {
					return err
				}
			}
			want("Old deal of Base")
			return nil
		})
	})
	checkJournal(t, db, j)
}
