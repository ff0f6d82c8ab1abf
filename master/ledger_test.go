package master

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/wansim"
)

// A lab is a set of ledgers on a simulated network, in a synctest bubble.
type lab struct {
	t       *testing.T
	net     *wansim.Network
	edit    func(n int, cfg *ledgerConfig)
	ledgers map[int]*labLedger
}

// A labLedger is one ledger with what survives its process.
type labLedger struct {
	*ledger
	n    int
	dir  string
	disk *raft.InmemStore
	host *wansim.Host
	stop func()

	mu    sync.Mutex // protects fatal
	fatal []error
}

// newLab bootstraps a cluster of voters 1 to voters and waits for its timeline.
// edit may change each ledger's configuration; nil changes nothing.
func newLab(t *testing.T, voters int, edit func(n int, cfg *ledgerConfig)) *lab {
	t.Helper()
	matrix, err := wansim.World().Subset("Frankfurt", "Paris", "Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	w := &lab{t: t, net: wansim.New(wansim.Config{Matrix: matrix}), edit: edit, ledgers: map[int]*labLedger{}}
	t.Cleanup(func() { w.net.Close() })
	var servers []raft.Server
	for n := 1; n <= voters; n++ {
		w.start(n)
		servers = append(servers, raft.Server{ID: serverID(crm.NodeID(n)), Address: raft.ServerAddress(raftAddress(n))})
	}
	if err := w.ledgers[1].bootstrap(servers); err != nil {
		t.Fatal(err)
	}
	w.mustPropose(TimelineEntry{Timeline: 7, Cluster: "c1", Node: 1, ReceivedMillis: 1000, Site: "hq", City: "Frankfurt", Country: "DE"})
	return w
}

func raftAddress(n int) string { return fmt.Sprintf("m%d:7400", n) }

// start starts the ledger of a node, again if it ran before.
func (w *lab) start(n int) *labLedger {
	w.t.Helper()
	l := w.ledgers[n]
	if l == nil {
		l = &labLedger{n: n, dir: w.t.TempDir(), disk: raft.NewInmemStore()}
		l.host = w.net.Host([]string{"Frankfurt", "Paris", "Amsterdam"}[n%3], fmt.Sprintf("m%d", n))
		w.ledgers[n] = l
	} else {
		l.host = l.host.Revive()
	}
	var err error
	if l.ledger, err = openLedger(w.config(l)); err != nil {
		w.t.Fatal(err)
	}
	l.run(w.t)
	return l
}

func (w *lab) config(l *labLedger) ledgerConfig {
	n := l.n
	cfg := ledgerConfig{Dir: l.dir, ID: serverID(crm.NodeID(n)), Address: raftAddress(n), Log: logMemory, Memory: l.disk,
		Listen: func() (net.Listener, error) { return l.host.Listen("7400") }, Dial: l.host.Dial, Fatal: l.failed}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(w.t.Output(), nil)).With("node", n)
	}
	if w.edit != nil {
		w.edit(n, &cfg)
	}
	return cfg
}

func (l *labLedger) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { l.ledger.run(ctx) })
	var once sync.Once
	l.stop = func() {
		once.Do(func() {
			cancel()
			running.Wait()
			if err := l.close(); err != nil {
				t.Errorf("close ledger %d: %v", l.n, err)
			}
		})
	}
	t.Cleanup(l.stop)
}

func (l *labLedger) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = append(l.fatal, err)
}

func (l *labLedger) failures() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

// kill ends a node's process at once.
func (w *lab) kill(l *labLedger) {
	l.host.Crash()
	l.stop()
}

// waitFor waits up to a virtual minute for cond.
func (w *lab) waitFor(what string, cond func() bool) {
	w.t.Helper()
	for range 6000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("waited a minute in vain: %s", what)
}

// leader waits for a running ledger that leads.
func (w *lab) leader() (leading *labLedger) {
	w.t.Helper()
	w.waitFor("a leader", func() bool {
		for _, l := range w.ledgers {
			if _, _, self := l.leader(); self {
				leading = l
				return true
			}
		}
		return false
	})
	return leading
}

