package processtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/lossyfs"
	"github.com/tradepost-crm/tradepost/store"
)

var powerCuts = flag.Int("power-cuts", 3, "how often to cut the power below a replica, and below a master")

// mountLossy skips a test where nothing can be mounted.
func mountLossy(t *testing.T) (*lossyfs.FS, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := lossyfs.Mount(context.WithoutCancel(t.Context()), dir, lossyfs.Config{}) // nodes end before it
	if errors.Is(err, lossyfs.ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f, dir
}

// TestPowerCut_Replica cuts the power below a branch's directory at random
// moments, plain and torn in turn: no edit that was acknowledged is lost, and none
// takes effect twice.
func TestPowerCut_Replica(t *testing.T) {
	t.Parallel()
	powerCut(t, 0, func(c *Cluster) *Process { return c.Replicas[0] })
}

// TestPowerCut_Master does so below the only master, while clerks wait for its
// decisions: what it decided and told is there.
func TestPowerCut_Master(t *testing.T) {
	t.Parallel()
	powerCut(t, httpapi.Wait(20*time.Second), func(c *Cluster) *Process { return c.Masters[0] })
}

func powerCut(t *testing.T, wait httpapi.Wait, victim func(*Cluster) *Process) {
	l := newLossy(t, wait, victim)
	l.write(4)
	for n := range *powerCuts {
		l.awaitEdits(t, 10+rand.IntN(60))
		if n%2 == 0 {
			l.disk.PowerCut()
		} else {
			l.disk.TornPowerCut(rand.Uint64())
		}
		l.restart(t)
	}
	l.stop()
	verifyFrom(l.ctx, t, l.cluster, l.writer, l.victim)
	t.Logf("%d power cuts: %d edits acknowledged of %d tried; %+v", *powerCuts, l.count(), l.tried, l.disk.Counts())
}

// TestPowerCut_AtTheAcknowledgement cuts the power below a branch the moment an
// edit is acknowledged. The only master is down, so nobody else has the edit, and
// nothing that comes later can sync it: it lasts if the answer waited for the disk.
func TestPowerCut_AtTheAcknowledgement(t *testing.T) {
	t.Parallel()
	l := newLossy(t, 0, func(c *Cluster) *Process { return c.Replicas[0] })
	must(t, l.cluster.Masters[0].Kill())
	for n := range *powerCuts {
		must(t, l.edits(l.ctx, 1+n%2, "cut"))
		l.cutAndCount(t, l.count())
	}
	must(t, l.cluster.Masters[0].Start())
	must(t, l.cluster.Masters[0].AwaitReady(l.ctx))
	verifyFrom(l.ctx, t, l.cluster, l.writer, l.victim)
}

// notesIn counts the writer's edits in the outbox of a dead branch.
func notesIn(t *testing.T, dir string) (n int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db") // a file of the mount must not be mapped from here
	copyFile(t, filepath.Join(dir, "journal.db"), path)
	j, err := store.OpenJournal(path, store.Options{})
	must(t, err)
	defer j.Close()
	must(t, j.View(func(tx *store.JTx) error {
		for e, err := range tx.Outbox(0) {
			if err != nil {
				return err
			}
			m, err := crm.DecodeMutation(e.Bytes)
			if err != nil {
				return err
			}
			if m.Intent == noteIntent {
				n++
			}
		}
		return nil
	}))
	return n
}

// TestPowerCut_CatchesALyingDisk: below a disk whose fsyncs do nothing, a branch
// loses what it acknowledged, and the ledger of its clerks shows it.
func TestPowerCut_CatchesALyingDisk(t *testing.T) {
	t.Parallel()
	l := newLossy(t, 0, func(c *Cluster) *Process { return c.Replicas[0] })
	must(t, l.cluster.Masters[0].Kill()) // so that nobody else has the edits
	must(t, l.edits(l.ctx, 10, "true"))
	must(t, l.disk.Spoil(lossyfs.Faults{Files: []lossyfs.FileFault{{Match: "journal.db", Lie: true}}}))
	must(t, l.edits(l.ctx, 10, "false"))
	l.disk.PowerCut()
	l.restart(t)
	missing, err := l.missing(l.ctx)
	must(t, err)
	if len(missing) != 10 {
		t.Errorf("%d of 20 edits are missing, want the 10 of the lie: %v", len(missing), missing)
	}
	must(t, l.cluster.Masters[0].Start())
	must(t, l.cluster.Masters[0].AwaitReady(l.ctx))
}

// TestStalledSync_Replica: while an fsync of a branch's journal stalls, nothing is
// acknowledged and reads go on; when it is over, so are the edits.
func TestStalledSync_Replica(t *testing.T) {
	t.Parallel()
	l := newLossy(t, 0, func(c *Cluster) *Process { return c.Replicas[0] })
	must(t, l.disk.Spoil(lossyfs.Faults{Files: []lossyfs.FileFault{{Match: "journal.db", Stall: time.Hour}}}))
	done := make(chan error, 1)
	go func() { done <- l.edits(l.ctx, 1, "stalled") }()
	for range 50 {
		_, _, err := l.client.Get(l.ctx, "contact", l.contact, httpapi.Asked{})
		must(t, err)
		select {
		case err := <-done:
			t.Fatalf("an edit returned %v while the disk stalled", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	must(t, l.disk.Spoil(lossyfs.Faults{}))
	must(t, <-done)
	l.disk.PowerCut()
	l.restart(t)
	verifyFrom(l.ctx, t, l.cluster, l.writer, l.victim)
}

// missing lists the acknowledged edits that the node does not show.
func (w *writer) missing(ctx context.Context) (keys []string, err error) {
	shown := map[string]bool{}
	for item, err := range w.client.List(ctx, "activity", httpapi.Query{Filter: fmt.Sprintf("account == %q", w.account), Limit: 1000}) {
		if err != nil {
			return nil, err
		}
		shown[item.Text("external_id")] = true
	}
	for key := range w.acked {
		if !shown[key] {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// A lossy is a cluster of one master and one branch, one of which has its
// directory on a lossy disk, and clerks at the branch.
type lossy struct {
	*writer
	ctx     context.Context
	cluster *Cluster
	victim  *Process
	disk    *lossyfs.FS
	stop    func() // of the clerks; returns when they have ended
}

func newLossy(t *testing.T, wait httpapi.Wait, victim func(*Cluster) *Process) *lossy {
	t.Helper()
	l := &lossy{stop: func() {}}
	var dir string
	l.disk, dir = mountLossy(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(*powerCuts)*15*time.Second)
	t.Cleanup(cancel)
	name := victim(&Cluster{Masters: []*Process{{Name: "m1"}}, Replicas: []*Process{{Name: "r-lisbon"}}}).Name
	l.ctx = ctx
	l.cluster = startAt(ctx, t, 1, func(p string) (Place, error) {
		if p == name {
			return Place{Base: dir}, nil
		}
		return Place{}, nil
	})
	l.victim = victim(l.cluster)
	l.writer = newWriter(ctx, t, l.cluster.Replicas[0], "clerk", wait)
	return l
}

// write lets n clerks write until stop.
func (l *lossy) write(n int) {
	loop, cancel := context.WithCancel(l.ctx)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { l.run(loop, fmt.Sprintf("clerk%d", i)) })
	}
	l.stop = func() { cancel(); wg.Wait() }
}

func (l *lossy) awaitEdits(t *testing.T, n int) {
	t.Helper()
	want := l.count() + n
	must(t, Await(l.ctx, "acknowledged edits", func() (bool, error) { return l.count() >= want, nil }))
}

// restart ends the victim and starts it again on what the disk has.
func (l *lossy) restart(t *testing.T) {
	t.Helper()
	must(t, l.victim.Kill())
	must(t, l.victim.Start())
	must(t, l.victim.AwaitReady(l.ctx))
}

// TestFailedSync_Replica lets single fsyncs of a branch's journal fail under
// load, and cuts the power later: the branch goes on by itself, and what was
// acknowledged after the failure does not rest on what it lost.
func TestFailedSync_Replica(t *testing.T) {
	t.Parallel()
	l := newLossy(t, 0, func(c *Cluster) *Process { return c.Replicas[0] })
	l.write(4)
	for n := range *powerCuts {
		l.awaitEdits(t, 20)
		must(t, l.disk.Spoil(failSync(n%2)))
		must(t, Await(l.ctx, "an fsync to fail", func() (bool, error) { return l.disk.Counts().Failed > n, nil }))
		l.awaitEdits(t, 20)
		l.disk.PowerCut()
		l.restart(t)
	}
	l.stop()
	verifyFrom(l.ctx, t, l.cluster, l.writer, l.victim)
	t.Logf("%d failed fsyncs: %d edits acknowledged of %d tried", *powerCuts, l.count(), l.tried)
}

// failSync fails one fsync of a journal: of a commit's pages, or with spare 1 of
// its head.
func failSync(spare int) lossyfs.Faults {
	return lossyfs.Faults{Files: []lossyfs.FileFault{{Match: "journal.db", Sync: true, Spare: spare, Times: 1}}}
}

// TestFailedSync_OfPagesOrHead fails either fsync of a commit. An edit whose pages
// were not synced is not taken; one whose head was not is, and its author is told
// that nobody knows. Both times the next edit is acknowledged, and lasts.
func TestFailedSync_OfPagesOrHead(t *testing.T) {
	t.Parallel()
	l := newLossy(t, 0, func(c *Cluster) *Process { return c.Replicas[0] })
	must(t, l.cluster.Masters[0].Kill()) // so that nobody else has the edits
	must(t, l.edits(l.ctx, 20, "before"))
	for spare, want := range []crm.Code{crm.CodeInternal, crm.CodeUnsynced} {
		must(t, l.disk.Spoil(failSync(spare)))
		if err := l.edits(l.ctx, 1, "failed"); crm.CodeOf(err) != want {
			t.Errorf("with fsync %d failing the clerk is told %v, want %s", spare, err, want)
		}
		_, _, err := l.client.Get(l.ctx, "contact", l.contact, httpapi.Asked{})
		must(t, err)
		must(t, l.edits(l.ctx, 1, "after"))
		l.cutAndCount(t, l.count()+spare)
	}
	must(t, l.cluster.Masters[0].Start())
	must(t, l.cluster.Masters[0].AwaitReady(l.ctx))
}

// TestFailedSync_ThenACut: the head of a commit is lost, and the power fails in the
// next commit, which has written over pages that only the head before needed. The
// fsync between them succeeded, so the journal must not rest on that older head.
func TestFailedSync_ThenACut(t *testing.T) {
	t.Parallel()
	l := newLossy(t, 0, func(c *Cluster) *Process { return c.Replicas[0] })
	must(t, l.cluster.Masters[0].Kill())
	must(t, l.edits(l.ctx, 20, "before"))
	must(t, l.disk.Spoil(failSync(1)))
	if err := l.edits(l.ctx, 1, "failed"); crm.CodeOf(err) != crm.CodeUnsynced {
		t.Fatalf("with the last fsync failing the clerk is told %v", err)
	}
	syncs := l.disk.Counts().FileSyncs
	must(t, l.disk.Spoil(lossyfs.Faults{Files: []lossyfs.FileFault{{Match: "journal.db", Stall: time.Hour, Spare: 2}}}))
	acked, done := l.count(), make(chan error, 1)
	go func() { done <- l.edits(l.ctx, 1, "cut") }()
	must(t, Await(l.ctx, "the mending and the pages of the next commit", func() (bool, error) { return l.disk.Counts().FileSyncs >= syncs+2, nil }))
	l.cutAndCount(t, acked+1)
	if err := <-done; err == nil {
		t.Error("an edit was acknowledged whose head was not synced")
	}
	must(t, l.cluster.Masters[0].Start())
	must(t, l.cluster.Masters[0].AwaitReady(l.ctx))
}

// cutAndCount cuts the power, compares how many of the writer's edits the journal
// is left with, and starts the victim.
func (l *lossy) cutAndCount(t *testing.T, want int) {
	t.Helper()
	l.disk.PowerCut()
	must(t, l.victim.Kill())
	if kept := notesIn(t, l.victim.Dir); kept != want {
		t.Fatalf("the cut left %d edits in the journal, want %d", kept, want)
	}
	must(t, l.disk.Spoil(lossyfs.Faults{}))
	must(t, l.victim.Start())
	must(t, l.victim.AwaitReady(l.ctx))
}
