package master

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A submission is a batch of a node's consecutive Mutations on its way to the
// leader.
type submission struct {
	Node         crm.NodeID
	Incarnation  crm.Incarnation
	OffsetMillis int64   // what to add to the node's clock to get the master's
	First        crm.Seq // number of Mutations[0]
	Mutations    [][]byte
}

// A reply is what the leader made of a submission. At most one of Gap, Fork and
// Fenced is set.
type reply struct {
	Last    crm.Seq         // the node's Mutations up to here are durable in the log
	Index   uint64          // of the entry that holds them
	Results []decided       // if this master leads: one a Mutation that was taken
	Gap     crm.Seq         // if not 0: the number that is expected
	Fork    bool            // the node is frozen
	Fenced  crm.Incarnation // if not 0: the incarnation that the cluster knows
}

// entryRoom is how many bytes of an entry are left to Mutations, and
// mutationHead is the most that each takes beside its own bytes.
const (
	entryRoom    = maxEntry - 64
	mutationHead = 3
)

// fitting returns how many of the Mutations one entry holds; at least one.
func fitting(mutations [][]byte) int {
	room := entryRoom
	for i, m := range mutations {
		if room -= len(m) + mutationHead; room < 0 && i > 0 {
			return i
		}
	}
	return len(mutations)
}

// submit has the leader decide, here or on another master. If errUnknown is in
// the error's chain the Mutations may yet be decided; submitting the same bytes
// again is harmless. Any other error means that nothing was changed.
func (m *Master) submit(ctx context.Context, s submission) (reply, error) {
	id, _, self := m.ledger.leader()
	switch {
	case self:
		return m.propose(ctx, s)
	case id == "":
		return reply{}, errNoLeader("submit edits")
	}
	return m.forward(ctx, nodeOf(id), s)
}

func errNoLeader(op string) error {
	return &crm.Error{Code: crm.CodeNoLeader, Op: op, Message: "no master leads now; try again when a majority of the masters can reach each other"}
}

func (m *Master) propose(ctx context.Context, s submission) (reply, error) {
	results, index, err := m.ledger.propose(ctx, pushEntry{Node: s.Node, Incarnation: s.Incarnation,
		ReceivedMillis: m.millis(), OffsetMillis: s.OffsetMillis, Mutations: s.Mutations})
	if err != nil {
		return reply{}, err
	}
	r := reply{Last: s.First - 1, Index: index}
	for _, d := range results {
		if d.Gap != 0 || d.Fork || d.Fenced != 0 {
			r.Gap, r.Fork, r.Fenced = d.Gap, d.Fork, d.Fenced
			return r, nil
		}
		r.Results = append(r.Results, d)
		r.Last++
	}
	return r, nil
}

// codeGap tells a following master that the node's next number is another one.
const codeGap crm.Code = "gap"

// forward is submit by way of another master.
func (m *Master) forward(ctx context.Context, to crm.NodeID, s submission) (reply, error) {
	answer, err := m.links.call(ctx, to, func(id uint64) syncproto.Frame {
		return &syncproto.Forward{ID: id, Node: s.Node, Incarnation: s.Incarnation, OffsetMillis: s.OffsetMillis, Mutations: s.Mutations}
	})
	if err != nil {
		return reply{}, err
	}
	f, ok := answer.(*syncproto.Forwarded)
	if !ok {
		return reply{}, unexpected(answer)
	}
	r := reply{Last: f.LastSeq, Index: f.RaftIndex}
	switch f.Code {
	case "":
	case codeGap:
		r.Gap = f.LastSeq + 1
	case crm.CodeFrozen:
		r.Fork = true
	case crm.CodeFenced:
		r.Fenced = m.knownIncarnation(s.Node, s.Incarnation)
	case crm.CodeTimeout:
		return reply{}, &crm.Error{Code: f.Code, Op: "forward edits", Message: f.Message, Err: errUnknown}
	default:
		return reply{}, &crm.Error{Code: f.Code, Op: "forward edits", Message: f.Message}
	}
	return r, nil
}

// knownIncarnation returns the node's incarnation as far as this master knows,
// another one than not.
func (m *Master) knownIncarnation(n crm.NodeID, not crm.Incarnation) crm.Incarnation {
	known := crm.Incarnation(0)
	err := m.ledger.db().View(func(tx *store.Tx) error {
		st, _, err := tx.Node(n)
		known = st.Incarnation
		return err
	})
	if err != nil || known == not {
		return not + 1
	}
	return known
}