// mustPropose proposes to whoever leads until the outcome is known.
func (w *lab) mustPropose(e Entry) []Decided {
	w.t.Helper()
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		results, _, err := w.leader().propose(ctx, e)
		cancel()
		if err == nil {
			return results
		}
		if c := crm.CodeOf(err); !errors.Is(err, errUnknown) && c != crm.CodeNoLeader {
			w.t.Fatal(err)
		}
	}
	w.t.Fatal("a hundred proposals have failed")
	return nil
}

// settle waits until the given ledgers have committed the same head and nothing
// is in flight.
func (w *lab) settle(nodes ...int) {
	w.t.Helper()
	head := w.leader().evaluated()
	for _, n := range nodes {
		w.waitFor(fmt.Sprintf("rev %d at node %d", head, n), func() bool { return w.ledgers[n].head() >= head })
	}
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

// sum returns the accumulator of what a ledger has committed.
func (w *lab) sum(n int) (sum Accumulator) {
	w.t.Helper()
	err := w.ledgers[n].db().View(func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err == nil {
			sum, err = accumulate(tx, rev)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return sum
}

func (w *lab) mustAgree(nodes ...int) {
	w.t.Helper()
	w.settle(nodes...)
	for _, n := range nodes[1:] {
		if got, want := w.sum(n), w.sum(nodes[0]); got != want {
			w.t.Errorf("node %d at rev %d has accumulator %x, node %d at rev %d has %x", n, w.ledgers[n].head(), got, nodes[0], w.ledgers[nodes[0]].head(), want)
		}
	}
}

// A writer is a node that numbers Mutations.
type writer struct {
	node crm.NodeID
	inc  crm.Incarnation
	seq  crm.Seq
	prev crm.ChainHash
	hlc  crm.HLC
}

func (c *writer) mutation(ops ...crm.Op) []byte {
	c.seq++
	c.hlc++
	raw := crm.AppendMutation(nil, &crm.Mutation{Node: c.node, Incarnation: c.inc, Seq: c.seq, Prev: c.prev, HLC: c.hlc, Actor: "ana", Intent: "test", Ops: ops})
	c.prev = crm.Chain(c.prev, raw)
	return raw
}

func (c *writer) push(raw ...[]byte) PushEntry {
	return PushEntry{Node: c.node, Incarnation: c.inc, ReceivedMillis: time.Now().UnixMilli(), Mutations: raw}
}

// first is the master made by the timeline entry.
func first() *writer { return &writer{node: 1, inc: 1} }

// territoryOp creates a territory; masters may.
func territoryOp(code string) crm.Op {
	return createOp(crm.EntityTerritory, map[crm.FieldID]crm.Value{crm.TerritoryCode: crm.TextValue(code), crm.TerritoryName: crm.TextValue(code)})
}

func createOp(e crm.EntityID, values map[crm.FieldID]crm.Value) crm.Op {
	op := crm.Op{Kind: crm.OpCreate, Entity: e, Record: crm.NewRecordID(time.Now(), rand.Reader)}
	for f, v := range values {
		op.Cells = append(op.Cells, crm.Input{Field: f, Value: v})
	}
	return op
}

func replicaOp(site string) crm.Op {
	return createOp(crm.EntityNode, map[crm.FieldID]crm.Value{crm.NodeSite: crm.TextValue(site), crm.NodeRole: crm.ChoiceValue("replica"), crm.NodeStatus: crm.ChoiceValue("active")})
}

func (w *lab) mustDecide(c *writer, n int, from string) {
	w.t.Helper()
	var raw [][]byte
	for i := range n {
		raw = append(raw, c.mutation(territoryOp(fmt.Sprintf("%s-%d", from, i))))
	}
	for i, d := range w.mustPropose(c.push(raw...)) {
		if d.Kind != crm.Accepted && !d.Duplicate {
			w.t.Fatalf("mutation %d of %s: %+v", i, from, d)
		}
	}
}

func TestLedger_DecidesAlikeOnEveryMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, nil)
		c := first()
		w.mustDecide(c, 10, "a")
		w.mustDecide(c, 5, "b")
		w.mustAgree(1, 2, 3)
		if got := w.ledgers[2].head(); got != 16 {
			t.Errorf("head %d after the timeline and 15 decisions", got)
		}
		if err := w.leader().verify(t.Context()); err != nil {
			t.Errorf("verify on the leader: %v", err)
		}
		for _, l := range w.ledgers {
			if _, _, self := l.leader(); self {
				continue
			}
			if _, _, err := l.propose(t.Context(), TrimEntry{1}); crm.CodeOf(err) != crm.CodeNoLeader {
				t.Errorf("propose on a follower: %v", err)
			}
			if err := l.verify(t.Context()); crm.CodeOf(err) != crm.CodeNoLeader {
				t.Errorf("verify on a follower: %v", err)
			}
		}
	})
}

