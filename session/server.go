package session

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Config is what a Server serves from and whom it asks. All but Relay, Ready,
// Age, Protocol, Logger and Observe must be set; the funcs may be called by any
// goroutine.
type Config struct {
	Cluster  string     // the cluster's id
	DB       *store.DB  // the decided records
	Protocol uint16     // the newest version that this node speaks; 0: syncproto.MaxVersion
	Relay    crm.NodeID // this node, if it is a relay; 0: it is a master
	Upstream Upstream
	Ready    func() error         // of a relay: why nobody can be served now
	Age      func() time.Duration // how long ago Head was known to be the leader's: 0 at the leader, a millisecond at least elsewhere; nil: this node leads

	Head          func() crm.Rev                        // the last Rev committed to DB
	Changed       func() <-chan struct{}                // closed at the next commit; got before looking at Head
	Leader        func() (leader crm.NodeID, self bool) // who leads, 0 if nobody is known to, and whether this node does
	LeaderChanged func() <-chan struct{}                // closed when the leader changes; got before asking

	// Reported is told how far a replica has come: what it applied, the lowest Rev
	// that its pending edits refer to, and when it was heard, in Unix milliseconds.
	Reported func(n crm.NodeID, cursor, lowBase crm.Rev, seenMillis int64)

	// Damaged is told that the feed met damage in DB; nil: nobody is.
	Damaged func(error)

	Now     func() time.Time
	Jitter  func(bound time.Duration) time.Duration // a random duration below bound
	Logger  *slog.Logger                            // default: silent
	Observe Observer
}

// An Observer is told what a Server measures. Each func may be nil.
type Observer struct {
	Handshake func(answer syncproto.Kind)
	Batch     func(*syncproto.Batch) // one was sent
	Refused   func(crm.Code)         // a replica was refused, or sent what is refused
	RTT       func(site string, rtt time.Duration)
	Bytes     func(site string, in, out int64) // since the last call
	Repair    func(what string)                // RepairAsked and so on
}

// What becomes of Repairs: a replica disagrees, so one of the two is damaged.
const (
	RepairAsked    = "asked"
	RepairAnswered = "answered"
	RepairRefused  = "refused" // for each territory that the replica may not hold
)

func (o Observer) withDefaults() Observer {
	if o.Handshake == nil {
		o.Handshake = func(syncproto.Kind) {}
	}
	if o.Batch == nil {
		o.Batch = func(*syncproto.Batch) {}
	}
	if o.Refused == nil {
		o.Refused = func(crm.Code) {}
	}
	if o.RTT == nil {
		o.RTT = func(string, time.Duration) {}
	}
	if o.Bytes == nil {
		o.Bytes = func(string, int64, int64) {}
	}
	if o.Repair == nil {
		o.Repair = func(string) {}
	}
	return o
}

// A Server serves replicas from one store. Its methods may be called by any
// goroutine.
type Server struct {
	cfg     Config
	rosters Rosters
	backlog backlog
	knocks  knocks
	slots   slots

	mu     sync.Mutex // protects what follows
	byNode map[crm.NodeID]*session
	ends   int   // calls of EndAll
	why    error // of the last
}

// New returns a Server. It starts nothing.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Protocol = cmp.Or(cfg.Protocol, syncproto.MaxVersion)
	cfg.Observe = cfg.Observe.withDefaults()
	return &Server{cfg: cfg, byNode: map[crm.NodeID]*session{}}
}

// Rosters returns the cache of who belongs to the cluster.
func (s *Server) Rosters() *Rosters { return &s.rosters }

// Standing reads where a node stands.
func (s *Server) Standing(n crm.NodeID) (st Standing, err error) {
	err = s.cfg.DB.View(func(tx *store.Tx) (err error) {
		st, err = s.rosters.Standing(tx, n)
		return err
	})
	return st, err
}

// StandingOf reads where a node stands, for a Welcome of the disk that says Hello.
func (s *Server) StandingOf(h *syncproto.Hello) (st Standing, err error) {
	err = s.cfg.DB.View(func(tx *store.Tx) (err error) {
		if st, err = s.rosters.Standing(tx, h.Node); err != nil {
			return err
		}
		st.Trail, err = trail(tx, st, h)
		return err
	})
	return st, err
}

