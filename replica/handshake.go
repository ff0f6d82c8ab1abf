package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// errAgain ends a handshake after which the node has something else to say.
var errAgain = errors.New("the node must introduce itself anew")

// Hello says who the node is and where its files stand, after it has repaired
// what an error between their transactions may have left. It is to be sent at
// once.
func (r *Replica) Hello() (*syncproto.Hello, error) {
	if err := errors.Join(r.journal.Mend(), r.base.Mend()); err != nil {
		return nil, err // what it would tell may not last
	}
	if err := r.reconcile(); err != nil {
		return nil, err
	}
	suspect := r.suspected()
	if len(suspect) > 0 {
		// What is staged may be part of a repair that cannot be finished as it began.
		if err := r.unstage(); err != nil {
			return nil, err
		}
	}
	h := &syncproto.Hello{ProtoMin: syncproto.MinVersion, ProtoMax: r.cfg.Protocol, Cluster: r.cfg.ID.Cluster, Node: r.cfg.ID.Node}
	err := r.journal.View(func(j *store.JTx) error {
		return r.base.View(func(tx *store.Tx) error {
			id, err := j.Identity()
			if err != nil {
				return err
			}
			p, err := readPosition(tx)
			if err == nil {
				h.Resend, err = r.resend(j, tx, p, suspect)
			}
			h.Incarnation, h.NextSeq, h.Chain = id.Incarnation, id.NextSeq, id.Chain
			h.Timeline, h.Cursor, h.Staged, h.Schema = p.timeline, p.rev, p.staged, tx.Schema().Version
			h.Bootstrap = p.rev == 0 && p.staged == 0
			return err
		})
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	h.LowBase = r.low
	h.Sent = r.cfg.Now().UnixMilli()
	return h, err
}

// resend returns the territories to be asked for whole: all of them while the base
// is moved to another timeline, else those that are suspect, for masters that
// cannot be asked for buckets.
func (r *Replica) resend(j *store.JTx, tx *store.Tx, p position, suspect []suspicion) (out []crm.TerritoryID, err error) {
	if p.isMoving() {
		return everywhere(tx)
	}
	spoken, err := number(j, metaSpoken)
	if err != nil || spoken >= repairVersion {
		return nil, err
	}
	for _, s := range suspect {
		out = append(out, s.territory)
	}
	return out, nil
}

// refusal is the error for a frame that is no Welcome, or that ends a session.
func refusal(f syncproto.Frame) error {
	switch f := f.(type) {
	case *syncproto.Refused:
		return &refusedBy{&crm.Error{Code: f.Code, Op: "connect", Message: f.Message}}
	case *syncproto.Fenced:
		return &crm.Error{Code: crm.CodeFenced, Op: "connect",
			Message: fmt.Sprintf("the masters know incarnation %d of this node: this disk is an old copy (%s); stop this node, or let it join anew", f.Incarnation, f.Reason)}
	case *syncproto.Frozen:
		return &crm.Error{Code: crm.CodeFrozen, Op: "connect", Message: "two histories bear this node's number: " + f.Reason + "; an admin must choose one"}
	case *syncproto.Busy:
		return &crm.Error{Code: crm.CodeUnavailable, Op: "connect", Message: "the master is busy: " + f.Reason}
	}
	return &crm.Error{Code: syncproto.CodeFrame, Op: "connect", Message: fmt.Sprintf("a %s was not expected here", f.Kind())}
}

// A refusedBy is what a master said in a Refused.
type refusedBy struct{ cause *crm.Error }

func (r *refusedBy) Error() string { return r.cause.Error() }
func (r *refusedBy) Unwrap() error { return r.cause }

// judge compares what the masters have of this node with its own files, and
// mends what a restore on either side has put out of step.
func (r *Replica) judge(h *syncproto.Hello, w *syncproto.Welcome) error {
	if err := r.keepTimeline(h, w); err != nil {
		return err
	}
	if what := r.isSpoiled(); what != "" && h.Cursor > 0 {
		r.cfg.Logger.Error("the base is damaged and is fetched anew; edits stay", "cause", what)
		return errors.Join(errAgain, r.resetBase())
	}
	var moved *renumbering
	err := r.journal.Update(func(j *store.JTx) error {
		id, err := j.Identity()
		if err != nil {
			return err
		}
		if moved, err = r.compare(j, &id, h, w); err != nil {
			return err
		}
		if moved != nil && w.Incarnation == h.Incarnation {
			id.Incarnation = 0
			return j.SetIdentity(id)
		}
		id.Incarnation, id.Timeline = w.Incarnation, w.Timeline
		if err := r.tolerate(r.keepTail(j, w)); err != nil {
			return err
		}
		return errors.Join(j.SetIdentity(id), setNumber(j, metaSpoken, uint64(w.Proto)), j.SetMeta(metaContact, []byte{1}))
	})
	if moved != nil && (err == nil || crm.CodeOf(err) == crm.CodeUnsynced) { // then it is seen already
		r.renumbered(moved)
		r.setUnfolded()
	}
	if err != nil || moved == nil {
		return err
	}
	if err := r.refoldAll(); err != nil || w.Incarnation != h.Incarnation {
		return err
	}
	return errAgain
}

// compare tells a history that goes on where the masters' one ends from an old
// copy of it, which it renumbers, and from a fork, for which it returns an error.
func (r *Replica) compare(j *store.JTx, id *store.Identity, h *syncproto.Hello, w *syncproto.Welcome) (*renumbering, error) {
	if w.LastSeq >= id.NextSeq || r.chainLost() {
		return renumber(j, id, h, w)
	}
	if w.LastSeq == 0 {
		return nil, nil
	}
	hash := id.Chain
	if w.LastSeq+1 < id.NextSeq {
		e, where, err := j.Entry(w.LastSeq)
		if err != nil || where == store.Nowhere {
			return nil, err
		}
		hash = e.Chain
	}
	if hash != w.LastHash && w.LastSeq+1 == id.NextSeq && w.Incarnation != h.Incarnation {
		return renumber(j, id, h, w)
	}
	if hash != w.LastHash {
		return nil, &crm.Error{Code: crm.CodeFrozen, Op: "connect", Item: fmt.Sprintf("node %d", id.Node),
			Message: fmt.Sprintf("edit %d of this disk is not the one that the masters have under that number: it was rolled back or copied; an admin must choose one history", w.LastSeq)}
	}
	return nil, nil
}

// welcomed makes a session known.
func (r *Replica) welcomed(t *Talk, w *syncproto.Welcome, asked time.Time) {
	offset, rtt := syncproto.Offset(w.HelloSent, w.Received, w.Sent, r.cfg.Now().UnixMilli())
	r.mu.Lock()
	r.pos.timeline = w.Timeline
	r.mu.Unlock()
	r.change(func(l *link) {
		l.talk, l.trouble, l.backup, l.spoken = t, nil, w.Backup, w.Proto
		if told, err := lineageOf(w); err == nil {
			l.lineage = told
		}
		l.masters = w.Masters
		l.heads = nil
	})
	r.heard(w.Head, asked, w.AgeMillis, offset, rtt)
}
