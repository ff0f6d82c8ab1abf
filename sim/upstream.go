package sim

import (
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

// greet has the leader judge a Hello, here or on another master.
func (m *masterNode) greet(h *syncproto.Hello, then func(syncproto.Frame, error)) {
	switch l := m.w.ledger.leader; l {
	case m:
		m.leadGreet(h, then)
	case nil:
		then(nil, session.NoLeader("connect"))
	default:
		m.ask(&l.server, func(uint64) syncproto.Frame { return h }, l.answer, func(r reply) { then(r.f, r.err) })
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
		m.ask(&l.server, func(id uint64) syncproto.Frame { return session.ForwardOf(id, s) }, l.answer, func(r reply) { forwarded(s, r, then) })
	}
}

// forwarded reads what became of a Submission that was passed on.
func forwarded(s session.Submission, r reply, then func(session.Reply, error)) {
	f, ok := r.f.(*syncproto.Forwarded)
	if r.err == nil && !ok {
		r.err = session.Unexpected(r.f)
	}
	if r.err != nil {
		then(session.Reply{}, r.err)
		return
	}
	then(session.ReplyOf(s, f))
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
		m.ask(&l.server, func(id uint64) syncproto.Frame { return &syncproto.Ask{ID: id, What: syncproto.AskLeader} }, l.answer, func(r reply) { answered(r, then) })
	}
}

// answered reads the answer to a question that was passed on.
func answered(r reply, then func(*syncproto.Answer, error)) {
	a, ok := r.f.(*syncproto.Answer)
	if r.err == nil && !ok {
		r.err = session.Unexpected(r.f)
	}
	then(a, r.err)
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

// authorPause is the wait before head office tries something again.
const authorPause = 250 * time.Millisecond
