package replica

import (
	"errors"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// What a master says is believed because its certificate is the cluster's. Even
// so it is refused where it cannot be true: a master with a bug, or one whose
// certificate was stolen, must not take an edit out of the outbox or turn a
// record back. What is refused changes nothing here and ends the session.

// plausibleWelcome judges a Welcome by itself and by the Hello that it answers.
func plausibleWelcome(h *syncproto.Hello, w *syncproto.Welcome) error {
	switch {
	case w.Backup > w.Head:
		return badWelcome("a backup of the masters covers %d and their head is %d", w.Backup, w.Head)
	case w.Timeline == h.Timeline && w.Head < h.Cursor:
		return badWelcome("the master is at %d and this node at %d", w.Head, h.Cursor)
	case len(w.Trail) > int(min(w.LastSeq, h.NextSeq-1, syncproto.MaxTrail)):
		return badWelcome("it has %d chain hashes, of the %d edits of the masters and %d of this node", len(w.Trail), w.LastSeq, h.NextSeq-1)
	case w.Incarnation == 0:
		return badWelcome("it names no incarnation of this node")
	}
	return nil
}

func badWelcome(format string, args ...any) error {
	return &crm.Error{Code: syncproto.CodeFrame, Op: "connect", Message: fmt.Sprintf(format, args...)}
}

// plausible judges what a batch says of this node's own Mutations: none is
// decided twice, and none that was never made.
func (r *Replica) plausible(b *syncproto.Batch, p position) error {
	decided := max(b.Decided, p.decided)
	for _, o := range b.Outcomes {
		if o.Node == r.cfg.ID.Node {
			decided = max(decided, o.Seq)
		}
		if o.Rev > b.To {
			return badBatch("it ends at %d and an outcome is of %d", b.To, o.Rev)
		}
	}
	if b.Final && b.Decided < p.decided {
		return badBatch("this node's edits up to %d are said to be decided, and %d were", b.Decided, p.decided)
	}
	if decided <= p.last {
		return nil
	}
	made, err := r.made()
	if err == nil && decided > made {
		err = badBatch("it decides edit %d and this node made %d", decided, made)
	}
	return err
}

// made returns the number of the newest own Mutation. The position may not know
// one yet that is on its way already.
func (r *Replica) made() (seq crm.Seq, err error) {
	err = r.journal.View(func(j *store.JTx) error {
		id, err := j.Identity()
		seq = id.NextSeq - 1
		return err
	})
	return seq, err
}

// plausibleRecord judges a record that comes up to the Rev to: it was decided by
// then, and not before what is here.
func plausibleRecord(old, now *crm.Record, to crm.Rev) error {
	newest := max(now.Stamp.Rev, now.Entered)
	for i := range now.Cells {
		newest = max(newest, now.Cells[i].Stamp.Rev)
	}
	if newest > to {
		return badBatch("it ends at %d and record %s is of %d", to, now.ID, newest)
	}
	if old != nil && now.Stamp.Rev < old.Stamp.Rev {
		return badBatch("record %s is of %d here and comes as of %d", now.ID, old.Stamp.Rev, now.Stamp.Rev)
	}
	return nil
}

// count counts err if it says that a master's frame was refused, and returns it.
func (r *Replica) count(err error) error {
	e, ok := errors.AsType[*crm.Error](err)
	if ok && (e.Code == syncproto.CodeFrame || e.Code == syncproto.CodeVersion) {
		r.cfg.Metrics.refused.WithLabelValues(string(e.Code)).Inc()
	}
	return err
}
