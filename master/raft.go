package master

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// preset names the distances between voters; see the table of timings.
type preset string

const (
	presetRegion preset = "region" // voters within about 30 ms of each other; the default
	presetWide   preset = "wide"   // voters up to about 150 ms apart
)

// timings are Raft's, by preset. A lease must not outlast a heartbeat timeout.
var timings = map[preset]struct{ heartbeat, lease, commit time.Duration }{
	presetRegion: {1500 * time.Millisecond, 750 * time.Millisecond, 50 * time.Millisecond},
	presetWide:   {3 * time.Second, 1500 * time.Millisecond, 100 * time.Millisecond},
}

// logKind names an implementation of the Raft log; see openLogStore.
type logKind string

const (
	logWAL    logKind = "wal"    // raft-wal; the default
	logBolt   logKind = "bbolt"  // our own over bbolt
	logMemory logKind = "memory" // lost when the process ends; for simulations, which need no fsync anywhere
)

const (
	// rpcTimeout bounds a Raft call, and each 256 KiB of a snapshot.
	rpcTimeout = 10 * time.Second
	// proposeTimeout bounds how long a proposal waits for Raft to take it.
	proposeTimeout = 10 * time.Second
)

// A ledgerConfig says how this master takes part in the one order of decisions.
type ledgerConfig struct {
	Dir      string                                                   // holds master.db and raft/; created if absent
	ID       raft.ServerID                                            // "node-<number>", for ever; see serverID
	Address  string                                                   // where other masters dial this one; opaque
	Listen   func() (net.Listener, error)                             // accepts what they dial
	Dial     func(ctx context.Context, addr string) (net.Conn, error) // reaches another master's Address
	Server   *tls.Config                                              // layered over Listen; nil: plain, in tests
	Client   *tls.Config                                              // layered over Dial; nil: plain, in tests
	Preset   preset                                                   // "" is region
	Log      logKind                                                  // "" is wal
	Protocol uint16                                                   // the newest level to take part in; 0: syncproto.MaxVersion
	Memory   *raft.InmemStore                                         // of logMemory: kept over a restart in a test; nil: a fresh one
	Now      func() time.Time                                         // nil: time.Now; stamps nothing, measures only
	Logger   *slog.Logger                                             // nil: discards
	OpenLog  func(dir string) (logStore, error)                       // nil: opens the log of kind Log; tests put a disk under it
	Tune     func(*raft.Config)                                       // nil: leaves Raft's timings as the preset has them
	Fatal    func(error)                                              // must end the process; called at most once
	Observe  observer                                                 //

	CommitEvery       time.Duration // longest an evaluated entry stays uncommitted in bbolt, but in a flood; 0 is 20 ms
	StallAfter        time.Duration // a disk that takes longer is broken; 0 is 10 s
	StateEvery        time.Duration // of activity between two comparisons of masters; 0 is 10 s
	TrailingLogs      uint64        // entries kept behind a snapshot, for followers that lag; 0 is 65,536
	SnapshotThreshold uint64        // entries between snapshots, each a commit and a truncation; 0 is 8,192
	SnapshotInterval  time.Duration // between looks at SnapshotThreshold; 0 is 2 min
}

// An observer is told what the ledger measures. Each func may be nil and must
// return at once.
type observer struct {
	Commit   func(time.Duration)                          // a bbolt commit
	Append   func(time.Duration)                          // an append to the Raft log
	Batch    func(entries, mutations int)                 // a batch from Raft
	Apply    func(time.Duration)                          // the evaluation of a batch
	Snapshot func(time.Duration)                          // a snapshot taken, installed or sent
	Decided  func(time.Duration)                          // from propose to its outcome
	Leader   func(id raft.ServerID)                       // a leader was found, or lost: ""
	Frozen   func(node crm.NodeID, reason string)         // a node was frozen or, with "", thawed
	Panicked func(node crm.NodeID, seq crm.Seq, what any) // a decision that panicked and was rejected
	Diverged func(raftIndex uint64, votes []StateVote)    // masters disagree about the state at a mark

	Verified   func()             // a range of the Raft log is as the leader wrote it
	Distrusted func(reason error) // this master's files are damaged or differ from the others'
}

