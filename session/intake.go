package session

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// An intake has a replica's pushes decided, one after the other: the half of a
// conversation that goes up. It does no I/O: what is to be sent and submitted it
// returns. It belongs to one goroutine.
type intake struct {
	srv         *Server
	node        crm.NodeID
	incarnation crm.Incarnation

	first  crm.Seq  // number of rest[0]
	rest   [][]byte // of the push under way: what is not taken yet
	flight int      // how many of them are submitted
	held   int      // bytes reserved of the backlog
}

// begin takes a push, and what is reserved for it. After an error the
// conversation is over, once what is to be sent was sent.
func (i *intake) begin(p arrival, offsetMillis int64) (Act, error) {
	if p.push == nil {
		i.srv.cfg.Observe.Refused(crm.CodeUnavailable)
		return Act{Send: frames(i.srv.Busy(&crm.Error{Code: crm.CodeUnavailable, Message: "head office is catching up"}))}, nil
	}
	i.held = p.size
	if err := i.check(p.push); err != nil {
		i.end()
		return Act{Send: frames(Refusal(err))}, errors.Join(errAnswered, err)
	}
	i.first, i.rest = p.push.First, p.push.Mutations
	return Act{Submit: i.next(offsetMillis)}, nil
}

// check returns nil for a push whose Mutations are the node's, in order.
func (i *intake) check(p *syncproto.Push) error {
	for n, raw := range p.Mutations {
		node, number, err := nameOf(raw)
		if err != nil {
			return &crm.Error{Code: syncproto.CodeFrame, Op: "read push", Message: err.Error()}
		}
		if seq := p.First + crm.Seq(n); node != i.node || number != seq {
			return &crm.Error{Code: crm.CodeForbidden, Op: "read push", Item: fmt.Sprintf("edit %d", seq),
				Message: fmt.Sprintf("it bears node %d and number %d; node %d may only send its own edits, in order", node, number, i.node)}
		}
	}
	return nil
}

// nameOf returns whose Mutation it is, or whose withheld one, and its number.
func nameOf(raw []byte) (crm.NodeID, crm.Seq, error) {
	if crm.IsWithheld(raw) {
		w, err := crm.DecodeWithheld(raw)
		return w.Node, w.Seq, err
	}
	m, err := crm.DecodeMutation(raw)
	if err != nil {
		return 0, 0, err
	}
	return m.Node, m.Seq, nil
}

// next returns what of the push goes up next, nil at its end.
func (i *intake) next(offsetMillis int64) *Submission {
	if len(i.rest) == 0 {
		i.end()
		return nil
	}
	i.flight = fitting(i.rest)
	return &Submission{Node: i.node, Incarnation: i.incarnation, OffsetMillis: offsetMillis, First: i.first, Mutations: i.rest[:i.flight]}
}

// replied goes on after what became of the last Submission: with what the leader
// did not take of it, if it took some. An unknown outcome must be resolved before.
func (i *intake) replied(r Reply, err error, offsetMillis int64) (Act, error) {
	if err != nil || !r.Taken() {
		i.end()
		return i.notTaken(r, err)
	}
	taken := i.flight
	if last := i.first + crm.Seq(i.flight) - 1; i.first <= r.Last && r.Last < last {
		taken -= int(last - r.Last)
	}
	i.first, i.rest = i.first+crm.Seq(taken), i.rest[taken:]
	return Act{Send: frames(&syncproto.Pushed{Seq: r.Last}), Submit: i.next(offsetMillis)}, nil
}

// notTaken says why Mutations were not taken, and returns an error if the
// conversation is over.
func (i *intake) notTaken(r Reply, err error) (Act, error) {
	switch {
	case err != nil && Transient(err):
		return Act{Send: frames(i.srv.Busy(err))}, nil
	case err != nil:
		return Act{Send: frames(Refusal(err))}, errors.Join(errAnswered, err)
	case r.Gap != 0:
		return Act{Send: frames(&syncproto.Gap{Expected: r.Gap})}, nil
	case r.Fork:
		return Act{Send: frames(&syncproto.Frozen{Reason: FrozenAdvice})}, errors.Join(errAnswered, &crm.Error{Code: crm.CodeFrozen, Op: "push", Message: FrozenAdvice})
	}
	return Act{Send: frames(&syncproto.Fenced{Incarnation: r.Fenced, Reason: fencedAdvice})}, errors.Join(errAnswered, &crm.Error{Code: crm.CodeFenced, Op: "push", Message: fencedAdvice})
}

// end gives back what a push holds of the backlog.
func (i *intake) end() {
	i.srv.backlog.free(i.held)
	i.rest, i.held = nil, 0
}

func frames(f ...syncproto.Frame) []syncproto.Frame { return f }

// A backlog bounds the bytes of replicas' Mutations that wait for the log, from
// their arrival on.
type backlog struct{ bytes atomic.Int64 }

const maxBacklog = 16 << 20

// An arrival is a push that waits for its turn.
type arrival struct {
	push *syncproto.Push // nil: there was no room for it
	size int             // bytes reserved of the backlog
}

// arrive reserves room for a push, or lets go of it.
func (b *backlog) arrive(p *syncproto.Push) arrival {
	size := 0
	for _, raw := range p.Mutations {
		size += len(raw)
	}
	if !b.take(size) {
		return arrival{}
	}
	return arrival{p, size}
}

// take reserves room for n bytes; the caller gives it back with free.
func (b *backlog) take(n int) bool {
	if b.bytes.Add(int64(n)) <= maxBacklog {
		return true
	}
	b.free(n)
	return false
}

func (b *backlog) free(n int) { b.bytes.Add(-int64(n)) }
