package session

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
	// maxPushes is how many pushes of a replica wait for the one before.
	maxPushes = 4
	// maxBeats is how many questions of a replica wait for the answer; those beyond
	// go unanswered.
	maxBeats = 4
	// maxAsks is how many questions of a replica are answered at once.
	maxAsks = 16
)

// A session serves one replica over one connection: goroutines around the parts
// of a Talk. The feed and the pushes go their own ways: neither waits for the
// other.
type session struct {
	srv   *Server
	conn  *syncproto.Conn
	node  crm.NodeID
	site  string
	since time.Time
	end   context.CancelCauseFunc
	in    intake  // of push
	out   outflow // of feed
	vigil vigil   // of watch

	pushes  chan arrival
	beats   chan *syncproto.Heartbeat // questions to answer; those over its capacity go unanswered
	repairs chan *syncproto.Repair    // holds the newest that the feed has not seen
	reports chan struct{}             // holds a token when the replica has applied more than the feed knows
	sending atomic.Bool               // a Batch is on its way out

	mu       sync.Mutex // protects progress
	progress progress
}

// Serve shakes hands with a replica and serves it until either side ends the
// session. The caller closes the connection.
func (s *Server) Serve(ctx context.Context, c net.Conn, conn *syncproto.Conn, id auth.Identity) {
	log := s.cfg.Logger
	if !s.knocks.allow(crm.NodeID(id.Node), s.cfg.Now()) {
		s.cfg.Observe.Handshake(syncproto.KindBusy)
		s.cfg.Observe.Refused(crm.CodeUnavailable)
		sendFirst(c, conn, s.Busy(errKnocks))
		return
	}
	first, err := ReceiveFirst(c, conn)
	if err != nil {
		s.countSilence(err)
		log.Debug("a replica said nothing", "node", id.Node, "error", err)
		return
	}
	h, ok := first.(*syncproto.Hello)
	if !ok {
		sendFirst(c, conn, Refusal(s.count(Unexpected(first))))
		return
	}
	f := s.greet(ctx, h, id)
	s.cfg.Observe.Handshake(f.Kind())
	s.countAnswer(f)
	w, ok := f.(*syncproto.Welcome)
	if !ok {
		log.Info("a replica was turned away", "node", id.Node, "site", id.Site, "with", f.Kind())
		sendFirst(c, conn, f)
		return
	}
	if err := sendFirst(c, conn, w); err != nil {
		log.Debug("a replica left at once", "node", id.Node, "error", err)
		return
	}
	conn.Speak(w.Proto)
	log.Info("a session began", "node", h.Node, "site", id.Site, "incarnation", w.Incarnation, "cursor", h.Cursor, "next_seq", h.NextSeq)
	k := s.newSession(conn, h, w, id)
	err = s.count(k.run(ctx))
	log.Info("a session ended", "node", k.node, "site", k.site, "lasted", s.cfg.Now().Sub(k.since), "error", err)
}