func (o observer) verified() {
	if o.Verified != nil {
		o.Verified()
	}
}

// A ledger is one master's share in the decisions: the Raft log, the decided
// records, and what keeps both honest.
type ledger struct {
	cfg     ledgerConfig
	data    *store.DB
	log     logStore
	fsm     *fsm
	stream  *stream
	trans   *transport
	seeds   *seedStore
	raft    *raft.Raft
	watch   *watchdog
	observe *raft.Observer
	leading chan raft.Observation

	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
	opened    chan struct{} // closed when Raft runs
	stopped   atomic.Bool   // Fatal is called or about to be
	noted     atomic.Bool   // these files are not to be used again

	mu        sync.Mutex     // protects the rest
	proposals sync.WaitGroup // calls of Raft that wait for an answer
	elected   chan struct{}  // closed and replaced when the leader changes
	poll      poll           // of the masters' accumulators, while leading
}

// serverID returns the Raft name of a node.
func serverID(n crm.NodeID) raft.ServerID { return raft.ServerID(fmt.Sprintf("node-%d", n)) }

// nodeOf returns the number in a serverID, 0 if it is none.
func nodeOf(id raft.ServerID) crm.NodeID {
	digits, ok := strings.CutPrefix(string(id), "node-")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return 0
	}
	return crm.NodeID(n)
}

func (cfg ledgerConfig) withDefaults() ledgerConfig {
	if cfg.Preset == "" {
		cfg.Preset = presetRegion
	}
	if cfg.Log == "" {
		cfg.Log = logWAL
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	defaultTo(&cfg.CommitEvery, 20*time.Millisecond)
	defaultTo(&cfg.StallAfter, 10*time.Second)
	defaultTo(&cfg.StateEvery, 10*time.Second)
	defaultTo(&cfg.SnapshotInterval, 2*time.Minute)
	defaultTo(&cfg.TrailingLogs, 64<<10)
	defaultTo(&cfg.SnapshotThreshold, 8<<10)
	return cfg
}

func defaultTo[T ~int64 | ~uint64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (cfg ledgerConfig) validate() error {
	bad := func(item, message string) error {
		return &crm.Error{Code: crm.CodeInvalid, Op: "open ledger", Item: item, Message: message}
	}
	if _, ok := timings[cfg.Preset]; !ok {
		return bad("preset", fmt.Sprintf("%q is neither region nor wide", cfg.Preset))
	}
	if nodeOf(cfg.ID) == 0 {
		return bad("id", fmt.Sprintf("%q is not the name of a numbered node", cfg.ID))
	}
	if cfg.Address == "" {
		return bad("address", "other masters need an address to dial")
	}
	return nil
}

func (cfg ledgerConfig) raftConfig() *raft.Config {
	t := timings[cfg.Preset]
	c := raft.DefaultConfig()
	c.LocalID = cfg.ID
	c.HeartbeatTimeout, c.ElectionTimeout = t.heartbeat, t.heartbeat
	c.LeaderLeaseTimeout, c.CommitTimeout = t.lease, t.commit
	c.MaxAppendEntries = 64
	c.BatchApplyCh = true
	c.NoSnapshotRestoreOnStart = true // the FSM's file is the snapshot
	c.NoLegacyTelemetry = true
	c.TrailingLogs, c.SnapshotThreshold, c.SnapshotInterval = cfg.TrailingLogs, cfg.SnapshotThreshold, cfg.SnapshotInterval
	c.Logger = newRaftLogger(cfg.Logger)
	if cfg.Tune != nil {
		cfg.Tune(c)
	}
	return c
}

// openLedger opens the files, starts Raft and listens. The caller must run it
// and then close it.
func openLedger(cfg ledgerConfig) (*ledger, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &ledger{cfg: cfg, closing: make(chan struct{}), elected: make(chan struct{}), opened: make(chan struct{}), leading: make(chan raft.Observation, 16)}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", l.advise(err)), l.close())
	}
	return l, nil
}

func (l *ledger) open() error {
	if err := l.refuseDistrusted(); err != nil {
		return err
	}
	dir := filepath.Join(l.cfg.Dir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	l.watch = &watchdog{after: l.cfg.StallAfter, fatal: l.fatal}
	var err error
	if l.data, err = store.Open(filepath.Join(l.cfg.Dir, "master.db"), store.Options{Logger: l.cfg.Logger, NoSync: l.cfg.Log == logMemory}); err != nil {
		return err
	}
	if l.fsm, err = newFSM(l.cfg, l.data, l.watch, l.fatal); err != nil {
		return err
	}
	l.seeds = newSeedStore(l.cfg.Dir, l.data)
	log, err := openLogStore(l.cfg, dir)
	if err != nil {
		return err
	}
	l.log = &sealedLog{logStore: log}
	at := l.fsm.published().at
	if err := finishInstall(l.cfg.Dir, l.log, at); err != nil {
		return err
	}
	if err := checkLog(l.log, at); err != nil {
		return err
	}
	return l.startRaft()
}

func (l *ledger) startRaft() error {
	lis, err := l.cfg.Listen()
	if err != nil {
		return fmt.Errorf("listen for masters at %s: %w", l.cfg.Address, err)
	}
	l.stream = newStream(l.cfg, lis, &calls{vote: l.vote, seed: l.giveSeed, log: l.logFor, timeline: l.timeline})
	config := l.cfg.raftConfig()
	l.trans = newTransport(&raft.NetworkTransportConfig{
		Stream: l.stream, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: rpcTimeout, Logger: config.Logger,
	})
	l.log = newVerifiedLog(l.log, l.trans.leads, l.cfg.Observe.verified, l.fatal)
	log := &guardedLog{logStore: l.log, cfg: l.cfg, watch: l.watch, applied: func() position { return l.fsm.published().at }, leads: l.trans.leads, fatal: l.fatal}
	cache, err := raft.NewLogCache(256, log)
	if err != nil {
		return err
	}
	snaps := &snapshots{fsm: l.fsm, dir: l.cfg.Dir, observe: l.cfg.Observe}
	l.raft, err = raft.NewRaft(config, &installer{l.fsm, snaps, log}, cache, &voteStore{StableStore: l.log, watch: l.watch}, snaps, l.trans)
	if err != nil {
		return errors.Join(err, l.trans.Close())
	}
	l.trans.raft.Store(l.raft)
	l.observe = raft.NewObserver(l.leading, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	l.raft.RegisterObserver(l.observe)
	close(l.opened)
	return nil
}

// run commits what is evaluated, compares this master with the others and tells
// of leaders, until ctx ends.
func (l *ledger) run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.fsm.commitLoop(ctx) })
	wg.Go(func() { l.followLeader(ctx) })
	wg.Go(func() { l.compareLoop(ctx) })
	wg.Wait()
	return nil
}

