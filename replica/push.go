package replica

import (
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// maxFlights bounds the pushes that a master has not answered yet.
const maxFlights = 4

// A push sends the outbox, several frames ahead of the answers. It removes
// nothing from the outbox: only the feed does. The goroutine of session.send
// owns it.
type push struct {
	s       *session
	taken   crm.Seq // the masters have everything up to here
	next    crm.Seq // to be sent next
	flights []flight
	notNow  *time.Timer // after Busy; nil: push at once
}

// A flight is a Push that was not answered yet.
type flight struct {
	last crm.Seq
	at   []int64 // when its Mutations were acknowledged here, Unix milliseconds
	sent time.Time
}

func newPush(s *session, taken crm.Seq) *push { return &push{s: s, taken: taken, next: taken + 1} }

// due sends what the outbox holds and the master has room for.
func (p *push) due() error {
	now := p.s.r.cfg.Now()
	if len(p.flights) > 0 && now.Sub(p.flights[0].sent) > 3*p.s.r.cfg.HeartbeatEvery {
		p.rewind(p.taken + 1)
	}
	for p.notNow == nil && len(p.flights) < maxFlights && p.next <= p.s.r.position().last {
		f, fl, err := p.read()
		if err != nil {
			return err
		}
		if f == nil {
			return nil
		}
		fl.sent = now
		p.flights = append(p.flights, fl)
		p.next = fl.last + 1
		if err := p.s.conn.Send(f); err != nil {
			return err
		}
	}
	return nil
}

// read takes the next Mutations from the journal: of the outbox, and of the tail
// what masters that were restored from a backup have lost.
func (p *push) read() (*syncproto.Push, flight, error) {
	f := &syncproto.Push{First: p.next}
	fl := flight{last: p.next - 1}
	size := 0
	err := p.s.r.journal.View(func(j *store.JTx) error {
		for {
			e, where, err := j.Entry(fl.last + 1)
			if err != nil || where == store.Nowhere || size+len(e.Bytes) > syncproto.MaxPush {
				return err
			}
			size += len(e.Bytes)
			f.Mutations = append(f.Mutations, e.Bytes)
			fl.last = e.Seq
			fl.at = append(fl.at, e.At)
		}
	})
	if err != nil {
		return nil, fl, err
	}
	if len(f.Mutations) == 0 {
		return nil, fl, &crm.Error{Code: crm.CodeFrozen, Op: "push", Item: fmt.Sprintf("edit %d", p.next),
			Message: "the masters ask for an edit that this node has not kept; an admin must let the node join anew"}
	}
	return f, fl, nil
}

// heard takes the master's answer to a Push.
func (p *push) heard(f syncproto.Frame) {
	switch f := f.(type) {
	case *syncproto.Pushed:
		p.landed(f.Seq)
	case *syncproto.Gap:
		if f.Expected > p.taken {
			p.rewind(f.Expected)
		}
	case *syncproto.Busy:
		p.rewind(p.taken + 1)
		wait := time.Duration(f.RetryAfterMillis) * time.Millisecond
		p.notNow = time.NewTimer(wait + p.s.r.jitter(wait/2))
	}
}

// landed notes that the Mutations up to seq are durable in the masters' log.
func (p *push) landed(seq crm.Seq) {
	now := p.s.r.cfg.Now().UnixMilli()
	for len(p.flights) > 0 && p.flights[0].last <= seq {
		for _, at := range p.flights[0].at {
			p.s.r.cfg.Metrics.shipped.Inc()
			p.s.r.cfg.Metrics.shipTime.Observe(float64(now-at) / 1000)
		}
		p.flights = p.flights[1:]
	}
	p.taken = max(p.taken, seq)
	p.next = max(p.next, p.taken+1)
}

// rewind sends again from seq on. What the master has already taken it knows by
// number and hash.
func (p *push) rewind(seq crm.Seq) { p.next, p.flights = seq, nil }

// wait fires when a Busy master may be asked again.
func (p *push) wait() <-chan time.Time {
	if p.notNow == nil {
		return nil
	}
	return p.notNow.C
}
