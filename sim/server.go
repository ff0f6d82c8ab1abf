package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A server is the serving half of a node, of a master or of a relay:
// session.Server without its goroutines.
type server struct {
	*node
	srv      *session.Server
	above    upstream
	head     func() crm.Rev
	patience time.Duration // of a handshake that waits for the node to catch up
	served   map[crm.NodeID]*served
	waiting  []*expectation         // who waits for a commit
	calls    map[uint64]func(reply) // questions to other nodes
	call     uint64
}

// An upstream decides what a server cannot, as session.Upstream does with
// goroutines: the masters for one of them, the node above for a relay.
type upstream interface {
	greet(h *syncproto.Hello, then func(syncproto.Frame, error))
	submit(s session.Submission, then func(session.Reply, error))
	leaderRev(then func(*syncproto.Answer, error))
}

// begin makes s the server of a process that has just started.
func (s *server) begin(srv *session.Server, above upstream, head func() crm.Rev, patience time.Duration) {
	s.srv, s.above, s.head, s.patience = srv, above, head, patience
	s.served, s.waiting, s.calls = map[crm.NodeID]*served{}, nil, map[uint64]func(reply){}
	s.w.net.Listen(s.name, s.take)
}

// An expectation is something that a commit may bring.
type expectation struct {
	holds func() bool
	then  func(ok bool)
	over  bool
}

func (x *expectation) met() bool {
	if !x.over && x.holds() {
		x.over = true
		x.then(true)
	}
	return x.over
}

// expect calls then once holds does, or after limit without success.
func (s *server) expect(limit time.Duration, holds func() bool, then func(ok bool)) {
	x := &expectation{holds: holds, then: then}
	if x.met() {
		return
	}
	s.waiting = append(s.waiting, x)
	s.after(limit, func() {
		if !x.over {
			x.over = true
			then(false)
		}
	})
}

// committed tells all who wait for a commit.
func (s *server) committed() {
	waiting := s.waiting
	s.waiting = nil
	for _, x := range waiting {
		if !x.met() {
			s.waiting = append(s.waiting, x)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.served)) {
		if c := s.served[id]; c != nil {
			c.due()
		}
	}
}

// A reply is a frame that another node sent back, or why none came.
type reply struct {
	f   syncproto.Frame
	err error
}

// ask sends another node a frame and waits for the one that it answers with.
func (s *server) ask(to *server, make func(id uint64) syncproto.Frame, answer func(f syncproto.Frame, then func(syncproto.Frame)), then func(reply)) {
	s.call++
	id := s.call
	unknown := &crm.Error{Code: crm.CodeTimeout, Op: "ask the node above", Item: to.name, Message: "it may yet be decided", Err: session.ErrUnknown}
	s.calls[id] = then
	s.after(askLimit, func() { s.answered(id, reply{err: unknown}) })
	if !to.up && s.w.net.Crosses(s.name, to.name) {
		s.after(lineDelay, func() {
			s.answered(id, reply{err: &crm.Error{Code: crm.CodeNoLeader, Op: "reach the node above", Item: to.name, Message: "it cannot be reached; nothing was changed"}})
		})
		return
	}
	s.post(to, make(id), func(f syncproto.Frame) {
		answer(f, func(a syncproto.Frame) {
			to.post(s, a, func(a syncproto.Frame) { s.answered(id, reply{f: a}) })
		})
	})
}

func (s *server) answered(id uint64, r reply) {
	if then := s.calls[id]; then != nil {
		delete(s.calls, id)
		then(r)
	}
}

// post carries a frame to another node, through the codec; what meets a cut is
// lost. then runs there.
func (s *server) post(to *server, f syncproto.Frame, then func(syncproto.Frame)) {
	b, err := syncproto.AppendFrame(nil, linkVersion, f)
	if err != nil {
		s.w.fail("%s cannot send: %v", s.name, err)
		return
	}
	if !s.w.net.Crosses(s.name, to.name) {
		return
	}
	d, _ := s.w.net.line(s.name, to.name).takes()
	life := to.life
	s.w.agenda.After(d, func() {
		if !s.w.net.Crosses(s.name, to.name) {
			return
		}
		f, err := syncproto.DecodeFrame(b, linkVersion)
		if err != nil {
			panic(fmt.Sprintf("sim: a frame from %s to %s does not decode: %v", s.name, to.name, err))
		}
		to.note("hears %s of %s: %s", f.Kind(), s.name, describe(f))
		to.resume(life, func() { then(f) })
	})
}

// linkVersion is what nodes speak with the node above: the newest that both know.
const linkVersion = syncproto.MaxVersion
