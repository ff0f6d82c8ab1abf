package master

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/wansim"
)

// TestIssue695_AHeartbeatOfANewTermWaitsItsTurn provokes hashicorp/raft issue
// 695 itself, between three bare Rafts: a leader is away long enough to be
// replaced, and back before its lease runs out; it hears the new leader's
// heartbeat, and a proposal reaches it before anything else does. Over Raft's
// own transport it logs the proposal under the other leader's term and applies
// it where the others apply something else. Over ours it does not.
func TestIssue695_AHeartbeatOfANewTermWaitsItsTurn(t *testing.T) {
	for _, ours := range []bool{false, true} {
		t.Run(fmt.Sprintf("ours=%v", ours), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { provoke695(t, ours) })
		})
	}
}

func provoke695(t *testing.T, ours bool) {
	net := wansim.New(wansim.Config{Matrix: wansim.Uniform(10*time.Millisecond, "Oslo", "Bergen", "Turku")})
	defer net.Close()
	var nodes []*bareRaft
	for i, city := range []string{"Oslo", "Bergen", "Turku"} {
		n := newBareRaft(t, net.Host(city, fmt.Sprintf("m%d", i+1)), i+1, ours)
		defer n.close(t)
		nodes = append(nodes, n)
	}
	old := nodes[0] // only it has patience: it leads first, and its lease outlasts an election among the others
	nodes[1].pause()
	nodes[2].pause()
	var servers []raft.Server
	for _, n := range nodes {
		servers = append(servers, raft.Server{ID: n.id, Address: n.addr})
	}
	if err := old.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first leader", func() bool { return old.State() == raft.Leader })
	nodes[1].resume()
	nodes[2].resume()
	if err := old.Apply([]byte("before"), time.Second).Error(); err != nil {
		t.Fatal(err)
	}

	old.calls.hold() // from here on its main loop hears late; heartbeats are in time
	time.Sleep(100 * time.Millisecond)
	if err := net.Isolate("Oslo"); err != nil {
		t.Fatal(err)
	}
	until(t, "another leader", func() bool { return nodes[1].State() == raft.Leader || nodes[2].State() == raft.Leader })
	if old.State() != raft.Leader {
		t.Fatal("the old leader's lease has run out: the race has no runners")
	}
	net.HealAll()
	until(t, "the heartbeat", func() bool { return old.heard() > 0 })
	late := old.Apply([]byte("late"), time.Second)
	time.Sleep(20 * time.Millisecond)
	old.calls.release()
	if err := late.Error(); err == nil {
		t.Error("the proposal to the old leader succeeded")
	}
	leader := nodes[1]
	if nodes[2].State() == raft.Leader {
		leader = nodes[2]
	}
	for _, s := range []string{"after", "more"} {
		if err := leader.Apply([]byte(s), time.Second).Error(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	got, want := old.state.applied(), leader.state.applied()
	if ours && !slices.Equal(got, want) {
		t.Errorf("the old leader applied %q, the new one %q", got, want)
	}
	if !ours && !slices.Contains(got, "late") {
		t.Errorf("the old leader applied %q, the new one %q: Raft's own transport does not diverge any more, so ours has nothing left to do", got, want)
	}
}

// until waits up to a virtual minute for cond, looking every millisecond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for range 60000 {
		if cond() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("waited a minute in vain: %s", what)
}

// A bareRaft is a Raft with nothing of ours but, at choice, the transport.
type bareRaft struct {
	*raft.Raft
	id    raft.ServerID
	addr  raft.ServerAddress
	state *wordList
	calls *heldCalls
	conf  raft.Config
}

func newBareRaft(t *testing.T, host *wansim.Host, n int, ours bool) *bareRaft {
	t.Helper()
	b := &bareRaft{id: raft.ServerID(fmt.Sprint(n)), addr: raft.ServerAddress(raftAddress(n)), state: &wordList{}}
	lis, err := host.Listen("7400")
	if err != nil {
		t.Fatal(err)
	}
	cfg := ledgerConfig{Address: string(b.addr), Dial: host.Dial}.withDefaults()
	wire := &raft.NetworkTransportConfig{Stream: newStream(cfg, lis, nil), MaxPool: 3, MaxRPCsInFlight: 1, Timeout: rpcTimeout, Logger: newRaftLogger(cfg.Logger)}
	b.calls = &heldCalls{out: make(chan raft.RPC), end: make(chan struct{})}
	if ours {
		own := newTransport(wire)
		b.calls.Transport = own
		defer func() { own.raft.Store(b.Raft) }()
	} else {
		b.calls.Transport = raft.NewNetworkTransportWithConfig(wire)
	}
	b.calls.running.Go(b.calls.run)
	b.conf = *cfg.raftConfig()
	b.conf.LocalID, b.conf.Logger = b.id, newRaftLogger(cfg.Logger)
	b.conf.HeartbeatTimeout, b.conf.ElectionTimeout, b.conf.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	if n == 1 {
		b.conf.HeartbeatTimeout, b.conf.ElectionTimeout, b.conf.LeaderLeaseTimeout = 3*time.Second, 3*time.Second, 3*time.Second
	}
	log := raft.NewInmemStore()
	if b.Raft, err = raft.NewRaft(&b.conf, b.state, log, log, raft.NewInmemSnapshotStore(), b.calls); err != nil {
		t.Fatal(err)
	}
	return b
}

// pause keeps a follower from standing for election, resume lets it.
func (b *bareRaft) pause() { b.patience(time.Hour) }

func (b *bareRaft) resume() { b.patience(200 * time.Millisecond) }

func (b *bareRaft) patience(d time.Duration) {
	c := b.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = d, d
	if err := b.ReloadConfig(c); err != nil {
		panic(err)
	}
}

// heard returns the highest term of a heartbeat that the node has been sent.
func (b *bareRaft) heard() uint64 {
	b.calls.mu.Lock()
	defer b.calls.mu.Unlock()
	return b.calls.term
}

func (b *bareRaft) close(t *testing.T) {
	t.Helper()
	close(b.calls.end)
	if err := b.Shutdown().Error(); err != nil {
		t.Error(err)
	}
	b.calls.running.Wait()
}

// heldCalls is a transport that can hold back what comes for Raft's main loop,
// and stops to send as well while it does; heartbeats pass.
type heldCalls struct {
	raft.Transport
	out     chan raft.RPC
	end     chan struct{}
	running sync.WaitGroup

	mu   sync.Mutex // protects the rest
	held chan struct{}
	term uint64
}

func (h *heldCalls) Consumer() <-chan raft.RPC { return h.out }

func (h *heldCalls) run() {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-h.Transport.Consumer():
		case <-h.end:
			return
		}
		h.running.Go(func() { h.pass(rpc) })
	}
}

