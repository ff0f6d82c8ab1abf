package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A session is one conversation with a master over a connection: goroutines
// around the parts of a Talk. Receive reads frames, apply writes batches into the
// base, send writes frames. Only send writes, so that two full transports cannot
// wait for each other.
type session struct {
	r         *Replica
	talk      *Talk // its pull is apply's, its upflow is send's, mu protects its questions
	conn      *syncproto.Conn
	transport net.Conn
	addr      string

	batches chan *syncproto.Batch     // receive → apply
	verdict chan syncproto.Frame      // receive → send: Pushed, Busy, Gap
	beats   chan *syncproto.Heartbeat // receive → send: questions to answer; dropped when full
	asks    chan *syncproto.Ask       // readers → send
	repairs chan *syncproto.Repair    // apply → send
	probe   chan struct{}             // readers → send: the head must be heard of now
	silent  atomic.Bool               // the master said nothing for three heartbeats
	leave   chan error                // holds why this node ends the session by its own will
	ended   chan struct{}             // closed when run has returned

	mu sync.Mutex // protects talk.questions

	in, out int64 // bytes counted so far; of send and of run after it
}

func newSession(t *Talk, conn *syncproto.Conn, transport net.Conn, addr string) *session {
	return &session{r: t.r, talk: t, conn: conn, transport: transport, addr: addr,
		batches: make(chan *syncproto.Batch, 4), verdict: make(chan syncproto.Frame, 4*maxFlights), beats: make(chan *syncproto.Heartbeat, 4),
		asks: make(chan *syncproto.Ask, 64), repairs: make(chan *syncproto.Repair, 1), probe: make(chan struct{}, 1), leave: make(chan error, 1), ended: make(chan struct{})}
}

// run lives the session. It returns why it ended, after all its goroutines.
func (s *session) run(ctx context.Context) error {
	if s.r.relay != nil {
		defer s.r.relay.begin(s.addr)()
	}
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = s.transport.Close() })
	defer stop()
	g.Go(func() error { return s.receive(ctx) })
	g.Go(func() error { return s.apply(ctx) })
	g.Go(func() error { return s.send(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.leave:
			return err
		}
	})
	err := g.Wait()
	s.finish()
	return fmt.Errorf("session with %s: %w", s.addr, err)
}

// end ends the session.
func (s *session) end(why error) {
	select {
	case s.leave <- why:
	default: // it ends already
	}
}

// finish closes the connection and makes known that the session has ended.
func (s *session) finish() {
	_ = s.conn.Close()
	s.countBytes()
	s.talk.End()
	close(s.ended)
}

// receive reads frames until the transport ends or the master falls silent.
// Only waiting for the master counts as silence, not waiting for the disk.
func (s *session) receive(ctx context.Context) error {
	silence := time.AfterFunc(s.r.patience(), func() {
		s.silent.Store(true)
		_ = s.transport.Close()
	})
	defer silence.Stop()
	for {
		f, err := s.conn.Receive()
		silence.Stop()
		if s.silent.Load() {
			return errSilent
		}
		if err != nil {
			return s.r.count(err)
		}
		if err := s.handle(ctx, f); err != nil {
			return err
		}
		silence.Reset(s.r.patience())
	}
}

func (s *session) handle(ctx context.Context, f syncproto.Frame) error {
	switch f := f.(type) {
	case *syncproto.Batch:
		return give(ctx, s.batches, f)
	case *syncproto.Pushed, *syncproto.Gap, *syncproto.Busy:
		return give(ctx, s.verdict, f)
	case *syncproto.Heartbeat:
		s.heartbeat(f)
		return nil
	case *syncproto.Answer:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.talk.questions.answered(f)
		return nil
	}
	return s.r.count(s.r.refused(f))
}

