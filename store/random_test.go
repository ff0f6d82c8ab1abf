package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tradepost-crm/tradepost/crm"
)

// A model is what the base should hold, kept the obvious way.
type model struct {
	records map[RecordKey]*crm.Record
	left    map[mark]bool
	rev     crm.Rev
}

type mark struct {
	territory crm.TerritoryID
	entry     FeedEntry
}

func newModel() *model {
	return &model{map[RecordKey]*crm.Record{}, map[mark]bool{}, 1}
}

func (m *model) put(r *crm.Record) {
	k := RecordKey{r.Entity, r.ID}
	if old := m.records[k]; old != nil && old.Territory != r.Territory {
		m.left[mark{old.Territory, FeedEntry{r.Stamp.Rev, k.Entity, k.ID, true}}] = true
		delete(m.left, mark{r.Territory, FeedEntry{r.Stamp.Rev, k.Entity, k.ID, true}})
	}
	m.records[k] = r
}

func (m *model) feed(t crm.TerritoryID, since crm.Rev) []FeedEntry {
	var out []FeedEntry
	for k, r := range m.records {
		if r.Territory == t && r.Stamp.Rev > since {
			out = append(out, FeedEntry{r.Stamp.Rev, k.Entity, k.ID, false})
		}
	}
	for at := range m.left {
		if at.territory == t && at.entry.Rev > since {
			out = append(out, at.entry)
		}
	}
	slices.SortFunc(out, func(a, b FeedEntry) int {
		return slices.Compare(feedKey(0, a.Rev, RecordKey{a.Entity, a.ID}), feedKey(0, b.Rev, RecordKey{b.Entity, b.ID}))
	})
	return out
}

func (m *model) drop(k RecordKey) bool {
	_, ok := m.records[k]
	delete(m.records, k)
	return ok
}

func (m *model) dropTerritory(t crm.TerritoryID) int {
	n := len(m.records)
	maps.DeleteFunc(m.records, func(_ RecordKey, r *crm.Record) bool { return r.Territory == t })
	maps.DeleteFunc(m.left, func(at mark, _ bool) bool { return at.territory == t })
	return n - len(m.records)
}

func (m *model) trim(rev crm.Rev) int {
	n := len(m.records) + len(m.left)
	maps.DeleteFunc(m.records, func(_ RecordKey, r *crm.Record) bool { return r.Deleted && r.Stamp.Rev <= rev })
	maps.DeleteFunc(m.left, func(at mark, _ bool) bool { return at.entry.Rev <= rev })
	return n - len(m.records) - len(m.left)
}

var names = []string{"Häusler", "hausler & Co", "Łódź Steel", "Zebra", "apple", "Apple Inc", "Ångström", "", "The Long Name Company of Somewhere"}

// randomRecord makes a record like a master might: any entity, state and place.
func randomRecord(rnd *rand.Rand, rev crm.Rev, n int) *crm.Record {
	t := crm.TerritoryID(16 + rnd.IntN(3))
	a := account(rnd.IntN(n), t, rev, names[rnd.IntN(len(names))])
	if rnd.IntN(3) > 0 {
		d := deal(n+rnd.IntN(n), a, rev, names[rnd.IntN(len(names))], rnd.Int64N(2000)-1000)
		if rnd.IntN(4) == 0 {
			setCell(d, dealAmount, crm.Value{})
		}
		d.Deleted = rnd.IntN(5) == 0
		return d
	}
	if rnd.IntN(2) == 0 {
		setCell(a, accountTags, crm.ChoicesValue([]string{"vip", "new", "old"}[rnd.IntN(3):]...))
	}
	if rnd.IntN(2) == 0 {
		setCell(a, accountPhone, crm.PhoneValue(fmt.Sprintf("+49 30 %07d", rnd.IntN(1000))))
	}
	a.Deleted = rnd.IntN(5) == 0
	return a
}

// TestRandomChanges applies random changes to a file and to a model and
// compares them after each one, then rebuilds the file in another order and
// compares the digests.
func TestRandomChanges(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			db, m := openCatalog(t), newModel()
			view(t, db, func(tx *Tx) error {
				for _, e := range []crm.EntityID{crm.EntityEntity, crm.EntityField} {
					for r, err := range tx.Scan(e) {
						if err != nil {
							return err
						}
						m.put(r)
					}
				}
				return nil
			})
			for range 120 {
				update(t, db, func(tx *Tx) error { return randomChange(t, rnd, tx, m) })
				compare(t, db, m)
			}
			compareRebuilt(t, rnd, db, m)
		})
	}
}

func randomChange(t *testing.T, rnd *rand.Rand, tx *Tx, m *model) error {
	m.rev++
	territory := crm.TerritoryID(16 + rnd.IntN(3))
	switch rnd.IntN(20) {
	case 0:
		want := m.dropTerritory(territory)
		n, err := tx.DropTerritory(territory)
		if n != want {
			t.Errorf("DropTerritory = %d, want %d", n, want)
		}
		return err
	case 1:
		rev := m.rev - crm.Rev(rnd.IntN(20))
		want := m.trim(rev)
		n, err := tx.TrimBelow(rev)
		if n != want {
			t.Errorf("TrimBelow(%d) = %d, want %d", rev, n, want)
		}
		return err
	case 2:
		k := RecordKey{entityDeal, recordID(20 + rnd.IntN(20))}
		want := m.drop(k)
		ok, err := tx.Drop(k.Entity, k.ID)
		if ok != want {
			t.Errorf("Drop(%s) = %v, want %v", k, ok, want)
		}
		return err
	}
	for range 1 + rnd.IntN(4) {
		r := randomRecord(rnd, m.rev, 20)
		m.put(r)
		if err := tx.Put(r); err != nil {
			return err
		}
	}
	return nil
}

