package replica

import (
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// An unsure disk does not confirm what is written to one file while told so.
type unsure struct {
	file string
	sick atomic.Bool
}

func (u *unsure) disk(c *Config) {
	c.Store.Disk = &store.Disk{Sync: func(path string) error {
		if u.sick.Load() && filepath.Base(path) == u.file {
			return syscall.EIO
		}
		return nil
	}}
}

// While the disk does not confirm an edit nobody is told that it is safe, no master
// hears of it, and readers are served. When it does, the node goes on by itself.
func TestDoubt_JournalHoldsBackAndGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		disk := &unsure{file: "journal.db"}
		reg := prometheus.NewRegistry()
		b := start(t, m, t.TempDir(), disk.disk, func(c *Config) { c.Metrics = NewMetrics(reg) })
		disk.sick.Store(true)
		last := b.Status().Seq
		b.refuse(crm.CodeUnsynced, account("doubtful", text(accTerritory, "north")))
		b.refuse(crm.CodeUnavailable, account("refused", text(accTerritory, "north")))
		b.want(b.field("acme", accName), "acme")
		b.want(b.field("doubtful", accName), "doubtful")
		b.want(b.field("refused", accName), "-")
		for range 300 { // sessions are tried meanwhile
			time.Sleep(time.Second)
			synctest.Wait()
		}
		b.want(m.states[replicaN].LastSeq, last)
		b.want(b.Status().Connected, false)
		b.want(counterOf(t, reg, "tradepost_store_sync_failures_total"), 1.0)
		b.want(gaugeOf(t, reg, "tradepost_store_in_doubt"), 1.0)

		disk.sick.Store(false)
		seq := b.commit(account("after", text(accTerritory, "north")))
		b.want(seq, last+2) // the doubtful edit was taken
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.want(b.outcome(last+1), "accepted")
		b.want(b.outcome(seq), "accepted")
		b.want(gaugeOf(t, reg, "tradepost_store_in_doubt"), 0.0)
		b.same(m)
		b.sound()
	})
}

// A batch whose base the disk does not confirm ends the session. Without an edit,
// the node is whole again at its next try.
func TestDoubt_BaseIsMendedBeforeTheNextSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		disk := &unsure{file: "base.db"}
		b := start(t, m, t.TempDir(), disk.disk)
		disk.sick.Store(true)
		m.edit(account("acme", text(accTerritory, "north")))
		synctest.Wait()
		b.want(b.Status().Connected, false)
		hellos := len(m.hellos)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		b.want(len(m.hellos), hellos)
		disk.sick.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.want(b.Status().Connected, true)
		b.want(b.field("acme", accName), "acme")
		b.want(b.Status().Cursor, m.head())
		b.same(m)
		b.sound()
	})
}

// gaugeOf returns the sum of a gauge over its labels.
func gaugeOf(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
			return sum
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
