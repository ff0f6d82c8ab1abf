package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// linkTimeout bounds a call, dialing included. A connection that does not answer
// in that time is given up.
const linkTimeout = 10 * time.Second

// A Link asks one node above, over one connection that it opens when there is
// something to ask. It is the [Upstream] of a node that does not lead. Any
// goroutine may use it.
type Link struct {
	Name   string                                             // of the node above, in errors
	Dial   func(ctx context.Context) (*syncproto.Conn, error) // opens a connection to it
	Logger *slog.Logger                                       //

	readers sync.WaitGroup
	mu      sync.Mutex // protects the rest
	open    *line      // nil: none
	closed  bool
}

// A line is one connection of a Link. Hellos are answered in the order they were
// sent, other frames by their id.
type line struct {
	ready chan struct{}      // closed when conn or err is set
	abort context.CancelFunc // ends the dialing
	conn  *syncproto.Conn
	err   error         // why there is no connection
	done  chan struct{} // closed when the connection has ended

	order  sync.Mutex // held from noting a Hello to having sent it
	mu     sync.Mutex // protects the rest
	next   uint64
	calls  map[uint64]chan syncproto.Frame
	hellos []chan syncproto.Frame
}

// Greet passes a Hello on and returns what the node above made of it.
func (k *Link) Greet(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	return k.exchange(ctx, func(l *line) (chan syncproto.Frame, error) { return l.greet(h) })
}

// Submit passes Mutations on. If the Reply is Fenced its incarnation is only one
// that is not the Submission's.
func (k *Link) Submit(ctx context.Context, s Submission) (Reply, error) {
	f, err := k.call(ctx, func(id uint64) syncproto.Frame { return ForwardOf(id, s) })
	if err != nil {
		return Reply{}, err
	}
	answer, ok := f.(*syncproto.Forwarded)
	if !ok {
		return Reply{}, Unexpected(f)
	}
	return ReplyOf(s, answer)
}

// Ask passes a question on.
func (k *Link) Ask(ctx context.Context, what syncproto.AskKind) (*syncproto.Answer, error) {
	f, err := k.call(ctx, func(id uint64) syncproto.Frame { return &syncproto.Ask{ID: id, What: what} })
	if err != nil {
		return nil, err
	}
	answer, ok := f.(*syncproto.Answer)
	if !ok {
		return nil, Unexpected(f)
	}
	return answer, nil
}

// Report passes on how far replicas are, if the node above knows that frame.
// Reports are hints: an error means that they may not have arrived.
func (k *Link) Report(ctx context.Context, reports []syncproto.Report) error {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	l, err := k.get(ctx)
	if err == nil && l.conn.Version() == 0 {
		_, err = k.Knows(ctx)
	}
	if err != nil || l.conn.Version() < versionRelays {
		return err
	}
	l.conn.Speak(l.conn.Version())
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	return l.conn.Send(&syncproto.Reports{Reports: reports})
}

// Knows returns the newest version that both this node and the one above know,
// as that one says now.
func (k *Link) Knows(ctx context.Context) (uint16, error) {
	var over *line
	_, err := k.exchange(ctx, func(l *line) (chan syncproto.Frame, error) {
		over = l
		return l.ask(func(id uint64) syncproto.Frame { return &syncproto.Ask{ID: id, What: syncproto.AskLeader} })
	})
	if err != nil {
		return 0, err
	}
	return over.conn.Version(), nil
}

// Close ends the connection, or the dialing, and waits for its goroutine. Calls
// after it fail.
func (k *Link) Close() {
	k.mu.Lock()
	k.closed = true
	if k.open != nil {
		k.open.abort()
		select {
		case <-k.open.ready:
			if k.open.conn != nil {
				k.open.conn.Close()
			}
		default: // tend sees closed
		}
	}
	k.mu.Unlock()
	k.readers.Wait()
}

