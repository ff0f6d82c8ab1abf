package master

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Names of what the FSM keeps in the store besides records and nodes.
const (
	metaApplied = "raft/applied" // raft index 8 ‖ term 8, big-endian: the file holds the effects of every entry up to it
	metaServers = "raft/servers" // raft index 8 ‖ raft.EncodeConfiguration
	metaCluster = "cluster"      // the cluster's id
	metaLevel   = "level"        // 8 bytes: the active level of decision logic
	metaTrimmed = "trimmed"      // 8 bytes: the Rev below which tombstones and markers are gone
)

const (
	// maxPending bounds the Mutations of one bbolt transaction.
	maxPending = 4096
	// idle is how long the FSM waits for more to put into a transaction.
	idle = time.Millisecond
	// commitShare is how many times as long as a commit the FSM decides before
	// the next one, if there is something to decide.
	commitShare = 4
)

// An fsm is the decided state as a function of the Raft log.
//
// Simple version: each entry is evaluated in a bbolt transaction of its own.
// But a transaction costs a few fsyncs and the Raft log is durable already, so
// many entries share one, which stays open between batches; see commitLoop. An
// outcome is known when it is evaluated, readers see it when it is committed,
// and a crash in between replays it from the log. Invariant: metaApplied is in
// the transaction of the effects it speaks of, so nothing is applied twice.
type fsm struct {
	cfg    ledgerConfig
	data   *store.DB
	watch  *watchdog
	fatal  func(error)
	decide func(crm.View, *crm.Mutation, crm.Env) (crm.Decision, error) // crm.Decide; tests make it panic

	work      chan struct{} // holds a token when something is uncommitted
	marked    chan mark     // marks as they are reached; dropped when nobody takes them
	evaluated atomic.Uint64 // the last Rev decided
	sinceMark atomic.Int64  // entries since the last mark

	mu        sync.Mutex // protects what follows; held while evaluating and committing
	tx        *store.Tx  // writable, nil when all is committed
	pending   int        // Mutations evaluated in tx
	at        position   // of the last entry evaluated
	rev       crm.Rev    // of the last decision evaluated
	servers   servers
	directory directory // nil: to be read again
	marks     []mark    // the latest, oldest first
	failed    error     // why this master has halted

	out   sync.Mutex // protects state; taken inside mu or alone
	state published
}

// A position is a place in the Raft log.
type position struct{ index, term uint64 }

// servers is the Raft configuration and the entry that made it.
type servers struct {
	index uint64
	raft.Configuration
}

// published is what the last bbolt commit holds.
type published struct {
	at      position
	rev     crm.Rev
	servers servers
	changed chan struct{} // closed at the next commit
}

// A verdict is the FSM's response to an entry.
type verdict struct {
	results []decided
	err     error
}

func newFSM(cfg ledgerConfig, data *store.DB, watch *watchdog, fatal func(error)) (*fsm, error) {
	f := &fsm{cfg: cfg, data: data, watch: watch, fatal: fatal, decide: crm.Decide,
		work: make(chan struct{}, 1), marked: make(chan mark, 4), state: published{changed: make(chan struct{})}}
	return f, f.load()
}

