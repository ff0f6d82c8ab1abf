package store

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// richDeal is a deal with nulls, accents, decimals of two scales and currencies.
func richDeal(rnd *rand.Rand, n int, accounts []*crm.Record, rev crm.Rev) *crm.Record {
	d := newRecord(entityDeal, recordID(n), 16, rev)
	if rnd.IntN(5) > 0 {
		a := accounts[rnd.IntN(len(accounts))]
		d.Root = a.ID
		setCell(d, dealAccount, crm.LinkValue(a.ID))
	}
	setCell(d, dealName, crm.TextValue(names[rnd.IntN(len(names))]))
	switch rnd.IntN(5) {
	case 0:
		setCell(d, dealAmount, crm.Value{})
	case 1:
		setCell(d, dealAmount, crm.DecimalValue(rnd.Int64N(40)-20, 0, "USD"))
	case 2:
		setCell(d, dealAmount, crm.DecimalValue(rnd.Int64N(40)-20, 1, "EUR"))
	default:
		setCell(d, dealAmount, crm.DecimalValue((rnd.Int64N(40)-20)*10, 2, "EUR"))
	}
	if s := []string{"", "open", "won", "lost"}[rnd.IntN(4)]; s != "" {
		setCell(d, dealStage, crm.ChoiceValue(s))
	}
	if rnd.IntN(3) > 0 {
		setCell(d, dealClose, crm.DateDays(rnd.Int64N(9)-4))
	}
	return d
}

// A listWorld is a base and a journal with random records, and what a Reader
// of both should see.
type listWorld struct {
	db      *DB
	journal *Journal
	seen    map[crm.EntityID]map[crm.RecordID]*crm.Record
}

func newListWorld(t *testing.T, rnd *rand.Rand, overlaid bool) *listWorld {
	w := &listWorld{openCatalog(t), openJournal(t), map[crm.EntityID]map[crm.RecordID]*crm.Record{entityAccount: {}, entityDeal: {}}}
	var accounts, all []*crm.Record
	for n := range 8 {
		a := account(n, 16, 2, names[n%len(names)])
		setCell(a, accountTags, crm.ChoicesValue([]string{"new", "old", "vip"}[n%3:]...))
		accounts = append(accounts, a)
	}
	all = append(all, accounts...)
	for n := range 120 {
		all = append(all, richDeal(rnd, 100+n, accounts, 3))
	}
	put(t, w.db, all...)
	for _, r := range all {
		w.seen[r.Entity][r.ID] = r
	}
	if overlaid {
		w.edit(t, rnd, accounts)
	}
	return w
}

// edit puts changed, new and deleted records into the overlay.
func (w *listWorld) edit(t *testing.T, rnd *rand.Rand, accounts []*crm.Record) {
	var schema *crm.Schema
	view(t, w.db, func(tx *Tx) error { schema = tx.Schema(); return nil })
	updateJournal(t, w.journal, func(tx *JTx) error {
		for range 60 {
			r := richDeal(rnd, 100+rnd.IntN(160), accounts, crm.Pending)
			if rnd.IntN(10) == 0 {
				r = account(rnd.IntN(8), 16, crm.Pending, names[rnd.IntN(len(names))])
			}
			r.Deleted = rnd.IntN(6) == 0
			w.seen[r.Entity][r.ID] = r
			if err := tx.PutOverlay(schema, r); err != nil {
				return err
			}
		}
		return nil
	})
	checkJournal(t, w.db, w.journal)
}

// unfollow makes r read as if the overlay's rows were of another schema.
func unfollow(t *testing.T, r *Reader) {
	t.Helper()
	if r.over != nil {
		if err := r.makeRows(); err != nil {
			t.Fatal(err)
		}
	}
}

// want returns the matching records in order, the obvious way.
func (w *listWorld) want(q query.List) []*crm.Record {
	var out []*crm.Record
	for _, r := range w.seen[q.Entity.ID] {
		if !r.Deleted && q.Where.Match(func(p *query.Path) crm.Value {
			if p.Link == nil {
				return p.Value(r)
			}
			far := w.seen[p.Entity.ID][r.Value(p.Link.ID).Link()]
			if far == nil || far.Deleted {
				return crm.Value{}
			}
			return p.Value(far)
		}) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *crm.Record) int {
		desc := false
		for _, k := range q.Sort {
			desc = k.Desc
			if c := plainCompare(a.Value(k.Field.ID), b.Value(k.Field.ID)); c != 0 {
				return turned(c, desc)
			}
		}
		return turned(bytes.Compare(a.ID[:], b.ID[:]), desc)
	})
	return out
}

