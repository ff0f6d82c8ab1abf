package master

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

const (
	// sessionLife is the longest a session lasts, give or take a tenth. At its end
	// the replica comes again, which has its certificate judged again and tells
	// the leader how far it is.
	sessionLife = 12 * time.Hour
	// sessionSilence ends a session whose replica neither says anything nor takes
	// anything for so long.
	sessionSilence = 90 * time.Second
	// heartbeatEvery is the time between two questions to a replica.
	heartbeatEvery = 30 * time.Second
	// maxPushes is how many pushes of a replica wait for the one before.
	maxPushes = 4
	// maxAsks is how many questions of a replica are answered at once.
	maxAsks = 16
	// busyFor is what a replica is asked to wait, give or take half.
	busyFor = time.Second
	// retryAfter is the wait before a submission of unknown outcome is repeated,
	// unless the leader changes before.
	retryAfter = 250 * time.Millisecond
)

// A session serves one replica over one connection. The feed and the pushes go
// their own ways: neither waits for the other.
type session struct {
	m           *Master
	conn        *syncproto.Conn
	node        crm.NodeID
	site        string
	incarnation crm.Incarnation
	since       time.Time
	end         context.CancelCauseFunc

	pushes  chan *syncproto.Push
	beats   chan *syncproto.Heartbeat // questions to answer; those over its capacity go unanswered
	sending atomic.Bool               // a Batch is on its way out
	clock   offsets

	mu      sync.Mutex // protects the rest
	applied crm.Rev    // Cursor that the replica reported
	lowBase crm.Rev
	sent    crm.Rev // To of the last final Batch sent
	heard   time.Time
}

// sessions are those of this master, one a node.
type sessions struct {
	mu     sync.Mutex // protects byNode
	byNode map[crm.NodeID]*session
}

// enter makes s the node's session and ends the one before: its connection may
// be dead without our knowing.
func (ss *sessions) enter(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.byNode == nil {
		ss.byNode = map[crm.NodeID]*session{}
	}
	if old := ss.byNode[s.node]; old != nil {
		old.end(errReplaced)
	}
	ss.byNode[s.node] = s
}

func (ss *sessions) leave(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.byNode[s.node] == s {
		delete(ss.byNode, s.node)
	}
}

func (ss *sessions) list() []*session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	var out []*session
	for _, id := range sortedKeys(ss.byNode) {
		out = append(out, ss.byNode[id])
	}
	return out
}

// Why a session ended.
var (
	errReplaced = errors.New("the node opened another session")
	errSilent   = errors.New("the replica was silent for too long")
	errLifetime = errors.New("the session was long enough")
	errAnswered = errors.New("the replica was told why")
)

// serveReplica shakes hands with a replica and serves it until either side ends
// the session.
func (m *Master) serveReplica(ctx context.Context, c net.Conn, conn *syncproto.Conn, id auth.Identity) {
	first, err := receiveFirst(c, conn)
	if err != nil {
		m.log.Debug("a replica said nothing", "node", id.Node, "error", err)
		return
	}
	h, ok := first.(*syncproto.Hello)
	if !ok {
		m.sendRefusal(conn, unexpected(first))
		return
	}
	received := m.millis()
	f := m.welcomeReplica(ctx, h, id)
	m.cfg.Metrics.handshakes.WithLabelValues(f.Kind().String()).Inc()
	w, ok := f.(*syncproto.Welcome)
	if !ok {
		m.log.Info("a replica was turned away", "node", id.Node, "site", id.Site, "with", f.Kind())
		conn.Send(f)
		return
	}
	w.HelloSent, w.Received, w.Sent = h.Sent, received, m.millis()
	if err := conn.Send(w); err != nil {
		m.log.Debug("a replica left at once", "node", id.Node, "error", err)
		return
	}
	s := newSession(m, conn, h, w, id.Site)
	err = s.run(ctx, h, w)
	m.log.Info("a session ended", "node", s.node, "site", s.site, "lasted", m.now().Sub(s.since), "error", err)
}

func newSession(m *Master, conn *syncproto.Conn, h *syncproto.Hello, w *syncproto.Welcome, site string) *session {
	s := &session{m: m, conn: conn, node: h.Node, site: site, incarnation: w.Incarnation, since: m.now(),
		pushes: make(chan *syncproto.Push, maxPushes), beats: make(chan *syncproto.Heartbeat, 4),
		lowBase: h.LowBase, heard: m.now()}
	if h.Timeline == w.Timeline {
		s.applied, s.sent = h.Cursor, h.Cursor
	}
	// Until a heartbeat was answered the Hello is all there is to compare clocks
	// by; its way here makes the replica's clock look slow by so much.
	s.clock.guess(w.Received - h.Sent)
	return s
}

