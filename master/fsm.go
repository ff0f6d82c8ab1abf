package master

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// Names of what the FSM keeps in the store besides records and nodes.
const (
	metaApplied = "raft/applied" // raft index 8 ‖ term 8, big-endian: the file holds the effects of every entry up to it
	metaServers = "raft/servers" // see servers
	metaCluster = "cluster"      // the cluster's id
)

// maxPending bounds the Mutations of one bbolt transaction.
const maxPending = 4096

// An FSMConfig is what an FSM needs. Path must be set.
type FSMConfig struct {
	Path    string                        // of the file that holds the decided records; made if there is none
	Store   store.Options                 // of that file
	Level   uint16                        // the newest level of decision logic to take part in; 0: syncproto.MaxVersion
	Now     func() time.Time              // default time.Now; stamps nothing, measures only
	Logger  *slog.Logger                  // default: silent
	Fatal   func(error)                   // told why the FSM halts; it must not call the FSM. Default: told nothing
	Watch   func(op string) (done func()) // watches over a disk operation until done is called. Default: nobody does
	Observe FSMObserver
}

// An FSMObserver is told what an FSM does. Each func may be nil and must return
// at once.
type FSMObserver struct {
	Commit   func(time.Duration)                          // a bbolt commit
	Frozen   func(node crm.NodeID, reason string)         // a node was frozen or, with "", thawed
	Panicked func(node crm.NodeID, seq crm.Seq, what any) // a decision that panicked and was rejected
	Diverged func(raftIndex uint64, votes []StateVote)    // masters disagree about the state at a mark
}

func (c FSMConfig) withDefaults() FSMConfig {
	c.Level = cmp.Or(c.Level, syncproto.MaxVersion)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		c.Fatal = func(error) {}
	}
	if c.Watch == nil {
		c.Watch = func(string) func() { return func() {} }
	}
	return c
}

// An FSM is the decided state as a function of a log of entries, whoever keeps
// the log. It starts no goroutine. Its methods may be called by any goroutine;
// entries come from one.
//
// Simple version: each entry is evaluated in a bbolt transaction of its own.
// But a transaction costs a few fsyncs and the log is durable already, so many
// entries share one, which stays open until Flush. An outcome is known when it
// is evaluated, readers see it when it is committed, and a crash in between
// replays it from the log. Invariant: metaApplied is in the transaction of the
// effects it speaks of, so nothing is applied twice.
type FSM struct {
	cfg    FSMConfig
	data   *store.DB
	decide func(crm.View, *crm.Mutation, crm.Env) (crm.Decision, error) // crm.Decide; tests make it panic

	marked    chan mark     // marks as they are reached; dropped when nobody takes them
	evaluated atomic.Uint64 // the last Rev decided
	sinceMark atomic.Int64  // entries since the last mark

	mu        sync.Mutex // protects what follows; held while evaluating and committing
	tx        *store.Tx  // writable, nil when all is committed
	pending   int        // Mutations evaluated in tx
	at        position   // of the last entry evaluated
	rev       crm.Rev    // of the last decision evaluated
	restored  uint64     // the timeline, if it began with a restore
	servers   servers
	directory directory // nil: to be read again
	marks     []mark    // the latest, oldest first
	failed    error     // why this FSM has halted

	out   sync.Mutex // protects state; taken inside mu or alone
	state published
}

// A position is a place in the log.
type position struct{ index, term uint64 }

// published is what the last bbolt commit holds.
type published struct {
	at       position
	rev      crm.Rev
	restored uint64 // the timeline, if it began with a restore
	servers  servers
	changed  chan struct{} // closed at the next commit
}

// A Verdict is what an entry came to.
type Verdict struct {
	Results []Decided // one a Mutation of a push up to the first that was not taken, or one of an admit
	Err     error     // a refusal, the same on every master; or that the FSM has halted
}

// A Decided is what became of one Mutation of a push, or of an admit. Of
// Duplicate, Gap, Fork and Fenced at most one is set, and then Outcome is not a
// new decision.
type Decided struct {
	crm.Outcome
	Duplicate bool            // decided before; Outcome is that one, its Rev 0 if it was accepted
	Gap       crm.Seq         // if not 0: the Seq that is expected
	Fork      bool            // the node is frozen: its history forked
	Fenced    crm.Incarnation // if not 0: the node's current incarnation, which the push lacks
	Admitted  crm.Incarnation // of an admit: the node's new incarnation
}

// errHalted is the error of an FSM that has called Fatal.
var errHalted = errors.New("this master has stopped over a failure")

// OpenFSM opens the file and reads where it stands. The caller closes it.
func OpenFSM(cfg FSMConfig) (*FSM, error) {
	data, err := store.Open(cfg.Path, cfg.Store)
	if err != nil {
		return nil, err
	}
	f, err := loadFSM(cfg, data)
	if err != nil {
		return nil, errors.Join(err, data.Close())
	}
	return f, nil
}

// loadFSM is OpenFSM of a file that is open.
func loadFSM(cfg FSMConfig, data *store.DB) (*FSM, error) {
	f := &FSM{cfg: cfg.withDefaults(), data: data, decide: crm.Decide, marked: make(chan mark, 4), state: published{changed: make(chan struct{})}}
	return f, f.load()
}

// Close commits what is evaluated and closes the file.
func (f *FSM) Close() error { return errors.Join(f.commitAll(), f.data.Close()) }