func turned(c int, desc bool) int {
	if desc {
		return -c
	}
	return c
}

// plainCompare orders values as lists do: text by its folded form alone.
func plainCompare(a, b crm.Value) int {
	if a.Kind() == crm.Text && b.Kind() == crm.Text {
		return cmp.Compare(crm.FoldText(a.Str()), crm.FoldText(b.Str()))
	}
	return crm.Compare(a, b)
}

var filters = []string{
	"", "", `stage == "won"`, `stage in ["won", "lost", "won"]`, `stage == "open" && amount > "1 EUR"`, `amount >= 0`, `amount < "0 EUR"`,
	`amount <= "1.5 EUR" && amount > "-1 EUR"`, `name == "HAUSLER"`, `name.startsWith("ap")`, `close_date >= date("1970-01-01")`,
	`account.name.startsWith("a")`, `has(account) && account.name != "zebra"`, `stage != "won"`, `amount == null`,
	`stage == "won" || amount > "1 EUR"`, `!(stage == "won")`, `"vip" in account.tags`, `stage == "nothing"`,
}

var sorts = []string{"", "", "amount", "-amount", "stage,amount", "-stage,-amount", "stage,-amount", "name,-close_date", "-name", "close_date", "-id", "stage,id",
	"-created_at", "account,amount", "-stage,amount,-id"}

// TestListAgainstSortedSlice pages through random lists over base and overlay
// and compares with filtering and sorting everything.
func TestListAgainstSortedSlice(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			w := newListWorld(t, rnd, seed > 0)
			read(t, w.db, w.journal, func(r *Reader) error {
				if seed == 5 {
					unfollow(t, r)
				}
				for range 150 {
					w.compareList(t, r, filters[rnd.IntN(len(filters))], sorts[rnd.IntN(len(sorts))], 1+rnd.IntN(30))
				}
				return nil
			})
		})
	}
}

func (w *listWorld) compareList(t *testing.T, r *Reader, filter, sort string, limit int) {
	t.Helper()
	q := parseList(t, r, "deal", filter, sort)
	q.Limit = limit
	want := w.want(q)
	var got []*crm.Record
	for {
		p, err := r.List(q)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Records) > limit || p.Next != "" && len(p.Records) < limit {
			t.Fatalf("%q by %q: page of %d for limit %d, next %q", filter, sort, len(p.Records), limit, p.Next)
		}
		got = append(got, p.Records...)
		if q.Cursor = p.Next; q.Cursor == "" {
			break
		}
	}
	if !slices.EqualFunc(got, want, func(a, b *crm.Record) bool { return a.ID == b.ID && a.Stamp == b.Stamp }) {
		t.Fatalf("%q by %q, limit %d:\n got %s\nwant %s", filter, sort, limit, show(got), show(want))
	}
}

func show(records []*crm.Record) (s string) {
	for _, r := range records {
		s += fmt.Sprintf("\n\t%x %s %q %s %s", r.ID[12:], r.Value(dealStage), r.Value(dealName), r.Value(dealAmount), r.Value(dealClose))
	}
	return s
}

func parseList(t *testing.T, r *Reader, entity, filter, sort string) query.List {
	t.Helper()
	q := query.List{Entity: r.Schema().Entity(entity)}
	var err error
	if filter != "" {
		if q.Where, err = query.Parse(r.Schema(), q.Entity, filter); err != nil {
			t.Fatal(err)
		}
	}
	if q.Sort, err = query.ParseSort(q.Entity, sort); err != nil {
		t.Fatal(err)
	}
	return q
}