// run owns the session's goroutines and returns why it ended.
func (s *session) run(ctx context.Context, h *syncproto.Hello, w *syncproto.Welcome) error {
	ctx, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	s.m.sessions.enter(s)
	defer s.m.sessions.leave(s)
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	s.m.log.Info("a session began", "node", s.node, "site", s.site, "incarnation", s.incarnation, "cursor", h.Cursor, "next_seq", h.NextSeq)

	var wg sync.WaitGroup
	for _, loop := range []func(context.Context) error{s.receive, s.push, s.watch, newFeed(s, h, w).run} {
		wg.Go(func() { s.end(loop(ctx)) })
	}
	wg.Wait()
	return context.Cause(ctx)
}

// receive takes the replica's frames. It never sends, so that two full
// connections cannot wait for each other.
func (s *session) receive(ctx context.Context) error {
	var asks sync.WaitGroup
	defer asks.Wait()
	room := make(chan struct{}, maxAsks)
	for {
		f, err := s.conn.Receive()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		now := s.m.now()
		s.mu.Lock()
		s.heard = now
		s.mu.Unlock()
		switch f := f.(type) {
		case *syncproto.Push:
			select {
			case s.pushes <- f:
			case <-ctx.Done():
			}
		case *syncproto.Applied:
			s.report(f)
		case *syncproto.Heartbeat:
			s.beat(f, now.UnixMilli())
		case *syncproto.Ask:
			select {
			case room <- struct{}{}:
				asks.Go(func() { s.ask(ctx, f); <-room })
			case <-ctx.Done():
			}
		default:
			s.m.sendRefusal(s.conn, unexpected(f))
			return errAnswered
		}
	}
}

func (s *session) report(f *syncproto.Applied) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied, s.lowBase = max(s.applied, min(f.Cursor, s.sent)), f.LowBase
	s.m.reports.note(s.node, s.applied, s.lowBase, s.m.millis())
}

// beat measures an answer, or has the feed's goroutine answer a question.
func (s *session) beat(f *syncproto.Heartbeat, now int64) {
	if f.Reply {
		ahead, rtt := syncproto.Offset(f.T1, f.T2, f.T3, now)
		s.clock.sample(-ahead, rtt)
		s.m.cfg.Metrics.rtt.WithLabelValues(s.site, "sync").Observe(rtt.Seconds())
		return
	}
	f.T2 = now
	select {
	case s.beats <- f:
	default:
	}
}

// ask answers what a read at the replica must have reached.
func (s *session) ask(ctx context.Context, f *syncproto.Ask) {
	a := &syncproto.Answer{ID: f.ID}
	rev, err := s.m.leaderRev(ctx)
	if err != nil {
		a.Code, a.Message = crm.CodeOf(err), err.Error()
	}
	a.Rev = rev
	s.conn.Send(a) // its failure ends receive too
}

// watch ends the session after sessionLife, or when the replica shows no life: it
// sends nothing, and takes nothing of a Batch on its way.
func (s *session) watch(ctx context.Context) error {
	old := time.NewTimer(sessionLife*9/10 + s.m.jitter(sessionLife/5))
	defer old.Stop()
	tick := time.NewTicker(sessionSilence / 4)
	defer tick.Stop()
	var in, out int64
	alive := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-old.C:
			return errLifetime
		case now := <-tick.C:
			i, o := s.conn.BytesIn(), s.conn.BytesOut()
			if i != in || o != out && s.sending.Load() {
				alive = now
			}
			s.m.cfg.Metrics.bytes.WithLabelValues(s.site, "in").Add(float64(i - in))
			s.m.cfg.Metrics.bytes.WithLabelValues(s.site, "out").Add(float64(o - out))
			if in, out = i, o; now.Sub(alive) > sessionSilence {
				return errSilent
			}
		}
	}
}

// push submits the replica's Mutations, one push after the other.
func (s *session) push(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.pushes:
			if err := s.take(ctx, p); err != nil {
				return err
			}
		}
	}
}

