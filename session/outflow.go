package session

import (
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

const (
	// heartbeatEvery is the time between two questions to a replica.
	heartbeatEvery = 30 * time.Second
	// lazyHead is how long a replica may not be told of a head that changes nothing
	// for it, so that an idle branch costs little while others work.
	lazyHead = 200 * time.Millisecond
)

// An outflow says when a replica is sent what: batches and questions. It is the
// half of a conversation that comes down, and belongs to one goroutine.
type outflow struct {
	srv    *Server
	feed   *Feed
	spoken uint16 // the version of the session
	most   uint16 // the newest that both sides know

	read   bool      // a batch was read
	head   crm.Rev   // its To
	more   bool      // it was a part, and was sent
	lazyAt time.Time // when a head that changes nothing is told; zero: no such head
	beatAt time.Time // of the next question

	unapplied
	repairs repairs
}

func newOutflow(s *Server, site string, h *syncproto.Hello, w *syncproto.Welcome, now time.Time) outflow {
	f := NewFeed(&s.rosters, site, h, w)
	f.server = s.cfg.Relay
	return outflow{srv: s, feed: f, spoken: w.Proto, most: min(h.ProtoMax, s.cfg.Protocol), beatAt: now, repairs: repairs{left: repairBurst, at: now}}
}

// due returns what is to be sent now: a question, and at most one batch.
func (o *outflow) due(now time.Time) ([]syncproto.Frame, error) {
	var out []syncproto.Frame
	if !now.Before(o.beatAt) {
		o.beatAt = now.Add(heartbeatEvery)
		if err := o.current(); err != nil {
			return nil, err
		}
		out = append(out, &syncproto.Heartbeat{T1: now.UnixMilli(), Head: o.srv.cfg.Head()})
	}
	if r := o.repairs.due(now); r != nil {
		o.rewind(r)
	}
	b, err := o.batch(now)
	if b != nil {
		out = append(out, b)
	}
	return out, err
}

// current returns errOutdated once the log has activated a newer version than the
// session's that both sides know.
func (o *outflow) current() error {
	if o.spoken >= o.most {
		return nil
	}
	return o.srv.cfg.DB.View(func(tx *store.Tx) error {
		level, err := LevelIn(tx)
		if err == nil && min(level, o.most) > o.spoken {
			err = errOutdated
		}
		return err
	})
}

// catchesUp reports whether the next batch may be one of many.
func (o *outflow) catchesUp() bool { return !o.read || o.more }

// batch returns the next batch if it must go now. What it returns counts as
// sent.
func (o *outflow) batch(now time.Time) (*syncproto.Batch, error) {
	if !o.more && o.full() {
		return nil, nil
	}
	late := !o.lazyAt.IsZero() && !now.Before(o.lazyAt)
	if o.read && !o.more && !late && o.srv.cfg.Head() == o.head {
		return nil, nil
	}
	var b *syncproto.Batch
	err := o.srv.cfg.DB.View(func(tx *store.Tx) (err error) {
		b, err = o.feed.Next(tx)
		return err
	})
	if crm.CodeOf(err) == crm.CodeCorrupt && o.srv.cfg.Damaged != nil {
		o.srv.cfg.Damaged(err)
	}
	if err != nil {
		return nil, err
	}
	o.read, o.head = true, b.To
	for range o.feed.foreign() {
		o.srv.cfg.Observe.Repair(RepairRefused)
	}
	if o.feed.Matters(b) || late && b.To > o.feed.Cursor() {
		o.more, o.lazyAt = !b.Final, time.Time{}
		o.feed.Sent(b)
		o.sent(b)
		return b, nil
	}
	if late {
		o.lazyAt = time.Time{}
	}
	if b.To > o.feed.Cursor() && o.lazyAt.IsZero() {
		o.lazyAt = now.Add(lazyHead)
	}
	return nil, nil
}

// heard takes a Repair; one before it that was not answered is forgotten.
func (o *outflow) heard(r *syncproto.Repair) {
	o.srv.cfg.Observe.Repair(RepairAsked)
	o.repairs.waiting = r
}

// rewind has the next final batch answer a Repair.
func (o *outflow) rewind(r *syncproto.Repair) {
	o.srv.cfg.Logger.Warn("a replica does not hold what this node does and is sent it again", "node", o.feed.node, "territories", len(r.Wants), "from", r.Cursor)
	o.srv.cfg.Observe.Repair(RepairAnswered)
	o.feed.Rewind(r)
	o.read, o.more, o.lazyAt, o.unapplied = false, false, time.Time{}, unapplied{}
}

// next is when due must be asked again, if nothing changes before.
func (o *outflow) next(now time.Time) time.Time {
	if o.more {
		return now
	}
	next := o.beatAt
	if !o.lazyAt.IsZero() && o.lazyAt.Before(next) && !o.full() {
		next = o.lazyAt
	}
	if at, waiting := o.repairs.next(); waiting && at.Before(next) {
		next = at
	}
	return next
}

// answer completes the answer to a question that came at q.T2.
func (o *outflow) answer(q *syncproto.Heartbeat, now time.Time) *syncproto.Heartbeat {
	q.Reply, q.T3, q.Head = true, now.UnixMilli(), o.srv.cfg.Head()
	if o.spoken >= versionRelays {
		q.AgeMillis = o.srv.age()
	}
	return q
}
