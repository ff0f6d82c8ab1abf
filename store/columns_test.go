package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/crm/report"
)

// The reports of these tests: of two entities, over a link, of fields that are
// no cells, with a filter.
var columnReports = []struct{ entity, groups, measures, where string }{
	{"deal", "stage", "count,sum(amount)", ""},
	{"deal", "account.name,stage", "count,max(amount)", `stage != "lost"`},
	{"deal", "updated_by,updated_at:month", "count,max(updated_at)", ""},
	{"deal", "account", "count", `account.phone != ""`},
	{"account", "name", "count,min(updated_at)", ""},
	{"account", "id", "count", `"vip" in tags`},
}

// parseReport returns one of columnReports.
func parseReport(s *crm.Schema, n int) (*report.Report, error) {
	c := columnReports[n]
	return report.Parse(s, s.Entity(c.entity), c.groups, c.measures, c.where, "", 0)
}

// scanned computes the report the plain way: decode all, keep nothing.
func scanned(rd *Reader, def *report.Report) (*report.Result, error) {
	ts := report.NewTables(rd.Schema())
	for _, e := range ts.Extend(def.Needs()) {
		for rec, err := range rd.Scan(e) {
			if err != nil {
				return nil, err
			}
			ts.Put(e.ID, rec.ID, rec.Value)
		}
	}
	return ts.Run(def)
}

// compareReport returns an error unless the columns tell of report n what a
// plain scan tells.
func compareReport(c *Columns, rd *Reader, n int) error {
	def, err := parseReport(rd.Schema(), n)
	if err != nil {
		return err
	}
	want, err := scanned(rd, def)
	if err != nil {
		return err
	}
	got, err := c.Run(context.Background(), rd, def)
	if err == nil && !sameResult(got, want) {
		err = fmt.Errorf("report %d: the columns tell %v, the records %v", n, got, want)
	}
	return err
}

func sameResult(a, b *report.Result) bool {
	sameRow := func(a, b []crm.Value) bool { return slices.EqualFunc(a, b, crm.Value.Equal) }
	return a.Scanned == b.Scanned && a.Mixed == b.Mixed && slices.Equal(a.Columns, b.Columns) && sameRow(a.Totals, b.Totals) &&
		slices.EqualFunc(a.Rows, b.Rows, sameRow)
}

// TestColumns_RandomChanges reports after each of many changes of every kind, to
// base, overlay, schema and the files themselves, from the newest state and from
// older ones that are still being read.
func TestColumns_RandomChanges(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			db, j, m, c := openCatalog(t), openJournal(t), newModel(), NewColumns(0)
			for range 150 {
				switch rnd.IntN(12) {
				case 0:
					changeFile(t, rnd, db, j)
				case 1:
					m.rev++
					put(t, db, metadata(m.rev, dealWith(rnd.IntN(4)))...)
				case 2, 3, 4:
					changeOverlay(t, rnd, db, j)
				default:
					update(t, db, func(tx *Tx) error { return randomChange(t, rnd, tx, m) })
				}
				read(t, db, j, func(older *Reader) error {
					if rnd.IntN(3) == 0 {
						update(t, db, func(tx *Tx) error { return randomChange(t, rnd, tx, m) })
					}
					read(t, db, j, func(rd *Reader) error {
						return compareReport(c, rd, rnd.IntN(len(columnReports)))
					})
					return compareReport(c, older, rnd.IntN(len(columnReports)))
				})
			}
			if st := c.Stats(); st.Runs != 300 || st.Changes == 0 || st.Scans > st.Runs {
				t.Errorf("%+v: the columns were not kept up to date, but made anew", st)
			}
		})
	}
}

// dealWith is the deal with n more fields. Of an odd number, its stage is of
// another kind, and those that are set are none of it.
func dealWith(n int) *crm.Entity {
	e := dealEntity()
	if n%2 == 1 {
		i := slices.IndexFunc(e.Fields, func(f *crm.Field) bool { return f.ID == dealStage })
		e.Fields[i].Kind = crm.Text
	}
	for i := range n {
		e.Fields = append(e.Fields, &crm.Field{ID: dealClose + crm.FieldID(i) + 1, Name: fmt.Sprintf("extra%d", i), Kind: crm.Text})
	}
	return e
}