func compare(t *testing.T, db *DB, m *model) {
	t.Helper()
	checkBase(t, db)
	view(t, db, func(tx *Tx) error {
		live := map[crm.EntityID]int{}
		territories := map[crm.TerritoryID]bool{}
		for k, want := range m.records {
			got, err := tx.Record(k.Entity, k.ID)
			if err != nil || got == nil || string(crm.AppendRecord(nil, got)) != string(crm.AppendRecord(nil, want)) {
				t.Fatalf("%s: %v, %v, want %v", k, got, err, want)
			}
			live[k.Entity] += present(want)
			territories[want.Territory] = true
		}
		for _, e := range []crm.EntityID{entityAccount, entityDeal} {
			if n, err := tx.Count(e); n != live[e] || err != nil {
				t.Errorf("Count(%d) = %d, %v, want %d", e, n, err, live[e])
			}
		}
		if got, want := slices.Collect(tx.Territories()), slices.Sorted(maps.Keys(territories)); !slices.Equal(got, want) {
			t.Errorf("Territories = %v, want %v", got, want)
		}
		for _, territory := range []crm.TerritoryID{crm.Shared, 16, 17, 18, 19} {
			for _, since := range []crm.Rev{0, m.rev / 2, m.rev} {
				got, err := collect(tx.Feed(territory, since))
				if diff := cmp.Diff(m.feed(territory, since), got); diff != "" || err != nil {
					t.Fatalf("Feed(%d, %d): %v %s", territory, since, err, diff)
				}
			}
		}
		return nil
	})
}

// compareRebuilt puts the model's records into a new file in random order, some
// of them over an older state: equal records, equal digests.
func compareRebuilt(t *testing.T, rnd *rand.Rand, db *DB, m *model) {
	t.Helper()
	other := openBaseAt(t, filepath.Join(t.TempDir(), "other.db"))
	records := slices.Collect(maps.Values(m.records))
	rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	var all []*crm.Record
	for _, r := range records {
		if rnd.IntN(3) == 0 {
			older := r.Clone()
			older.Territory = 19
			older.Stamp.Rev--
			all = append(all, older)
		}
		all = append(all, r)
	}
	put(t, other, all...)
	checkBase(t, other)
	view(t, db, func(tx *Tx) error {
		return other.View(func(tx2 *Tx) error {
			for _, territory := range []crm.TerritoryID{crm.Shared, 16, 17, 18, 19} {
				a, err := tx.Digest(territory)
				if err != nil {
					return err
				}
				b, err := tx2.Digest(territory)
				if a != b || err != nil {
					t.Errorf("digest of %d: %x, rebuilt %x, %v", territory, a, b, err)
				}
			}
			return nil
		})
	})
}

// TestDigestTellsEachChange changes one record in each way a digest must see.
func TestDigestTellsEachChange(t *testing.T) {
	db := openCatalog(t)
	digest := func() (d Digest) {
		view(t, db, func(tx *Tx) (err error) { d, err = tx.Digest(16); return err })
		return d
	}
	seen := map[Digest]string{digest(): "empty"}
	if empty := (&[DigestBuckets]Bucket{}); DigestOf(empty) != digest() {
		t.Error("an empty territory has not the digest of empty buckets")
	}
	step := func(what string, r *crm.Record, again string) {
		put(t, db, r)
		d := digest()
		if was, ok := seen[d]; ok && was != again || !ok && again != "" {
			t.Errorf("%s: digest is that of %q, want %q", what, was, again)
		}
		seen[d] = what
	}
	step("a record", account(1, 16, 2, "A"), "")
	step("another", account(2, 16, 3, "A"), "")
	step("a value", account(2, 16, 3, "B"), "")
	step("a rev", account(2, 16, 4, "B"), "")
	gone := account(2, 16, 5, "B")
	gone.Deleted = true
	step("a deletion", gone, "a record")
	step("a move away", account(1, 17, 6, "A"), "empty")

	if err := db.View(func(tx *Tx) error {
		before, err := tx.Digest(17)
		if err != nil {
			return err
		}
		put(t, db, account(3, 17, 7, "C")) // a later commit must not reach this snapshot
		after, err := tx.Digest(17)
		if before != after {
			t.Error("a snapshot's digest changed")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *Tx) error {
		before, err := tx.Digest(17)
		if err != nil {
			return err
		}
		if err := tx.Put(account(4, 17, 8, "D")); err != nil {
			return err
		}
		after, err := tx.Digest(17)
		if before == after {
			t.Error("a writable transaction does not see its own change")
		}
		return err
	})
}