const (
	// handshakeLimit bounds a handshake's wait for the leader and for this node to
	// catch up.
	handshakeLimit = 10 * time.Second
	// firstFrame bounds the time from the end of TLS's handshake to the first frame.
	firstFrame = 10 * time.Second
	// relayWait bounds a relay's wait to catch up with a node that comes to it:
	// another one may be further.
	relayWait = time.Second
	// busyFor is what a replica is asked to wait, give or take half.
	busyFor = time.Second
)

// ReceiveFirst waits for a connection's first frame, but not for ever.
func ReceiveFirst(c net.Conn, conn *syncproto.Conn) (syncproto.Frame, error) {
	if err := c.SetReadDeadline(time.Now().Add(firstFrame)); err != nil {
		return nil, err
	}
	f, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	return f, c.SetReadDeadline(time.Time{})
}

// greet answers a replica's Hello. Upstream judges it; without a leader the
// replica gets its feed nevertheless, unless it must be admitted.
func (s *Server) greet(ctx context.Context, h *syncproto.Hello, id auth.Identity) syncproto.Frame {
	received := s.cfg.Now()
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	if f := s.Turn(h, id); f != nil {
		return f
	}
	if f := s.identify(ctx, h.Node, id); f != nil {
		return f
	}
	f, err := s.cfg.Upstream.Greet(ctx, h)
	if err != nil {
		s.cfg.Logger.Debug("the leader did not judge a replica's Hello", "node", h.Node, "error", err)
		if f, err = s.JudgeAlone(h); err != nil {
			return s.Busy(err)
		}
	}
	w, ok := f.(*syncproto.Welcome)
	if !ok {
		return f
	}
	if err := s.reach(ctx, s.Goal(h, w)); err != nil {
		return s.Busy(err)
	}
	return s.Complete(h, w, id, received)
}

// identify turns away a certificate that is not the node's, by all that is decided
// now. Who judges the Hello does not see the certificate, and after a restore a
// node's number may be another one's: a stranger's Hello would freeze that one.
// A node that was removed is left to who judges.
func (s *Server) identify(ctx context.Context, n crm.NodeID, id auth.Identity) syncproto.Frame {
	st, err := s.Standing(n)
	if err != nil {
		return Refusal(err)
	}
	if err := st.Belongs(id); err == nil || crm.CodeOf(err) == crm.CodeRemoved {
		return nil
	}
	a, err := s.cfg.Upstream.Ask(ctx, syncproto.AskLeader)
	if err == nil && a.Code != "" {
		err = &crm.Error{Code: a.Code, Op: "connect", Message: a.Message}
	}
	if err == nil {
		err = s.reach(ctx, a.Rev)
	}
	if err != nil {
		return s.Busy(err)
	}
	if st, err = s.Standing(n); err == nil {
		err = st.Belongs(id)
	}
	if err != nil {
		return Refusal(err)
	}
	return nil
}

// Goal is the Goal of this server: a relay passes on what the leader says of the node
// and its edits, and what was decided of them when it is there itself.
func (s *Server) Goal(h *syncproto.Hello, w *syncproto.Welcome) crm.Rev {
	if s.cfg.Relay == 0 {
		return Goal(h, w)
	}
	here := *w
	here.Head = 0
	return Goal(h, &here)
}

// Turn returns what turns a Hello away before it is judged: nil if nothing does.
func (s *Server) Turn(h *syncproto.Hello, id auth.Identity) syncproto.Frame {
	if err := s.Check(h, id); err != nil {
		return Refusal(err)
	}
	if s.cfg.Relay == 0 {
		return nil
	}
	if err := s.cfg.Ready(); err != nil {
		return s.Busy(err)
	}
	// A relay that lags may know less of the node than those above.
	st, err := s.Standing(h.Node)
	if err == nil && st.Listed {
		err = st.servedBy(s.cfg.Relay)
	}
	if crm.CodeOf(err) == CodeNotServed {
		return Refusal(err)
	}
	return nil
}

// Check judges of a Hello what needs no state. The error refuses it.
func (s *Server) Check(h *syncproto.Hello, id auth.Identity) error {
	if h.Cluster != s.cfg.Cluster {
		return &crm.Error{Code: CodeWrongCluster, Op: "connect", Item: h.Cluster, Message: fmt.Sprintf("this master is of cluster %s; check the address", s.cfg.Cluster)}
	}
	if h.Node != crm.NodeID(id.Node) {
		return &crm.Error{Code: CodeWrongNode, Op: "connect", Item: fmt.Sprintf("node %d", h.Node), Message: fmt.Sprintf("the certificate is node %d's; each node has its own directory", id.Node)}
	}
	_, err := syncproto.Negotiate(syncproto.MinVersion, s.cfg.Protocol, h.ProtoMin, h.ProtoMax)
	return err
}

