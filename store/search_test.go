package store

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

func TestSearchRanks(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	with := func(n int, name, city, phone string) *crm.Record {
		r := account(n, 16, 2, name)
		setCell(r, accountPhone, crm.PhoneValue(phone))
		setCell(r, accountCity, crm.TextValue(city))
		return r
	}
	put(t, db,
		with(1, "Stahlwerk Łódź", "Łódź", "+48 42 555 0101"),
		with(2, "Lodzkie Mleko", "Warszawa", ""),
		with(3, "Bakery", "Lodz", ""),
		with(4, "Other", "Lodzwest", ""),
		with(5, "Hidden Lodz", "", ""),
	)
	var schema *crm.Schema
	view(t, db, func(tx *Tx) error { schema = tx.Schema(); return nil })
	hidden := with(5, "Hidden Lodz", "", "")
	hidden.Deleted = true
	updateJournal(t, j, func(tx *JTx) error {
		if err := tx.PutOverlay(schema, with(6, "New Lodz", "", "")); err != nil {
			return err
		}
		return tx.PutOverlay(schema, hidden)
	})
	for text, want := range map[string][]int{
		"lodz":        {6, 1, 2, 3, 4},
		"ŁÓDZ  stahl": {1},
		"lodz mleko":  {2},
		"4842555":     {1},
		"555 0101":    {1},
		"bake":        {3},
		"nothing":     nil,
		"lodz zzz":    nil,
		" !":          nil,
	} {
		for _, follows := range []bool{true, false} {
			read(t, db, j, func(r *Reader) error {
				if !follows {
					unfollow(t, r)
				}
				hits, err := r.Search(text, nil, 10)
				var got []int
				for _, h := range hits {
					got = append(got, int(h.Record.ID[14]))
				}
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%q: %v, %v, want %v", text, got, err, want)
				}
				return nil
			})
		}
	}
	read(t, db, j, func(r *Reader) error {
		if hits, err := r.Search("lodz", []*crm.Entity{r.Schema().Entity("deal")}, 10); len(hits) != 0 || err != nil {
			t.Errorf("among deals: %v, %v", hits, err)
		}
		if hits, err := r.Search("lodz", nil, 2); len(hits) != 2 || err != nil {
			t.Errorf("limit 2: %v, %v", hits, err)
		}
		return nil
	})
}

// TestSearchAgainstModel compares searches of one to three words with looking
// into every record.
func TestSearchAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	vocabulary := []string{"acme", "ac", "steel", "steelworks", "berlin", "bern", "ltd", "łódź", "lod"}
	phrase := func(n int) (s string) {
		for range n {
			s += vocabulary[rnd.IntN(len(vocabulary))] + " "
		}
		return s
	}
	db := openCatalog(t)
	var all []*crm.Record
	for n := range 700 {
		r := account(n, 16, 2, phrase(2))
		setCell(r, accountCity, crm.TextValue(phrase(1)))
		all = append(all, r)
	}
	put(t, db, all...)
	view(t, db, func(tx *Tx) error {
		for range 60 {
			r, err := NewReader(tx, nil)
			if err != nil {
				return err
			}
			text := phrase(1 + rnd.IntN(3))
			if rnd.IntN(2) == 0 {
				text = text[:len(text)-2]
			}
			hits, err := r.Search(text, nil, len(all))
			if err != nil {
				return err
			}
			got := map[crm.RecordID]int{}
			for i, h := range hits {
				if got[h.Record.ID] = h.Score; i > 0 && hits[i-1].Score < h.Score {
					t.Errorf("%q: hits are not in order", text)
				}
			}
			if want := naiveSearch(all, text); !maps.Equal(got, want) {
				t.Fatalf("%q: %d hits, want %d", text, len(got), len(want))
			}
		}
		return nil
	})
}

func naiveSearch(all []*crm.Record, text string) map[crm.RecordID]int {
	out := map[crm.RecordID]int{}
	for _, r := range all {
		title, city := crm.Words(r.Value(accountName).Str()), crm.Words(r.Value(accountCity).Str())
		sum := 0
		for _, w := range crm.Words(text) {
			best := 0
			for _, have := range title {
				if strings.HasPrefix(have, w) {
					best = max(best, score(true, have == w))
				}
			}
			for _, have := range city {
				if strings.HasPrefix(have, w) && !slices.Contains(title, have) {
					best = max(best, score(false, have == w))
				}
			}
			if best == 0 {
				sum = 0
				break
			}
			sum += best
		}
		if sum > 0 {
			out[r.ID] = sum
		}
	}
	return out
}