// Abandon closes the file without committing: what a crash would leave.
func (f *FSM) Abandon() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.tx != nil {
		err = f.tx.Rollback()
		f.tx = nil
	}
	return errors.Join(err, f.data.Close())
}

// DB returns the decided records as of the last commit.
func (f *FSM) DB() *store.DB { return f.data }

// Head returns the last Rev that is committed.
func (f *FSM) Head() crm.Rev { return f.published().rev }

// Evaluated returns the last Rev that is decided, committed or not.
func (f *FSM) Evaluated() crm.Rev { return crm.Rev(f.evaluated.Load()) }

// Applied returns the index of the last entry that is committed.
func (f *FSM) Applied() uint64 { return f.published().at.index }

// Changed returns a channel that is closed at the next commit. Get it before
// looking at the head.
func (f *FSM) Changed() <-chan struct{} { return f.published().changed }

// Accumulator sums up the state after the last entry, committed or not. Masters
// that applied the same entries have the same one.
func (f *FSM) Accumulator() (Accumulator, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tx != nil {
		return accumulate(f.tx, f.rev)
	}
	var sum Accumulator
	err := f.data.View(func(tx *store.Tx) (err error) {
		sum, err = accumulate(tx, f.rev)
		return err
	})
	return sum, err
}

// Apply evaluates the next entry, in EncodeEntry's form. An entry at an index
// that was applied before is skipped; its Verdict is empty. Readers see what
// came of it after Flush. A failure of the disk, or a damaged entry, halts the
// FSM for good: the file stays as of the last commit.
func (f *FSM) Apply(index, term uint64, entry []byte) Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.apply(position{index, term}, func() (Verdict, error) { return f.evaluate(index, entry) })
	f.evaluated.Store(uint64(f.rev))
	return v
}

// Flush commits what is evaluated. Its error halts the FSM.
func (f *FSM) Flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return errHalted
	}
	err := f.commit()
	if err != nil {
		f.fail(err)
	}
	return err
}

func (f *FSM) commitAll() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commit()
}

// apply moves on to at by what evaluate makes of the entry there. The caller
// holds mu.
func (f *FSM) apply(at position, evaluate func() (Verdict, error)) Verdict {
	if f.failed != nil {
		return Verdict{Err: errHalted}
	}
	if at.index <= f.at.index {
		return Verdict{} // in the file since before a restart; nobody waits for it
	}
	err := f.begin()
	var v Verdict
	if err == nil {
		v, err = evaluate()
	}
	if err == nil {
		f.at = at
		if f.pending += max(1, len(v.Results)); f.pending >= maxPending {
			err = f.commit()
		}
	}
	if err != nil {
		f.fail(fmt.Errorf("apply entry %d: %w", at.index, err))
		return Verdict{Err: errHalted}
	}
	return v
}

// load reads where the file stands. The caller holds mu, or is alone.
func (f *FSM) load() error {
	err := f.data.View(func(tx *store.Tx) (err error) {
		if f.rev, err = tx.Rev(); err != nil {
			return err
		}
		if f.at, err = appliedIn(tx); err != nil {
			return err
		}
		if f.servers, err = serversIn(tx); err != nil {
			return err
		}
		if f.restored, err = restoredIn(tx); err != nil {
			return err
		}
		level, err := session.LevelIn(tx)
		if err != nil {
			return err
		}
		return f.knows(uint64(level))
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

// restoredIn returns the timeline if it began with a restore, which only a file
// that is put in place brings; else 0.
func restoredIn(tx *store.Tx) (uint64, error) {
	l, err := tx.Lineage()
	if err != nil || len(l.Forks) == 0 {
		return 0, err
	}
	return l.Timeline, nil
}

// publish tells readers of what is committed. The caller holds mu, or is alone.
func (f *FSM) publish() {
	f.evaluated.Store(uint64(f.rev))
	f.out.Lock()
	defer f.out.Unlock()
	close(f.state.changed)
	f.state = published{at: f.at, rev: f.rev, restored: f.restored, servers: f.servers, changed: make(chan struct{})}
}

func (f *FSM) published() published {
	f.out.Lock()
	defer f.out.Unlock()
	return f.state
}

// wait returns when ok holds of the committed state. The error is of code stale.
func (f *FSM) wait(ctx context.Context, what string, ok func(published) bool) error {
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

// fail halts the FSM: its file stays as of the last commit.
func (f *FSM) fail(err error) {
	f.failed = err
	if f.tx != nil {
		err = errors.Join(err, f.tx.Rollback())
		f.tx = nil
	}
	f.cfg.Fatal(err)
}

// begin makes sure that a transaction is open.
func (f *FSM) begin() (err error) {
	if f.tx == nil {
		f.tx, err = f.data.Begin(true)
	}
	return err
}

// commit makes what was evaluated durable in bbolt. The caller holds mu.
func (f *FSM) commit() error {
	if f.tx == nil {
		return nil
	}
	start := f.cfg.Now()
	done := f.cfg.Watch("a commit of " + f.data.Path())
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

func (f *FSM) writePosition() error {
	applied := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, f.at.index), f.at.term)
	return errors.Join(f.tx.SetMeta(metaApplied, applied), f.tx.SetMeta(metaServers, f.servers.encode()), f.tx.SetRev(f.rev))
}