// JudgeAlone judges a Hello by what this node knows. See [Standing.JudgeAlone].
func (s *Server) JudgeAlone(h *syncproto.Hello) (syncproto.Frame, error) {
	st, err := s.Standing(h.Node)
	if err != nil {
		return nil, err
	}
	return st.JudgeAlone(h)
}

// Goal returns the Rev that a node must have before it serves a replica with the
// Welcome: where who judged was, and where the replica is, which is never sent
// back. What is staged may include some of the Rev after Staged.
func Goal(h *syncproto.Hello, w *syncproto.Welcome) crm.Rev {
	goal := w.Head
	if h.Timeline == w.Timeline {
		goal = max(goal, h.Cursor)
		if h.Staged > 0 {
			goal = max(goal, h.Staged+1)
		}
	}
	return goal
}

// reach waits until this node is at rev. The error has code stale.
func (s *Server) reach(ctx context.Context, rev crm.Rev) error {
	if s.cfg.Relay != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, relayWait)
		defer cancel()
	}
	for {
		changed, head := s.cfg.Changed(), s.cfg.Head()
		if head >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &crm.Error{Code: crm.CodeStale, Op: fmt.Sprintf("wait for rev %d", rev), Message: fmt.Sprintf("this node is at rev %d", head), Err: ctx.Err()}
		}
	}
}

// Complete makes a Welcome this node's own, or refuses a bearer of a certificate
// who does not belong to the cluster. It is to be sent at once.
func (s *Server) Complete(h *syncproto.Hello, w *syncproto.Welcome, id auth.Identity, received time.Time) syncproto.Frame {
	st, err := s.Standing(h.Node)
	if err == nil && s.cfg.Relay != 0 {
		err = s.relays(st, h, w)
	}
	if err == nil {
		err = st.Belongs(id)
	}
	if crm.CodeOf(err) == crm.CodeStale {
		return s.Busy(err)
	}
	if err != nil {
		return Refusal(err)
	}
	leader, self := s.cfg.Leader()
	lowered(w, min(w.Proto, h.ProtoMax, s.cfg.Protocol))
	w.Head, w.Leader, w.Masters = st.Head, self, st.Roster.Hosts(leader, h.Node)
	w.AgeMillis = s.age()
	if w.Proto < versionRelays {
		w.AgeMillis = 0
	}
	w.HelloSent, w.Received, w.Sent = h.Sent, received.UnixMilli(), s.cfg.Now().UnixMilli()
	return w
}

// Busy asks a replica to come again later: not all at the same time.
func (s *Server) Busy(why error) *syncproto.Busy {
	wait := busyFor/2 + s.cfg.Jitter(busyFor)
	return &syncproto.Busy{RetryAfterMillis: uint32(wait.Milliseconds()), Reason: why.Error()}
}

// enter makes c the node's session and ends the one before: its connection may
// be dead without our knowing.
func (s *Server) enter(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byNode[c.node]; old != nil {
		old.end(errReplaced)
	}
	s.byNode[c.node] = c
}

func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byNode[c.node] == c {
		delete(s.byNode, c.node)
	}
}

// EndAll ends every session and Talk: what the store holds is not what was sent any more.
func (s *Server) EndAll(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends, s.why = s.ends+1, why
	for _, k := range s.byNode {
		k.end(why)
	}
}

// ended returns how often all sessions were ended, and why the last time.
func (s *Server) ended() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends, s.why
}

// A Status is how a session is.
type Status struct {
	Node    crm.NodeID
	Site    string
	Since   time.Time
	Heard   time.Time
	Applied crm.Rev // Cursor that the replica reported
	LowBase crm.Rev
	Sending bool          // a Batch is on its way out
	RTT     time.Duration // of the quickest of the last heartbeats; 0 before the first
	Offset  time.Duration // how far this node's clock is ahead of the replica's, by that heartbeat
}

// Sessions returns the sessions by node.
func (s *Server) Sessions() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Status
	for _, id := range sortedKeys(s.byNode) {
		out = append(out, s.byNode[id].status())
	}
	return out
}