// close leaves the others, stops Raft, commits and closes the files. It waits
// for every goroutine of the ledger.
func (l *ledger) close() error {
	l.closeOnce.Do(func() { l.closeErr = l.shutDown() })
	return l.closeErr
}

// shutDown cuts the connections first: Raft's calls return at once, and a leader
// steps down, which answers every proposal. After Shutdown Raft would leave some
// unanswered.
func (l *ledger) shutDown() error {
	l.mu.Lock()
	close(l.closing)
	l.mu.Unlock()
	if l.stream != nil {
		l.stream.closeAll()
	}
	l.proposals.Wait()
	var errs []error
	if l.raft != nil {
		l.raft.DeregisterObserver(l.observe)
		errs = append(errs, l.raft.Shutdown().Error())
	}
	if l.fsm != nil {
		errs = append(errs, l.fsm.close())
	}
	if l.log != nil {
		errs = append(errs, l.log.Close())
	}
	if l.seeds != nil {
		l.seeds.drop()
	}
	if l.data != nil {
		errs = append(errs, l.data.Close())
	}
	return errors.Join(errs...)
}

// followLeader passes on changes of leadership.
func (l *ledger) followLeader(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-l.leading:
			id := o.Data.(raft.LeaderObservation).LeaderID
			l.mu.Lock()
			close(l.elected)
			l.elected = make(chan struct{})
			l.mu.Unlock()
			if l.cfg.Observe.Leader != nil {
				l.cfg.Observe.Leader(id)
			}
		}
	}
}

