package replica

import (
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// renumber puts the edits that an old copy of the disk has taken behind the ones
// that the masters have of this node.
//
// Simple version: each unsent Mutation gets the next number after w.LastSeq and
// is chained to the one before. What complicates it: the outbox of the copy may
// hold Mutations that were sent after the copy was made. They stay, and the feed
// will settle them; the masters' chain hashes say which they are. Masters that
// speak an older version, or do not remember so far back, do not tell. Then they are
// taken to be those that were there when this disk was first opened without having
// met a master since, for the original sent them in order. If the copy was made
// while the node was itself offline, that leaves some that are sent again: a
// repeated edit is seen and a lost one is not.
func renumber(j *store.JTx, id *store.Identity, h *syncproto.Hello, w *syncproto.Welcome) (*renumbering, error) {
	own, err := parting(j, id, h, w)
	if err != nil {
		return nil, err
	}
	if own == 0 {
		opened, err := number(j, metaOpened)
		if err != nil {
			return nil, err
		}
		own = crm.Seq(opened)
	}
	moved, known, err := unsent(j, own)
	if err != nil {
		return nil, err
	}
	next, chain := w.LastSeq+1, w.LastHash
	out := &renumbering{had: id.NextSeq - 1, masters: w.LastSeq, known: known, names: map[crm.Seq]crm.Seq{}}
	s := screens{names: out.names, shared: max(own, 1) - 1, made: map[crm.RecordID]bool{}}
	for i, m := range moved {
		out.names[m.Seq] = next + crm.Seq(i)
		s.note(&m.Mutation)
	}
	for i := range moved {
		if chain, err = move(j, &moved[i], s, chain); err != nil {
			return nil, err
		}
	}
	id.NextSeq, id.Chain = next+crm.Seq(len(moved)), chain
	out.last = id.NextSeq - 1
	return out, setNumber(j, metaOpened, uint64(next))
}

// parting returns the number of the first edit of this disk that is not the one
// that the masters have under it, 0 if w does not tell. A chain hash stands for all
// edits up to its own.
func parting(j *store.JTx, id *store.Identity, h *syncproto.Hello, w *syncproto.Welcome) (crm.Seq, error) {
	seq := min(w.LastSeq, h.NextSeq-1)
	for _, theirs := range slices.Backward(w.Trail) {
		ours, known, err := chainAt(j, id, seq)
		if err != nil {
			return 0, err
		}
		if known && ours == theirs {
			return seq + 1, nil
		}
		seq--
	}
	return 0, nil
}

// chainAt returns the chain hash after an own Mutation, and whether it is known.
func chainAt(j *store.JTx, id *store.Identity, seq crm.Seq) (crm.ChainHash, bool, error) {
	if seq+1 == id.NextSeq {
		return id.Chain, true, nil
	}
	e, where, err := j.Entry(seq)
	return e.Chain, where != store.Nowhere, err
}

// A renumbering says what renumber did.
type renumbering struct {
	had, masters, last crm.Seq             // the newest Seq before, of the masters, and now
	known              []crm.Seq           // of the outbox, taken to be what the masters have
	names              map[crm.Seq]crm.Seq // old number → new one
}

// move appends m under its new number and returns the chain hash after it.
func move(j *store.JTx, m *movable, s screens, prev crm.ChainHash) (crm.ChainHash, error) {
	if err := j.DropTail(m.Seq); err != nil {
		return prev, err
	}
	s.rename(&m.Mutation, prev)
	encoded := crm.AppendMutation(nil, &m.Mutation)
	chain := crm.Chain(prev, encoded)
	return chain, j.Append(store.Entry{Seq: m.Seq, At: m.at, Chain: chain, Bytes: encoded})
}

// A movable is a Mutation of the outbox under its old number.
type movable struct {
	crm.Mutation
	at int64
}

// unsent takes the Mutations from own on out of the outbox into the tail,
// and with them, since the queue is settled from its front, those before, which
// the masters have.
func unsent(j *store.JTx, own crm.Seq) (moved []movable, known []crm.Seq, err error) {
	for e, err := range j.Outbox(0) {
		if err != nil {
			return nil, nil, err
		}
		if e.Seq < own || e.Withheld {
			known = append(known, e.Seq)
			continue
		}
		m, err := crm.DecodeMutation(e.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("outbox entry %d: %w", e.Seq, err)
		}
		moved = append(moved, movable{*m, e.At})
	}
	all := slices.Clone(known)
	for _, m := range moved {
		all = append(all, m.Seq)
	}
	for _, seq := range all {
		if _, err := j.Untouch(seq); err != nil {
			return nil, nil, err
		}
	}
	if len(all) > 0 {
		_, err = j.Settle(all[len(all)-1], 0)
	}
	return moved, known, err
}

// screens is what the authors of the moved edits had seen.
type screens struct {
	names  map[crm.Seq]crm.Seq
	shared crm.Seq               // up to here this disk and the masters have the same edits
	made   map[crm.RecordID]bool // records that the moved edits make
}

func (s screens) note(m *crm.Mutation) {
	for _, op := range m.Ops {
		if op.Kind == crm.OpCreate {
			s.made[op.Record] = true
		}
	}
}

// rename gives m its new number. Its author's screen showed moved edits, whose
// new numbers are above those of edits that it did not show and that the masters
// have from the other copy. A Seq cannot name the ones without the others, so
// only for a record made here does it follow; else the moved edits count as
// unseen too, and a master keeps what they overwrite.
func (s screens) rename(m *crm.Mutation, prev crm.ChainHash) {
	m.Seq, m.Prev = s.names[m.Seq], prev
	for i := range m.Ops {
		seen := &m.Ops[i].Seen
		seq, moved := s.names[seen.Seq]
		switch {
		case moved && s.made[m.Ops[i].Record]:
			seen.Seq = seq
		case moved:
			seen.Seq = s.shared
		}
	}
}

// renumbered makes a renumbering known, also to those who wait for an old number.
func (r *Replica) renumbered(n *renumbering) {
	r.cfg.Logger.Error("this disk was rolled back: its new edits were renumbered", "had", n.had, "masters_have", n.masters, "renumbered", len(n.names), "taken_to_be_sent", n.known)
	r.cfg.Metrics.resync.WithLabelValues("rollback").Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	for old, seq := range n.names {
		r.moves[old] = seq
	}
	r.rolledBack = false
	r.pos.last = max(r.pos.last, n.last)
}

// renamed returns the number under which a Mutation of this node goes now.
func (r *Replica) renamed(seq crm.Seq) crm.Seq {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		now, ok := r.moves[seq]
		if !ok || now == seq {
			return seq
		}
		seq = now
	}
}

// chainLost reports whether this node cannot chain an edit to the one before,
// because its journal is older than its base.
func (r *Replica) chainLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rolledBack
}

// refoldAll folds the overlay anew from the outbox.
func (r *Replica) refoldAll() error {
	r.setUnfolded()
	return r.folding(func(bool) error {
		return r.journal.Update(func(j *store.JTx) error {
			return r.base.View(func(tx *store.Tx) error {
				if rev, err := tx.Rev(); err != nil || rev == 0 {
					return err
				}
				f, err := r.newFolder(j, tx)
				if err != nil {
					return err
				}
				return f.all()
			})
		})
	})
}