func TestLedger_SurvivesItsLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, nil)
		c := first()
		w.mustDecide(c, 3, "before")
		old := w.leader()
		changed := w.ledgers[old.n%3+1].leaderChanged()
		w.kill(old)
		w.mustDecide(c, 3, "after")
		<-changed
		if w.leader().n == old.n {
			t.Fatal("a dead ledger leads")
		}
		w.start(old.n)
		w.mustAgree(1, 2, 3)
	})
}

func TestLedger_HandsOverAndChangesMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, nil)
		c := first()
		w.mustDecide(c, 3, "a")
		old := w.leader()
		to := old.n%3 + 1
		if err := old.transfer(t.Context(), serverID(crm.NodeID(to))); err != nil {
			t.Fatal(err)
		}
		w.waitFor("the named master to lead", func() bool { return w.leader().n == to })
		w.start(4)
		if err := w.leader().addNonvoter(t.Context(), serverID(4), raftAddress(4)); err != nil {
			t.Fatal(err)
		}
		w.mustAgree(1, 2, 3, 4)
		if err := w.leader().addVoter(t.Context(), serverID(4), raftAddress(4)); err != nil {
			t.Fatal(err)
		}
		if err := w.leader().removeServer(t.Context(), serverID(crm.NodeID(old.n))); err != nil {
			t.Fatal(err)
		}
		servers, stale, err := w.leader().servers()
		if err != nil || stale || len(servers) != 3 {
			t.Errorf("servers %v, stale %v, error %v", servers, stale, err)
		}
		w.mustDecide(c, 2, "b")
		if err := w.leader().bootstrap(servers); crm.CodeOf(err) != crm.CodeExists {
			t.Errorf("bootstrap of a running cluster: %v", err)
		}
	})
}

func TestLedger_AnswersWhenTheMajorityIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, nil)
		c := first()
		leader := w.leader()
		for n, l := range w.ledgers {
			if n != leader.n {
				w.kill(l)
			}
		}
		lost := c.push(c.mutation(territoryOp("lost")))
		_, _, err := leader.propose(t.Context(), lost)
		if !errors.Is(err, errUnknown) || crm.CodeOf(err) != crm.CodeTimeout {
			t.Fatalf("propose without a majority: %v", err)
		}
		if _, stale, err := leader.servers(); err != nil || !stale {
			t.Errorf("servers without a leader: stale %v, error %v", stale, err)
		}
		for n := range w.ledgers {
			if n != leader.n {
				w.start(n)
			}
		}
		if d := w.mustPropose(lost); d[0].Kind != crm.Accepted {
			t.Errorf("repeated: %+v", d)
		}
		w.mustAgree(1, 2, 3)
		if rev := w.leader().head(); rev != 2 {
			t.Errorf("head %d: the repeat took effect twice", rev)
		}
	})
}

func TestLedger_ReplaysWhatWasNotCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 1, func(_ int, cfg *ledgerConfig) { cfg.CommitEvery = time.Hour })
		c := first()
		l := w.ledgers[1]
		w.mustDecide(c, 5, "kept")
		w.settle(1)
		l.fsm.mu.Lock()
		for l.fsm.pending == 0 {
			l.fsm.mu.Unlock()
			if _, _, err := l.propose(t.Context(), c.push(c.mutation(territoryOp(fmt.Sprint("lost-", c.seq))))); err != nil {
				t.Fatal(err)
			}
			l.fsm.mu.Lock() // the commit loop waits a virtual millisecond, so it has not run
		}
		want := l.evaluated()
		if err := l.fsm.tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		l.fsm.tx, l.fsm.rev = nil, l.fsm.published().rev
		l.fsm.mu.Unlock()
		if l.head() >= want {
			t.Fatal("nothing was lost")
		}
		w.kill(l)
		w.start(1)
		w.waitFor("the replay", func() bool { return w.ledgers[1].head() == want })
	})
}

func TestLedger_InstallsASnapshotAtAFollowerThatLags(t *testing.T) {
	for _, kind := range []logKind{logMemory, logBolt} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { installSnapshot(t, kind) })
		})
	}
}

func installSnapshot(t *testing.T, kind logKind) {
	w := newLab(t, 3, func(_ int, cfg *ledgerConfig) {
		cfg.Log, cfg.TrailingLogs, cfg.SnapshotThreshold, cfg.SnapshotInterval = kind, 2, 4, time.Second
	})
	c := first()
	w.mustDecide(c, 2, "early")
	lagging := w.ledgers[w.leader().n%3+1]
	w.kill(lagging)
	for i := range 12 {
		w.mustDecide(c, 1, fmt.Sprint("missed-", i))
	}
	time.Sleep(5 * time.Second) // two looks at the threshold
	if first, err := w.leader().log.FirstIndex(); err != nil || first < 5 {
		t.Fatalf("the log starts at %d, error %v: nothing was truncated", first, err)
	}
	w.start(lagging.n)
	w.start(4)
	if err := w.leader().addVoter(t.Context(), serverID(4), raftAddress(4)); err != nil {
		t.Fatal(err)
	}
	w.mustDecide(c, 2, "late")
	w.mustAgree(1, 2, 3, 4)
	w.kill(w.ledgers[4])
	w.start(4)
	w.mustDecide(c, 2, "latest")
	w.mustAgree(1, 2, 3, 4)
}

func TestLedger_HaltsTheOddOneOut(t *testing.T) {
	for _, leads := range []bool{true, false} {
		t.Run(fmt.Sprintf("leader=%v", leads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { haltOddOne(t, leads) })
		})
	}
}

func haltOddOne(t *testing.T, leads bool) {
	w := newLab(t, 3, nil)
	c := first()
	w.mustDecide(c, 3, "a")
	w.mustAgree(1, 2, 3)
	odd := w.leader()
	if !leads {
		odd = w.ledgers[odd.n%3+1]
	}
	w.mustDecide(c, 1, "b")
	time.Sleep(30 * time.Second) // a comparison of equal masters
	for n, l := range w.ledgers {
		if errs := l.failures(); len(errs) > 0 {
			t.Fatalf("node %d of equal ones: %v", n, errs)
		}
	}
	tamper(t, odd)
	w.mustDecide(c, 1, "c")
	w.waitFor("the odd one to halt", func() bool { return len(odd.failures()) > 0 })
	head := odd.head()
	if _, _, err := odd.propose(t.Context(), TrimEntry{1}); leads && !errors.Is(err, errUnknown) && crm.CodeOf(err) != crm.CodeNoLeader {
		t.Errorf("propose on a halted leader: %v", err)
	}
	w.kill(odd)
	w.mustDecide(c, 1, "d")
	time.Sleep(30 * time.Second)
	for n, l := range w.ledgers {
		if errs := l.failures(); n != odd.n && len(errs) > 0 {
			t.Errorf("node %d, which is right: %v", n, errs)
		}
	}
	if len(odd.failures()) != 1 || odd.head() != head {
		t.Errorf("the odd one failed %v, head %d then %d", odd.failures(), head, odd.head())
	}
}