// sendFirst answers a first frame, but does not wait for ever for a peer that
// takes nothing. Whether one that is refused hears it is its affair.
func sendFirst(c net.Conn, conn *syncproto.Conn, f syncproto.Frame) error {
	if err := c.SetWriteDeadline(time.Now().Add(firstFrame)); err != nil {
		return err
	}
	if err := conn.Send(f); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

func (s *Server) newSession(conn *syncproto.Conn, h *syncproto.Hello, w *syncproto.Welcome, id auth.Identity) *session {
	now := s.cfg.Now()
	return &session{srv: s, conn: conn, node: h.Node, site: id.Site, since: now,
		in: intake{srv: s, node: h.Node, incarnation: w.Incarnation}, out: newOutflow(s, id.Site, h, w, now), vigil: s.newVigil(now),
		pushes: make(chan arrival, maxPushes), beats: make(chan *syncproto.Heartbeat, maxBeats), repairs: make(chan *syncproto.Repair, 1), reports: make(chan struct{}, 1), progress: newProgress(h, w, now)}
}

// run owns the session's goroutines and returns why it ended.
func (k *session) run(ctx context.Context) error {
	ctx, k.end = context.WithCancelCause(ctx)
	defer k.end(nil)
	k.srv.enter(k)
	defer k.srv.leave(k)
	stop := context.AfterFunc(ctx, func() { k.conn.Close() })
	defer stop()

	var wg sync.WaitGroup
	for _, loop := range []func(context.Context) error{k.receive, k.push, k.watch, k.feed} {
		wg.Go(func() { k.end(loop(ctx)) })
	}
	wg.Wait()
	for len(k.pushes) > 0 {
		k.srv.backlog.free((<-k.pushes).size)
	}
	return context.Cause(ctx)
}

// receive takes the replica's frames. It never sends, so that two full
// connections cannot wait for each other.
func (k *session) receive(ctx context.Context) error {
	var asks sync.WaitGroup
	defer asks.Wait()
	room := make(chan struct{}, maxAsks)
	for {
		f, err := k.conn.Receive()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		now := k.srv.cfg.Now()
		k.note(func(p *progress) { p.heard = now })
		switch f := f.(type) {
		case *syncproto.Push:
			p := k.srv.backlog.arrive(f)
			select {
			case k.pushes <- p:
			case <-ctx.Done():
				k.srv.backlog.free(p.size)
			}
		case *syncproto.Applied:
			k.report(f, now)
		case *syncproto.Heartbeat:
			k.beat(f, now)
		case *syncproto.Repair:
			k.repair(f)
		case *syncproto.Ask:
			select {
			case room <- struct{}{}:
				asks.Go(func() { k.ask(ctx, f); <-room })
			case <-ctx.Done():
			}
		default:
			return k.refuse(Unexpected(f))
		}
	}
}

// note changes the progress.
func (k *session) note(edit func(*progress)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	edit(&k.progress)
}

func (k *session) report(f *syncproto.Applied, now time.Time) {
	var at progress
	k.note(func(p *progress) { p.report(f); at = *p })
	k.srv.cfg.Reported(k.node, at.applied, at.lowBase, now.UnixMilli())
	select {
	case k.reports <- struct{}{}:
	default:
	}
}

// beat measures an answer, or has the feed's goroutine answer a question.
func (k *session) beat(f *syncproto.Heartbeat, now time.Time) {
	if f.Reply {
		var rtt time.Duration
		k.note(func(p *progress) { rtt = p.answered(f, now) })
		k.srv.cfg.Observe.RTT(k.site, rtt)
		return
	}
	f.T2 = now.UnixMilli()
	select {
	case k.beats <- f:
	default:
		k.srv.cfg.Observe.Refused(crm.CodeUnavailable)
	}
}

// repair leaves a Repair to the feed, in place of one that it has not seen.
func (k *session) repair(f *syncproto.Repair) {
	select {
	case <-k.repairs:
	default:
	}
	k.repairs <- f // only receive puts one in, so there is room
}

// ask answers what a read at the replica must have reached.
func (k *session) ask(ctx context.Context, q *syncproto.Ask) {
	a, err := k.srv.cfg.Upstream.Ask(ctx, q.What)
	k.conn.Send(AnswerTo(q, a, err)) // its failure ends receive too
}

// watch ends the session when it was long enough, or when the replica shows no
// life: it sends nothing, and takes nothing of a Batch on its way.
func (k *session) watch(ctx context.Context) error {
	tick := time.NewTicker(silence / 4)
	defer tick.Stop()
	var in, out int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			i, o := k.conn.BytesIn(), k.conn.BytesOut()
			k.srv.cfg.Observe.Bytes(k.site, i-in, o-out)
			in, out = i, o
			if err := k.vigil.look(k.srv.cfg.Now(), i, o, k.sending.Load()); err != nil {
				return err
			}
		}
	}
}

// feed sends what is due. A slow replica slows its own feed: nothing is skipped,
// and at most one batch is held for it.
func (k *session) feed(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		changed := k.srv.cfg.Changed()
		select {
		case r := <-k.repairs:
			k.out.heard(r)
		default:
		}
		leave, err := k.enter(ctx)
		if err != nil || ctx.Err() != nil {
			leave()
			return err
		}
		k.note(func(p *progress) { k.out.applied(p.applied) })
		out, err := k.out.due(k.srv.cfg.Now())
		sent := k.sendAll(out)
		leave()
		if sent != nil {
			return sent
		}
		if errors.Is(err, errOutdated) {
			return err // the replica comes again by itself
		}
		if err != nil {
			return k.refuse(err)
		}
		now := k.srv.cfg.Now()
		timer.Reset(k.out.next(now).Sub(now))
		if err := k.idle(ctx, changed, timer.C); err != nil {
			return err
		}
	}
	return nil
}

