package replica

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// benchReplica returns a filled replica that has lost its master. Unless sync is
// set its journal is not synced, so that what is measured is the processor's work.
func benchReplica(b *testing.B, sync bool) *Replica {
	b.Helper()
	m := newScripted(b)
	m.edit(account("acme"))
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
		b.Run(fmt.Sprint(pending), func(b *testing.B) {
			r := benchReplica(b, false)
			commitMany(b, r, 512, 0, pending)
			b.ReportAllocs()
			b.ResetTimer()
			commitMany(b, r, 1, pending, pending+b.N)
		})
	}
}

// BenchmarkCommitSynced measures durable edits of concurrent clients.
func BenchmarkCommitSynced(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			r := benchReplica(b, true)
			b.ReportAllocs()
			b.ResetTimer()
			commitMany(b, r, clients, 0, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "edits/s")
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
