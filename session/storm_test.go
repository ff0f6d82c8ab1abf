package session_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A storm is one serving node in real time, and replicas that speak the frames of
// the protocol over pipes and keep nothing.
type storm struct {
	*world
	srv     *session.Server
	mu      turn // protects world
	nodes   []auth.Identity
	refusal refusals
	cut     atomic.Bool // nobody reaches the node
}

// A turn is a mutex on which waiting is known to a bubble of virtual time.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

// refusals counts what the server refused, by reason.
type refusals struct {
	mu     sync.Mutex // protects counts
	counts map[crm.Code]int
}

func (r *refusals) count(c crm.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[crm.Code]int{}
	}
	r.counts[c]++
}

func (r *refusals) of(c crm.Code) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[c]
}

// Greet judges a Hello as a master that leads.
func (s *storm) Greet(_ context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.srv.Standing(h.Node)
	if err != nil {
		return nil, err
	}
	j := st.Judge(h)
	if j.Admit == "" {
		return j.Answer, nil
	}
	s.admit(h.Node, j.Admit)
	st, err = s.srv.Standing(h.Node)
	return st.Welcome(), err
}

func (s *storm) Submit(_ context.Context, sub session.Submission) (session.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decide(sub)
}

func (s *storm) Ask(context.Context, syncproto.AskKind) (*syncproto.Answer, error) {
	return &syncproto.Answer{Rev: s.fsm.Head()}, nil
}

// newStorm makes as many replicas, which all hold the same accounts.
func newStorm(t *testing.T, replicas, accounts int) *storm {
	t.Helper()
	s := newStormOn(t, nil)
	for i := range replicas {
		s.addSite(fmt.Sprint("site-", i), "north")
	}
	for i := range accounts {
		s.office(inTerritory(s.account(fmt.Sprintf("account %d %s", i, strings.Repeat("x", 100))), "north"))
	}
	return s
}

// addSite makes a site that holds a territory, with a replica.
func (s *storm) addSite(site, territory string) {
	s.t.Helper()
	s.office(s.create(crm.EntitySite, crm.SiteName, crm.TextValue(site), crm.SiteTerritories, crm.ChoicesValue(territory), crm.SiteHome, crm.TextValue(territory)),
		s.create(crm.EntityNode, crm.NodeSite, crm.TextValue(site), crm.NodeRole, crm.ChoiceValue("replica"), crm.NodeStatus, crm.ChoiceValue("active")))
	s.nodes = append(s.nodes, auth.Identity{Cluster: "c1", Role: auth.RoleReplica, Site: site, Node: uint32(int(branchNode) + 1 + len(s.nodes))})
}

// newStormOn has the node's file on a disk, and nobody comes yet.
func newStormOn(t *testing.T, disk *store.Disk) *storm {
	t.Helper()
	s := &storm{world: newWorldOn(t, disk), mu: make(turn, 1)}
	s.srv = session.New(session.Config{Cluster: "c1", DB: s.fsm.DB(), Head: s.fsm.Head, Changed: s.fsm.Changed, Upstream: s,
		Leader: func() (crm.NodeID, bool) { return 1, true }, LeaderChanged: func() <-chan struct{} { return nil },
		Reported: func(crm.NodeID, crm.Rev, crm.Rev, int64) {},
		Now:      time.Now, Jitter: func(bound time.Duration) time.Duration { return bound / 2 },
		Observe: session.Observer{Refused: s.refusal.count}})
	return s
}

// inTerritory puts a new account in a territory.
func inTerritory(op crm.Op, code string) crm.Op {
	op.Cells = append(op.Cells, crm.Input{Field: accTerr, Value: crm.TextValue(code)})
	return op
}

// A caller is a replica's end of a session.
type caller struct {
	conn    *syncproto.Conn
	batches chan *syncproto.Batch // closed at the end
	welcome *syncproto.Welcome
}

// call opens a session of a replica and reads it until ctx ends; edits are pushed
// at once.
func (s *storm) call(ctx context.Context, wg *sync.WaitGroup, id auth.Identity, edit []byte) (*caller, error) {
	k, err := s.come(ctx, wg, id, &syncproto.Hello{Bootstrap: true})
	if err == nil && edit != nil {
		err = k.conn.Send(push(1, edit))
	}
	return k, err
}

