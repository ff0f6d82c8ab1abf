package master

import (
	flags "flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
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
