package master

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// A guardedLog is the log as Raft sees it. It times the writes and ends this
// master when the log fails it, rather than to let Raft go on with what it
// cannot know:
//
//   - A write that failed may have reached the disk all the same, or may reach it
//     yet. So nothing is written after it.
//   - An entry that is read is checked, before it is applied here or sent to a
//     master whose disk is sound.
//   - A leader that replaces entries which this master has applied decided
//     something else than was decided before.
//   - A snapshot that replaces a log which went further leaves Raft with a last
//     index that is gone, and it would refuse every entry that follows
//     (hashicorp/raft issue 697). Started again it is right.
type guardedLog struct {
	logStore
	cfg     ledgerConfig
	watch   *watchdog
	applied func() position // what the FSM holds for certain
	fatal   func(error)

	broken    atomic.Bool // a write has failed
	installed atomic.Bool // the decided records were exchanged, and nothing is appended since
}

var errLogBroken = errors.New("the raft log takes nothing after a write that failed")

// StoreLog appends an entry.
func (g *guardedLog) StoreLog(log *raft.Log) error { return g.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries, or fails for good.
func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	defer g.watch.watch("an append to the raft log")()
	start := g.cfg.Now()
	err := g.write("append to the raft log", func() error {
		if g.installed.CompareAndSwap(true, false) {
			if err := forgetInstall(g.cfg.Dir); err != nil {
				return err
			}
		}
		return g.logStore.StoreLogs(logs)
	})
	if observe := g.cfg.Observe.Append; observe != nil {
		observe(g.cfg.Now().Sub(start))
	}
	return err
}

func (g *guardedLog) write(op string, do func() error) error {
	if g.broken.Load() {
		return errLogBroken
	}
	err := do()
	if err != nil {
		g.broken.Store(true)
		err = fmt.Errorf("%s: %w", op, err)
		g.fatal(err)
	}
	return err
}

// GetLog reads an entry. One that is damaged is handed out only if it has not
// been applied here: then it is the FSM that asks, and refuses it.
func (g *guardedLog) GetLog(index uint64, log *raft.Log) error {
	err := g.logStore.GetLog(index, log)
	if errors.Is(err, raft.ErrLogNotFound) || err == nil && sound(log, index) {
		return err
	}
	if err != nil && !errors.Is(err, wal.ErrCorrupt) {
		g.fatal(fmt.Errorf("read entry %d of the raft log: %w", index, err))
		return err
	}
	err = errors.Join(fmt.Errorf("%w: entry %d of the raft log", errDamaged, index), err)
	g.fatal(err)
	if log.Index == index && index > g.applied().index {
		return nil
	}
	return err
}

// DeleteRange drops entries: old ones that a snapshot covers, newer ones that
// the leader replaces, or all when a snapshot is installed.
func (g *guardedLog) DeleteRange(low, high uint64) error {
	first, err1 := g.FirstIndex()
	last, err2 := g.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	at := g.applied()
	if low > first && low <= at.index {
		err := fmt.Errorf("%w: the leader replaces entries from %d on, and %d is applied here", errDiverged, low, at.index)
		g.fatal(err)
		return err
	}
	if low <= first && last <= high && g.wentFurther(last, at) {
		g.fatal(fmt.Errorf("a snapshot of raft index %d replaced a log that ended at %d: start this master again to go on", at.index, last))
	}
	defer g.watch.watch("a truncation of the raft log")()
	return g.write("truncate the raft log", func() error { return g.logStore.DeleteRange(low, high) })
}

// wentFurther reports whether the log's last entry is none that the snapshot
// covers.
func (g *guardedLog) wentFurther(last uint64, at position) bool {
	var end raft.Log
	if last != at.index {
		return last > at.index
	}
	return g.logStore.GetLog(last, &end) == nil && end.Term != at.term
}
