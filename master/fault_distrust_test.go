package master

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
)

// TestDistrust_HandsOverStopsAndIsReplaced: what a scrub does with a master whose
// files are damaged, and what an operator does then, under load.
func TestDistrust_HandsOverStopsAndIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told tally
		w := newFaultWorld(t, faultOptions{edit: func(_ int, c *ledgerConfig) {
			c.Observe.Distrusted = func(error) { told.add(1) }
		}})
		stop := w.work(50 * time.Millisecond)
		defer stop()
		old := w.leader()
		for range 3 {
			old.distrust(errors.New("a scrub found a damaged page"))
		}
		w.waitFor("another leader", func() bool {
			id, _, _ := old.leader()
			return id != "" && id != old.cfg.ID
		})
		w.waitFor("the end", func() bool { return len(old.failures()) > 0 })
		if told.value() != 1 {
			t.Errorf("it was told %d times", told.value())
		}
		w.distrusted(old.n)

		w.start(4)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		leader := w.leader()
		w.must(leader.removeServer(ctx, serverID(crm.NodeID(old.n))))
		w.must(leader.addNonvoter(ctx, serverID(4), raftAddress(4)))
		w.must(leader.addVoter(ctx, serverID(4), raftAddress(4)))
		time.Sleep(10 * time.Second)
		stop()
		var nodes []int
		for n := range w.ledgers {
			if n != old.n {
				nodes = append(nodes, n)
			}
		}
		delete(w.ledgers, old.n)
		w.prove(nodes...)
	})
}

// TestDistrust_OutlivesAnotherFailure: the first failure ends the process, and a
// finding that comes right behind it is noted all the same.
func TestDistrust_OutlivesAnotherFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFaultWorld(t, faultOptions{})
		l := w.leader()
		l.ledger.fatal(errors.New("a disk that hangs"))
		l.distrust(errors.New("and lies"))
		w.waitFor("the end", func() bool { return len(l.failures()) > 0 })
		synctest.Wait()
		if err := l.refuseDistrusted(); crm.CodeOf(err) != CodeDistrusted {
			t.Errorf("started again it would say %v", err)
		}
		w.reap()
	})
}

// onDisk makes the masters of a lab keep their Raft logs in real files.
func onDisk(edit func(n int, c *ledgerConfig)) func(n int, c *ledgerConfig) {
	return func(n int, c *ledgerConfig) {
		c.Log = logWAL
		if edit != nil {
			edit(n, c)
		}
	}
}

// flipIn inverts a bit of text where it stands in a master's WAL.
func flipIn(t *testing.T, l *labLedger, text string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(l.dir, "raft", "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, []byte(text)); at >= 0 {
			flipAt(t, path, int64(at), b[at]^0x10)
			return
		}
	}
	t.Fatalf("%q is nowhere in the WAL of master %d", text, l.n)
}

func flipAt(t *testing.T, path string, at int64, to byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{to}, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestVerifier_FindsAFlippedBit: a bit that flips in a segment of the WAL is found
// with the next mark, on the master where it happened and on no other.
func TestVerifier_FindsAFlippedBit(t *testing.T) {
	for _, leads := range []bool{true, false} {
		t.Run(fmt.Sprintf("leads=%v", leads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { findTheFlippedBit(t, leads) })
		})
	}
}

func findTheFlippedBit(t *testing.T, leads bool) {
	var verified, distrusted tally
	w := newLab(t, 3, onDisk(func(_ int, c *ledgerConfig) {
		c.Observe.Verified = func() { verified.add(1) }
		c.Observe.Distrusted = func(error) { distrusted.add(1) }
	}))
	c := first()
	w.mustDecide(c, 3, "sound")
	w.waitFor("each master to verify", func() bool { return verified.value() >= 3 })
	bad := w.leader()
	if !leads {
		bad = w.ledgers[bad.n%3+1]
	}
	w.mustDecide(c, 1, "fragile")
	flipIn(t, bad, "fragile-0")
	w.waitFor("it to be found", func() bool { return len(bad.failures()) > 0 })
	if err := bad.failures()[0]; !errors.Is(err, errDamaged) {
		t.Errorf("it stopped over %v", err)
	}
	w.kill(bad)
	w.mustDecide(c, 3, "after")
	time.Sleep(time.Minute)
	for n, l := range w.ledgers {
		if errs := l.failures(); n != bad.n && len(errs) > 0 {
			t.Errorf("master %d, which is sound: %v", n, errs)
		}
	}
	if distrusted.value() != 1 {
		t.Errorf("%d masters distrust their files", distrusted.value())
	}
	bad.host = bad.host.Revive()
	if _, err := openLedger(w.config(bad)); crm.CodeOf(err) != CodeDistrusted {
		t.Errorf("started again it says %v", err)
	}
}