// leader returns who leads, "" if nobody is known to, and whether this master
// does.
func (l *ledger) leader() (id raft.ServerID, addr string, self bool) {
	a, id := l.raft.LeaderWithID()
	return id, string(a), id == l.cfg.ID && l.raft.State() == raft.Leader
}

// leaderChanged returns a channel that is closed when the leader changes. Get
// it before asking for the leader.
func (l *ledger) leaderChanged() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.elected
}

// db returns the decided records as of the last bbolt commit. A snapshot from
// the leader may replace what is in it at any time.
func (l *ledger) db() *store.DB { return l.data }

// timeline returns the timeline if the masters were restored, 0 if they never
// were, and whether this master has no data yet.
func (l *ledger) timeline() (restored uint64, empty bool) {
	p := l.fsm.published()
	return p.restored, p.rev == 0
}

// head returns the last Rev committed to bbolt.
func (l *ledger) head() crm.Rev { return l.fsm.published().rev }

// evaluated returns the last Rev decided, committed to bbolt or not.
func (l *ledger) evaluated() crm.Rev { return crm.Rev(l.fsm.evaluated.Load()) }

// changed returns a channel that is closed at the next bbolt commit. Get it
// before looking at the head.
func (l *ledger) changed() <-chan struct{} { return l.fsm.published().changed }

// waitRev returns once the head is at least rev.
func (l *ledger) waitRev(ctx context.Context, rev crm.Rev) error {
	return l.fsm.wait(ctx, fmt.Sprintf("rev %d", rev), func(p published) bool { return p.rev >= rev })
}

// bootstrap makes the first configuration. The error is of code already_exists
// if there is a log.
func (l *ledger) bootstrap(servers []raft.Server) error {
	err := l.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return &crm.Error{Code: crm.CodeExists, Op: "bootstrap cluster", Item: l.cfg.Dir, Message: "the directory holds a cluster's log already", Err: err}
	}
	return l.outcome("bootstrap cluster", err)
}

// servers returns Raft's configuration as this master knows it, which works
// without a leader; stale tells that no leader is known to confirm it.
func (l *ledger) servers() (servers []raft.Server, stale bool, err error) {
	f := l.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, true, l.outcome("read servers", err)
	}
	id, _, _ := l.leader()
	return f.Configuration().Servers, id == "", nil
}

// addVoter admits a master to elections, or changes its address.
func (l *ledger) addVoter(ctx context.Context, id raft.ServerID, addr string) error {
	return l.change(ctx, "add voter", func() raft.Future { return l.raft.AddVoter(id, raft.ServerAddress(addr), 0, proposeTimeout) })
}

// addNonvoter sends the log to a master that does not vote.
func (l *ledger) addNonvoter(ctx context.Context, id raft.ServerID, addr string) error {
	return l.change(ctx, "add relay", func() raft.Future { return l.raft.AddNonvoter(id, raft.ServerAddress(addr), 0, proposeTimeout) })
}

// removeServer ends a master's part in the cluster. Its id is never used again.
func (l *ledger) removeServer(ctx context.Context, id raft.ServerID) error {
	return l.change(ctx, "remove master", func() raft.Future { return l.raft.RemoveServer(id, 0, proposeTimeout) })
}

// transfer hands leadership to the voter with that id, or to the most current
// one if id is "".
func (l *ledger) transfer(ctx context.Context, id raft.ServerID) error {
	if id == "" {
		return l.change(ctx, "transfer leadership", func() raft.Future { return l.raft.LeadershipTransfer() })
	}
	servers, _, err := l.servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.ID == id {
			return l.change(ctx, "transfer leadership", func() raft.Future { return l.raft.LeadershipTransferToServer(s.ID, s.Address) })
		}
	}
	return &crm.Error{Code: crm.CodeNotFound, Op: "transfer leadership", Item: string(id), Message: "no such master"}
}

func (l *ledger) change(ctx context.Context, op string, start func() raft.Future) error {
	_, err := await(ctx, l, start)
	return l.outcome(op, err)
}

// stats returns Raft's own figures, for status pages; see raft.Raft.Stats.
func (l *ledger) stats() map[string]string { return l.raft.Stats() }
