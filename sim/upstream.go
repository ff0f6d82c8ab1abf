package sim

import (
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// What production does in goroutines that wait, over links between masters, is
// done here in steps that are told of each other. The decisions are those of
// packages session and master.

// A reply is a frame that another master sent back, or why none came.
type reply struct {
	f   syncproto.Frame
	err error
}

// greet has the leader judge a Hello, here or on another master.
func (m *masterNode) greet(h *syncproto.Hello, then func(syncproto.Frame, error)) {
	switch l := m.w.ledger.leader; l {
	case m:
		m.leadGreet(h, then)
	case nil:
		then(nil, session.NoLeader("connect"))
	default:
		m.ask(l, func(uint64) syncproto.Frame { return h }, func(r reply) { then(r.f, r.err) })
	}
}

// leadGreet judges a Hello by the newest decided state, as master.lead does.
func (m *masterNode) leadGreet(h *syncproto.Hello, then func(syncproto.Frame, error)) {
	m.verify(func(err error) {
		var s session.Standing
		if err == nil {
			s, err = m.srv.StandingOf(h)
		}
		if err != nil {
			then(nil, err)
			return
		}
		switch j := s.Judge(h); {
		case j.Freeze != "":
			m.w.ledger.Propose(m, master.FreezeEntry{Node: h.Node, Reason: j.Freeze}, func(_ master.Verdict, _ uint64, err error) { then(j.Answer, err) })
		case j.Admit != "":
			m.admit(h, j.Admit, then)
		default:
			m.welcomed(h, s, j.Answer)
			then(j.Answer, nil)
		}
	})
}

// admit gives the disk the next incarnation.
func (m *masterNode) admit(h *syncproto.Hello, reason string, then func(syncproto.Frame, error)) {
	e := master.AdmitEntry{Node: h.Node, Reason: reason}
	_, _ = byteSource{m.w.dice.For("nonce")}.Read(e.Nonce[:])
	m.w.ledger.Propose(m, e, func(v master.Verdict, _ uint64, err error) {
		if err != nil {
			then(nil, err)
			return
		}
		var s session.Standing
		m.expect(askLimit, func() bool {
			s, err = m.srv.StandingOf(h)
			return err != nil || s.State.Incarnation >= v.Results[0].Admitted
		}, func(ok bool) {
			if err == nil && !ok {
				err = &crm.Error{Code: crm.CodeStale, Op: "admit", Message: "this master is behind"}
			}
			if err != nil {
				then(nil, err)
				return
			}
			f := s.Welcome()
			m.welcomed(h, s, f)
			then(f, nil)
		})
	})
}

func (m *masterNode) welcomed(h *syncproto.Hello, s session.Standing, f syncproto.Frame) {
	if _, ok := f.(*syncproto.Welcome); ok && s.Facts.Role == auth.RoleReplica {
		m.reported(h.Node, s.Cursor(h), h.LowBase, m.now().UnixMilli())
	}
}

// submit has the leader decide a Submission.
func (m *masterNode) submit(s session.Submission, then func(session.Reply, error)) {
	switch l := m.w.ledger.leader; l {
	case m:
		m.leadSubmit(s, then)
	case nil:
		then(session.Reply{}, session.NoLeader("submit edits"))
	default:
		m.ask(l, func(id uint64) syncproto.Frame { return session.ForwardOf(id, s) }, func(r reply) {
			f, ok := r.f.(*syncproto.Forwarded)
			if r.err == nil && !ok {
				r.err = session.Unexpected(r.f)
			}
			if r.err != nil {
				then(session.Reply{}, r.err)
				return
			}
			then(session.ReplyOf(s, f))
		})
	}
}

func (m *masterNode) leadSubmit(s session.Submission, then func(session.Reply, error)) {
	m.w.ledger.Propose(m, master.PushOf(s, m.now().UnixMilli()), func(v master.Verdict, index uint64, err error) {
		if err != nil {
			then(session.Reply{}, err)
			return
		}
		then(master.ReplyOf(s, index, v.Results), nil)
	})
}

// leaderRev asks what a linearizable read must have reached.
func (m *masterNode) leaderRev(then func(*syncproto.Answer, error)) {
	switch l := m.w.ledger.leader; l {
	case m:
		m.leadAsk(then)
	case nil:
		then(nil, session.NoLeader("ask the leader"))
	default:
		m.ask(l, func(id uint64) syncproto.Frame { return &syncproto.Ask{ID: id, What: syncproto.AskLeader} }, func(r reply) {
			a, ok := r.f.(*syncproto.Answer)
			if r.err == nil && !ok {
				r.err = session.Unexpected(r.f)
			}
			then(a, r.err)
		})
	}
}

func (m *masterNode) leadAsk(then func(*syncproto.Answer, error)) {
	m.verify(func(err error) {
		a := &syncproto.Answer{Index: m.fsm.Applied(), Rev: m.fsm.Head()}
		if err != nil {
			a.Code, a.Message = crm.CodeOf(err), err.Error()
		}
		then(a, nil)
	})
}

// ask sends another master a frame and waits for the one that it answers with.
func (m *masterNode) ask(to *masterNode, make func(id uint64) syncproto.Frame, then func(reply)) {
	m.call++
	id := m.call
	unknown := &crm.Error{Code: crm.CodeTimeout, Op: "ask the leader", Item: to.name, Message: "it may yet be decided", Err: session.ErrUnknown}
	m.calls[id] = then
	m.after(askLimit, func() { m.answered(id, reply{err: unknown}) })
	if !to.up && m.w.net.Crosses(m.name, to.name) {
		m.after(lineDelay, func() {
			m.answered(id, reply{err: &crm.Error{Code: crm.CodeNoLeader, Op: "reach the leader", Item: to.name, Message: "it cannot be reached; nothing was changed"}})
		})
		return
	}
	m.post(to, make(id), func(f syncproto.Frame) {
		to.answer(f, func(a syncproto.Frame) {
			to.post(m, a, func(a syncproto.Frame) { m.answered(id, reply{f: a}) })
		})
	})
}

func (m *masterNode) answered(id uint64, r reply) {
	if then := m.calls[id]; then != nil {
		delete(m.calls, id)
		then(r)
	}
}

// post carries a frame to another master, through the codec; what meets a cut is
// lost. then runs there.
func (m *masterNode) post(to *masterNode, f syncproto.Frame, then func(syncproto.Frame)) {
	b, err := syncproto.AppendFrame(nil, linkVersion, f)
	if err != nil {
		m.w.fail("%s cannot send: %v", m.name, err)
		return
	}
	if !m.w.net.Crosses(m.name, to.name) {
		return
	}
	d, _ := m.w.net.line(m.name, to.name).takes()
	life := to.life
	m.w.agenda.After(d, func() {
		if !m.w.net.Crosses(m.name, to.name) {
			return
		}
		f, err := syncproto.DecodeFrame(b, linkVersion)
		if err != nil {
			panic(fmt.Sprintf("sim: a frame from %s to %s does not decode: %v", m.name, to.name, err))
		}
		to.note("hears %s of %s: %s", f.Kind(), m.name, describe(f))
		to.resume(life, func() { then(f) })
	})
}

// answer is what a master does with another one's question.
func (m *masterNode) answer(f syncproto.Frame, then func(syncproto.Frame)) {
	switch f := f.(type) {
	case *syncproto.Hello:
		m.leadGreet(f, func(a syncproto.Frame, err error) {
			if err != nil {
				a = m.srv.Busy(err)
			}
			then(a)
		})
	case *syncproto.Forward:
		s, err := session.SubmissionOf(f)
		if err != nil {
			then(session.ForwardedOf(f.ID, session.Reply{}, err))
			return
		}
		m.leadSubmit(s, func(r session.Reply, err error) { then(session.ForwardedOf(f.ID, r, err)) })
	case *syncproto.Ask:
		m.leadAsk(func(a *syncproto.Answer, err error) { then(session.AnswerTo(f, a, err)) })
	}
}

// linkVersion is what masters speak with each other: the newest that both know.
const linkVersion = syncproto.MaxVersion

// authorPause is the wait before head office tries something again.
const authorPause = 250 * time.Millisecond