// load reads where the file stands. The caller holds mu, or is alone.
func (f *fsm) load() error {
	err := f.data.View(func(tx *store.Tx) (err error) {
		if f.rev, err = tx.Rev(); err != nil {
			return err
		}
		if f.at, err = appliedIn(tx); err != nil {
			return err
		}
		f.servers, err = serversIn(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the applied position: %w", err)
	}
	f.directory = nil
	f.publish()
	return nil
}

func appliedIn(tx *store.Tx) (position, error) {
	b, err := tx.Meta(metaApplied)
	if err != nil || len(b) != 16 {
		return position{}, err
	}
	return position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

func serversIn(tx *store.Tx) (servers, error) {
	b, err := tx.Meta(metaServers)
	if err != nil || len(b) < 8 {
		return servers{}, err
	}
	return servers{binary.BigEndian.Uint64(b), raft.DecodeConfiguration(b[8:])}, nil
}

// publish tells readers of what is committed. The caller holds mu, or is alone.
func (f *fsm) publish() {
	f.evaluated.Store(uint64(f.rev))
	f.out.Lock()
	defer f.out.Unlock()
	close(f.state.changed)
	f.state = published{at: f.at, rev: f.rev, servers: f.servers, changed: make(chan struct{})}
}

func (f *fsm) published() published {
	f.out.Lock()
	defer f.out.Unlock()
	return f.state
}

// wait returns when ok holds of the committed state. The error is of code stale.
func (f *fsm) wait(ctx context.Context, what string, ok func(published) bool) error {
	for {
		p := f.published()
		if ok(p) {
			return nil
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return &crm.Error{Code: crm.CodeStale, Op: "wait for " + what, Message: fmt.Sprintf("this master is at rev %d, raft index %d", p.rev, p.at.index), Err: ctx.Err()}
		}
	}
}

// Apply evaluates one entry; Raft prefers ApplyBatch.
func (f *fsm) Apply(log *raft.Log) any { return f.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch evaluates entries and returns a verdict each.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	start := f.cfg.Now()
	verdicts, mutations := f.applyAll(logs)
	select {
	case f.work <- struct{}{}:
	default:
	}
	if observe := f.cfg.Observe.Batch; observe != nil {
		observe(len(logs), mutations)
	}
	if observe := f.cfg.Observe.Apply; observe != nil {
		observe(f.cfg.Now().Sub(start))
	}
	return verdicts
}

func (f *fsm) applyAll(logs []*raft.Log) (verdicts []any, mutations int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, log := range logs {
		v := f.apply(log)
		mutations += len(v.results)
		verdicts = append(verdicts, v)
	}
	f.evaluated.Store(uint64(f.rev))
	return verdicts, mutations
}

func (f *fsm) apply(log *raft.Log) verdict {
	if f.failed != nil {
		return verdict{err: errHalted}
	}
	if log.Index <= f.at.index {
		return verdict{} // in the file since before a restart; nobody waits for it
	}
	v, err := f.evaluate(log)
	if err == nil {
		f.at = position{log.Index, log.Term}
		if f.pending += max(1, len(v.results)); f.pending >= maxPending {
			err = f.commit()
		}
	}
	if err != nil {
		f.fail(fmt.Errorf("apply entry %d: %w", log.Index, err))
		return verdict{err: errHalted}
	}
	return v
}

// fail halts this master: its files stay as of the last commit.
func (f *fsm) fail(err error) {
	f.failed = err
	if f.tx != nil {
		err = errors.Join(err, f.tx.Rollback())
		f.tx = nil
	}
	f.fatal(err)
}

// begin makes sure that a transaction is open.
func (f *fsm) begin() (err error) {
	if f.tx == nil {
		f.tx, err = f.data.Begin(true)
	}
	return err
}

// commit makes what was evaluated durable in bbolt. The caller holds mu.
func (f *fsm) commit() error {
	if f.tx == nil {
		return nil
	}
	start := f.cfg.Now()
	done := f.watch.watch("a commit of " + f.data.Path())
	err := f.writePosition()
	if err == nil {
		err = f.tx.Commit()
	} else {
		err = errors.Join(err, f.tx.Rollback())
	}
	done()
	f.tx, f.pending = nil, 0
	if err != nil {
		return err
	}
	if observe := f.cfg.Observe.Commit; observe != nil {
		observe(f.cfg.Now().Sub(start))
	}
	f.publish()
	return nil
}

func (f *fsm) writePosition() error {
	applied := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, f.at.index), f.at.term)
	conf := append(binary.BigEndian.AppendUint64(nil, f.servers.index), raft.EncodeConfiguration(f.servers.Configuration)...)
	return errors.Join(f.tx.SetMeta(metaApplied, applied), f.tx.SetMeta(metaServers, conf), f.tx.SetRev(f.rev))
}

// commitLoop commits when the queue of entries runs dry, at the latest
// cfg.CommitEvery after the first uncommitted one, until ctx ends.
func (f *fsm) commitLoop(ctx context.Context) {
	var rest *time.Timer // fires when committing again may begin
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.work:
		}
		f.settle(ctx, rest)
		start := time.Now()
		f.mu.Lock()
		if err := f.commit(); err != nil {
			f.fail(err)
		}
		f.mu.Unlock()
		rest = time.NewTimer(commitShare * time.Since(start))
	}
}

// settle returns when no batch has come for a while and the last commit was long
// enough ago, at the latest after cfg.CommitEvery. A commit holds up decisions,
// so back to back they would take most of the time.
func (f *fsm) settle(ctx context.Context, rest *time.Timer) {
	late := time.After(f.cfg.CommitEvery)
	if rest != nil {
		select {
		case <-rest.C:
		case <-late:
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

// close commits. Raft must have stopped.
func (f *fsm) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commit()
}
