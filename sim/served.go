package sim

import (
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A served is a server's end of a stream to a replica, around a session.Talk.
type served struct {
	at     *server
	from   *node
	end    *end
	hello  *syncproto.Hello
	talk   *session.Talk // nil before the Welcome
	over   bool
	wakeAt time.Duration // when what is due is looked at next
	pushes [][]byte      // heard, for who replays them
}

// take serves a stream that somebody has dialled.
func (v *server) take(from string, e *end) {
	s := &served{at: v, from: v.w.node(from), end: e}
	life := v.life
	e.Hear = func(f syncproto.Frame) { v.resume(life, func() { s.hear(f) }) }
	e.Ended = func(err error) { v.resume(life, func() { s.finish(err.Error()) }) }
	v.after(greetLimit, func() {
		if s.hello == nil {
			s.finish("it said nothing")
		}
	})
}

func (s *served) hear(f syncproto.Frame) {
	switch {
	case s.over:
	case s.talk != nil:
		s.remember(f)
		s.do(s.talk.Hear(f))
		s.due()
	case s.hello == nil:
		h, ok := f.(*syncproto.Hello)
		if !ok {
			s.refuse(session.Refusal(session.Unexpected(f)))
			return
		}
		s.hello = h
		s.greet(h)
	}
}

// remember keeps the last pushes.
func (s *served) remember(f syncproto.Frame) {
	if f.Kind() != syncproto.KindPush {
		return
	}
	b, err := syncproto.AppendFrame(nil, s.end.spoken, f)
	if err != nil {
		s.at.w.fail("%s: %w", s.at.name, err)
	}
	if s.pushes = append(s.pushes, b); len(s.pushes) > 8 {
		s.pushes = s.pushes[1:]
	}
}

// greet answers a Hello, as session.Server does.
func (s *served) greet(h *syncproto.Hello) {
	received, id := s.at.now(), s.from.identity()
	if f := s.at.srv.Turn(h, id); f != nil {
		s.refuse(f)
		return
	}
	s.at.above.greet(h, func(f syncproto.Frame, err error) {
		if err != nil {
			f, err = s.at.srv.JudgeAlone(h)
		}
		if err != nil {
			s.refuse(s.at.srv.Busy(err))
			return
		}
		w, ok := f.(*syncproto.Welcome)
		if !ok {
			s.refuse(f)
			return
		}
		goal := s.at.srv.Goal(h, w)
		s.at.expect(s.at.patience, func() bool { return s.at.head() >= goal }, func(ok bool) {
			if !ok {
				s.refuse(s.at.srv.Busy(&crm.Error{Code: crm.CodeStale, Op: "connect", Message: "this node is behind"}))
				return
			}
			s.welcome(h, s.at.srv.Complete(h, w, id, received))
		})
	})
}

func (s *served) welcome(h *syncproto.Hello, f syncproto.Frame) {
	w, ok := f.(*syncproto.Welcome)
	if !ok || s.over {
		s.refuse(f)
		return
	}
	s.send(w)
	s.talk = s.at.srv.NewTalk(h, w, s.from.identity())
	if old := s.at.served[h.Node]; old != nil {
		old.finish("the node opened another session")
	}
	s.at.served[h.Node] = s
	s.due()
}

// refuse says why there is no conversation.
func (s *served) refuse(f syncproto.Frame) {
	s.send(f)
	s.finish("it was refused")
}

func (s *served) send(frames ...syncproto.Frame) {
	if err := s.end.Send(frames...); err != nil {
		s.at.w.fail("%s: %v", s.at.name, err)
	}
}

// do does what a Talk wants done.
func (s *served) do(a session.Act, err error) {
	s.send(a.Send...)
	if a.Submit != nil {
		s.at.above.submit(*a.Submit, func(r session.Reply, err error) {
			if !s.over {
				s.do(s.talk.Replied(r, err))
				s.due()
			}
		})
	}
	if a.Ask != nil {
		s.at.above.leaderRev(func(answer *syncproto.Answer, err error) {
			if !s.over {
				s.send(s.talk.Answered(a.Ask, answer, err))
			}
		})
	}
	if err != nil {
		s.finish(err.Error())
	}
}

// due does what is due now, and sees that the rest is looked at in time.
func (s *served) due() {
	for !s.over && s.talk != nil {
		s.do(s.talk.Due())
		if s.over {
			return
		}
		next := s.talk.Next().Sub(s.at.now())
		if next <= 0 {
			continue
		}
		s.wake(s.at.w.agenda.now + next)
		return
	}
}

// wake has due called at the instant, unless it is called earlier anyway.
func (s *served) wake(at time.Duration) {
	if s.wakeAt > s.at.w.agenda.now && s.wakeAt <= at {
		return
	}
	s.wakeAt = at
	s.at.after(at-s.at.w.agenda.now, func() {
		if s.wakeAt == at {
			s.due()
		}
	})
}

func (s *served) finish(why string) {
	if s.over {
		return
	}
	s.over = true
	s.at.note("ends a conversation with %s: %s", s.from.name, why)
	s.end.Close()
	if s.talk != nil {
		s.talk.End()
	}
	if s.at.served[s.from.id] == s {
		delete(s.at.served, s.from.id)
	}
}
