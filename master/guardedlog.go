package master

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A guardedLog is the log as Raft sees it. It times the writes and ends this
// master when the log fails it, rather than to let Raft go on with what it
// cannot know:
//
//   - A write that failed may have reached the disk all the same, or may reach it
//     yet. So nothing is written after it.
//   - An entry is checked when it is stored and when it is read, so that damage
//     neither gets into a log nor out of one, to masters whose memory and disks
//     are sound.
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
	leads   func() bool
	fatal   func(error)

	broken    atomic.Bool // a write has failed
	installed atomic.Bool // the decided records were exchanged, and nothing is appended since
}

var errLogBroken = errors.New("the raft log takes nothing after a write that failed")

// StoreLog appends an entry.
func (g *guardedLog) StoreLog(log *raft.Log) error { return g.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries, or fails for good. An entry that is damaged before
// it is stored is refused: at a leader this process's memory cannot be trusted, at
// a follower it is the leader's.
func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	for _, log := range logs {
		if log.Type == raft.LogCommand && !intact(log.Data) {
			err := fmt.Errorf("append to the raft log: entry %d is damaged before it is stored", log.Index)
			if g.leads() {
				g.fatal(err)
			}
			return err
		}
	}
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

// GetLog reads an entry. In place of a damaged one that may be on its way to the
// FSM, which Raft cannot be told of without a panic, it gives one that the FSM
// refuses, as other masters do.
func (g *guardedLog) GetLog(index uint64, log *raft.Log) error {
	err := g.logStore.GetLog(index, log)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	g.fatal(fmt.Errorf("read the raft log: %w", err))
	if errors.Is(err, errDamaged) && index > g.applied().index {
		*log = raft.Log{Index: index, Type: raft.LogCommand}
		return nil
	}
	return err
}

// DeleteRange drops entries: old ones that a snapshot covers, newer ones that
// the leader replaces, or all when a snapshot is installed.
func (g *guardedLog) DeleteRange(low, high uint64) error {
	last, err := g.LastIndex()
	if err != nil {
		return err
	}
	at, end := g.applied(), high >= last
	switch {
	case end && g.installed.Load():
		if g.wentFurther(last, at) {
			g.fatal(fmt.Errorf("a snapshot of raft index %d replaced a log that ended at %d: start this master again to go on", at.index, last))
		}
	case end && low <= at.index:
		err := fmt.Errorf("%w: the leader replaces entries from %d on, and %d is applied here", errDiverged, low, at.index)
		g.fatal(err)
		return err
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