// serveMaster answers another master until it hangs up: it forwards, asks, and
// vouches for the Hellos of its replicas.
func (m *Master) serveMaster(ctx context.Context, conn *syncproto.Conn, id auth.Identity) {
	if n, known := m.facts(crm.NodeID(id.Node)); known && !n.Active {
		m.sendRefusal(conn, removed(n))
		return
	}
	const most = 256 // frames being worked on
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hellos, room := make(chan *syncproto.Hello, most), make(chan struct{}, most)
	work.Go(func() { m.greetInOrder(ctx, conn, hellos) })
	for {
		f, err := conn.Receive()
		if err != nil {
			m.log.Debug("another master hung up", "node", id.Node, "error", err)
			return
		}
		if h, ok := f.(*syncproto.Hello); ok {
			select {
			case hellos <- h:
			case <-ctx.Done():
			}
			continue
		}
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			if a := m.answerMaster(ctx, f); a != nil {
				conn.Send(a) // its failure ends Receive too
			}
		})
	}
}

// greetInOrder answers Hellos one after the other: a Welcome bears no number.
func (m *Master) greetInOrder(ctx context.Context, conn *syncproto.Conn, hellos <-chan *syncproto.Hello) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-hellos:
			f, err := m.greet(ctx, h)
			if err != nil {
				f = m.busy(err)
			}
			conn.Send(f)
		}
	}
}

func (m *Master) answerMaster(ctx context.Context, f syncproto.Frame) syncproto.Frame {
	switch f := f.(type) {
	case *syncproto.Forward:
		return m.forwarded(ctx, f)
	case *syncproto.Ask:
		return m.answer(ctx, f)
	}
	return nil
}

// forwarded proposes what another master forwarded. A master that does not lead
// either says so: submissions are not passed on twice.
func (m *Master) forwarded(ctx context.Context, f *syncproto.Forward) *syncproto.Forwarded {
	out := &syncproto.Forwarded{ID: f.ID}
	first, err := seqOf(f.Mutations[0])
	if err != nil {
		out.Code, out.Message = crm.CodeOf(err), err.Error()
		return out
	}
	r, err := m.propose(ctx, submission{Node: f.Node, Incarnation: f.Incarnation, OffsetMillis: f.OffsetMillis, First: first, Mutations: f.Mutations})
	switch {
	case errors.Is(err, errUnknown):
		out.Code, out.Message = crm.CodeTimeout, err.Error()
	case err != nil:
		out.Code, out.Message = crm.CodeOf(err), err.Error()
	case r.Gap != 0:
		out.Code, r.Last = codeGap, r.Gap-1
	case r.Fork:
		out.Code = crm.CodeFrozen
	case r.Fenced != 0:
		out.Code = crm.CodeFenced
	}
	out.LastSeq, out.RaftIndex = r.Last, r.Index
	return out
}

func seqOf(encoded []byte) (crm.Seq, error) {
	mut, err := crm.DecodeMutation(encoded)
	if err != nil {
		return 0, &crm.Error{Code: syncproto.CodeFrame, Op: "read forwarded edits", Message: err.Error()}
	}
	return mut.Seq, nil
}

// answer says what a linearizable read must have reached. A master that does not
// lead answers with code no_leader and says how far it is itself.
func (m *Master) answer(ctx context.Context, q *syncproto.Ask) *syncproto.Answer {
	err := m.ledger.verify(ctx)
	a := &syncproto.Answer{ID: q.ID, Index: m.ledger.fsm.published().at.index, Rev: m.ledger.head()}
	if err != nil {
		a.Code, a.Message = crm.CodeOf(err), err.Error()
	}
	return a
}

func unexpected(f syncproto.Frame) error {
	return &crm.Error{Code: syncproto.CodeFrame, Op: "talk to another master", Item: f.Kind().String(), Message: "the frame does not belong here; run the same release on all masters"}
}

// links are this master's connections to other masters, made when needed.
type links struct {
	m       *Master
	readers sync.WaitGroup

	mu     sync.Mutex // protects the rest
	open   map[crm.NodeID]*link
	closed bool
}

func newLinks(m *Master) *links { return &links{m: m, open: map[crm.NodeID]*link{}} }

// A link is one connection to another master. Hellos are answered in the order
// they were sent, other frames by their id.
type link struct {
	ready chan struct{} // closed when conn or err is set
	conn  *syncproto.Conn
	err   error         // why there is no connection
	done  chan struct{} // closed when the connection has ended

	order  sync.Mutex // held from noting a Hello to having sent it
	mu     sync.Mutex // protects the rest
	next   uint64
	calls  map[uint64]chan syncproto.Frame
	hellos []chan syncproto.Frame
}

// linkTimeout bounds a call, dialing included. A link that does not answer in
// that time is given up.
const linkTimeout = 10 * time.Second