// TestVerifier_KeepsQuietWhenTheLogIsCutOff: entries that a new leader replaces,
// marks among them, are no damage.
func TestVerifier_KeepsQuietWhenTheLogIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var verified tally
		w := newFaultWorld(t, faultOptions{edit: func(_ int, c *ledgerConfig) {
			c.StateEvery = time.Hour
			c.Observe.Verified = func() { verified.add(1) }
		}})
		for round := range 6 {
			before := verified.value()
			w.mustPropose(StateEntry{})
			w.waitFor("all to verify", func() bool { return verified.value() >= before+3 })
			old := w.leader()
			w.must(w.net.Isolate(city(old.n)))
			var alone sync.WaitGroup
			for i := range 6 {
				alone.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					defer cancel()
					if i == 3 && round%2 == 0 {
						old.propose(ctx, StateEntry{}) // a mark that nobody else will see
					} else {
						old.propose(ctx, FreezeEntry{Node: 9, Reason: fmt.Sprint(i)})
					}
				})
			}
			alone.Wait()
			w.waitFor("the old leader to give up", func() bool { return old.raft.State() != raft.Leader })
			w.must(w.writers[0].write(t.Context(), w))
			w.net.HealAll()
			w.must(w.writers[0].write(t.Context(), w))
		}
		w.reap()
		w.prove(1, 2, 3)
	})
}

// TestGuardedLog_ALeaderDoesNotPassOnDamage: an entry that was sound when it was
// verified is damaged when a master that was away needs it. The leader finds out
// before it sends it, another one leads, and the one that was away gets it whole.
func TestGuardedLog_ALeaderDoesNotPassOnDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, onDisk(nil))
		c := first()
		old := w.leader()
		away := w.ledgers[old.n%3+1]
		w.kill(away)
		w.mustDecide(c, 1, "fragile")
		for i := range 300 { // more than Raft keeps in memory
			w.mustDecide(c, 1, fmt.Sprint("more-", i))
		}
		time.Sleep(20 * time.Second)
		flipIn(t, old, "fragile-0")
		w.start(away.n)
		w.waitFor("the leader to find it", func() bool { return len(old.failures()) > 0 })
		if err := old.failures()[0]; !errors.Is(err, errDamaged) {
			t.Errorf("it stopped over %v", err)
		}
		w.kill(old)
		delete(w.ledgers, old.n)
		var rest []int
		for n := range w.ledgers {
			rest = append(rest, n)
		}
		w.mustDecide(c, 1, "after")
		w.mustAgree(rest...)
		for n, l := range w.ledgers {
			if errs := l.failures(); len(errs) > 0 {
				t.Errorf("master %d, which is sound: %v", n, errs)
			}
		}
	})
}

// TestGuardedLog_RefusesDamageFromTheLeader: what is damaged in the memory of the
// leader, or between it and here, is not stored, and its writer is not blamed for
// good.
func TestGuardedLog_RefusesDamageFromTheLeader(t *testing.T) {
	for _, leads := range []bool{true, false} {
		var fatal []error
		log := &guardedLog{logStore: memoryLog{raft.NewInmemStore()}, cfg: ledgerConfig{}.withDefaults(), watch: &watchdog{after: time.Minute},
			applied: func() position { return position{} }, leads: func() bool { return leads }, fatal: func(err error) { fatal = append(fatal, err) }}
		good, bad := mustEncode(t, TrimEntry{1}), mustEncode(t, TrimEntry{2})
		bad[1] ^= 4
		if err := log.StoreLogs([]*raft.Log{{Index: 1, Data: good}, {Index: 2, Data: bad}}); err == nil {
			t.Error("a damaged entry was stored")
		}
		if last, _ := log.LastIndex(); last != 0 {
			t.Errorf("the log ends at %d", last)
		}
		if stopped := len(fatal) > 0; stopped != leads {
			t.Errorf("leads %v, failures %v", leads, fatal)
		}
		if err := log.StoreLog(&raft.Log{Index: 1, Data: good}); err != nil {
			t.Errorf("a sound entry was refused: %v", err)
		}
	}
}

// TestGuardedLog_WhatIsAppliedStays: two of three disks forget what they had
// acknowledged. The masters on them agree on something else, and would have the
// third replace what it has decided and told; it stops instead, before it serves
// anything else than before.
func TestGuardedLog_WhatIsAppliedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFaultWorld(t, faultOptions{})
		first := w.ledgers[1]
		if old := w.leader(); old.n != 1 {
			w.must(old.transfer(t.Context(), serverID(1)))
			w.waitFor("the first to lead", func() bool { _, _, self := first.leader(); return self })
		}
		w.settle(1, 2, 3)
		records := filepath.Join(w.ledgers[2].dir, "master.db")
		old, err := os.ReadFile(records)
		w.must(err)
		w.disks[2].lie(true)
		w.end(3, false)
		for range 3 {
			w.must(w.writers[0].write(t.Context(), w))
		}
		head := first.evaluated()
		w.waitFor("the records to be committed", func() bool { return first.head() == head })
		w.must(w.net.Isolate(city(1)))
		w.end(2, true)
		w.disks[2].lie(false)
		w.must(os.WriteFile(records, old, 0o600)) // newer ones would tell on their log
		w.again(2)
		w.again(3)
		w.waitFor("the forgetful to elect", func() bool {
			for _, n := range []int{2, 3} {
				if _, _, self := w.ledgers[n].leader(); self {
					_, _, err := w.ledgers[n].propose(t.Context(), FreezeEntry{Node: 3, Reason: "something else"})
					return err == nil
				}
			}
			return false
		})
		w.net.HealAll()
		w.waitFor("the first to stop", func() bool { return len(first.failures()) > 0 })
		if err := first.failures()[0]; !errors.Is(err, errDiverged) {
			t.Errorf("it stopped over %v", err)
		}
		if got := first.head(); got != head {
			t.Errorf("it was at rev %d and is at %d", head, got)
		}
		w.distrusted(1)
	})
}
