package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// benchReplica returns a filled replica that has lost its master. Unless sync is
// set its journal is not synced, so that what is measured is the processor's work.
func benchReplica(b *testing.B, sync bool) *Replica {
	b.Helper()
	m := newScripted(b)
	m.edit(account("acme", text(accTerritory, "north")))
	r, err := Open(Config{Dir: b.TempDir(), ID: ID{Cluster: "acme", Site: lisbon, Node: replicaN}, Dial: m.dial, Masters: func() []string { return []string{"master:1"} }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close() })
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	head := m.head()
	if err := r.until(ctx, func() bool { return r.pos.rev >= head }); err != nil {
		b.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	m.cut()
	if sync {
		return r
	}
	if err := r.journal.Close(); err != nil {
		b.Fatal(err)
	}
	if r.journal, err = store.OpenJournal(filepath.Join(r.cfg.Dir, "journal.db"), store.Options{NoSync: true}); err != nil {
		b.Fatal(err)
	}
	return r
}

// commitMany has clients commit the edits from..to, each creating an account.
func commitMany(b *testing.B, r *Replica, clients, from, to int) {
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := from + c; n < to; n += clients {
				op := account(fmt.Sprintf("branch account %d", n), text(accDescription, "a pending edit"))
				if _, err := r.Commit(b.Context(), crm.Request{Actor: "bea", Intent: "account.create", Ops: []crm.Op{op}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkCommit measures an edit with so many pending before it, without fsync.
func BenchmarkCommit(b *testing.B) {
	for _, pending := range []int{0, 50_000} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("%d pending, %d clients", pending, clients), func(b *testing.B) {
				r := benchReplica(b, false)
				commitMany(b, r, 512, 0, pending)
				b.ReportAllocs()
				b.ResetTimer()
				commitMany(b, r, clients, pending, pending+b.N)
			})
		}
	}
}

// BenchmarkCommitSynced measures durable edits of concurrent clients.
func BenchmarkCommitSynced(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			r := benchReplica(b, true)
			commits := r.journal.Stats().Commits
			b.ReportAllocs()
			b.ResetTimer()
			commitMany(b, r, clients, 0, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "edits/s")
			b.ReportMetric(float64(b.N)/float64(r.journal.Stats().Commits-commits), "edits/sync")
		})
	}
}

// BenchmarkRead measures one record by one demand.
func BenchmarkRead(b *testing.B) {
	r := benchReplica(b, false)
	b.ReportAllocs()
	for b.Loop() {
		_, err := r.Read(b.Context(), crm.Demand{}, func(rd *store.Reader) error {
			rec, err := rd.Record(catalog.Account, id("acme"))
			if err == nil && rec == nil {
				err = fmt.Errorf("no record")
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBootstrap applies the feed of an empty base, parts of so many items;
// ns/op is per record, with the fsyncs. The records are activities of 1,000
// accounts, with ten index rows and five words each.
func BenchmarkBootstrap(b *testing.B) {
	const records = 100_000
	definitions, items := bootstrapItems(b, records)
	for _, part := range []int{5_000, 20_000, 50_000, 100_000} {
		b.Run(fmt.Sprint(part), func(b *testing.B) {
			var took time.Duration
			for b.Loop() {
				took += bootstrap(b, definitions, items, part)
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N*records), "ns/record")
			b.ReportMetric(float64(b.N*records)/took.Seconds(), "records/s")
		})
	}
}

// bootstrap writes all parts but the final one, which the scripted feed cannot
// be asked for.
func bootstrap(b *testing.B, definitions, items []syncproto.Item, part int) time.Duration {
	b.Helper()
	m := newScripted(b)
	r, err := Open(Config{Dir: b.TempDir(), ID: ID{Cluster: "acme", Site: lisbon, Node: replicaN}, Dial: m.dial, Masters: func() []string { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	r.part = part
	p := &pull{r: r}
	take := func(upto crm.Rev, items []syncproto.Item) {
		if err := p.take(&syncproto.Batch{To: 1 << 40, Upto: upto, Items: items}); err != nil {
			b.Fatal(err)
		}
	}
	r.part = 1
	take(1, slices.Clone(definitions))
	r.part = part
	start := time.Now()
	for n := 0; n < len(items); n += 1000 {
		take(crm.Rev(n+2), items[n:min(n+1000, len(items))])
	}
	return time.Since(start)
}

// bootstrapItems returns the items of the stock definitions and of n activities.
func bootstrapItems(b *testing.B, n int) (definitions, items []syncproto.Item) {
	b.Helper()
	m := newScripted(b)
	m.view(func(tx *store.Tx) {
		for _, e := range []crm.EntityID{crm.EntityEntity, crm.EntityField} {
			for rec, err := range tx.Scan(e) {
				if err != nil {
					b.Fatal(err)
				}
				definitions = append(definitions, syncproto.Item{Kind: syncproto.ItemRecord, Entity: e, ID: rec.ID, Body: crm.AppendRecord(nil, rec)})
			}
		}
		e := tx.Schema().EntityByID(catalog.Activity)
		rnd := rand.New(rand.NewPCG(1, 2))
		accounts := make([]crm.RecordID, 1000)
		for i := range accounts {
			accounts[i] = crm.NewRecordID(time.UnixMilli(int64(1_700_000_000_000+i)), idSource)
		}
		for i := range n {
			items = append(items, activityItem(e, accounts[rnd.IntN(len(accounts))], i))
		}
	})
	return definitions, items
}

func activityItem(e *crm.Entity, account crm.RecordID, n int) syncproto.Item {
	at := time.UnixMilli(1_700_000_100_000 + int64(n)*1000)
	rec := &crm.Record{Entity: e.ID, ID: crm.NewRecordID(at, idSource), Territory: 16, Root: account, Schema: 1, Entered: crm.Rev(n + 1)}
	rec.Stamp = crm.Stamp{Rev: crm.Rev(n + 1), HLC: crm.NewHLC(at.UnixMilli()), Node: 3, Seq: crm.Seq(n + 1), Actor: "ana"}
	for _, f := range e.Fields {
		var v crm.Value
		switch f.Name {
		case "account":
			v = crm.LinkValue(account)
		case "at":
			v = crm.InstantMillis(at.UnixMilli())
		case "kind":
			v = crm.ChoiceValue([]string{"call", "email", "note"}[n%3])
		case "subject":
			v = crm.TextValue(fmt.Sprintf("Called about item %d", n))
		default:
			continue
		}
		rec.Cells = append(rec.Cells, crm.Cell{Field: f.ID, Value: v, Stamp: rec.Stamp})
	}
	slices.SortFunc(rec.Cells, func(a, b crm.Cell) int { return int(a.Field) - int(b.Field) })
	return syncproto.Item{Kind: syncproto.ItemRecord, Entity: e.ID, ID: rec.ID, Body: crm.AppendRecord(nil, rec)}
}
