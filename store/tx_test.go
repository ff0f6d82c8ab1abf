package store

import (
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

func TestPutIsSeenEverywhere(t *testing.T) {
	db := openCatalog(t)
	a := account(1, 16, 2, "Häusler & Söhne")
	d := deal(2, a, 2, "First order", 150_00)
	put(t, db, a, d)
	checkBase(t, db)
	view(t, db, func(tx *Tx) error {
		if n, err := tx.Count(entityDeal); n != 1 || err != nil {
			t.Errorf("Count = %d, %v", n, err)
		}
		e := tx.Schema().Entity("deal")
		kids, err := collect(tx.Children(crm.Child{Entity: e, Field: e.Field("account")}, a.ID))
		if err != nil || len(kids) != 1 || kids[0].ID != d.ID {
			t.Errorf("Children = %v, %v", kids, err)
		}
		under, err := collect(tx.Under(a.ID))
		if err != nil || len(under) != 1 || under[0].ID != d.ID {
			t.Errorf("Under = %v, %v", under, err)
		}
		r, err := NewReader(tx, nil)
		if err != nil {
			return err
		}
		hits, err := r.Search("hausl", nil, 10)
		if err != nil || len(hits) != 1 || hits[0].Record.ID != a.ID || hits[0].Title != "Häusler & Söhne" {
			t.Errorf("Search = %v, %v", hits, err)
		}
		return nil
	})
}
