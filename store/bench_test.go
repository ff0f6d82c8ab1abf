package store

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

const benchDeals = 20_000

// benchBase holds benchDeals deals of 100 accounts.
func benchBase(b *testing.B) *DB {
	db := openCatalog(b)
	for n := 0; n < benchDeals; n += 5000 {
		var all []*crm.Record
		for i := range 5000 {
			a := account((n+i)%100, 16, 2, fmt.Sprintf("Account %d", (n+i)%100))
			if n == 0 && i < 100 {
				all = append(all, a)
			}
			all = append(all, deal(1000+n+i, a, 2, fmt.Sprintf("Deal %d", n+i), int64(n+i)))
		}
		put(b, db, all...)
	}
	return db
}

func BenchmarkRecord(b *testing.B) {
	db := benchBase(b)
	view(b, db, func(tx *Tx) error {
		for n := 0; b.Loop(); n++ {
			if _, err := tx.Record(entityDeal, recordID(1000+n*7919%benchDeals)); err != nil {
				return err
			}
		}
		return nil
	})
}

func BenchmarkRecordOwnView(b *testing.B) {
	db := benchBase(b)
	for n := 0; b.Loop(); n++ {
		view(b, db, func(tx *Tx) error { _, err := tx.Record(entityDeal, recordID(1000+n*7919%benchDeals)); return err })
	}
}

func BenchmarkList50(b *testing.B) {
	db := benchBase(b)
	for _, c := range []struct{ name, filter, sort string }{
		{"by id", "", ""},
		{"by index", "", "-amount"},
		{"filter and sort by index", `stage == "won"`, "-amount"},
		{"filter by index", `account.name == "Account 7" && amount > "100 EUR"`, "-amount"},
		{"sort in memory", `stage == "won"`, "name"},
	} {
		b.Run(c.name, func(b *testing.B) {
			view(b, db, func(tx *Tx) error {
				s := tx.Schema()
				q := query.List{Entity: s.Entity("deal"), Limit: 50}
				var err error
				if c.filter != "" {
					if q.Where, err = query.Parse(s, q.Entity, c.filter); err != nil {
						return err
					}
				}
				if q.Sort, err = query.ParseSort(q.Entity, c.sort); err != nil {
					return err
				}
				for b.Loop() {
					r, err := NewReader(tx, nil)
					if err != nil {
						return err
					}
					if p, err := r.List(q); err != nil || len(p.Records) != 50 {
						return fmt.Errorf("%d records: %w", len(p.Records), err)
					}
				}
				return nil
			})
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	db := benchBase(b)
	view(b, db, func(tx *Tx) error {
		for b.Loop() {
			r, err := NewReader(tx, nil)
			if err != nil {
				return err
			}
			if hits, err := r.Search("deal 199", nil, 10); err != nil || len(hits) != 10 {
				return fmt.Errorf("%d hits: %w", len(hits), err)
			}
		}
		return nil
	})
}

// BenchmarkScrub is a round; ns/step is how long a read transaction is open.
func BenchmarkScrub(b *testing.B) {
	db := benchBase(b)
	steps := 0
	b.SetBytes(fileSize(db.Path()))
	for b.Loop() {
		findings, n := scrubbed(b, db.file, 2000)
		if len(findings) > 0 {
			b.Fatal(findings)
		}
		steps += n
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/step")
}

// BenchmarkPut commits batches without fsync; ns/op is per record. A batch of one
// is what a local edit is to a base, one of 64 what a feed applies, one of 1024 a
// bootstrap. digest=off is the same without the upkeep of the digest.
func BenchmarkPut(b *testing.B) {
	for _, kind := range []string{"insert", "update"} {
		for _, size := range []int{1, 64, 1024} {
			for _, digest := range []string{"on", "off"} {
				b.Run(fmt.Sprintf("%s/%d/digest=%s", kind, size, digest), func(b *testing.B) {
					db := benchBase(b)
					digestOff = digest == "off"
					defer func() { digestOff = false }()
					benchmarkPut(b, db, kind == "update", size)
				})
			}
		}
	}
}

func benchmarkPut(b *testing.B, db *DB, update bool, size int) {
	a := account(1, 16, 2, "A")
	rnd := rand.New(rand.NewPCG(1, 12))
	n := 0
	for b.Loop() {
		if n%size == 0 {
			b.StopTimer()
			var all []*crm.Record
			for i := range size {
				id := 1000 + benchDeals + n + i
				if update {
					id = 1000 + rnd.IntN(benchDeals)
				}
				all = append(all, deal(id, a, crm.Rev(3+n+i), fmt.Sprintf("Deal %d", n+i), int64(n)))
			}
			b.StartTimer()
			put(b, db, all...)
		}
		n++
	}
}
