package master

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
)

// The tests of this file hold up the shape of open issues of hashicorp/raft to
// our masters, under the number of the issue.

// city is where a node of a lab stands.
func city(n int) string { return []string{"Frankfurt", "Paris", "Amsterdam"}[n%3] }

// TestIssue695_TheOddOneOutStops injects the effect of the issue (see
// TestIssue695_AHeartbeatOfANewTermWaitsItsTurn for the issue itself): one
// voter's log has another entry than the others' at one index, or its records
// are as if it had applied one. It stops within the interval between two
// comparisons, keeps its files, and will not start on them again; the others go
// on.
func TestIssue695_TheOddOneOutStops(t *testing.T) {
	for _, leads := range []bool{true, false} {
		for _, log := range []bool{true, false} {
			t.Run(fmt.Sprintf("leads=%v,log=%v", leads, log), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { stopTheOddOne(t, leads, log) })
			})
		}
	}
}

func stopTheOddOne(t *testing.T, leads, log bool) {
	const every = 10 * time.Second
	w := newFaultWorld(t, faultOptions{edit: func(_ int, c *ledgerConfig) { c.StateEvery = every }})
	odd := w.leader()
	if !leads {
		odd = w.ledgers[odd.n%3+1]
	}
	w.settle(1, 2, 3)
	since := time.Now()
	if !log {
		tamper(t, odd)
	} else {
		var once sync.Once
		other := mustEncode(t, TrimEntry{1})
		w.disks[odd.n].alter(func(l *raft.Log) {
			if l.Type == raft.LogCommand && l.Data[0] == kindPush {
				once.Do(func() { l.Data = other })
			}
		})
	}
	stop := w.work(200 * time.Millisecond)
	defer stop()
	w.waitFor("the odd one to stop", func() bool { return len(odd.failures()) > 0 })
	if took := time.Since(since); took > every+2*pollTick+pollTime {
		t.Errorf("it took %v to find the difference; masters compare every %v", took, every)
	}
	w.waitFor("another leader", func() bool {
		id, _, self := odd.leader()
		return !self && id != "" && id != odd.cfg.ID
	})
	w.distrusted(odd.n)
	time.Sleep(2 * every)
	stop()
	var others []int
	for n, l := range w.ledgers {
		if errs := l.failures(); n != odd.n {
			others = append(others, n)
			if len(errs) > 0 {
				t.Errorf("master %d, which is right: %v", n, errs)
			}
		}
	}
	delete(w.ledgers, odd.n)
	w.prove(others...)
}

// distrusted ends a master that distrusts its files and demands that it keeps
// them and does not start on them again.
func (w *faultWorld) distrusted(n int) {
	w.t.Helper()
	l := w.ledgers[n]
	if errs := l.failures(); len(errs) != 1 || !untrustworthy(errs[0]) {
		w.t.Fatalf("master %d stopped over %v", n, errs)
	}
	w.end(n, true)
	l.host = l.host.Revive()
	for range 2 {
		_, err := openLedger(w.config(l))
		if crm.CodeOf(err) != CodeDistrusted || !strings.Contains(err.Error(), fmt.Sprintf("operator raft remove-peer %s`", serverID(crm.NodeID(n)))) {
			w.t.Errorf("started again, master %d says %v", n, err)
		}
	}
	if _, err := os.Stat(l.dir + "/master.db"); err != nil {
		w.t.Error(err)
	}
}

// TestIssue503_ALeaderWhoseDiskHangsEnds: its heartbeats go on, so nobody takes
// over and nothing is decided, until the watchdog ends it.
func TestIssue503_ALeaderWhoseDiskHangsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFaultWorld(t, faultOptions{})
		old := w.leader()
		w.stalls[old.n] = w.disks[old.n].stall()
		start := time.Now()
		clerk, done := w.writers[0], make(chan error, 1)
		go func() { done <- clerk.write(context.Background(), w) }()
		time.Sleep(old.cfg.StallAfter - time.Second)
		for n, l := range w.ledgers {
			if id, _, _ := l.leader(); id != old.cfg.ID {
				t.Errorf("after %v master %d follows %q: the issue is not what it was", time.Since(start), n, id)
			}
		}
		w.waitFor("the watchdog", func() bool { return len(old.failures()) > 0 })
		if took := time.Since(start); took > old.cfg.StallAfter+handoverTime+time.Second {
			t.Errorf("the watchdog took %v", took)
		}
		w.reap()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("the proposal was decided after %v", took)
		}
		w.calm()
		w.prove(1, 2, 3)
	})
}

// TestIssue503_AStalledCommitHandsOver: while the file of the records hangs, Raft
// does not, so another master leads before this one ends.
func TestIssue503_AStalledCommitHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFaultWorld(t, faultOptions{})
		old := w.leader()
		returned := old.watch.watch("a commit that hangs")
		defer returned()
		w.waitFor("another leader", func() bool {
			id, _, _ := old.leader()
			return id != "" && id != old.cfg.ID
		})
		w.waitFor("the old one to end", func() bool { return len(old.failures()) > 0 })
		w.reap()
		w.calm()
		w.prove(1, 2, 3)
	})
}