// TestReaderAgainstModel compares what else a Reader answers.
func TestReaderAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	w := newListWorld(t, rnd, true)
	for _, follows := range []bool{true, false} {
		read(t, w.db, w.journal, func(r *Reader) error {
			if !follows {
				unfollow(t, r)
			}
			e := r.Schema().Entity("deal")
			live := w.want(query.List{Entity: e})
			if n, err := r.Count(e.ID); n != len(live) || err != nil {
				t.Errorf("Count = %d, %v, want %d", n, err, len(live))
			}
			got, err := collect(r.Scan(e))
			sameRecords(t, "Scan", got, live, err)
			for n := range 8 {
				kids := slices.DeleteFunc(slices.Clone(live), func(d *crm.Record) bool { return d.Value(dealAccount).Link() != recordID(n) })
				got, err := collect(r.Children(crm.Child{Entity: e, Field: e.Field("account")}, recordID(n)))
				sameRecords(t, "Children", got, kids, err)
				got, err = collect(r.Under(recordID(n)))
				sameRecords(t, "Under", got, kids, err)
				got, err = collect(r.Deleted(crm.Child{Entity: e, Field: e.Field("account")}, recordID(n)))
				sameRecords(t, "Deleted", got, w.deleted(n), err)
			}
			for id, want := range w.seen[entityDeal] {
				got, err := r.Record(entityDeal, id)
				if err != nil || got == nil || got.Stamp != want.Stamp || got.Deleted != want.Deleted {
					t.Errorf("Record(%s) = %v, %v, want %v", id, got, err, want)
				}
			}
			return nil
		})
	}
}

func (w *listWorld) deleted(account int) []*crm.Record {
	var out []*crm.Record
	for _, d := range w.seen[entityDeal] {
		if d.Deleted && d.Value(dealAccount).Link() == recordID(account) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *crm.Record) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

func sameRecords(t *testing.T, what string, got, want []*crm.Record, err error) {
	t.Helper()
	if err != nil || !slices.EqualFunc(got, want, func(a, b *crm.Record) bool { return a.ID == b.ID && a.Stamp == b.Stamp }) {
		t.Errorf("%s: %v\n got %s\nwant %s", what, err, show(got), show(want))
	}
}

// TestListReadsLittle says which lists must not read everything.
func TestListReadsLittle(t *testing.T) {
	db := openCatalog(t)
	a := account(1, 16, 2, "A")
	all := []*crm.Record{a}
	for n := range 3000 {
		all = append(all, deal(100+n, a, 2, fmt.Sprintf("deal %04d", n), int64(n)))
	}
	put(t, db, all...)
	view(t, db, func(tx *Tx) error {
		r, err := NewReader(tx, nil)
		if err != nil {
			return err
		}
		for _, c := range []struct {
			filter, sort string
			most         int
		}{
			{"", "", 11},
			{"", "-id", 11},
			{"", "-amount", 11},
			{`stage == "won"`, "-amount", 11},
			{`stage == "won" && amount >= "3 EUR"`, "amount", 11},
			{`stage in ["won", "lost"]`, "amount", 11},
			{`amount == "3 EUR"`, "name", 1},
			{`amount > "29 EUR"`, "name", 100},
			{`stage == "won"`, "", 40},
			{`name.startsWith("deal 00")`, "amount", 101},
		} {
			q := parseList(t, r, "deal", c.filter, c.sort)
			q.Limit = 10
			p, err := r.List(q)
			if err != nil || len(p.Records) == 0 || p.Scanned > c.most {
				t.Errorf("%q by %q: %d records of %d read, want at most %d; %v", c.filter, c.sort, len(p.Records), p.Scanned, c.most, err)
			}
		}
		return nil
	})
}

func TestBadCursors(t *testing.T) {
	db := openCatalog(t)
	a := account(1, 16, 2, "A")
	put(t, db, a, deal(2, a, 2, "x", 1), deal(3, a, 2, "y", 2))
	view(t, db, func(tx *Tx) error {
		r, err := NewReader(tx, nil)
		if err != nil {
			return err
		}
		q := parseList(t, r, "deal", "", "amount")
		q.Limit = 1
		p, err := r.List(q)
		if err != nil || p.Next == "" {
			t.Fatalf("first page: %v, next %q", err, p.Next)
		}
		other := parseList(t, r, "deal", "", "-amount")
		other.Cursor = p.Next
		bad := []query.List{other}
		for _, c := range []string{"!", "AAAA", base64.RawURLEncoding.EncodeToString(make([]byte, 40)), p.Next + "=", "%00"} {
			q.Cursor = c
			bad = append(bad, q)
		}
		for _, q := range bad {
			if _, err := r.List(q); crm.CodeOf(err) != crm.CodeInvalid {
				t.Errorf("cursor %q: %v, want code invalid", q.Cursor, err)
			}
		}
		return nil
	})
}
