package master

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// eachLog runs a conformance test on every kind of log; reopen closes and opens
// it again.
func eachLog(t *testing.T, test func(t *testing.T, log logStore, reopen func() logStore)) {
	for _, kind := range []logKind{logWAL, logBolt, logMemory} {
		t.Run(string(kind), func(t *testing.T) {
			cfg, dir := ledgerConfig{Log: kind, Memory: raft.NewInmemStore()}.withDefaults(), t.TempDir()
			var log logStore
			open := func() logStore {
				var err error
				if log, err = openLogStore(cfg, dir); err != nil {
					t.Fatal(err)
				}
				return log
			}
			open()
			test(t, log, func() logStore {
				if err := log.Close(); err != nil {
					t.Fatal(err)
				}
				return open()
			})
			if err := log.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func someLogs(from, to uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: i / 3, Type: raft.LogType(i % 2 * 5), Data: fmt.Appendf(nil, "entry %d", i),
			AppendedAt: time.Unix(0, int64(i)*1000).UTC()})
	}
	return logs
}

func mustHold(t *testing.T, log logStore, first, last uint64) {
	t.Helper()
	gotFirst, err1 := log.FirstIndex()
	gotLast, err2 := log.LastIndex()
	if err := errors.Join(err1, err2); err != nil || gotFirst != first || gotLast != last {
		t.Fatalf("the log is %d..%d, want %d..%d, error %v", gotFirst, gotLast, first, last, err)
	}
	if first == 0 {
		return
	}
	for _, want := range someLogs(first, last) {
		var got raft.Log
		if err := log.GetLog(want.Index, &got); err != nil {
			t.Fatalf("entry %d: %v", want.Index, err)
		}
		got.AppendedAt = got.AppendedAt.UTC()
		if d := cmp.Diff(*want, got); d != "" {
			t.Fatalf("entry %d (-want +got):\n%s", want.Index, d)
		}
	}
	var none raft.Log
	if err := log.GetLog(last+1, &none); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("entry %d, which is not there: %v", last+1, err)
	}
}

func TestLogStore_KeepsALog(t *testing.T) {
	eachLog(t, func(t *testing.T, log logStore, reopen func() logStore) {
		step := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		mustHold(t, log, 0, 0)
		if !log.IsMonotonic() {
			t.Error("the log would be left with a gap")
		}
		step(log.StoreLogs(someLogs(1, 10)))
		step(log.StoreLog(someLogs(11, 11)[0]))
		mustHold(t, log, 1, 11)
		log = reopen()
		mustHold(t, log, 1, 11)
		step(log.DeleteRange(1, 4)) // a snapshot
		mustHold(t, log, 5, 11)
		step(log.DeleteRange(9, 11)) // a conflict
		mustHold(t, log, 5, 8)
		step(log.StoreLogs(someLogs(9, 12)))
		log = reopen()
		mustHold(t, log, 5, 12)
		step(log.DeleteRange(5, 12)) // a snapshot from the leader
		mustHold(t, log, 0, 0)
		step(log.StoreLogs(someLogs(100, 102)))
		log = reopen()
		mustHold(t, log, 100, 102)
	})
}

func TestLogStore_KeepsVariables(t *testing.T) {
	eachLog(t, func(t *testing.T, log logStore, reopen func() logStore) {
		if n, err := log.GetUint64([]byte("CurrentTerm")); n != 0 || err != nil && err.Error() != "not found" {
			t.Errorf("a variable never set is %d, %v", n, err)
		}
		if err := errors.Join(log.SetUint64([]byte("CurrentTerm"), 9), log.Set([]byte("x"), []byte("y"))); err != nil {
			t.Fatal(err)
		}
		log = reopen()
		n, err1 := log.GetUint64([]byte("CurrentTerm"))
		v, err2 := log.Get([]byte("x"))
		if err := errors.Join(err1, err2); n != 9 || string(v) != "y" || err != nil {
			t.Errorf("after reopening: %d, %q, %v", n, v, err)
		}
	})
}

func TestLogStore_BboltRefusesAGap(t *testing.T) {
	log, err := openBoltLog(filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.StoreLogs(someLogs(1, 3)); err != nil {
		t.Fatal(err)
	}
	for _, from := range []uint64{2, 5} {
		if err := log.StoreLogs(someLogs(from, from)); err == nil {
			t.Errorf("entry %d was taken after 3", from)
		}
	}
	mustHold(t, log, 1, 3)
}

// TestVoteStore_VotesInOneStep: a crash between Raft's two writes of a vote
// leaves the vote before.
func TestVoteStore_VotesInOneStep(t *testing.T) {
	eachLog(t, func(t *testing.T, log logStore, reopen func() logStore) {
		read := func() (uint64, string) {
			s := &voteStore{StableStore: log}
			term, err1 := s.GetUint64([]byte(keyVoteTerm))
			who, err2 := s.Get([]byte(keyVoteCandidate))
			for _, err := range []error{err1, err2} {
				if err != nil && err.Error() != "not found" {
					t.Fatal(err)
				}
			}
			return term, string(who)
		}
		if term, who := read(); term != 0 || who != "" {
			t.Errorf("before any vote: %d for %q", term, who)
		}
		s := &voteStore{StableStore: log, watch: &watchdog{after: time.Minute}}
		if err := errors.Join(s.SetUint64([]byte(keyVoteTerm), 4), s.Set([]byte(keyVoteCandidate), []byte("m2:7400"))); err != nil {
			t.Fatal(err)
		}
		if err := s.SetUint64([]byte(keyVoteTerm), 5); err != nil {
			t.Fatal(err)
		}
		log = reopen()
		if term, who := read(); term != 4 || who != "m2:7400" {
			t.Errorf("after a crash in the vote of term 5: %d for %q", term, who)
		}
	})
}

// A stuckDisk is a log on a disk whose writes do not return until released.
type stuckDisk struct {
	memoryLog
	released chan struct{}
}

func (d stuckDisk) StoreLogs(logs []*raft.Log) error {
	<-d.released
	return d.memoryLog.StoreLogs(logs)
}

func TestWatchdog_EndsAProcessWhoseDiskStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var fatal []error
		w := &watchdog{after: 10 * time.Second, fatal: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			fatal = append(fatal, err)
		}}
		failures := func() int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return len(fatal)
		}
		disk := stuckDisk{memoryLog{raft.NewInmemStore()}, make(chan struct{})}
		log := &guardedLog{logStore: disk, watch: w, cfg: ledgerConfig{}.withDefaults(), applied: func() position { return position{} }, leads: func() bool { return false }, fatal: w.fatal}
		var writing sync.WaitGroup
		writing.Go(func() {
			if err := log.StoreLog(&raft.Log{Index: 1, Type: raft.LogNoop}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(9 * time.Second)
		if n := failures(); n != 0 {
			t.Errorf("%d failures after 9 s", n)
		}
		time.Sleep(2 * time.Second)
		if n := failures(); n != 1 {
			t.Errorf("%d failures after 11 s", n)
		}
		close(disk.released)
		writing.Wait()
		if err := errors.Join(log.StoreLog(&raft.Log{Index: 2, Type: raft.LogNoop}), log.DeleteRange(1, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := failures(); n != 1 {
			t.Errorf("%d failures after writes that returned", n)
		}
	})
}
