package session

import (
	"errors"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Talk is the serving side of one session without I/O: no goroutine, lock,
// timer, channel or connection. Frames go in by Hear, what is due comes out of
// Due, and what must be asked upstream is in the Act that either returns. What it
// does follows from the store, the Config's clock and randomness, and its input.
// It belongs to one goroutine.
type Talk struct {
	progress
	srv     *Server
	site    string
	in      intake
	out     outflow
	vigil   vigil
	waiting []arrival              // behind the push under way
	beats   []*syncproto.Heartbeat // questions to answer
	sub     *Submission            // submitted, and not replied to
	again   time.Time              // when sub is to be submitted once more; zero: it is on its way
	count   int64                  // frames heard
	ends    int                    // of the Server's sessions, before this one began
}

// An Act is what a Talk wants done, in this order.
type Act struct {
	Send   []syncproto.Frame // to the replica
	Submit *Submission       // upstream; what comes of it goes to Talk.Replied
	Ask    *syncproto.Ask    // upstream; the answer goes to Talk.Answered
}

// retryAfter is the wait before a Submission of unknown outcome is repeated,
// unless the leader changes before.
const retryAfter = 250 * time.Millisecond

// NewTalk begins the conversation with a replica whose Hello was answered with
// the Welcome.
func (s *Server) NewTalk(h *syncproto.Hello, w *syncproto.Welcome, id auth.Identity) *Talk {
	now := s.cfg.Now()
	ends, _ := s.ended()
	return &Talk{srv: s, ends: ends, site: id.Site, progress: newProgress(h, w, now), in: intake{srv: s, node: h.Node, incarnation: w.Incarnation},
		out: newOutflow(s, id.Site, h, w, now), vigil: s.newVigil(now)}
}

// Hear takes a frame of the replica. After an error the conversation is over:
// send what is in the Act, end the Talk and hang up.
func (t *Talk) Hear(f syncproto.Frame) (Act, error) {
	now := t.srv.cfg.Now()
	t.heard = now
	t.count++
	switch f := f.(type) {
	case *syncproto.Push:
		if len(t.waiting) == maxPushes {
			t.srv.cfg.Observe.Refused(crm.CodeUnavailable)
			return Act{Send: frames(t.srv.Busy(errPushes))}, nil
		}
		t.waiting = append(t.waiting, t.srv.backlog.arrive(f))
		return t.push(Act{})
	case *syncproto.Applied:
		t.report(f)
		t.out.applied(t.applied)
		t.srv.cfg.Reported(t.in.node, t.applied, t.lowBase, now.UnixMilli())
	case *syncproto.Heartbeat:
		if f.Reply {
			t.srv.cfg.Observe.RTT(t.site, t.answered(f, now))
			break
		}
		f.T2 = now.UnixMilli()
		if len(t.beats) < maxBeats {
			t.beats = append(t.beats, f)
		} else {
			t.srv.cfg.Observe.Refused(crm.CodeUnavailable)
		}
	case *syncproto.Repair:
		t.out.heard(f)
	case *syncproto.Ask:
		return Act{Ask: f}, nil
	default:
		err := t.srv.count(Unexpected(f))
		return Act{Send: frames(Refusal(err))}, errors.Join(errAnswered, err)
	}
	return Act{}, nil
}

// push begins the next push if none is under way.
func (t *Talk) push(act Act) (Act, error) {
	for t.sub == nil && len(t.waiting) > 0 {
		p := t.waiting[0]
		t.waiting = t.waiting[1:]
		next, err := t.in.begin(p, t.clock.best())
		t.sub = next.Submit
		act.Send, act.Submit = append(act.Send, next.Send...), next.Submit
		if err != nil {
			return act, t.srv.count(err)
		}
	}
	return act, nil
}

// Replied takes what became of the Submission, and goes on with the next. A
// Submission whose outcome is unknown is due again a little later. The error is
// as Hear's.
func (t *Talk) Replied(r Reply, err error) (Act, error) {
	if errors.Is(err, ErrUnknown) {
		t.again = t.srv.cfg.Now().Add(retryAfter)
		return Act{}, nil
	}
	act, err := t.in.replied(r, err, t.clock.best())
	t.sub = act.Submit
	if err != nil {
		return act, t.srv.count(err)
	}
	return t.push(act)
}

// Answered returns the answer to a question of the replica.
func (t *Talk) Answered(q *syncproto.Ask, a *syncproto.Answer, err error) syncproto.Frame {
	return AnswerTo(q, a, err)
}

// Due returns what is to be done now: answers, a question, one batch, a
// Submission once more. Ask it after the head has changed, after [Server.EndAll],
// and at Next. The error is as Hear's.
func (t *Talk) Due() (Act, error) {
	now := t.srv.cfg.Now()
	if n, why := t.srv.ended(); n != t.ends {
		return Act{}, why
	}
	if err := t.vigil.look(now, t.count, 0, false); err != nil {
		return Act{}, err
	}
	var act Act
	for _, q := range t.beats {
		act.Send = append(act.Send, t.out.answer(q, now))
	}
	t.beats = nil
	out, err := t.out.due(now)
	t.sent = t.out.feed.Cursor()
	if act.Send = append(act.Send, out...); errors.Is(err, errOutdated) {
		return act, err
	}
	if err != nil {
		act.Send = append(act.Send, Refusal(err))
		return act, t.srv.count(err)
	}
	if !t.again.IsZero() && !now.Before(t.again) {
		act.Submit, t.again = t.sub, time.Time{}
	}
	return act, nil
}

// Next is the latest time to ask for what is due: the present if something is.
func (t *Talk) Next() time.Time {
	now := t.srv.cfg.Now()
	if n, _ := t.srv.ended(); len(t.beats) > 0 || n != t.ends {
		return now
	}
	next := t.out.next(now)
	for _, at := range []time.Time{t.vigil.next(), t.again} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// End gives back what the Talk holds.
func (t *Talk) End() {
	t.in.end()
	for _, p := range t.waiting {
		t.srv.backlog.free(p.size)
	}
	t.waiting = nil
}

// Sent returns the Rev up to which the replica was sent everything.
func (t *Talk) Sent() crm.Rev { return t.out.feed.Cursor() }
