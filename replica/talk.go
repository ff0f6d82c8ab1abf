package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Talk is the node's side of one session without I/O but for its files: no
// goroutine, timer, channel or connection. Frames go in by Hear and come out of
// Due. What it does follows from the files, the Config's clock and randomness,
// and its input. It belongs to one goroutine; a node has one Talk at a time.
type Talk struct {
	r         *Replica
	version   uint16 // of the protocol, as the Welcome said
	pull      pull
	up        upflow
	questions questions
	out       []syncproto.Frame // answers and questions to be sent
	heard     time.Time         // when the master last said something
}

var errSilent = errors.New("the master has been silent for three heartbeats")

// Again reports whether err, of Greeted, means that the node must introduce
// itself anew, with a new Hello on a new connection: it has something else to
// say now.
func Again(err error) bool { return errors.Is(err, errAgain) }

// Greeted takes the master's answer to a Hello that was sent at the time asked,
// judges it, and begins the conversation. Any Talk before it must have ended.
// The error says why there is none; see [Again].
func (r *Replica) Greeted(h *syncproto.Hello, f syncproto.Frame, asked time.Time) (*Talk, error) {
	w, ok := f.(*syncproto.Welcome)
	if !ok {
		return nil, r.refused(f)
	}
	if w.Proto < h.ProtoMin || w.Proto > h.ProtoMax {
		return nil, &crm.Error{Code: syncproto.CodeVersion, Op: "connect", Message: fmt.Sprintf("the master speaks version %d, this node %d to %d", w.Proto, h.ProtoMin, h.ProtoMax)}
	}
	if err := r.count(plausibleWelcome(h, w)); err != nil {
		return nil, err
	}
	if err := r.judge(h, w); err != nil {
		return nil, err
	}
	if err := r.readmit(); err != nil {
		return nil, err
	}
	now := r.cfg.Now()
	t := &Talk{r: r, version: w.Proto, pull: pull{r: r, repairs: repairs{version: w.Proto, resent: h.Resend}}, up: newUpflow(r, w, now), questions: newQuestions(), heard: now}
	r.welcomed(t, w, asked)
	return t, nil
}

// Version returns the version of the protocol that both sides speak after the
// Welcome.
func (t *Talk) Version() uint16 { return t.version }

// Hear takes a frame of the master: a batch is in the base when it returns.
// After an error the conversation is over: end the Talk.
func (t *Talk) Hear(f syncproto.Frame) error {
	now := t.r.cfg.Now()
	t.heard = now
	switch f := f.(type) {
	case *syncproto.Batch:
		if err := t.ask(); err != nil {
			return err
		}
		return t.r.count(t.pull.take(f))
	case *syncproto.Pushed, *syncproto.Gap, *syncproto.Busy:
		t.up.heard(f, now)
	case *syncproto.Heartbeat:
		if !f.Reply {
			f.T2 = now.UnixMilli()
			if len(t.out) < maxOut {
				t.out = append(t.out, t.r.answerBeat(f))
			}
			break
		}
		if asked, ok := t.questions.beatAnswered(f.ID); ok {
			t.r.beatAnswered(f, asked, now)
		}
	case *syncproto.Answer:
		t.questions.answered(f)
	default:
		return t.r.count(t.r.refused(f))
	}
	return nil
}

// maxOut bounds the answers that wait to be sent: a master that asks faster than
// it reads gets no more.
const maxOut = 64

// ask has a repair sent if one is due. What comes before the next batch is looked
// at was sent before the master heard of it.
func (t *Talk) ask() error {
	f, err := t.pull.ask()
	if f != nil {
		t.out = append(t.out, f)
	}
	return err
}

// Ask puts a question to the master; then is given the answer by Hear.
func (t *Talk) Ask(what syncproto.AskKind, then func(*syncproto.Answer)) {
	t.out = append(t.out, t.questions.nextAsk(what, then))
}

// Due returns the frames to be sent now, in order; they count as sent. Ask it
// after Hear, after an edit, after a scrub or read that met damage, and at Next. The error is as Hear's; frames that
// come with it are still to be sent.
func (t *Talk) Due() ([]syncproto.Frame, error) {
	now := t.r.cfg.Now()
	if !now.Before(t.heard.Add(t.r.patience())) {
		return nil, errSilent
	}
	err := t.ask()
	out := t.out
	if t.out = nil; err != nil {
		return out, err
	}
	up, err := t.up.due(now)
	if out = append(out, up...); err != nil {
		return out, err
	}
	if t.up.beatDue(now) {
		out = append(out, t.questions.nextBeat(now, t.r.position().rev))
	}
	return out, nil
}

// Next is the latest time to ask for what is due, if nothing is heard or edited
// before: the present if something is due.
func (t *Talk) Next() time.Time {
	if len(t.out) > 0 || t.pull.asks() {
		return t.r.cfg.Now()
	}
	next := t.up.wakeAt()
	if silent := t.heard.Add(t.r.patience()); silent.Before(next) {
		return silent
	}
	return next
}

// End makes known that the conversation is over.
func (t *Talk) End() {
	t.r.change(func(l *link) {
		if l.talk == t {
			l.talk, l.session, l.left = nil, nil, t.r.cfg.Now()
		}
	})
}

// patience is how long a master may say nothing.
func (r *Replica) patience() time.Duration { return 3 * r.cfg.HeartbeatEvery }

// answerBeat completes the answer to a question that came at f.T2.
func (r *Replica) answerBeat(f *syncproto.Heartbeat) *syncproto.Heartbeat {
	f.T3, f.Head, f.Reply = r.cfg.Now().UnixMilli(), r.position().rev, true
	return f
}

// beatAnswered measures by the answer to a question.
func (r *Replica) beatAnswered(f *syncproto.Heartbeat, asked, now time.Time) {
	offset, rtt := syncproto.Offset(f.T1, f.T2, f.T3, now.UnixMilli())
	r.heard(f.Head, asked, f.AgeMillis, offset, rtt)
}

// refused is the error for a frame that is no Welcome, or that ends a session.
// It notes an expulsion.
func (r *Replica) refused(f syncproto.Frame) error {
	err := refusal(f)
	if crm.CodeOf(err) != crm.CodeRemoved || r.isExpelled() {
		return err
	}
	return errors.Join(err, r.expel())
}