// enter waits for a place among those that catch up, if the session does, and
// answers heartbeats meanwhile. The place is left at the latest after slotLease.
func (k *session) enter(ctx context.Context) (leave func(), err error) {
	if !k.out.catchesUp() {
		return func() {}, nil
	}
	s := k.srv.slots.enter()
	back := func() { k.srv.slots.leave(s) }
	for {
		select {
		case <-s.granted:
			lease := time.AfterFunc(slotLease, back)
			return func() { lease.Stop(); back() }, nil
		case <-ctx.Done():
			return back, nil
		case q := <-k.beats:
			if err := k.conn.Send(k.out.answer(q, k.srv.cfg.Now())); err != nil {
				return back, err
			}
		}
	}
}

// idle answers heartbeats until there may be more to send.
func (k *session) idle(ctx context.Context, changed <-chan struct{}, due <-chan time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			return nil
		case <-due:
			return nil
		case <-k.reports:
			return nil
		case r := <-k.repairs:
			k.out.heard(r)
			return nil
		case q := <-k.beats:
			if err := k.conn.Send(k.out.answer(q, k.srv.cfg.Now())); err != nil {
				return err
			}
		}
	}
}

// sendAll waits until the connection has taken the frames.
func (k *session) sendAll(out []syncproto.Frame) error {
	for _, f := range out {
		b, isBatch := f.(*syncproto.Batch)
		if isBatch {
			k.note(func(p *progress) { p.sent = k.out.feed.Cursor() })
		}
		k.sending.Store(isBatch)
		err := k.conn.Send(f)
		k.sending.Store(false)
		if err != nil {
			return fmt.Errorf("send %s: %w", f.Kind(), err)
		}
		if isBatch {
			k.srv.cfg.Observe.Batch(b)
		}
	}
	return nil
}

// push submits the replica's Mutations, one push after the other.
func (k *session) push(ctx context.Context) error {
	defer k.in.end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-k.pushes:
			if err := k.take(ctx, p); err != nil {
				return err
			}
		}
	}
}

// take submits one push and says what became of it. After an error the session
// ends.
func (k *session) take(ctx context.Context, p arrival) error {
	act, err := k.in.begin(p, k.offset())
	for {
		for _, f := range act.Send {
			if err := k.conn.Send(f); err != nil {
				return err
			}
		}
		if err != nil {
			k.srv.cfg.Logger.Info("a replica was refused", "node", k.node, "error", err)
			return err
		}
		if act.Submit == nil {
			return nil
		}
		r, failure := k.submit(ctx, *act.Submit)
		if ctx.Err() != nil {
			return nil
		}
		act, err = k.in.replied(r, failure, k.offset())
	}
}

func (k *session) offset() (ms int64) {
	k.note(func(p *progress) { ms = p.clock.best() })
	return ms
}

// submit repeats a Submission until its outcome is known.
func (k *session) submit(ctx context.Context, sub Submission) (Reply, error) {
	for {
		changed := k.srv.cfg.LeaderChanged()
		r, err := k.srv.cfg.Upstream.Submit(ctx, sub)
		if !errors.Is(err, ErrUnknown) || ctx.Err() != nil {
			return r, err
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(retryAfter):
		}
	}
}

// refuse tells the replica why the session ends. Whether it hears it is its
// affair.
func (k *session) refuse(why error) error {
	k.srv.cfg.Logger.Info("a replica was refused", "node", k.node, "error", why)
	k.conn.Send(Refusal(why))
	return errors.Join(errAnswered, why)
}

func (k *session) status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := &k.progress
	out := Status{Node: k.node, Site: k.site, Since: k.since, Heard: p.heard, Applied: p.applied, LowBase: p.lowBase, Sending: k.sending.Load()}
	if q, ok := p.clock.quickest(); ok {
		out.RTT, out.Offset = q.rtt, q.offset
	}
	return out
}
