package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// maxFlights bounds the pushes that a master has not answered yet.
const maxFlights = 4

// A push sends the outbox, several frames ahead of the answers. It removes
// nothing from the outbox: only the feed does.
type push struct {
	r       *Replica
	start   crm.Seq       // what the masters had at the Welcome
	hash    crm.ChainHash // after it
	taken   crm.Seq       // the masters have everything up to here
	next    crm.Seq       // to be sent next
	sent    crm.Seq       // everything sent was up to here
	flights []flight
	notNow  time.Time // of a Busy master: when it may be asked again; zero: at once
}

// A flight is a Push that was not answered yet.
type flight struct {
	last crm.Seq
	at   []int64 // when its Mutations were acknowledged here, Unix milliseconds
	sent time.Time
}

// pushes returns what the outbox holds and the master has room for. It counts as
// sent.
func (p *push) pushes(now time.Time) (out []syncproto.Frame, err error) {
	if late := p.overdue(); !late.IsZero() && !now.Before(late) {
		p.rewind(p.taken + 1)
	}
	if !now.Before(p.notNow) {
		p.notNow = time.Time{}
	}
	for p.notNow.IsZero() && len(p.flights) < maxFlights && p.next <= p.r.position().last {
		f, fl, err := p.read()
		if crm.CodeOf(err) == crm.CodeCorrupt {
			return out, p.r.tolerate(err) // what comes behind is chained to what cannot be read
		}
		if err != nil {
			return out, err
		}
		fl.sent = now
		p.flights = append(p.flights, fl)
		p.next, p.sent = fl.last+1, max(p.sent, fl.last)
		out = append(out, f)
	}
	return out, nil
}

// overdue is when the oldest flight counts as lost; zero if there is none.
func (p *push) overdue() time.Time {
	if len(p.flights) == 0 {
		return time.Time{}
	}
	return p.flights[0].sent.Add(3*p.r.cfg.HeartbeatEvery + 1)
}

// read takes the next Mutations from the journal: of the outbox, and of the tail
// what masters that were restored from a backup have lost. It takes what one entry
// of the masters' log holds, so that none is made for a few that are left over.
func (p *push) read() (*syncproto.Push, flight, error) {
	f := &syncproto.Push{First: p.next}
	fl := flight{last: p.next - 1}
	size := 0
	if err := p.r.journal.Mend(); err != nil {
		return nil, fl, err // a master must not hear of what a crash may take back
	}
	err := p.r.journal.View(func(j *store.JTx) error {
		for {
			e, where, err := j.Entry(fl.last + 1)
			if err == nil && e.Withheld {
				e.Bytes, err = p.standIn(j, e)
			}
			if crm.CodeOf(err) == crm.CodeCorrupt && len(f.Mutations) > 0 {
				return nil
			}
			if size += len(e.Bytes) + serving.RoomHead; err != nil || where == store.Nowhere || size > serving.Room {
				return err
			}
			f.Mutations = append(f.Mutations, e.Bytes)
			fl.last = e.Seq
			fl.at = append(fl.at, e.At)
		}
	})
	if err != nil {
		return nil, fl, err
	}
	if len(f.Mutations) == 0 {
		return nil, fl, lacking(p.next)
	}
	return f, fl, nil
}

// standIn returns what is sent in place of a Mutation that this node may not hold
// any more.
func (p *push) standIn(j *store.JTx, e store.Entry) ([]byte, error) {
	id, err := j.Identity()
	if err != nil {
		return nil, err
	}
	spoken, err := number(j, metaSpoken)
	if err != nil {
		return nil, err
	}
	w := crm.Withheld{Node: id.Node, Incarnation: id.Incarnation, Seq: e.Seq, Prev: p.hash, After: e.Chain}
	if e.Seq != p.start+1 {
		before, where, err := j.Entry(e.Seq - 1)
		if err != nil || where == store.Nowhere {
			return nil, errors.Join(err, lacking(e.Seq-1))
		}
		w.Prev = before.Chain
	}
	if spoken < spokenNamed {
		return nil, lacking(e.Seq)
	}
	return crm.AppendWithheld(nil, w), nil
}

// lacking is the error for an edit that the masters ask for in vain.
func lacking(seq crm.Seq) error {
	return &crm.Error{Code: crm.CodeFrozen, Op: "push", Item: fmt.Sprintf("edit %d", seq),
		Message: "the masters ask for an edit that this node has not kept: they were restored from an older backup than the last one; restore the newest, or let the node join anew"}
}

// heard takes the master's answer to a Push.
func (p *push) heard(f syncproto.Frame, now time.Time) {
	switch f := f.(type) {
	case *syncproto.Pushed:
		p.landed(min(f.Seq, max(p.sent, p.taken)), now)
	case *syncproto.Gap:
		if f.Expected > p.taken && f.Expected <= p.sent+1 {
			p.rewind(f.Expected)
		}
	case *syncproto.Busy:
		p.rewind(p.taken + 1)
		wait := min(time.Duration(f.RetryAfterMillis)*time.Millisecond, p.r.cfg.BackoffMax)
		p.notNow = now.Add(wait + p.r.jitter(wait/2))
	}
}

// landed notes that the Mutations up to seq are durable in the masters' log.
func (p *push) landed(seq crm.Seq, now time.Time) {
	for len(p.flights) > 0 && p.flights[0].last <= seq {
		for _, at := range p.flights[0].at {
			p.r.cfg.Metrics.shipped.Inc()
			p.r.cfg.Metrics.shipTime.Observe(float64(now.UnixMilli()-at) / 1000)
		}
		p.flights = p.flights[1:]
	}
	p.taken = max(p.taken, seq)
	p.next = max(p.next, p.taken+1)
}

// rewind sends again from seq on. What the master has already taken it knows by
// number and hash.
func (p *push) rewind(seq crm.Seq) { p.next, p.flights = seq, nil }
