package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Relay says how a replica serves other nodes from its base. All fields must
// be set.
type Relay struct {
	Listen  func() (net.Listener, error) // opens the sync port, without TLS
	Address string                       // host:port under which other nodes reach it
	TLS     *tls.Config                  // of the port: for auth.ALPNSync and auth.ALPNLink
	Link    *tls.Config                  // client side of the link to the node above
}

func (c *Relay) validate() error {
	if c != nil && (c.Listen == nil || c.Address == "" || c.TLS == nil || c.Link == nil) {
		return errors.New("config: a Relay needs Listen, Address, TLS and Link")
	}
	return nil
}

// reportEvery is the time between two reports of how far the nodes below are.
const reportEvery = 10 * time.Second

// A relay is the serving half of a replica. It decides nothing: what the nodes
// below ask goes up over a link to the node that this one is in session with.
type relay struct {
	r       *Replica
	cfg     *Relay
	lis     net.Listener
	server  *serving.Server
	renewed signal // fires when the link changes

	mu      sync.Mutex // protects what follows
	link    *serving.Link
	reports map[crm.NodeID]syncproto.Report // of the nodes below, not passed on yet
}

func (r *Replica) openRelay() (err error) {
	if r.cfg.Relay == nil {
		return nil
	}
	l := &relay{r: r, cfg: r.cfg.Relay, reports: map[crm.NodeID]syncproto.Report{}}
	if l.lis, err = l.cfg.Listen(); err != nil {
		return fmt.Errorf("listen for replicas at %s: %w", l.cfg.Address, err)
	}
	l.server = serving.New(serving.Config{
		Cluster: r.cfg.ID.Cluster, DB: r.base, Protocol: r.cfg.Protocol, Relay: r.cfg.ID.Node, Upstream: above{l}, Ready: l.ready, Age: l.age,
		Head: func() crm.Rev { return r.position().rev }, Changed: r.moved.wait,
		Leader: func() (crm.NodeID, bool) { return 0, false }, LeaderChanged: l.renewed.wait,
		Reported: l.note, Damaged: func(err error) { _ = r.met(err) }, Now: r.cfg.Now, Jitter: r.jitter, Logger: r.cfg.Logger, Observe: r.cfg.Metrics.below(),
	})
	r.relay = l
	return nil
}

// Server returns what serves the nodes below, nil if this node is no relay. Run
// drives it; without Run, what its Talks submit and ask goes to the node above as
// [Replica.OnBehalf] says.
func (r *Replica) Server() *serving.Server {
	if r.relay == nil {
		return nil
	}
	return r.relay.server
}

// OnBehalf returns a Submission of a node below as it is to be passed on: this
// node has measured that node's clock by its own.
func (r *Replica) OnBehalf(s serving.Submission) serving.Submission {
	s.OffsetMillis += r.clockOffset().Milliseconds()
	return s
}

// run serves the nodes below until ctx ends.
func (l *relay) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.reportLoop(ctx) })
	err := serving.Door{TLS: l.cfg.TLS, Protocol: l.r.cfg.Protocol, Serve: l.serve, Failed: func(from net.Addr, err error) {
		l.r.cfg.Logger.Debug("a handshake failed", "from", from, "error", err)
	}}.Accept(ctx, l.lis)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serve gives a connection to a replica's session or a relay's link.
func (l *relay) serve(ctx context.Context, c *tls.Conn, conn *syncproto.Conn) {
	state := c.ConnectionState()
	id, err := auth.PeerIdentity(state)
	switch {
	case err != nil || id.Role != auth.RoleReplica:
		l.r.cfg.Logger.Debug("a relay serves replicas only", "from", c.RemoteAddr(), "peer", id, "error", err)
	case state.NegotiatedProtocol == auth.ALPNLink:
		err := l.server.ServeRelay(ctx, conn, id, above{l})
		l.r.cfg.Logger.Debug("a relay hung up", "node", id.Node, "error", err)
	default:
		l.server.Serve(ctx, c, conn, id)
	}
}

// begin opens the way up to the node at addr, and returns how to close it.
func (l *relay) begin(addr string) (end func()) {
	k := &serving.Link{Name: addr, Logger: l.r.cfg.Logger, Dial: func(ctx context.Context) (*syncproto.Conn, error) {
		c, err := l.r.dial(ctx, addr, l.cfg.Link)
		if err != nil {
			return nil, err
		}
		conn := syncproto.NewConn(c)
		conn.Limit(l.r.cfg.Protocol)
		return conn, nil
	}}
	l.set(k)
	return func() {
		l.set(nil)
		k.Close()
	}
}

func (l *relay) set(k *serving.Link) {
	l.mu.Lock()
	l.link = k
	l.mu.Unlock()
	l.renewed.fire()
}

// to returns the link to the node above. The error has code no_leader.
func (l *relay) to(op string) (*serving.Link, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.link == nil {
		return nil, &crm.Error{Code: crm.CodeNoLeader, Op: op, Message: "this relay has no session with a node above; try again, or ask a master"}
	}
	return l.link, nil
}