// tamper changes a record behind the ledger's back.
func tamper(t *testing.T, l *labLedger) {
	t.Helper()
	err := l.db().Update(func(tx *store.Tx) error {
		for r, err := range tx.Scan(crm.EntitySite) {
			if err != nil {
				return err
			}
			r = r.Clone()
			r.Cells[0].Value = crm.TextValue("tampered")
			return tx.Put(r)
		}
		return errors.New("no site")
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLedger_CountsWhatItDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		count := map[string]int{}
		tell := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			count[what]++
		}
		took := func(what string) func(time.Duration) { return func(time.Duration) { tell(what) } }
		w := newLab(t, 1, func(_ int, cfg *ledgerConfig) {
			cfg.Observe = observer{Commit: took("commit"), Append: took("append"), Apply: took("apply"), Decided: took("decided"),
				Batch:  func(_, mutations int) { tell(fmt.Sprint("batch of ", mutations)) },
				Leader: func(id raft.ServerID) { tell("leader " + string(id)) }}
		})
		w.mustDecide(first(), 3, "a")
		w.settle(1)
		mu.Lock()
		defer mu.Unlock()
		for _, what := range []string{"commit", "append", "apply", "decided", "batch of 3", "leader node-1"} {
			if count[what] == 0 {
				t.Errorf("%s was never observed: %v", what, count)
			}
		}
	})
}

func TestLedger_RefusesABadConfiguration(t *testing.T) {
	for item, edit := range map[string]func(*ledgerConfig){
		"preset":  func(c *ledgerConfig) { c.Preset = "galaxy" },
		"id":      func(c *ledgerConfig) { c.ID = "m1" },
		"address": func(c *ledgerConfig) { c.Address = "" },
	} {
		cfg := ledgerConfig{Dir: t.TempDir(), ID: serverID(1), Address: raftAddress(1)}
		edit(&cfg)
		if _, err := openLedger(cfg); crm.CodeOf(err) != crm.CodeInvalid {
			t.Errorf("%s: %v", item, err)
		}
	}
	_, err := openLedger(ledgerConfig{Dir: t.TempDir(), ID: serverID(1), Address: raftAddress(1), Log: "papyrus"})
	if err == nil {
		t.Error("an unknown log was opened")
	}
}

// TestLedger_WritesARealLog runs one master on files, in real time.
func TestLedger_WritesARealLog(t *testing.T) {
	cfg := ledgerConfig{Dir: t.TempDir(), ID: serverID(1), Fatal: func(err error) { t.Error(err) }}
	cfg.Listen = func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	cfg.Address = "127.0.0.1:1" // of a single voter nobody dials
	c := first()
	for round := range 2 {
		l := &labLedger{n: 1}
		var err error
		if l.ledger, err = openLedger(cfg); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			err = l.bootstrap([]raft.Server{{ID: cfg.ID, Address: raft.ServerAddress(cfg.Address)}})
		}
		l.run(t)
		for elected := l.leaderChanged(); ; elected = l.leaderChanged() {
			if _, _, self := l.leader(); self {
				break
			}
			<-elected
		}
		if round == 0 && err == nil {
			_, _, err = l.propose(t.Context(), TimelineEntry{Timeline: 1, Cluster: "c", Node: 1, Site: "hq"})
		}
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := l.propose(t.Context(), c.push(c.mutation(territoryOp(fmt.Sprint("t", round)))))
		if err != nil || d[0].Rev != crm.Rev(2+round) {
			t.Fatalf("round %d: %+v, %v", round, d, err)
		}
		if err := errors.Join(l.verify(t.Context()), l.waitRev(t.Context(), d[0].Rev)); err != nil {
			t.Fatal(err)
		}
		l.stop()
	}
}
