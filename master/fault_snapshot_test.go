package master

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestSnapshots_UnderLoad: a follower that was away for long is sent the records
// while clerks go on, and catches up: at once, in spite of a line on which the
// transfer breaks again and again, and when the first file is out of date before
// it has arrived so that a second one follows it.
func TestSnapshots_UnderLoad(t *testing.T) {
	for name, during := range map[string]func(w *faultWorld, leader, away int, installs *tally){
		"undisturbed": func(*faultWorld, int, int, *tally) {},
		"interrupted": func(w *faultWorld, leader, away int, installs *tally) {
			old := w.ledgers[away].head()
			w.wires[leader].shorten(30000)
			for range 5 {
				time.Sleep(2 * time.Second)
				if got := w.ledgers[away].head(); got != old || installs.value() != 0 {
					w.t.Errorf("an interrupted transfer took master %d from rev %d to %d, %d installed", away, old, got, installs.value())
				}
			}
			w.wires[leader].shorten(-1)
		},
		"two in a row": func(w *faultWorld, _, away int, installs *tally) {
			w.waitFor("the first to be installed", func() bool {
				noted, err := notedInstall(w.ledgers[away].dir)
				return err == nil && noted.index > 0
			})
			release := w.disks[away].stall() // meanwhile the leader drops what comes next
			time.Sleep(5 * time.Second)
			release()
			w.waitFor("the second to be installed", func() bool { return installs.value() >= 2 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var installs tally
				away := 0
				w := newFaultWorld(t, faultOptions{edit: func(n int, c *ledgerConfig) {
					shortLog(c)
					if n == away {
						c.SnapshotThreshold = 1 << 20 // it takes none itself
						c.Observe.Snapshot = func(time.Duration) { installs.add(1) }
					}
				}})
				leader := w.leader()
				away = leader.n%3 + 1
				w.end(away, true)
				stop := w.work(20 * time.Millisecond)
				defer stop()
				time.Sleep(10 * time.Second)
				w.again(away)
				during(w, leader.n, away, &installs)
				head := w.leader().evaluated()
				w.waitFor("it to catch up under load", func() bool { return w.ledgers[away].head() > head })
				if installs.value() == 0 {
					t.Error("no snapshot was installed: the test shows nothing")
				}
				stop()
				w.prove(1, 2, 3)
				if _, err := os.Stat(filepath.Join(w.ledgers[away].dir, "incoming.db")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the file that was received is left behind: %v", err)
				}
				w.end(away, true)
				w.again(away)
				w.prove(1, 2, 3)
			})
		})
	}
}

// TestSnapshots_ACrashWhileInstalling: the process ends between the exchange of
// the records and the end of the log that belonged to the old ones.
func TestSnapshots_ACrashWhileInstalling(t *testing.T) {
	for _, bolt := range []bool{false, true} {
		t.Run(fmt.Sprintf("bbolt=%v", bolt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { crashWhileInstalling(t, bolt) })
		})
	}
}

func crashWhileInstalling(t *testing.T, bolt bool) {
	w := newFaultWorld(t, faultOptions{bolt: bolt, edit: func(_ int, c *ledgerConfig) { shortLog(c) }})
	away := w.leader().n%3 + 1
	disk := w.disks[away]
	w.end(away, true)
	stop := w.work(20 * time.Millisecond)
	time.Sleep(10 * time.Second)
	stop()
	time.Sleep(5 * time.Second)
	reached := make(chan struct{})
	disk.deleting = sync.OnceFunc(func() {
		close(reached)
		<-disk.ended
		disk.fail(syscall.EIO) // the process is dead: nothing is deleted
	})
	w.again(away)
	<-reached
	at := w.ledgers[away].fsm.published().at
	w.end(away, true)
	disk.deleting = nil
	noted, err := notedInstall(w.ledgers[away].dir)
	w.must(err)
	log, err := disk.open(w.logPath(filepath.Join(w.ledgers[away].dir, "raft")), nil)
	w.must(err)
	last, err1 := log.LastIndex()
	w.must(errors.Join(err1, log.Close()))
	if noted != at || last == 0 || last >= at.index {
		t.Fatalf("noted %v, at %v, the log ends at %d: this is not the crash that was meant", noted, at, last)
	}
	w.again(away)
	w.prove(1, 2, 3)
	w.reap()
}
