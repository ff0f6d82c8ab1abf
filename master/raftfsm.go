package master

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	// idle is how long a master waits for more to put into a transaction.
	idle = time.Millisecond
	// commitShare is how many times as long as a commit a master decides before
	// the next one, if there is something to decide.
	commitShare = 4
	// flood is how many decisions in one commit are somebody's backlog rather than
	// people at work, and maxRest how long the next commit may wait then: the
	// outcomes come back in fewer and larger batches, which share the pages that
	// the edits are scattered over, here and at the branch.
	flood   = 256
	maxRest = 500 * time.Millisecond
)

// An fsm is an FSM whose entries come from Raft, and which commits by itself.
// See snapshot.go for the rest of raft.FSM.
type fsm struct {
	*FSM
	every   time.Duration // the longest that something stays uncommitted
	observe observer
	work    chan struct{} // holds a token when something is uncommitted
	hurry   chan struct{} // holds a token when somebody waits for a commit
}

func newFSM(cfg ledgerConfig, data *store.DB, watch *watchdog, fatal func(error)) (*fsm, error) {
	o := cfg.Observe
	core, err := loadFSM(FSMConfig{Level: cfg.Protocol, Now: cfg.Now, Logger: cfg.Logger, Fatal: fatal, Watch: watch.watch,
		Observe: FSMObserver{Commit: o.Commit, Frozen: o.Frozen, Panicked: o.Panicked, Diverged: o.Diverged}}, data)
	return &fsm{FSM: core, every: cfg.CommitEvery, observe: o, work: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}, err
}

// servers is the Raft configuration and the entry that made it.
type servers struct {
	index uint64
	raft.Configuration
}

// encode returns the index in 8 bytes, big-endian, and raft.EncodeConfiguration.
func (s servers) encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, s.index), raft.EncodeConfiguration(s.Configuration)...)
}

func serversIn(tx *store.Tx) (servers, error) {
	b, err := tx.Meta(metaServers)
	if err != nil || len(b) < 8 {
		return servers{}, err
	}
	return servers{binary.BigEndian.Uint64(b), raft.DecodeConfiguration(b[8:])}, nil
}

// Apply evaluates one entry; Raft prefers ApplyBatch.
func (f *fsm) Apply(log *raft.Log) any { return f.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch evaluates entries and returns a Verdict each.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	start := f.cfg.Now()
	verdicts, mutations := f.applyAll(logs)
	select {
	case f.work <- struct{}{}:
	default:
	}
	if f.observe.Batch != nil {
		f.observe.Batch(len(logs), mutations)
	}
	if f.observe.Apply != nil {
		f.observe.Apply(f.cfg.Now().Sub(start))
	}
	return verdicts
}

func (f *fsm) applyAll(logs []*raft.Log) (verdicts []any, mutations int) {
	for _, log := range logs {
		v := f.applyLog(log)
		mutations += len(v.Results)
		verdicts = append(verdicts, v)
	}
	return verdicts, mutations
}

func (f *fsm) applyLog(log *raft.Log) Verdict {
	if log.Type == raft.LogConfiguration {
		return f.configure(position{log.Index, log.Term}, raft.DecodeConfiguration(log.Data))
	}
	return f.FSM.Apply(log.Index, log.Term, log.Data)
}

// configure notes who the servers are from an index on.
func (f *fsm) configure(at position, c raft.Configuration) Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(at, func() (Verdict, error) {
		f.servers = servers{at.index, c}
		return Verdict{}, nil
	})
}

// commitLoop commits when the queue of entries runs dry and the rest after the
// last commit is over, until ctx ends.
func (f *fsm) commitLoop(ctx context.Context) {
	var next time.Time // when committing again may begin
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.work:
		}
		f.settle(ctx, time.Until(next))
		decided, start := f.Evaluated()-f.Head(), time.Now()
		_ = f.Flush() // its failure halts the FSM, which has told of it
		next = time.Now().Add(f.rest(time.Since(start), decided))
	}
}

// rest returns how long to wait after a commit of so many decisions.
func (f *fsm) rest(took time.Duration, decided crm.Rev) time.Duration {
	if decided < flood {
		return min(commitShare*took, f.every)
	}
	return min(commitShare*took, maxRest)
}

// settle returns when no batch has come for a while and the rest is over, at the
// latest after every, or after the rest unless somebody waits. A commit holds up decisions, so back to back
// they would take most of the time.
func (f *fsm) settle(ctx context.Context, rest time.Duration) {
	late := time.After(max(f.every, rest))
	select {
	case <-time.After(min(rest, f.every)):
	case <-ctx.Done():
		return
	}
	if rest > f.every {
		select {
		case <-time.After(rest - f.every):
		case <-f.hurry:
			return
		case <-ctx.Done():
			return
		}
	}
	for {
		select {
		case <-f.work:
		case <-time.After(idle):
			return
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wait returns when ok holds of the committed state, and ends a rest in a flood.
// The error is of code stale.
func (f *fsm) wait(ctx context.Context, what string, ok func(published) bool) error {
	if !ok(f.published()) {
		select {
		case f.hurry <- struct{}{}:
		default:
		}
	}
	return f.FSM.wait(ctx, what, ok)
}

// close commits. Raft must have stopped.
func (f *fsm) close() error { return f.commitAll() }