// call sends the frame that make returns for an id, and returns the answer. The
// error's chain has ErrUnknown if the frame may have arrived.
func (k *Link) call(ctx context.Context, make func(id uint64) syncproto.Frame) (syncproto.Frame, error) {
	return k.exchange(ctx, func(l *line) (chan syncproto.Frame, error) { return l.ask(make) })
}

func (k *Link) exchange(ctx context.Context, send func(*line) (chan syncproto.Frame, error)) (syncproto.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	l, err := k.get(ctx)
	if err != nil {
		return nil, &crm.Error{Code: crm.CodeNoLeader, Op: "reach the leader", Item: k.Name, Message: "it cannot be reached; nothing was changed", Err: err}
	}
	unknown := func(err error) error {
		return &crm.Error{Code: crm.CodeTimeout, Op: "ask the leader", Item: k.Name, Message: "it may yet be decided", Err: errors.Join(ErrUnknown, err)}
	}
	// A peer that takes nothing any more would hold the sender, and those behind
	// it, for as long as the kernel's timeout.
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	answer, err := send(l)
	stop()
	if err != nil {
		l.conn.Close()
		return nil, unknown(err)
	}
	select {
	case f := <-answer:
		return f, nil
	case <-l.done:
		return nil, unknown(net.ErrClosed)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.conn.Close()
		}
		return nil, unknown(ctx.Err())
	}
}

// get returns the open line and dials if there is none.
func (k *Link) get(ctx context.Context) (*line, error) {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil, net.ErrClosed
	}
	l := k.open
	if l == nil {
		l = &line{ready: make(chan struct{}), done: make(chan struct{}), calls: map[uint64]chan syncproto.Frame{}}
		var dialing context.Context
		dialing, l.abort = context.WithCancel(ctx)
		k.open = l
		k.readers.Go(func() { k.tend(dialing, l) })
	}
	k.mu.Unlock()
	select {
	case <-l.ready:
		return l, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tend dials and then reads until the line ends. The dialing ends with the ctx
// of the first caller; the line does not.
func (k *Link) tend(ctx context.Context, l *line) {
	defer close(l.done)
	defer k.forget(l)
	conn, err := k.Dial(ctx)
	l.abort()
	k.mu.Lock()
	if err == nil && k.closed {
		err = errors.Join(net.ErrClosed, conn.Close())
	}
	l.conn, l.err = conn, err
	close(l.ready)
	k.mu.Unlock()
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		f, err := conn.Receive()
		if err != nil {
			k.Logger.Debug("a link to another node ended", "to", k.Name, "error", err)
			return
		}
		l.deliver(f)
	}
}

func (k *Link) forget(l *line) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == l {
		k.open = nil
	}
}

func (l *line) ask(make func(id uint64) syncproto.Frame) (chan syncproto.Frame, error) {
	answer := newAnswer()
	l.mu.Lock()
	l.next++
	id := l.next
	l.calls[id] = answer
	l.mu.Unlock()
	return answer, l.conn.Send(make(id))
}

func (l *line) greet(h *syncproto.Hello) (chan syncproto.Frame, error) {
	answer := newAnswer()
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	l.hellos = append(l.hellos, answer)
	l.mu.Unlock()
	return answer, l.conn.Send(h)
}

func newAnswer() chan syncproto.Frame { return make(chan syncproto.Frame, 1) }

// deliver gives an answer to who waits for it. Nobody may wait any more.
func (l *line) deliver(f syncproto.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var to chan syncproto.Frame
	switch f := f.(type) {
	case *syncproto.Forwarded:
		to = l.calls[f.ID]
		delete(l.calls, f.ID)
	case *syncproto.Answer:
		to = l.calls[f.ID]
		delete(l.calls, f.ID)
	default:
		if len(l.hellos) > 0 {
			to, l.hellos = l.hellos[0], l.hellos[1:]
		}
	}
	if to != nil {
		to <- f
	}
}