// note keeps how far a node below is, by the masters' clock.
func (l *relay) note(n crm.NodeID, cursor, lowBase crm.Rev, seenMillis int64) {
	seenMillis += l.r.clockOffset().Milliseconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reports[n].SeenMillis <= seenMillis {
		l.reports[n] = syncproto.Report{Node: n, Cursor: cursor, LowBase: lowBase, SeenMillis: seenMillis}
	}
}

// reportLoop passes on how far the nodes below are.
func (l *relay) reportLoop(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := l.report(ctx, l.r.Below()); err != nil {
			l.r.cfg.Logger.Debug("reports were not passed on", "error", err)
		}
	}
}

func (l *relay) measure(sessions int) {
	trouble := 0.0
	if l.ready() != nil {
		trouble = 1
	}
	l.r.cfg.Metrics.relaySessions.Set(float64(sessions))
	l.r.cfg.Metrics.relayTrouble.Set(trouble)
	l.r.measureLag() // also while there is nobody to hear from
}

// maxReports is how many nodes one frame tells of. The others are told of by the
// next one.
const maxReports = 4096

// Below looks after the nodes below, those included that have nothing to say but
// live, and returns how far they are for the node above: each report once, and
// none while there is no session. A relay that has been alone sends them away. Run
// asks for it every reportEvery.
func (r *Replica) Below() (list []syncproto.Report) {
	l := r.relay
	if l == nil {
		return nil
	}
	if l.alone() {
		l.server.EndAll(errAlone)
	}
	sessions := l.server.Sessions()
	l.measure(len(sessions))
	for _, s := range sessions {
		l.note(s.Node, s.Applied, s.LowBase, s.Heard.UnixMilli())
	}
	if !r.connected() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(l.reports)) {
		if len(list) == maxReports {
			break
		}
		list = append(list, l.reports[n])
		delete(l.reports, n)
	}
	return list
}

func (r *Replica) connected() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link.talk != nil
}

func (l *relay) report(ctx context.Context, list []syncproto.Report) error {
	if len(list) == 0 {
		return nil
	}
	k, err := l.to("report")
	if err != nil {
		return err
	}
	return k.Report(ctx, list)
}

// above is the Upstream of the nodes below: the link.
type above struct{ *relay }

func (a above) Greet(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	k, err := a.to("connect")
	if err != nil {
		return nil, err
	}
	return k.Greet(ctx, h)
}

func (a above) Submit(ctx context.Context, s serving.Submission) (serving.Reply, error) {
	k, err := a.to("submit edits")
	if err != nil {
		return serving.Reply{}, err
	}
	return k.Submit(ctx, a.r.OnBehalf(s))
}

func (a above) Ask(ctx context.Context, what syncproto.AskKind) (*syncproto.Answer, error) {
	k, err := a.to("ask the leader")
	if err != nil {
		return nil, err
	}
	return k.Ask(ctx, what)
}

// aloneFor is how long a relay without a session above keeps the nodes below:
// they may know another way up.
const aloneFor = 30 * time.Second

var errAlone = &crm.Error{Code: crm.CodeUnavailable, Op: "serve", Message: "this relay has no session with a node above"}

// ready returns nil if the nodes below can be served: the base is believed to be
// the masters', and there is a way up, or was a little while ago.
func (l *relay) ready() error {
	if err := l.r.filled(); err != nil {
		return err
	}
	if len(l.r.suspected()) > 0 || l.r.isSpoiled() != "" {
		return notReady("this relay's base differs from the masters' and is being repaired")
	}
	if l.r.position().isMoving() {
		return notReady("this relay goes over to the restored masters")
	}
	if l.alone() {
		return errAlone
	}
	return nil
}

func (l *relay) alone() bool {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.r.link.talk == nil && l.r.cfg.Now().Sub(l.r.link.left) > aloneFor
}

// age is how long ago the base was known to be what the masters had decided: at
// least a millisecond, because a relay does not lead.
func (l *relay) age() time.Duration {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return max(time.Millisecond, l.r.cfg.Now().Sub(l.r.link.asOf))
}

// A RelayStatus says how a relay serves.
type RelayStatus struct {
	Address string `json:"address"`
	Nodes   int    `json:"nodes"`             // in session
	Trouble string `json:"trouble,omitempty"` // why nobody is served
}

func (r *Replica) relayStatus() *RelayStatus {
	if r.relay == nil {
		return nil
	}
	s := &RelayStatus{Address: r.relay.cfg.Address, Nodes: len(r.relay.server.Sessions())}
	if err := r.relay.ready(); err != nil {
		s.Trouble = err.Error()
	}
	return s
}

// dismiss ends the sessions of the nodes below: what was sent to them may not be
// what the base holds now. They compare digests when they come back.
func (r *Replica) dismiss(why string) {
	if r.relay != nil {
		r.relay.server.EndAll(&crm.Error{Code: crm.CodeStale, Op: "serve", Message: why})
	}
}

func (r *Replica) clockOffset() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link.offset
}
