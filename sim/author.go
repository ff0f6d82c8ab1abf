package sim

import (
	"errors"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// An author has the edits of head office decided that one master takes: one
// after the other, each repeated until its outcome is known. As in production
// each process of a master begins an incarnation of its own, so that nothing an
// earlier one has left under way can take its numbers; an edit that was under way
// then was never acknowledged.
type author struct {
	m           *masterNode
	queue       []*order
	admitted    bool
	incarnation crm.Incarnation
	next        crm.Seq
	chain       crm.ChainHash
	raw         []byte // of the edit under way; nil: none is
}

// An order is an edit that waits for its turn.
type order struct {
	request crm.Request
	then    func(crm.Seq, crm.Outcome, error)
}

// Commit has an edit decided. then is told the outcome once this master shows it.
func (a *author) Commit(req crm.Request, then func(crm.Seq, crm.Outcome, error)) {
	a.queue = append(a.queue, &order{req, then})
	if len(a.queue) == 1 {
		a.begin()
	}
}

// begin takes the first edit of the queue.
func (a *author) begin() {
	if !a.admitted {
		a.beAdmitted()
		return
	}
	lineage, named := a.m.speech()
	m := a.queue[0].request.Mutation(a.m.id, lineage, named)
	m.Incarnation, m.Seq, m.Prev, m.HLC = a.incarnation, a.next, a.chain, crm.NewHLC(a.m.now().UnixMilli())
	a.raw = crm.AppendMutation(nil, m)
	a.submit()
}

// speech returns what head office's edits are written in, as package master does.
func (m *masterNode) speech() (l crm.Lineage, named bool) {
	err := m.fsm.DB().View(func(tx *store.Tx) error {
		level, err := session.LevelIn(tx)
		if err != nil {
			return err
		}
		named = level >= levelTimelines
		l, err = tx.Lineage()
		return err
	})
	if err != nil {
		m.w.fail("%s: %w", m.name, err)
	}
	return l, named
}

func (a *author) beAdmitted() {
	m := a.m
	h := &syncproto.Hello{ProtoMin: syncproto.MinVersion, ProtoMax: syncproto.MaxVersion, Cluster: cluster, Node: m.id, NextSeq: 1, Sent: m.now().UnixMilli()}
	m.greet(h, func(f syncproto.Frame, err error) {
		w, ok := f.(*syncproto.Welcome)
		if err != nil || !ok {
			m.after(authorPause, a.beAdmitted)
			return
		}
		a.admitted, a.incarnation, a.next, a.chain = true, w.Incarnation, w.LastSeq+1, w.LastHash
		a.begin()
	})
}

func (a *author) submit() {
	s := session.Submission{Node: a.m.id, Incarnation: a.incarnation, First: a.next, Mutations: [][]byte{a.raw}}
	a.m.submit(s, func(r session.Reply, err error) {
		switch {
		case errors.Is(err, session.ErrUnknown), err != nil && session.Transient(err):
			a.m.after(authorPause, a.submit)
		case err != nil:
			a.done(crm.Outcome{}, err)
		case r.Gap != 0 || r.Fork || r.Fenced != 0:
			a.admitted = false
			a.done(crm.Outcome{}, &crm.Error{Code: crm.CodeFenced, Op: "edit", Message: "another process runs with this master's number"})
		default:
			a.decided()
		}
	})
}

// decided waits until this master shows what was decided.
func (a *author) decided() {
	m, seq := a.m, a.next
	a.next, a.chain = seq+1, crm.Chain(a.chain, a.raw)
	m.expect(settleWait, func() bool { return m.state(m.id).LastSeq >= seq }, func(ok bool) {
		if !ok {
			a.done(crm.Outcome{}, &crm.Error{Code: crm.CodeTimeout, Op: "edit", Message: "this master is behind"})
			return
		}
		o := crm.Outcome{Node: m.id, Seq: seq, Kind: crm.Accepted}
		err := m.fsm.DB().View(func(tx *store.Tx) error {
			kept, ok, err := tx.Outcome(m.id, seq)
			if ok {
				o = kept
			}
			return err
		})
		a.done(o, err)
	})
}

func (a *author) done(o crm.Outcome, err error) {
	first := a.queue[0]
	a.queue, a.raw = a.queue[1:], nil
	first.then(o.Seq, o, err)
	if len(a.queue) > 0 && a.raw == nil {
		a.begin()
	}
}

// state returns what this master has committed of a node.
func (m *masterNode) state(id crm.NodeID) (n store.NodeState) {
	if err := m.fsm.DB().View(func(tx *store.Tx) (err error) { n, _, err = tx.Node(id); return err }); err != nil {
		m.w.fail("%s: %v", m.name, err)
	}
	return n
}
