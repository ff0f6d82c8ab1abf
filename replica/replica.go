package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Replica is the node of a branch. Its methods may be called by any goroutine.
type Replica struct {
	cfg      Config
	journal  *store.Journal
	base     *store.DB
	gate     gate // to both
	clock    *syncproto.Clock
	commits  *commits
	part     int // items of a catch-up in one transaction: maxPart
	changes  store.Subscribers
	rosters  serving.Rosters
	relay    *relay        // nil: this node serves no other
	moved    signal        // fires when anything under mu changes
	kick     chan struct{} // holds a token when the session may have something to send
	doubt    chan struct{} // holds a token when something may be suspect that the session has not asked for
	dirty    chan struct{} // holds a token when purged bytes may have to be removed from the files
	scrubbed int           // findings of this round in the journal; of ScrubJournal's caller
	tidied   time.Time     // when Tidy last compacted or failed; of its caller

	suspecting sync.Mutex // held while suspicions are read, so that the newest state stays
	measuring  sync.Mutex // held while outbox is measured, so that the newest figure stays

	mu            sync.Mutex // protects what follows
	pos           position
	expelled      bool // the cluster has removed this node
	link          link
	suspicions    []suspicion         // as the base has them
	spoiled       string              // what is wrong with the base as a whole; "": nothing
	journalDamage string              // what is wrong with the journal; "": nothing
	moves         map[crm.Seq]crm.Seq // renumbered since Open: a Mutation's old number → its new one
	outbox        store.Depth
	low           crm.Rev // no pending op's Seen.Rev is below, but for 0; 0: none is pending
	unfolded      bool    // the base changed and the overlay could not follow: all of it is to be folded anew
	rolledBack    bool    // the journal is older than the base: an edit could not be chained
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

// isMoving reports whether the base is moved to another timeline.
func (p position) isMoving() bool { return p.shown != (shown{}) }

// reads returns the state that readers see.
func (p position) reads() shown {
	if p.isMoving() {
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
		kick: make(chan struct{}, 1), doubt: make(chan struct{}, 1), dirty: make(chan struct{}, 1), moves: map[crm.Seq]crm.Seq{}}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	if err := r.openRelay(); err != nil {
		return nil, fmt.Errorf("open replica: %w", errors.Join(err, r.Close()))
	}
	return r, nil
}

// open opens the files and brings them together. Unless it succeeds they are
// closed: nobody else can, also after the panic of a store.Disk.
func (r *Replica) open() (err error) {
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.openFiles(); err != nil {
		return err
	}
	if err := r.recover(); err != nil {
		return err
	}
	done = true
	return nil
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
	o.OnDoubt = func(err error) {
		r.cfg.Metrics.doubted(db, err)
		nudge(r.kick) // what was held back is sent
	}
	return o
}

// Files returns the node's files, for reading beside it what Read does not show.
// Who needs both begins the journal's transaction first.
func (r *Replica) Files() (*store.Journal, *store.DB) { return r.journal, r.base }

// Close closes the files. It must be called after Run has returned.
func (r *Replica) Close() error {
	var errs []error
	if r.relay != nil {
		if err := r.relay.lis.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if r.journal != nil {
		errs = append(errs, r.journal.Close())
	}
	if r.base != nil {
		errs = append(errs, r.base.Close())
	}
	return errors.Join(errs...)
}

// Run keeps a session with a master or relay, serves others if it is a relay, and
// removes purged bytes until ctx ends. It returns when all its goroutines have. The error is nil if ctx ended it.
func (r *Replica) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	loops := []func(context.Context) error{r.keepConnected, r.keepNear, r.keepPurged, r.keepAnnounced}
	if r.relay != nil {
		loops = append(loops, r.relay.run)
	}
	for _, loop := range loops {
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
