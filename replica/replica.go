package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Replica is the node of a branch. Its methods may be called by any goroutine.
type Replica struct {
	cfg     Config
	journal *store.Journal
	base    *store.DB
	clock   *syncproto.Clock
	commits *commits
	part    int // items of a catch-up in one transaction: maxPart
	changes store.Subscribers
	moved   signal        // fires when anything under mu changes
	kick    chan struct{} // holds a token when the session may have something to send
	dirty   chan struct{} // holds a token when purged bytes may have to be removed from the files
	tidied  time.Time     // when Tidy last compacted or failed; of its caller

	measuring sync.Mutex // held while outbox is measured, so that the newest figure stays

	mu         sync.Mutex // protects what follows
	pos        position
	expelled   bool // the cluster has removed this node
	link       link
	moves      map[crm.Seq]crm.Seq // renumbered since Open: a Mutation's old number → its new one
	outbox     store.Depth
	low        crm.Rev // no pending op's Seen.Rev is below, but for 0; 0: none is pending
	rolledBack bool    // the journal is older than the base: an edit could not be chained
}

// A position says how far the files are.
type position struct {
	timeline uint64
	rev      crm.Rev // the Cursor
	decided  crm.Seq // own Mutations up to here are decided
	last     crm.Seq // the newest own Mutation
	staged   crm.Rev // a catch-up has come this far; 0: none is under way
	target   crm.Rev // where it leads
	shown    shown   // what readers see, while the base is moved to another timeline; zero: the above
}

// A shown is a state that readers see.
type shown struct {
	timeline uint64
	rev      crm.Rev
}

// reads returns the state that readers see.
func (p position) reads() shown {
	if p.shown != (shown{}) {
		return p.shown
	}
	return shown{p.timeline, p.rev}
}

// Open opens the node's files in c.Dir, creates those that are missing, and
// repairs what a crash between two transactions left. A damaged base is thrown
// away, because the masters send it again; a damaged journal is refused with an
// error that names the remedy, because it holds what exists nowhere else.
func Open(c Config) (*Replica, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	c = c.withDefaults()
	r := &Replica{cfg: c, clock: &syncproto.Clock{Now: c.Now}, commits: newCommits(), part: maxPart,
		kick: make(chan struct{}, 1), dirty: make(chan struct{}, 1), moves: map[crm.Seq]crm.Seq{}}
	if err := r.openFiles(); err != nil {
		return nil, fmt.Errorf("open replica: %w", errors.Join(err, r.Close()))
	}
	if err := r.recover(); err != nil {
		return nil, fmt.Errorf("open replica: %w", errors.Join(err, r.Close()))
	}
	return r, nil
}

// journalThere refuses a base without its journal: edits that were acknowledged
// and not sent may have been in it, and going on would hide that.
func (r *Replica) journalThere() error {
	journal := filepath.Join(r.cfg.Dir, "journal.db")
	_, lost := os.Stat(journal)
	if _, err := os.Stat(filepath.Join(r.cfg.Dir, "base.db")); err != nil || !errors.Is(lost, os.ErrNotExist) {
		return nil
	}
	return &crm.Error{Code: crm.CodeCorrupt, Op: "open", Item: journal,
		Message: "the journal is missing beside base.db: restore it, it may hold edits that no master has; if it is lost for good, move base.db away too and start again"}
}

func (r *Replica) openFiles() (err error) {
	if err := r.journalThere(); err != nil {
		return err
	}
	if r.journal, err = store.OpenJournal(filepath.Join(r.cfg.Dir, "journal.db"), r.options("journal")); err != nil {
		return err
	}
	o := r.options("base")
	path := filepath.Join(r.cfg.Dir, "base.db")
	r.base, err = store.Open(path, o)
	if crm.CodeOf(err) != crm.CodeCorrupt {
		return err
	}
	r.cfg.Logger.Error("the base is damaged; it will be rebuilt from the masters, edits are safe in the journal", "file", path, "error", err)
	r.cfg.Metrics.resync.WithLabelValues("corrupt").Inc()
	if err := os.Remove(path); err != nil {
		return err
	}
	r.base, err = store.Open(path, o)
	return err
}

// options are those of one of the files.
func (r *Replica) options(db string) store.Options {
	o := r.cfg.Store
	o.Logger, o.OnCommit = r.cfg.Logger, r.cfg.Metrics.commits(db)
	return o
}

// Close closes the files. It must be called after Run has returned.
func (r *Replica) Close() error {
	var errs []error
	if r.journal != nil {
		errs = append(errs, r.journal.Close())
	}
	if r.base != nil {
		errs = append(errs, r.base.Close())
	}
	return errors.Join(errs...)
}

// Run keeps a session with a master and removes purged bytes until ctx ends. It
// returns when all its goroutines have. The error is nil if ctx ended it.
func (r *Replica) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, loop := range []func(context.Context) error{r.keepConnected, r.keepPurged} {
		wg.Go(func() {
			if err := loop(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("run replica: %w", err)
	}
	return nil
}

// nudge puts a token in a channel that holds one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// position returns how far the files are.
func (r *Replica) position() position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pos
}

// advance changes the position and wakes those who wait for it.
func (r *Replica) advance(edit func(*position)) {
	r.mu.Lock()
	edit(&r.pos)
	r.link.settleAsOf(r.pos.rev)
	r.mu.Unlock()
	r.moved.fire()
}
