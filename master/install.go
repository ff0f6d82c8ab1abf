package master

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// To install a file of decided records takes two steps that no disk does at
// once: the file is exchanged, and the Raft log, which belongs to the old one, is
// dropped. A note beside the log says that this is under way, so that after a
// crash in between the rest is done; without one, a log that does not go with the
// records has lost entries.

// keyCurrentTerm is the name that hashicorp/raft gives its term.
const keyCurrentTerm = "CurrentTerm"

func installPath(dir string) string { return filepath.Join(dir, "raft", "installing") }

// noteInstall notes durably, as index 8 ‖ term 8 bytes, that a file which holds
// the effects of every entry up to at is about to take the place of the present
// one in dir.
func noteInstall(dir string, at position) error {
	path := installPath(dir)
	b := binary.BigEndian.AppendUint64(indexKey(at.index), at.term)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// notedInstall returns what noteInstall noted, zero if nothing is under way. A
// note that was cut off says that the exchange had not begun.
func notedInstall(dir string) (position, error) {
	b, err := os.ReadFile(installPath(dir))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) != 16 {
		return position{}, nil
	}
	if err != nil {
		return position{}, err
	}
	return position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

func forgetInstall(dir string) error {
	if err := os.Remove(installPath(dir)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// finishInstall drops the log of a file that was exchanged before a crash. Raft
// must not vote in a term that is older than its records.
func finishInstall(dir string, log logStore, at position) error {
	noted, err := notedInstall(dir)
	if err != nil {
		return err
	}
	if noted.index == 0 || noted != at {
		return forgetInstall(dir)
	}
	first, err1 := log.FirstIndex()
	last, err2 := log.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if last > 0 {
		if err := log.DeleteRange(first, last); err != nil {
			return err
		}
	}
	term, err := currentTerm(log)
	if err == nil && term < at.term {
		err = log.SetUint64([]byte(keyCurrentTerm), at.term)
	}
	if err != nil {
		return err
	}
	return forgetInstall(dir)
}

// currentTerm returns Raft's term, 0 before its first.
func currentTerm(log raft.StableStore) (uint64, error) {
	term, err := log.GetUint64([]byte(keyCurrentTerm))
	if err != nil && err.Error() == "not found" { // as hashicorp/raft tells it
		return 0, nil
	}
	return term, err
}

// An installer is the FSM that notes what is installed.
type installer struct {
	*fsm
	snaps *snapshots
	log   *guardedLog
}

// Restore puts the file that the leader sent in place of the present one.
func (i *installer) Restore(r io.ReadCloser) error {
	i.snaps.mu.Lock()
	at := position{i.snaps.incoming.Index, i.snaps.incoming.Term}
	i.snaps.mu.Unlock()
	if err := noteInstall(i.snaps.dir, at); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	i.log.installed.Store(true)
	return i.fsm.Restore(r)
}

// checkLog refuses a log that does not go with the decided records: started on
// it, Raft would panic, or this master would vouch for what it no longer has.
func checkLog(log logStore, at position) error {
	first, err1 := log.FirstIndex()
	last, err2 := log.LastIndex()
	term, err3 := currentTerm(log)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	switch {
	case term < at.term:
		return fmt.Errorf("%w: the raft log knows of term %d, the decided records are of term %d: what this master voted is gone", errDamaged, term, at.term)
	case last == 0:
		return nil
	case first > at.index+1:
		return fmt.Errorf("%w: the raft log begins at %d, the decided records end at %d", errDamaged, first, at.index)
	case last < at.index:
		return fmt.Errorf("%w: the raft log ends at %d, and %d is applied: entries are gone", errDamaged, last, at.index)
	}
	if err := checkApplied(log, first, at); err != nil {
		return err
	}
	return checkUnapplied(log, at.index+1, last)
}

func checkApplied(log logStore, first uint64, at position) error {
	if at.index < first {
		return nil
	}
	e, err := readBack(log, at.index)
	if err == nil && e.Term != at.term {
		err = fmt.Errorf("%w: entry %d of the raft log is of term %d, and one of term %d is applied", errDiverged, at.index, e.Term, at.term)
	}
	return err
}

// checkUnapplied reads what Raft will hand to the FSM: it would panic over what
// it cannot read.
func checkUnapplied(log logStore, from, to uint64) error {
	for i := from; i <= to; i++ {
		if _, err := readBack(log, i); err != nil {
			return err
		}
	}
	return nil
}

func readBack(log logStore, index uint64) (e raft.Log, err error) {
	err = log.GetLog(index, &e)
	if err != nil && !errors.Is(err, errDamaged) {
		err = fmt.Errorf("%w: entry %d of the raft log: %w", errDamaged, index, err)
	}
	return e, err
}
