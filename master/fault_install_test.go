package master

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// logUpTo returns a log of entries from first to last, all of that term and
// sound, of a Raft in that term.
func logUpTo(t *testing.T, first, last, term uint64) *sealedLog {
	t.Helper()
	log := &sealedLog{logStore: memoryLog{raft.NewInmemStore()}}
	for i := first; first > 0 && i <= last; i++ {
		if err := log.StoreLog(&raft.Log{Index: i, Term: term, Data: mustEncode(t, TrimEntry{1})}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.SetUint64([]byte(keyCurrentTerm), term); err != nil {
		t.Fatal(err)
	}
	return log
}

// TestInstall_ACrashBeforeTheLogIsDropped: the exchange of the records and the
// end of the log that belongs to the old ones are two steps.
func TestInstall_ACrashBeforeTheLogIsDropped(t *testing.T) {
	for name, x := range map[string]struct {
		noted, at position
		last      uint64 // of the log afterwards
		term      uint64 // of Raft afterwards
	}{
		"nothing was under way":       {at: position{12, 2}, last: 15, term: 2},
		"the files were exchanged":    {noted: position{12, 3}, at: position{12, 3}, last: 0, term: 3},
		"they were not exchanged yet": {noted: position{40, 3}, at: position{12, 2}, last: 15, term: 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "raft"), 0o700); err != nil {
				t.Fatal(err)
			}
			if x.noted.index > 0 {
				if err := noteInstall(dir, x.noted); err != nil {
					t.Fatal(err)
				}
			}
			log := logUpTo(t, 5, 15, 2)
			if err := finishInstall(dir, log, x.at); err != nil {
				t.Fatal(err)
			}
			last, err1 := log.LastIndex()
			term, err2 := currentTerm(log)
			if err := errors.Join(err1, err2); err != nil || last != x.last || term != x.term {
				t.Errorf("the log ends at %d in term %d, want %d in %d, %v", last, term, x.last, x.term, err)
			}
			if noted, err := notedInstall(dir); err != nil || noted.index != 0 {
				t.Errorf("the note is still there: %v, %v", noted, err)
			}
			if err := checkLog(log, x.at); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInstall_ATornNoteSaysNothing: it was being written when the process ended,
// so nothing had been exchanged.
func TestInstall_ATornNoteSaysNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(installPath(dir), []byte{0, 0, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	log := logUpTo(t, 1, 3, 1)
	if err := finishInstall(dir, log, position{2, 1}); err != nil {
		t.Fatal(err)
	}
	if last, err := log.LastIndex(); last != 3 || err != nil {
		t.Errorf("the log ends at %d, %v", last, err)
	}
}

func TestCheckLog_RefusesWhatDoesNotGoWithTheRecords(t *testing.T) {
	damaged := logUpTo(t, 1, 9, 2)
	if err := damaged.logStore.StoreLog(&raft.Log{Index: 8, Term: 2, Data: []byte("entry 8, but")}); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		log  logStore
		at   position
		want error
	}{
		"a new directory":                       {logUpTo(t, 0, 0, 0), position{}, nil},
		"a log that goes further":               {logUpTo(t, 1, 9, 2), position{7, 2}, nil},
		"a log that ends there":                 {logUpTo(t, 1, 9, 2), position{9, 2}, nil},
		"a log that begins right behind":        {logUpTo(t, 5, 9, 2), position{4, 2}, nil},
		"no log, in a known term":               {logUpTo(t, 0, 0, 2), position{4, 2}, nil},
		"no log and no term":                    {logUpTo(t, 0, 0, 0), position{4, 2}, errDamaged},
		"a gap":                                 {logUpTo(t, 6, 9, 2), position{4, 2}, errDamaged},
		"a log that lost applied entries":       {logUpTo(t, 1, 6, 2), position{7, 2}, errDamaged},
		"another term at what is applied":       {logUpTo(t, 1, 9, 3), position{7, 2}, errDiverged},
		"a damaged entry that is to be applied": {damaged, position{7, 2}, errDamaged},
		"a damaged entry that is applied":       {damaged, position{8, 2}, errDamaged},
		"a damaged entry before it":             {damaged, position{9, 2}, nil},
	} {
		if err := checkLog(x.log, x.at); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