// TestIssue612_AFollowerIsNeverWedged: whatever happens to a follower under load,
// it catches up with the leader it had. Pipelined replication, whose deadlock the
// issue is, is off.
func TestIssue612_AFollowerIsNeverWedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFaultWorld(t, faultOptions{})
		leader := w.leader()
		n := leader.n%3 + 1
		if _, err := leader.trans.AppendEntriesPipeline(serverID(crm.NodeID(n)), raft.ServerAddress(raftAddress(n))); err != raft.ErrPipelineReplicationNotSupported {
			t.Errorf("pipelines: %v", err)
		}
		stop := w.work(20 * time.Millisecond)
		defer stop()
		for what, do := range map[string]func(){
			"a disk that hangs": func() {
				release := w.disks[n].stall()
				time.Sleep(5 * time.Second)
				release()
			},
			"a write that fails": func() {
				w.disks[n].fail(syscall.EIO)
				w.waitFor("the follower to end", func() bool { return len(w.ledgers[n].failures()) > w.seen[n] })
				w.reap()
				w.again(n)
			},
			"connections that break": func() { w.wires[n].drop(w.rng) },
			"connections that fall silent": func() {
				w.wires[n].mute()
				time.Sleep(rpcTimeout)
			},
			"a crash": func() {
				w.end(n, true)
				time.Sleep(5 * time.Second)
				w.again(n)
			},
			"a cut": func() {
				w.must(w.net.CutOneWay(city(n), city(leader.n)))
				time.Sleep(3 * time.Second)
				w.net.HealAll()
			},
		} {
			do()
			head := leader.evaluated()
			w.waitFor("the follower to catch up after "+what, func() bool { return w.ledgers[n].head() > head })
			if _, _, self := leader.leader(); !self {
				t.Errorf("%s of a follower cost the leader its place", what)
				leader = w.leader()
			}
		}
		stop()
		w.calm()
		w.prove(1, 2, 3)
	})
}

// TestIssue697_ASnapshotOntoALogThatParted: a leader that was cut off has entries
// that nobody else has. The others go on and drop the part of their logs where
// it parted from them, so they send it their state. If its log ends before that
// state, it goes on at once; if it goes further, Raft would keep refusing what
// follows and be sent the state again and again, and only a new start helps.
func TestIssue697_ASnapshotOntoALogThatParted(t *testing.T) {
	for _, further := range []bool{false, true} {
		for _, bolt := range []bool{false, true} {
			t.Run(fmt.Sprintf("further=%v,bbolt=%v", further, bolt), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { snapshotOntoParted(t, further, bolt) })
			})
		}
	}
}

func snapshotOntoParted(t *testing.T, further, bolt bool) {
	var installed tally
	w := newFaultWorld(t, faultOptions{bolt: bolt, edit: func(_ int, c *ledgerConfig) {
		shortLog(c)
		c.Observe.Snapshot = func(time.Duration) { installed.add(1) }
	}})
	old := w.leader()
	w.must(w.net.Isolate(city(old.n)))
	lone := 20
	if further {
		lone = 400
	}
	var alone sync.WaitGroup
	for i := range lone { // within the lease: none can be decided
		alone.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, _, err := old.propose(ctx, FreezeEntry{Node: 3, Reason: fmt.Sprint(i)}); err == nil {
				t.Error("a leader without followers decided")
			}
		})
	}
	alone.Wait()
	w.waitFor("another leader", func() bool {
		for n, l := range w.ledgers {
			if _, _, self := l.leader(); self && n != old.n {
				return true
			}
		}
		return false
	})
	last, err := old.log.LastIndex()
	w.must(err)
	w.mu.Lock()
	delete(w.live, old.n) // the clerks would ask it in vain
	w.mu.Unlock()
	for range 60 {
		for _, c := range w.writers {
			w.must(c.write(t.Context(), w))
		}
	}
	time.Sleep(5 * time.Second) // two looks at the threshold
	w.mu.Lock()
	w.live[old.n] = old.ledger
	w.mu.Unlock()
	before := installed.value()
	w.net.HealAll()
	next := w.leader()
	first, err := next.log.FirstIndex()
	w.must(err)
	end, err := next.log.LastIndex()
	w.must(err)
	if first <= last-uint64(lone) || further != (last > end) {
		t.Fatalf("the old log ends at %d, the others' goes from %d to %d", last, first, end)
	}
	if further {
		w.waitFor("the old leader to stop", func() bool { return len(old.failures()) > 0 })
		if err := old.failures()[0]; untrustworthy(err) || !strings.Contains(err.Error(), "start this master again") {
			t.Errorf("it stopped over %v", err)
		}
		w.reap()
		w.again(old.n)
	}
	w.prove(1, 2, 3)
	if errs := old.failures(); !further && len(errs) > 0 {
		t.Errorf("the old leader failed: %v", errs)
	}
	time.Sleep(time.Minute)
	if n := installed.value() - before; n > 10 {
		t.Errorf("%d snapshots were taken, sent or installed in a quiet minute", n)
	}
}

// A tally counts from any goroutine.
type tally struct {
	mu sync.Mutex
	n  int
}

func (c *tally) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func (c *tally) value() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
