package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// The masters may be restored from a backup, or one that followed may be promoted:
// their timeline is another one then, and what was decided above the fork is not.
//
// Simple version: the base is fetched anew, and the journal sends again what the
// masters lack. What complicates it is that readers are served all along, that a
// base which was not above the fork is right as it is, and that tokens and edits
// which were made on the old content must go on to say so:
//
//   - While metaMove stands in the base, its content, Timeline and Rev are still
//     those of the old timeline. The Cursor is the fork, in the new one, and every
//     territory is asked for whole. The first final batch replaces all of it in
//     one transaction and clears metaMove.
//   - Only then are edits that the masters have lost pending again: the old
//     content shows what they did. Nobody reads in between (see gate).
//   - A node never goes back to a timeline that it has left, so that masters of
//     two, where both live, do not toss it to and fro.
const (
	// metaMove is the name in the base of the lineage that it is moved to.
	metaMove = "replica/move"
	// metaLeft is the name in the journal of the timelines that were left: 8 bytes each.
	metaLeft = "replica/left"
)

// CodeLeft says that a master is of a timeline that this node has left.
const CodeLeft crm.Code = "timeline_left"

// maxLeft bounds the timelines that a node remembers to have left.
const maxLeft = 4 * crm.MaxForks

// undated is the Rev in the tail of a decision that is not of the masters'
// timeline: no backup covers it.
const undated = crm.Pending - 1

// moveIn returns the lineage that the base is moved to; ok is false if it is not.
func moveIn(tx *store.Tx) (l crm.Lineage, ok bool, err error) {
	b, err := tx.Meta(metaMove)
	if err != nil || b == nil {
		return l, false, err
	}
	l, err = crm.DecodeLineage(b)
	return l, err == nil, err
}

// lineageOf returns the lineage that a Welcome tells of: of version 1 only the
// timeline.
func lineageOf(w *syncproto.Welcome) (crm.Lineage, error) {
	var forks []crm.Fork
	for _, f := range w.Lineage {
		forks = append(forks, crm.Fork(f))
	}
	return crm.NewLineage(w.Timeline, forks)
}

// keepTimeline compares the base's timeline with the masters' and makes it move
// if it must. errAgain is in the error's chain if the node stands elsewhere then.
func (r *Replica) keepTimeline(h *syncproto.Hello, w *syncproto.Welcome) error {
	next, err := lineageOf(w)
	if err != nil {
		return err
	}
	if w.Timeline == h.Timeline {
		return r.learn(next)
	}
	if err := r.leave(h.Timeline, next); err != nil {
		return err
	}
	if h.Cursor == 0 && h.Staged == 0 || h.Cursor > 0 && r.isSpoiled() != "" {
		return nil // there is nothing to move, or nothing that can be
	}
	r.cfg.Metrics.resync.WithLabelValues("timeline").Inc()
	return errors.Join(errAgain, r.move(h, w, next))
}

// leave notes that the node goes from one timeline to another, and refuses one
// that it has left before.
func (r *Replica) leave(from uint64, next crm.Lineage) error {
	return r.journal.Update(func(j *store.JTx) error {
		b, err := j.Meta(metaLeft)
		if err != nil {
			return err
		}
		var left []uint64
		for ; len(b) >= 8; b = b[8:] {
			left = append(left, binary.BigEndian.Uint64(b))
		}
		if slices.Contains(left, next.Timeline) {
			return &crm.Error{Code: CodeLeft, Op: "connect", Item: fmt.Sprint(next.Timeline),
				Message: fmt.Sprintf("this master decides in timeline %d, which this node has left for one that a restore began: stop the master, and let it join the restored ones anew", next.Timeline)}
		}
		for _, t := range append(ancestors(next), from) {
			if t != 0 && !slices.Contains(left, t) {
				left = append(left, t)
			}
		}
		b = nil
		for _, t := range left[max(0, len(left)-maxLeft):] {
			b = binary.BigEndian.AppendUint64(b, t)
		}
		return j.SetMeta(metaLeft, b)
	})
}

func ancestors(l crm.Lineage) (out []uint64) {
	for _, f := range l.Forks {
		out = append(out, f.Timeline)
	}
	return out
}

// learn notes the lineage of the base's own timeline, where the base was fetched
// before it could be told.
func (r *Replica) learn(l crm.Lineage) error {
	known := false
	err := r.base.View(func(tx *store.Tx) error {
		have, err := tx.Lineage()
		_, moving, err2 := moveIn(tx)
		known = moving || have.Timeline != l.Timeline || slices.Equal(have.Forks, l.Forks) || len(l.Forks) == 0
		return errors.Join(err, err2)
	})
	if err != nil || known {
		return err
	}
	if err := r.base.Update(func(tx *store.Tx) error { return tx.SetLineage(l) }); err != nil {
		return err
	}
	return r.refoldAll()
}