// take submits one push and says what became of it. After an error the session
// ends.
func (s *session) take(ctx context.Context, p *syncproto.Push) error {
	size, err := s.check(p)
	if err != nil {
		s.m.sendRefusal(s.conn, err)
		return errors.Join(errAnswered, err)
	}
	if !s.m.backlog.take(size) {
		return s.conn.Send(s.m.busy(&crm.Error{Code: crm.CodeUnavailable, Message: "head office is catching up"}))
	}
	defer s.m.backlog.free(size)
	first, rest := p.First, p.Mutations
	for len(rest) > 0 {
		n := fitting(rest)
		r, err := s.submit(ctx, submission{Node: s.node, Incarnation: s.incarnation, OffsetMillis: s.clock.best(), First: first, Mutations: rest[:n]})
		if err != nil || r.Gap != 0 || r.Fork || r.Fenced != 0 {
			return s.notTaken(ctx, r, err)
		}
		first, rest = first+crm.Seq(n), rest[n:]
		if err := s.conn.Send(&syncproto.Pushed{Seq: r.Last}); err != nil {
			return err
		}
	}
	return nil
}

// check returns the size of a push whose Mutations are the session's node's, in
// order.
func (s *session) check(p *syncproto.Push) (size int, err error) {
	for i, raw := range p.Mutations {
		m, err := crm.DecodeMutation(raw)
		if err != nil {
			return 0, &crm.Error{Code: syncproto.CodeFrame, Op: "read push", Message: err.Error()}
		}
		if m.Node != s.node || m.Seq != p.First+crm.Seq(i) {
			return 0, &crm.Error{Code: crm.CodeForbidden, Op: "read push", Item: fmt.Sprintf("edit %d", p.First+crm.Seq(i)),
				Message: fmt.Sprintf("it bears node %d and number %d; node %d may only send its own edits, in order", m.Node, m.Seq, s.node)}
		}
		size += len(raw)
	}
	return size, nil
}

// submit repeats a submission until its outcome is known.
func (s *session) submit(ctx context.Context, sub submission) (reply, error) {
	for {
		changed := s.m.ledger.leaderChanged()
		r, err := s.m.submit(ctx, sub)
		if !errors.Is(err, errUnknown) || ctx.Err() != nil {
			return r, err
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(retryAfter):
		}
	}
}

// notTaken tells the replica why its Mutations were not taken, and returns an
// error if the session is over.
func (s *session) notTaken(ctx context.Context, r reply, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil && transient(err):
		return s.conn.Send(s.m.busy(err))
	case err != nil:
		s.m.sendRefusal(s.conn, err)
		return errors.Join(errAnswered, err)
	case r.Gap != 0:
		return s.conn.Send(&syncproto.Gap{Expected: r.Gap})
	case r.Fork:
		return errors.Join(errAnswered, s.conn.Send(&syncproto.Frozen{Reason: frozenAdvice}))
	}
	return errors.Join(errAnswered, s.conn.Send(&syncproto.Fenced{Incarnation: r.Fenced, Reason: fencedAdvice}))
}

// transient reports whether trying again later may help.
func transient(err error) bool {
	switch crm.CodeOf(err) {
	case crm.CodeNoLeader, crm.CodeUnavailable, crm.CodeTimeout, crm.CodeStale:
		return true
	}
	return false
}

// busy asks a replica to come again later: not all at the same time.
func (m *Master) busy(why error) *syncproto.Busy {
	wait := busyFor/2 + m.jitter(busyFor)
	return &syncproto.Busy{RetryAfterMillis: uint32(wait.Milliseconds()), Reason: why.Error()}
}

// sendRefusal ends a conversation. Whether the peer hears it is its affair.
func (m *Master) sendRefusal(conn *syncproto.Conn, why error) {
	m.log.Info("a peer was refused", "error", why)
	conn.Send(refusalOf(why))
}

func refusalOf(why error) *syncproto.Refused {
	return &syncproto.Refused{Code: crm.CodeOf(why), Message: why.Error()}
}

// offsets estimates how far the master's clock is ahead of a node's. A round
// trip that took long says little, so the quickest of the last ones counts.
type offsets struct {
	mu      sync.Mutex // protects the rest
	samples [8]offsetSample
	n       int
	first   int64 // milliseconds, before there is a sample
}

type offsetSample struct{ offset, rtt time.Duration }

func (o *offsets) guess(ms int64) { o.first = ms }

func (o *offsets) sample(offset, rtt time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.samples[o.n%len(o.samples)] = offsetSample{offset, rtt}
	o.n++
}

// best returns the estimate in milliseconds.
func (o *offsets) best() int64 {
	s, ok := o.quickest()
	if !ok {
		return o.first
	}
	return s.offset.Milliseconds()
}

// quickest returns the sample of the shortest round trip.
func (o *offsets) quickest() (offsetSample, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == 0 {
		return offsetSample{}, false
	}
	best := o.samples[0]
	for _, s := range o.samples[:min(o.n, len(o.samples))] {
		if s.rtt < best.rtt {
			best = s
		}
	}
	return best, true
}
