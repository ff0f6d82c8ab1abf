package master

import (
	flags "flag"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

var (
	seed  = flags.Uint64("seed", 1, "first seed of the runs with faults")
	seeds = flags.Int("seeds", 12, "how many runs with faults there are")
)

// TestFaults_MastersAgreeAfterThem runs three masters through a random history
// of faults: cuts, one-way cuts, connections that break in the middle of a call,
// fall silent or are slow, disks that hang and fail, crashes with and without
// loss of what was not synced, and changes of the lead. Meanwhile three clerks
// write. Afterwards every master holds what was acknowledged, once, and the
// same. No master may have taken its sound files for damaged.
func TestFaults_MastersAgreeAfterThem(t *testing.T) {
	for i := range *seeds {
		n := *seed + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { faultyRun(t, n) })
			if t.Failed() {
				t.Logf("play it again with -seed %d -seeds 1", n)
			}
		})
	}
}

func faultyRun(t *testing.T, n uint64) {
	w := newFaultWorld(t, faultOptions{seed: n, bolt: n%4 == 3, edit: func(_ int, c *ledgerConfig) {
		if n%2 == 0 {
			shortLog(c)
		}
	}})
	stop := w.work(400 * time.Millisecond)
	defer stop()
	for range 30 {
		time.Sleep(time.Duration(100+w.rng.IntN(3000)) * time.Millisecond)
		w.fault()
		w.reap()
	}
	w.calm()
	time.Sleep(20 * time.Second)
	w.calm() // a disk that hung until now may have ended another one
	stop()
	w.prove(1, 2, 3)
	done := 0
	for _, c := range w.writers {
		done += len(c.revs)
	}
	if done == 0 {
		t.Error("nothing was acknowledged")
	}
	t.Logf("%d edits acknowledged", done)
}

// TestFaults_DamageStaysWhereItIs flips a random bit in one master's Raft log
// while clerks write and another master has to catch up. The damaged master
// stops, or will not start, or never needed that byte; no other one blames itself,
// and they hold all that was acknowledged.
func TestFaults_DamageStaysWhereItIs(t *testing.T) {
	noticed := 0
	for i := range *seeds {
		n := *seed + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if damagedRun(t, n) {
					noticed++
				}
			})
			if t.Failed() {
				t.Logf("play it again with -seed %d -seeds 1", n)
			}
		})
	}
	t.Logf("%d of %d were noticed", noticed, *seeds)
	if noticed == 0 && *seeds >= 10 {
		t.Error("no damage was noticed")
	}
}

func damagedRun(t *testing.T, n uint64) (noticed bool) {
	w := newFaultWorld(t, faultOptions{seed: n})
	bad := w.rng.IntN(3) + 1
	w.bad = bad
	if w.rng.IntN(2) == 0 && w.leader().n != bad {
		w.must(w.leader().transfer(t.Context(), serverID(crm.NodeID(bad))))
	}
	away := 6 - bad - w.leader().n // the third of 1, 2 and 3
	if w.leader().n == bad {
		away = bad%3 + 1
	}
	w.end(away, true)
	stop := w.work(50 * time.Millisecond)
	defer stop()
	time.Sleep(5 * time.Second)
	if !w.disks[bad].flip(w.rng) {
		t.Fatal("there is nothing to damage")
	}
	if w.rng.IntN(2) == 0 {
		w.end(bad, false)
		w.again(bad)
	}
	time.Sleep(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
	w.again(away)
	for range 10 {
		time.Sleep(time.Second)
		w.reap()
	}
	stop()
	nodes := []int{1, 2, 3}
	if noticed = !w.running(bad); noticed {
		nodes = slices.DeleteFunc(nodes, func(n int) bool { return n == bad })
		delete(w.ledgers, bad)
	}
	w.prove(nodes...)
	return noticed
}