// come opens a session of a replica that stands where h says.
func (s *storm) come(ctx context.Context, wg *sync.WaitGroup, id auth.Identity, h *syncproto.Hello) (*caller, error) {
	near, far := net.Pipe()
	wg.Go(func() {
		defer far.Close()
		s.srv.Serve(ctx, far, syncproto.NewConn(far), id)
	})
	k := &caller{conn: syncproto.NewConn(near), batches: make(chan *syncproto.Batch)}
	h.ProtoMin, h.ProtoMax, h.Cluster, h.Node, h.NextSeq, h.Sent = syncproto.MinVersion, syncproto.MaxVersion, "c1", crm.NodeID(id.Node), 1, time.Now().UnixMilli()
	if err := k.conn.Send(h); err != nil {
		return nil, err
	}
	f, err := k.conn.Receive()
	if err != nil {
		return nil, err
	}
	w, ok := f.(*syncproto.Welcome)
	if !ok {
		return nil, fmt.Errorf("answered with %s", f.Kind())
	}
	k.welcome = w
	k.conn.Speak(w.Proto)
	wg.Go(func() { k.read(ctx) })
	return k, nil
}

func (k *caller) read(ctx context.Context) {
	defer close(k.batches)
	defer k.conn.Close()
	for {
		f, err := k.conn.Receive()
		if err != nil {
			return
		}
		if b, ok := f.(*syncproto.Batch); ok {
			select {
			case k.batches <- b:
			case <-ctx.Done():
				return
			}
		}
	}
}

// until reads batches until a final one reaches rev.
func (k *caller) until(rev crm.Rev) (parts int, err error) {
	for b := range k.batches {
		parts++
		if b.Final && b.To >= rev {
			return parts, nil
		}
	}
	return parts, errors.New("the session ended")
}

var stormSize = flag.Int("storm", 60, "how many replicas come back at once in TestStorm; 500 need 1.5 GB")

// Many replicas come back at once, each with an edit and far behind. All
// catch up; what is held for them is bounded; a replica in session sees what is
// decided meanwhile.
func TestStorm(t *testing.T) {
	const accounts = 2000
	replicas := *stormSize
	s := newStorm(t, replicas+1, accounts)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	live, err := s.call(ctx, &wg, s.nodes[replicas], nil)
	s.must(err)
	_, err = live.until(s.fsm.Head())
	s.must(err)

	heap := watchHeap(ctx, &wg)
	before := heap.now()
	start := time.Now()
	head := s.fsm.Head()
	ends := make(chan error, replicas)
	for i := range replicas {
		s.mu.Lock()
		edit := crm.AppendMutation(nil, &crm.Mutation{Node: crm.NodeID(s.nodes[i].Node), Incarnation: 1, Seq: 1, HLC: crm.NewHLC(s.clock.UnixMilli()), Actor: "x", Intent: "test",
			Ops: []crm.Op{inTerritory(s.account(fmt.Sprint("of replica ", i)), "north")}})
		s.mu.Unlock()
		wg.Go(func() {
			k, err := s.call(ctx, &wg, s.nodes[i], edit)
			if err == nil {
				_, err = k.until(head + crm.Rev(replicas))
			}
			ends <- err
		})
	}
	var waits []time.Duration
	for left := replicas; left > 0; {
		select {
		case err := <-ends:
			s.must(err)
			left--
		default:
			waits = append(waits, s.seenBy(live))
		}
	}
	took := time.Since(start)
	slices.Sort(waits)
	runtime.GC()
	rest := int64(heap.now()) - int64(before)
	grew := int64(heap.most()) - int64(before)
	t.Logf("%d replicas with %d records to fetch and one edit each: %v, heap at most %d MiB more with garbage, %d MiB when all sessions are quiet (both ends are here); %d edits seen by a live replica meanwhile, median %v, slowest %v",
		replicas, accounts, took.Round(time.Millisecond), grew>>20, rest>>20, len(waits), waits[len(waits)/2].Round(time.Microsecond), waits[len(waits)-1].Round(time.Millisecond))
	if slowest := waits[len(waits)-1]; slowest > 10*time.Second {
		t.Errorf("a live replica waited %v for an edit", slowest)
	}
	if bound := int64(64<<20) + int64(replicas)*4<<20; grew > bound {
		t.Errorf("the heap grew by %d MiB, want at most %d", grew>>20, bound>>20)
	}
}

// seenBy has an edit decided and returns how long it then takes to a replica.
func (s *storm) seenBy(k *caller) time.Duration {
	s.t.Helper()
	s.mu.Lock()
	s.office(inTerritory(s.account("decided in the storm"), "north"))
	rev, start := s.fsm.Head(), time.Now()
	s.mu.Unlock()
	_, err := k.until(rev)
	s.must(err)
	return time.Since(start)
}

// A heapWatch remembers the highest heap.
type heapWatch struct {
	mu   sync.Mutex // protects peak
	peak uint64
}

func watchHeap(ctx context.Context, wg *sync.WaitGroup) *heapWatch {
	h := &heapWatch{}
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				n := h.now()
				h.mu.Lock()
				h.peak = max(h.peak, n)
				h.mu.Unlock()
			}
		}
	})
	return h
}

func (h *heapWatch) now() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (h *heapWatch) most() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peak
}