// move makes the base go over to the masters' timeline. What it has in common
// with them stays; a base that has nothing is fetched anew.
func (r *Replica) move(h *syncproto.Hello, w *syncproto.Welcome, next crm.Lineage) error {
	var common crm.Rev
	err := r.base.View(func(tx *store.Tx) error {
		own, err := tx.Lineage()
		common = own.Common(next)
		return err
	})
	if err != nil {
		return err
	}
	log := r.cfg.Logger.With("timeline", w.Timeline, "was", h.Timeline)
	if h.Cursor == 0 || common == 0 {
		log.Error("the masters were restored from a backup that is not known here; the base is fetched anew, edits stay")
		return r.resetBase()
	}
	var p position
	err = r.base.Update(func(tx *store.Tx) (err error) {
		if err := r.aim(tx, next, common, w.LastSeq); err != nil {
			return err
		}
		p, err = readPosition(tx)
		return err
	})
	if err != nil {
		return err
	}
	log.Error("the masters were restored from a backup; what differs is fetched, edits stay", "fork", common, "cursor", h.Cursor, "at_once", !p.isMoving())
	r.change(func(l *link) { l.heads, l.head = nil, 0 })
	r.advance(func(q *position) { p.last = q.last; *q = p })
	r.dismiss("this relay goes over to the restored masters")
	return errors.Join(r.readSuspicions(), r.refoldAll())
}

// aim makes the base one of next's timeline: at once if it is not above the
// fork, else from the next final batch on. Edits above last are to be decided
// anew.
func (r *Replica) aim(tx *store.Tx, next crm.Lineage, fork crm.Rev, last crm.Seq) error {
	rev, err := tx.Rev()
	if err != nil {
		return err
	}
	decided, err := number(tx, metaDecided)
	if err != nil {
		return err
	}
	err = errors.Join(tx.ClearStage(), tx.SetMeta(metaStaged, nil), tx.SetMeta(metaWhole, nil), tx.SetMeta(metaMove, nil),
		tx.SetMeta(metaBuckets, nil), setNumber(tx, metaDecided, min(decided, uint64(last))), tx.DropOutcomes(r.cfg.ID.Node, last))
	if err == nil && r.relay != nil {
		err = r.forgetAbove(tx, fork)
	}
	switch {
	case err != nil:
		return err
	case rev <= fork:
		return tx.SetLineage(next)
	}
	// What is suspect is replaced with all else.
	return errors.Join(setSuspicions(tx, nil), tx.SetMeta(metaMove, crm.AppendLineage(nil, next)))
}

// forgetAbove drops what a relay keeps of the Mutations of the nodes below that were
// decided above the fork: they are to be decided anew.
func (r *Replica) forgetAbove(tx *store.Tx, fork crm.Rev) error {
	var below []crm.NodeID
	for n, err := range tx.Nodes() {
		if err != nil {
			return err
		}
		if n.Node != r.cfg.ID.Node {
			below = append(below, n.Node)
		}
	}
	for _, n := range below {
		var last crm.Seq
		for o, err := range tx.Outcomes(n, 0) {
			if err != nil {
				return err
			}
			if o.Rev <= fork {
				last = o.Seq
			}
		}
		if err := tx.DropOutcomes(n, last); err != nil {
			return err
		}
	}
	return nil
}

// moved makes p where a base stands that is moved to l.
func (p *position) moved(tx *store.Tx, l crm.Lineage) error {
	own, err := tx.Lineage()
	p.shown = shown{p.timeline, p.rev}
	p.timeline, p.rev = l.Timeline, min(p.rev, own.Common(l))
	return err
}

// everywhere returns every territory that there is, as far as the base knows.
func everywhere(tx *store.Tx) ([]crm.TerritoryID, error) {
	all := []crm.TerritoryID{crm.Shared}
	for t := range tx.Territories() {
		all = append(all, t)
	}
	for rec, err := range tx.Scan(crm.EntityTerritory) {
		if err != nil {
			return nil, err
		}
		all = append(all, crm.TerritoryID(rec.Value(crm.TerritoryNumber).Int()))
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// settleTimeline writes which timeline the base is of, after a final batch.
func (c *change) settleTimeline() error {
	next, moving, err := moveIn(c.tx)
	switch {
	case err != nil:
		return err
	case moving:
		c.moved, c.all = true, true
		return errors.Join(c.tx.SetLineage(next), c.tx.SetMeta(metaMove, nil))
	}
	have, err := c.tx.Timeline()
	if err != nil || have == c.batch.Timeline {
		return err
	}
	if told := c.r.toldLineage(); told.Timeline == c.batch.Timeline {
		return c.tx.SetLineage(told)
	}
	return c.tx.SetTimeline(c.batch.Timeline)
}

// toldLineage returns the lineage that the masters told last.
func (r *Replica) toldLineage() crm.Lineage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link.lineage
}

// reopen makes the edits pending again that the journal takes for decided and the
// base does not, and reports whether it changed anything. The base must not be
// moving, nor empty.
func reopen(j *store.JTx, decided crm.Seq, at crm.Rev) (bool, error) {
	n, err := j.Reopen(decided)
	if err != nil {
		return n > 0, err
	}
	m, err := j.Redate(undated-1, at)
	return n+m > 0, err
}