func (h *heldCalls) pass(rpc raft.RPC) {
	beat, ok := rpc.Command.(*raft.AppendEntriesRequest)
	if ok = ok && isHeartbeat(beat); !ok {
		h.wait()
	}
	select {
	case h.out <- rpc:
	case <-h.end:
		return
	}
	if ok {
		h.note(beat.Term)
	}
}

func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

func (h *heldCalls) SetHeartbeatHandler(fast func(raft.RPC)) {
	h.Transport.SetHeartbeatHandler(func(rpc raft.RPC) {
		fast(rpc)
		h.note(rpc.Command.(*raft.AppendEntriesRequest).Term)
	})
}

func (h *heldCalls) note(term uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.term = max(h.term, term)
}

func (h *heldCalls) AppendEntries(id raft.ServerID, to raft.ServerAddress, a *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(a) {
		h.wait()
	}
	return h.Transport.AppendEntries(id, to, a, resp)
}

func (h *heldCalls) RequestPreVote(id raft.ServerID, to raft.ServerAddress, a *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return h.Transport.(raft.WithPreVote).RequestPreVote(id, to, a, resp)
}

func (h *heldCalls) Close() error { return h.Transport.(raft.WithClose).Close() }

func (h *heldCalls) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = make(chan struct{})
}

func (h *heldCalls) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.held)
	h.held = nil
}

func (h *heldCalls) wait() {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-h.end:
	}
}

// wordList is an FSM that keeps what it is told.
type wordList struct {
	mu    sync.Mutex
	words []string
}

func (w *wordList) Apply(l *raft.Log) any {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.words = append(w.words, string(l.Data))
	return nil
}

func (w *wordList) applied() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.words)
}

func (w *wordList) Snapshot() (raft.FSMSnapshot, error) { return ownState{}, nil }
func (w *wordList) Restore(io.ReadCloser) error         { return nil }