// call sends the frame that make returns for an id, and returns the answer. The
// error's chain has errUnknown if the frame may have arrived.
func (ls *links) call(ctx context.Context, to crm.NodeID, make func(id uint64) syncproto.Frame) (syncproto.Frame, error) {
	return ls.exchange(ctx, to, func(l *link) (chan syncproto.Frame, error) { return l.ask(make) })
}

// hello passes a Hello on and returns what the other master made of it.
func (ls *links) hello(ctx context.Context, to crm.NodeID, h *syncproto.Hello) (syncproto.Frame, error) {
	return ls.exchange(ctx, to, func(l *link) (chan syncproto.Frame, error) { return l.greet(h) })
}

func (ls *links) exchange(ctx context.Context, to crm.NodeID, send func(*link) (chan syncproto.Frame, error)) (syncproto.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	l, err := ls.get(ctx, to)
	if err != nil {
		return nil, &crm.Error{Code: crm.CodeNoLeader, Op: "reach the leader", Item: string(serverID(to)), Message: "it cannot be reached; nothing was changed", Err: err}
	}
	unknown := func(err error) error {
		return &crm.Error{Code: crm.CodeTimeout, Op: "ask the leader", Item: string(serverID(to)), Message: "it may yet be decided", Err: errors.Join(errUnknown, err)}
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

// get returns the open link to a master and dials if there is none.
func (ls *links) get(ctx context.Context, to crm.NodeID) (*link, error) {
	ls.mu.Lock()
	if ls.closed {
		ls.mu.Unlock()
		return nil, net.ErrClosed
	}
	l := ls.open[to]
	if l == nil {
		l = &link{ready: make(chan struct{}), done: make(chan struct{}), calls: map[uint64]chan syncproto.Frame{}}
		ls.open[to] = l
		ls.readers.Go(func() { ls.tend(ctx, to, l) })
	}
	ls.mu.Unlock()
	select {
	case <-l.ready:
		return l, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tend dials and then reads until the link ends. The dialing ends with the ctx
// of the first caller; the link does not.
func (ls *links) tend(ctx context.Context, to crm.NodeID, l *link) {
	defer close(l.done)
	defer ls.forget(to, l)
	conn, err := ls.dial(ctx, to)
	ls.mu.Lock()
	if err == nil && ls.closed {
		err = errors.Join(net.ErrClosed, conn.Close())
	}
	l.conn, l.err = conn, err
	close(l.ready)
	ls.mu.Unlock()
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		f, err := conn.Receive()
		if err != nil {
			ls.m.log.Debug("a link to another master ended", "node", to, "error", err)
			return
		}
		l.deliver(f)
	}
}

func (ls *links) dial(ctx context.Context, to crm.NodeID) (*syncproto.Conn, error) {
	n, ok := ls.m.facts(to)
	if !ok || n.Sync == "" {
		return nil, fmt.Errorf("node %d has no sync address", to)
	}
	raw, err := ls.m.cfg.Dial(ctx, n.Sync)
	if err != nil {
		return nil, err
	}
	expect := func(id auth.Identity) error {
		if crm.NodeID(id.Node) != to {
			return fmt.Errorf("%s answers at the address of node %d", id, to)
		}
		return auth.ExpectMaster(id)
	}
	c := tls.Client(raw, auth.ClientTLS(ls.m.cfg.Node, ls.m.cfg.CA.Cert, ls.m.cfg.Now, expect, auth.ALPNSync))
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return syncproto.NewConn(c), nil
}

func (ls *links) forget(to crm.NodeID, l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.open[to] == l {
		delete(ls.open, to)
	}
}

// close ends every link and waits for their goroutines.
func (ls *links) close() {
	ls.mu.Lock()
	ls.closed = true
	for _, l := range ls.open {
		select {
		case <-l.ready:
			if l.conn != nil {
				l.conn.Close()
			}
		default: // still dialing: tend sees closed
		}
	}
	ls.mu.Unlock()
	ls.readers.Wait()
}

func (l *link) ask(make func(id uint64) syncproto.Frame) (chan syncproto.Frame, error) {
	answer := newAnswer()
	l.mu.Lock()
	l.next++
	id := l.next
	l.calls[id] = answer
	l.mu.Unlock()
	return answer, l.conn.Send(make(id))
}

func (l *link) greet(h *syncproto.Hello) (chan syncproto.Frame, error) {
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
func (l *link) deliver(f syncproto.Frame) {
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

// A backlog bounds the bytes of replicas' Mutations that wait for the log.
type backlog struct{ bytes atomic.Int64 }

const maxBacklog = 16 << 20

// take reserves room for n bytes; the caller gives it back with free.
func (b *backlog) take(n int) bool {
	if b.bytes.Add(int64(n)) <= maxBacklog {
		return true
	}
	b.free(n)
	return false
}

func (b *backlog) free(n int) { b.bytes.Add(-int64(n)) }