// give waits for room in c.
func give[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply writes the batches that receive reads, and asks for repairs.
func (s *session) apply(ctx context.Context) error {
	for {
		f, err := s.talk.pull.ask()
		if err != nil {
			return err
		}
		if f != nil {
			if err := give(ctx, s.repairs, f); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.r.doubt:
		case b := <-s.batches:
			if err := s.talk.pull.take(b); err != nil {
				return s.r.count(err)
			}
		}
	}
}

// send writes whatever is due, whenever something may be.
func (s *session) send(ctx context.Context) error {
	up := &s.talk.up
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		if err := s.sendDue(up); err != nil {
			return err
		}
		wake.Reset(up.wakeAt().Sub(s.r.cfg.Now()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.r.kick:
		case <-wake.C:
		case f := <-s.verdict:
			up.heard(f, s.r.cfg.Now())
		case f := <-s.beats:
			if err := s.conn.Send(s.r.answerBeat(f)); err != nil {
				return err
			}
		case f := <-s.repairs:
			if err := s.conn.Send(f); err != nil {
				return err
			}
		case f := <-s.asks:
			if err := s.conn.Send(f); err != nil {
				return err
			}
		case <-s.probe:
			if err := s.askHead(); err != nil {
				return err
			}
		}
	}
}

func (s *session) sendDue(up *upflow) error {
	out, err := up.due(s.r.cfg.Now())
	for _, f := range out {
		if err := s.conn.Send(f); err != nil {
			return err
		}
	}
	if err != nil || !up.beatDue(s.r.cfg.Now()) {
		return err
	}
	s.countBytes()
	return s.question()
}

func (s *session) question() error {
	s.mu.Lock()
	f := s.talk.questions.nextBeat(s.r.cfg.Now(), s.r.position().rev)
	s.mu.Unlock()
	return s.conn.Send(f)
}

// askHead asks how far the leader is: who serves this node, and beyond it the
// leader, if it is another one.
func (s *session) askHead() error {
	if err := s.question(); err != nil {
		return err
	}
	s.r.mu.Lock()
	second := s.r.link.second
	s.r.mu.Unlock()
	if !second {
		return nil
	}
	asked := s.r.cfg.Now()
	s.mu.Lock()
	f := s.talk.questions.nextAsk(syncproto.AskLeader, func(a *syncproto.Answer) {
		if a.Code == "" {
			s.r.heardLeader(a.Rev, asked)
		}
	})
	s.mu.Unlock()
	return s.conn.Send(f)
}

// heartbeat takes the answer to a question, or leaves a question to answer.
func (s *session) heartbeat(f *syncproto.Heartbeat) {
	now := s.r.cfg.Now()
	if !f.Reply {
		f.T2 = now.UnixMilli()
		select {
		case s.beats <- f:
		default:
		}
		return
	}
	s.mu.Lock()
	asked, ok := s.talk.questions.beatAnswered(f.ID)
	s.mu.Unlock()
	if ok {
		s.r.beatAnswered(f, asked, now)
	}
}

func (s *session) countBytes() {
	in, out := s.conn.BytesIn(), s.conn.BytesOut()
	s.r.cfg.Metrics.bytes.WithLabelValues("in").Add(float64(in - s.in))
	s.r.cfg.Metrics.bytes.WithLabelValues("out").Add(float64(out - s.out))
	s.in, s.out = in, out
}

// leaderRev asks the leader for a Rev that a read must have reached.
func (s *session) leaderRev(ctx context.Context) (crm.Rev, error) {
	answer := make(chan *syncproto.Answer, 1)
	s.mu.Lock()
	ask := s.talk.questions.nextAsk(syncproto.AskLeader, func(a *syncproto.Answer) { answer <- a })
	s.mu.Unlock()
	defer s.forget(ask.ID)
	select {
	case s.asks <- ask:
	case <-s.ended:
		return 0, errEnded
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case a := <-answer:
		if a.Code != "" {
			return 0, &crm.Error{Code: a.Code, Op: "ask the leader", Message: a.Message}
		}
		return a.Rev, nil
	case <-s.ended:
		return 0, errEnded
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

var errEnded = errors.New("the session has ended")

func (s *session) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.talk.questions.forget(id)
}
