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

// A session is one conversation with a master. Three goroutines share it:
// receive reads frames, apply writes batches into the base, send writes frames.
// Only send writes, so that two full transports cannot wait for each other.
type session struct {
	r         *Replica
	conn      *syncproto.Conn
	transport net.Conn
	addr      string
	taken     crm.Seq // the masters had everything up to here when it began

	batches chan *syncproto.Batch     // receive → apply
	verdict chan syncproto.Frame      // receive → send: Pushed, Busy, Gap
	beats   chan *syncproto.Heartbeat // receive → send: questions to answer; dropped when full
	asks    chan *syncproto.Ask       // readers → send
	probe   chan struct{}             // readers → send: the head must be heard of now
	silent  atomic.Bool               // the master said nothing for three heartbeats
	ended   chan struct{}             // closed when run has returned

	mu      sync.Mutex           // protects what follows
	beat    uint32               // number of the last heartbeat asked
	asked   map[uint32]time.Time // when each unanswered one was, of the last maxBeats
	ask     uint64               // number of the last Ask
	waiting map[uint64]chan<- *syncproto.Answer

	in, out int64 // bytes counted so far; of send and of run after it
}

func newSession(r *Replica, conn *syncproto.Conn, transport net.Conn, addr string, taken crm.Seq) *session {
	return &session{r: r, conn: conn, transport: transport, addr: addr, taken: taken, asked: map[uint32]time.Time{},
		batches: make(chan *syncproto.Batch, 4), verdict: make(chan syncproto.Frame, 4*maxFlights), beats: make(chan *syncproto.Heartbeat, 4),
		asks: make(chan *syncproto.Ask, 64), probe: make(chan struct{}, 1), ended: make(chan struct{}),
		waiting: map[uint64]chan<- *syncproto.Answer{}}
}

var errSilent = errors.New("the master has been silent for three heartbeats")

// run lives the session. It returns why it ended, after all its goroutines.
func (s *session) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = s.transport.Close() })
	defer stop()
	g.Go(func() error { return s.receive(ctx) })
	g.Go(func() error { return s.apply(ctx) })
	g.Go(func() error { return s.send(ctx) })
	err := g.Wait()
	_ = s.conn.Close()
	s.countBytes()
	s.r.change(func(l *link) { l.session = nil })
	close(s.ended)
	return fmt.Errorf("session with %s: %w", s.addr, err)
}

// receive reads frames until the transport ends or the master falls silent.
// Only waiting for the master counts as silence, not waiting for the disk.
func (s *session) receive(ctx context.Context) error {
	patience := 3 * s.r.cfg.HeartbeatEvery
	silence := time.AfterFunc(patience, func() {
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
			return err
		}
		if err := s.handle(ctx, f); err != nil {
			return err
		}
		silence.Reset(patience)
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
		s.answered(f)
		return nil
	}
	return refusal(f)
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

// send writes whatever is due, and looks again at every tick: what is due
// depends on the state only, never on a wake-up that may have been missed.
func (s *session) send(ctx context.Context) error {
	p := newPush(s, s.taken)
	tick := time.NewTicker(s.r.cfg.HeartbeatEvery)
	defer tick.Stop()
	reported := crm.Rev(0)
	for {
		if err := p.due(); err != nil {
			return err
		}
		if err := s.report(&reported); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.r.kick:
		case <-p.wait():
			p.notNow = nil
		case f := <-s.verdict:
			p.heard(f)
		case f := <-s.beats:
			if err := s.answer(f); err != nil {
				return err
			}
		case f := <-s.asks:
			if err := s.conn.Send(f); err != nil {
				return err
			}
		case <-s.probe:
			if err := s.question(); err != nil {
				return err
			}
		case <-tick.C:
			s.countBytes()
			s.r.measureLag()
			s.r.measureAge()
			if err := s.question(); err != nil {
				return err
			}
		}
	}
}

// report tells the master how far the base is.
func (s *session) report(reported *crm.Rev) error {
	s.r.mu.Lock()
	f := &syncproto.Applied{Cursor: s.r.pos.rev, LowBase: s.r.low}
	s.r.mu.Unlock()
	if f.Cursor == *reported {
		return nil
	}
	*reported = f.Cursor
	return s.conn.Send(f)
}

// question asks for the head, the round trip and the clock offset.
func (s *session) question() error {
	s.mu.Lock()
	s.beat++
	now := s.r.cfg.Now()
	s.asked[s.beat] = now
	delete(s.asked, s.beat-maxBeats)
	f := &syncproto.Heartbeat{ID: s.beat, T1: now.UnixMilli()}
	s.mu.Unlock()
	f.Head = s.r.position().rev
	return s.conn.Send(f)
}

// maxBeats bounds the heartbeats that are remembered until they are answered.
const maxBeats = 64

func (s *session) answer(f *syncproto.Heartbeat) error {
	f.T3, f.Head, f.Reply = s.r.cfg.Now().UnixMilli(), s.r.position().rev, true
	return s.conn.Send(f)
}

// heartbeat takes the answer to a question, or leaves a question to answer.
func (s *session) heartbeat(f *syncproto.Heartbeat) {
	now := s.r.cfg.Now().UnixMilli()
	if !f.Reply {
		f.T2 = now
		select {
		case s.beats <- f:
		default:
		}
		return
	}
	s.mu.Lock()
	asked, ok := s.asked[f.ID]
	delete(s.asked, f.ID)
	s.mu.Unlock()
	if ok {
		offset, rtt := syncproto.Offset(f.T1, f.T2, f.T3, now)
		s.r.heard(f.Head, asked, offset, rtt)
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
	s.ask++
	id := s.ask
	s.waiting[id] = answer
	s.mu.Unlock()
	defer s.forget(id)
	select {
	case s.asks <- &syncproto.Ask{ID: id, What: syncproto.AskLeader}:
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

func (s *session) answered(a *syncproto.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.waiting[a.ID]; c != nil {
		delete(s.waiting, a.ID)
		c <- a
	}
}

func (s *session) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}