func changeOverlay(t *testing.T, rnd *rand.Rand, db *DB, j *Journal) {
	t.Helper()
	var s *crm.Schema
	view(t, db, func(tx *Tx) error { s = tx.Schema(); return nil })
	updateJournal(t, j, func(tx *JTx) error {
		if rnd.IntN(3) > 0 {
			return tx.PutOverlay(s, randomRecord(rnd, crm.Pending, 20))
		}
		for _, k := range slices.Collect(tx.Overlaid()) {
			if rnd.IntN(2) == 0 {
				if err := tx.DropOverlay(s, k.Entity, k.ID); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func changeFile(t *testing.T, rnd *rand.Rand, db *DB, j *Journal) {
	t.Helper()
	var err error
	switch rnd.IntN(3) {
	case 0:
		err = db.Compact()
	case 1:
		err = j.Compact()
	default:
		err = db.Replace(copyOf(t, db))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// copyOf returns the path of a copy of the file.
func copyOf(t *testing.T, db *DB) string {
	t.Helper()
	var b bytes.Buffer
	view(t, db, func(tx *Tx) error { _, err := tx.WriteTo(&b); return err })
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// someDeals puts an account with n deals.
func someDeals(t testing.TB, db *DB, n int) *crm.Record {
	t.Helper()
	a := account(1, 16, 2, "Acme")
	all := []*crm.Record{a}
	for i := range n {
		all = append(all, deal(100+i, a, 2, fmt.Sprintf("Deal %d", i), int64(i)))
	}
	put(t, db, all...)
	return a
}

// base runs fn with a Reader of the base alone.
func base(t testing.TB, db *DB, fn func(*Reader) error) {
	t.Helper()
	view(t, db, func(tx *Tx) error {
		rd, err := NewReader(tx, nil)
		if err != nil {
			return err
		}
		return fn(rd)
	})
}

func TestColumns_ReadOnlyWhatChanged(t *testing.T) {
	db, c := openCatalog(t), NewColumns(0)
	a := someDeals(t, db, 50)
	check := func(wantScans, wantChanges int64) {
		t.Helper()
		base(t, db, func(rd *Reader) error { return compareReport(c, rd, 1) })
		if st := c.Stats(); st.Scans != wantScans || st.Changes != wantChanges {
			t.Fatalf("%d scans and %d changes, want %d and %d", st.Scans, st.Changes, wantScans, wantChanges)
		}
	}
	check(2, 0)
	check(2, 0)
	put(t, db, deal(100, a, 3, "Deal", 7000), deal(101, a, 3, "Deal", 7000))
	put(t, db, deal(101, a, 4, "Deal", 7500))
	check(2, 2)
	base(t, db, func(older *Reader) error {
		update(t, db, func(tx *Tx) error { _, err := tx.Drop(entityAccount, a.ID); return err })
		check(2, 3)
		if err := compareReport(c, older, 1); err != nil { // goes back
			return err
		}
		check(2, 5) // and forth
		return nil
	})
	undone := errors.New("undone")
	if err := db.Update(func(tx *Tx) error { return errors.Join(tx.Put(deal(100, a, 5, "Deal", 1)), undone) }); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	check(2, 5)
	if err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	check(4, 5)
}

// TestColumns_ReplacedFile puts a file with other records and the same number of
// commits in place.
func TestColumns_ReplacedFile(t *testing.T) {
	db, other, c := openCatalog(t), openCatalog(t), NewColumns(0)
	someDeals(t, db, 10)
	someDeals(t, other, 20)
	check := func() {
		t.Helper()
		base(t, db, func(rd *Reader) error { return compareReport(c, rd, 0) })
	}
	check()
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Replace(other.Path()); err != nil {
		t.Fatal(err)
	}
	check()
}

// TestColumns_OfSeveralFiles reports over one base, over another and over one
// with a journal, from the same columns.
func TestColumns_OfSeveralFiles(t *testing.T) {
	db, other, j, c := openCatalog(t), openCatalog(t), openJournal(t), NewColumns(0)
	someDeals(t, db, 10)
	a := someDeals(t, other, 20)
	updateJournal(t, j, func(tx *JTx) error { return tx.PutOverlay(schemaOf(t, other), deal(900, a, crm.Pending, "New", 5)) })
	for range 2 {
		for _, in := range []*DB{db, other} {
			base(t, in, func(rd *Reader) error { return compareReport(c, rd, 0) })
		}
		read(t, other, j, func(rd *Reader) error {
			return compareReport(c, rd, 0)
		})
	}
}

func schemaOf(t testing.TB, db *DB) (s *crm.Schema) {
	t.Helper()
	view(t, db, func(tx *Tx) error { s = tx.Schema(); return nil })
	return s
}

// TestColumns_InAWritableTransaction sees the transaction's own writes, which
// nobody else may be told.
func TestColumns_InAWritableTransaction(t *testing.T) {
	db, c := openCatalog(t), NewColumns(0)
	a := someDeals(t, db, 10)
	base(t, db, func(rd *Reader) error {
		return compareReport(c, rd, 0)
	})
	update(t, db, func(tx *Tx) error {
		for n := range 2 {
			if err := tx.Put(deal(500+n, a, 3, "New", 1)); err != nil {
				return err
			}
			rd, err := NewReader(tx, nil)
			if err != nil {
				return err
			}
			if err := compareReport(c, rd, 0); err != nil {
				return err
			}
			base(t, db, func(rd *Reader) error { return compareReport(c, rd, 0) })
		}
		return nil
	})
}

// TestColumns_Limit keeps to the limit by dropping what was used least recently.
func TestColumns_Limit(t *testing.T) {
	db := openCatalog(t)
	someDeals(t, db, 500)
	sizes, unlimited := make([]int64, len(columnReports)), NewColumns(0)
	run := func(c *Columns, n int) ColumnStats {
		t.Helper()
		base(t, db, func(rd *Reader) error { return compareReport(c, rd, n) })
		return c.Stats()
	}
	for n := range columnReports {
		sizes[n] = run(NewColumns(0), n).Bytes
		run(unlimited, n)
	}
	const deals, named, times, accounts = 0, 1, 2, 4

	c := NewColumns(sizes[deals])
	run(c, deals)
	if st := run(c, accounts); st.Bytes != sizes[accounts] {
		t.Errorf("%d bytes after a report that left no room, want its %d", st.Bytes, sizes[accounts])
	}
	before := c.Stats().Scans
	run(c, accounts)
	if st := run(c, deals); st.Bytes != sizes[deals] || st.Scans != before+1 {
		t.Errorf("%d bytes, want %d; %d scans, want %d", st.Bytes, sizes[deals], st.Scans, before+1)
	}

	c = NewColumns(max(sizes[named], sizes[times]))
	run(c, named)
	if st := run(c, times); st.Bytes != sizes[times] {
		t.Errorf("%d bytes, want %d: columns of another report about deals are in the way", st.Bytes, sizes[times])
	}

	c = NewColumns(sizes[deals] - 1)
	for range 2 {
		if st := run(c, deals); st.Bytes != 0 {
			t.Errorf("%d bytes of a report that is too large were kept", st.Bytes)
		}
	}
	if st := unlimited.Stats(); st.Bytes <= slices.Max(sizes) {
		t.Errorf("%d bytes of several reports", st.Bytes)
	}
}

// TestColumns_NeverHalf ends a run in the middle and runs again.
func TestColumns_NeverHalf(t *testing.T) {
	db, c := openCatalog(t), NewColumns(0)
	a := someDeals(t, db, 10)
	base(t, db, func(rd *Reader) error { return compareReport(c, rd, 0) })
	ended, end := context.WithCancel(context.Background())
	end()
	for _, n := range []int{2, 0, 4} { // more columns, what changed, and another entity
		base(t, db, func(rd *Reader) error {
			def, err := parseReport(rd.Schema(), n)
			if err != nil {
				return err
			}
			if _, err := c.Run(ended, rd, def); !errors.Is(err, context.Canceled) {
				t.Errorf("report %d ends with %v", n, err)
			}
			return compareReport(c, rd, n)
		})
		put(t, db, deal(100, a, crm.Rev(3+n), "Deal", int64(n)))
	}
}

func TestColumns_Damage(t *testing.T) {
	db, c := openCatalog(t), NewColumns(0)
	a := someDeals(t, db, 10)
	damage := func(value func(old []byte) []byte) {
		update(t, db, func(tx *Tx) error {
			k := RecordKey{entityDeal, recordID(105)}
			b := tx.liveBucket(k.Entity)
			return b.Put(k.ID[:], value(slices.Clone(b.Get(k.ID[:]))))
		})
	}
	key := RecordKey{entityDeal, recordID(105)}.bytes()
	whole := deal(105, a, 2, "Deal 5", 5)
	for name, value := range map[string]func([]byte) []byte{
		"seal":    func(v []byte) []byte { v[len(v)-1]++; return v },
		"short":   func([]byte) []byte { return seal(key, []byte{1, 0, 16}) },
		"value":   func(v []byte) []byte { v[len(v)-6] = 0xff; return closeSeal(key, v) },
		"dead":    func([]byte) []byte { d := whole.Clone(); d.Deleted = true; return seal(key, crm.AppendRecord(nil, d)) },
		"nothing": func([]byte) []byte { return nil },
	} {
		damage(value)
		base(t, db, func(rd *Reader) error {
			def, err := parseReport(rd.Schema(), 0)
			if err != nil {
				return err
			}
			if _, err := c.Run(context.Background(), rd, def); crm.CodeOf(err) != crm.CodeCorrupt {
				t.Errorf("%s: %v", name, err)
			}
			return nil
		})
		damage(func([]byte) []byte { return seal(key, crm.AppendRecord(nil, whole)) })
		base(t, db, func(rd *Reader) error { return compareReport(c, rd, 0) })
		c = NewColumns(0)
	}
}

// TestColumns_Concurrent has many readers report while the records change.
func TestColumns_Concurrent(t *testing.T) {
	db, j, c := openCatalog(t), openJournal(t), NewColumns(200_000)
	a := someDeals(t, db, 300)
	s := schemaOf(t, db)
	var writing atomic.Bool
	writing.Store(true)
	var writers, readers sync.WaitGroup
	writers.Go(func() {
		for n := range 60 {
			if err := db.Update(func(tx *Tx) error { return tx.Put(deal(100+n%40, a, crm.Rev(3+n), "Deal", int64(n))) }); err != nil {
				t.Error(err)
			}
			if n%20 == 19 {
				if err := db.Compact(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	writers.Go(func() {
		for n := range 60 {
			r := deal(100+n%50, a, crm.Pending, "Deal", int64(-n))
			if err := j.Update(func(tx *JTx) error { return tx.PutOverlay(s, r) }); err != nil {
				t.Error(err)
			}
		}
	})
	for n := range 4 {
		readers.Go(func() {
			for i := n; writing.Load() || i < n+len(columnReports); i++ {
				err := j.View(func(jtx *JTx) error {
					return db.View(func(tx *Tx) error {
						rd, err := NewReader(tx, jtx)
						if err != nil {
							return err
						}
						return compareReport(c, rd, i%len(columnReports))
					})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	writing.Store(false)
	readers.Wait()
	if st := c.Stats(); st.Bytes > 200_000 {
		t.Errorf("%d bytes are held", st.Bytes)
	}
}

func TestChangeLog_Bounds(t *testing.T) {
	var l changeLog
	keys := make([]RecordKey, 1000)
	for commit := 1; commit <= 200; commit++ {
		l.add(commit, keys)
		l.add(commit, nil)
	}
	if len(l.changes) > 2*maxChanges {
		t.Errorf("%d changes are remembered", len(l.changes))
	}
	for _, c := range []struct {
		low, high, want int
		ok              bool
	}{{199, 200, 1000, true}, {150, 199, 49_000, true}, {140, 140, 0, true}, {1, 200, 0, false}, {l.since, 200, (200 - l.since) * 1000, true}, {l.since - 1, 200, 0, false}} {
		got, ok := l.span(c.low, c.high)
		if len(got) != c.want || ok != c.ok {
			t.Errorf("span(%d, %d) = %d changes, %v; want %d, %v", c.low, c.high, len(got), ok, c.want, c.ok)
		}
	}
	l.add(201, make([]RecordKey, maxChanges+1))
	if _, ok := l.span(200, 201); ok || len(l.changes) > 0 {
		t.Errorf("a huge commit is remembered: %d changes", len(l.changes))
	}
	if got, ok := l.span(201, 202); !ok || len(got) != 0 {
		t.Errorf("what follows a huge commit is %v, %v", got, ok)
	}
}

// The columns' benchmarks are over the stock catalogue: benchLines lines, three
// an order.
const benchLines = 300_000

func benchLine(n int, rev crm.Rev) *crm.Record {
	r := newRecord(catalog.OrderLine, recordID(1_000_000+n), 16, rev)
	r.Root = recordID(n / 45)
	setCell(r, crm.FieldCreatedAt, crm.InstantMillis(1_700_000_000_000+int64(n)))
	setCell(r, crm.FieldCreatedBy, crm.TextValue("ana"))
	setCell(r, 18, crm.LinkValue(recordID(2_000_000+n/3)))
	setCell(r, 19, crm.LinkValue(recordID(3_000_000+n%77)))
	setCell(r, 20, crm.IntegerValue(int64(n%3)))
	setCell(r, 21, crm.DecimalValue(int64(1+n%20), 0, ""))
	setCell(r, 22, crm.DecimalValue(int64(n%100_000), 2, "EUR"))
	setCell(r, 23, crm.DecimalValue(int64(n%30), 2, ""))
	setCell(r, 24, crm.TextValue(fmt.Sprintf("Chai, %d boxes", n%77)))
	return r
}

func benchOrder(n int) *crm.Record {
	r := newRecord(catalog.Order, recordID(2_000_000+n), 16, 2)
	r.Root = recordID(n / 15)
	setCell(r, crm.FieldCreatedAt, crm.InstantMillis(1_700_000_000_000+int64(n)))
	setCell(r, 18, crm.TextValue(fmt.Sprintf("ORD-LIS-%06d", n)))
	setCell(r, 19, crm.LinkValue(r.Root))
	setCell(r, 21, crm.ChoiceValue([]string{"shipped", "invoiced", "invoiced", "invoiced", "open"}[n%5]))
	setCell(r, 22, crm.DateDays(19000+int64(n)*1095/(benchLines/3)))
	setCell(r, 25, crm.TextValue("Königlich Essen"))
	setCell(r, 26, crm.AddressValue(crm.PostalAddress{Street: "Maubelstr. 90", City: "Brandenburg", PostalCode: "14776", Country: "DE"}))
	setCell(r, 27, crm.DecimalValue(int64(n%9000), 2, "EUR"))
	setCell(r, 30, crm.TextValue(fmt.Sprintf("Region %d", n%12)))
	return r
}

func benchSales(b *testing.B) *DB {
	b.Helper()
	db := openBase(b)
	for _, e := range catalog.Entities() {
		put(b, db, metadata(1, e)...)
	}
	for n := 0; n < benchLines; {
		update(b, db, func(tx *Tx) error {
			for end := n + 30_000; n < end; n++ {
				if err := tx.Put(benchLine(n, 2)); err != nil {
					return err
				}
				if n%3 == 0 {
					if err := tx.Put(benchOrder(n / 3)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return db
}

// BenchmarkColumns reports the revenue of 36 months by region: with the columns
// there, after one record changed, and from nothing, also the plain way.
func BenchmarkColumns(b *testing.B) {
	db := benchSales(b)
	s := schemaOf(b, db)
	def, err := report.Parse(s, s.Entity("order_line"), "order.order_date:month,order.region", "count,sum(quantity*unit_price*(1-discount))",
		`order.status in ["shipped", "invoiced"]`, "", 0)
	if err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, c *Columns) {
		base(b, db, func(rd *Reader) error { _, err := c.Run(context.Background(), rd, def); return err })
	}
	c := NewColumns(0)
	run(b, c)
	b.Logf("%d MiB", c.Stats().Bytes>>20)
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			run(b, c)
		}
	})
	b.Run("one changed", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			put(b, db, benchLine(n*7919%benchLines, crm.Rev(3+n)))
			b.StartTimer()
			run(b, c)
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			run(b, NewColumns(0))
		}
	})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			base(b, db, func(rd *Reader) error { _, err := scanned(rd, def); return err })
		}
	})
}
