package replica

import (
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// An upflow says when a master is sent what: pushes, how far the base is, and
// questions. It is the half of a conversation that goes up, and belongs to one
// goroutine.
type upflow struct {
	push
	reported crm.Rev   // Cursor that the master was told
	beatAt   time.Time // of the next question
}

func newUpflow(r *Replica, w *syncproto.Welcome, now time.Time) upflow {
	return upflow{push: push{r: r, start: w.LastSeq, hash: w.LastHash, taken: w.LastSeq, next: w.LastSeq + 1}, beatAt: now.Add(r.cfg.HeartbeatEvery)}
}

// due returns what is to be sent now. It depends on the state only, never on a
// wake-up that may have been missed.
func (u *upflow) due(now time.Time) ([]syncproto.Frame, error) {
	out, err := u.pushes(now)
	if err != nil {
		return out, err
	}
	if f := u.report(); f != nil {
		out = append(out, f)
	}
	return out, nil
}

// report tells the master how far the base is; nil if it knows.
func (u *upflow) report() syncproto.Frame {
	u.r.mu.Lock()
	f := &syncproto.Applied{Cursor: u.r.pos.rev, LowBase: u.r.low}
	u.r.mu.Unlock()
	if f.Cursor == u.reported {
		return nil
	}
	u.reported = f.Cursor
	return f
}

// beatDue reports whether it is time for a question, once.
func (u *upflow) beatDue(now time.Time) bool {
	if now.Before(u.beatAt) {
		return false
	}
	u.beatAt = now.Add(u.r.cfg.HeartbeatEvery)
	u.r.measureLag()
	u.r.measureAge()
	u.r.measureSuspicion()
	return true
}

// wakeAt is when due must be asked again, if nothing changes before.
func (u *upflow) wakeAt() time.Time {
	at := u.beatAt
	for _, t := range []time.Time{u.notNow, u.overdue()} {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	return at
}
