package replica

import (
	"context"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// An Entry is a Mutation of this node that no master has decided.
type Entry struct {
	At       time.Time // when it was acknowledged here
	Mutation *crm.Mutation
	Bytes    int // encoded
}

// Outbox returns the Mutations that no master has decided, by Seq.
func (r *Replica) Outbox(ctx context.Context) ([]Entry, error) {
	var out []Entry
	err := r.journal.View(func(j *store.JTx) error {
		for e, err := range j.Outbox(0) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			if e.Withheld {
				continue // it is sent as a number only
			}
			m, err := crm.DecodeMutation(e.Bytes)
			if err != nil {
				return err
			}
			out = append(out, Entry{time.UnixMilli(e.At).UTC(), m, len(e.Bytes)})
		}
		return nil
	})
	return out, err
}

// Await returns the outcome of this node's Mutation once it is decided and the
// decision shows in reads. If ctx ends first the error has CodeTimeout: the
// edit is safe here and will be decided.
func (r *Replica) Await(ctx context.Context, seq crm.Seq) (crm.Outcome, error) {
	for {
		moved := r.moved.wait()
		o, ok, err := r.Outcome(seq)
		if ok || err != nil {
			return o, err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return o, &crm.Error{Code: crm.CodeTimeout, Op: "wait for the decision", Message: "the edit is saved here and waits for head office", Err: ctx.Err()}
		}
	}
}

// Outcome returns what became of this node's Mutation, and whether it is
// decided. Of a plainly accepted one Rev is not when it was decided but a Rev at
// which it was decided already, or 0 if that is not known any more. The error
// has CodeNotFound for a number that was never given.
func (r *Replica) Outcome(seq crm.Seq) (crm.Outcome, bool, error) {
	seq = r.renamed(seq)
	o := crm.Outcome{Node: r.cfg.ID.Node, Seq: seq, Kind: crm.Accepted}
	p := r.position()
	if seq == 0 || seq > p.last {
		return crm.Outcome{}, false, &crm.Error{Code: crm.CodeNotFound, Op: "read outcome", Message: "this node has not given that number to an edit"}
	}
	if seq > p.decided {
		return crm.Outcome{}, false, nil
	}
	err := r.journal.View(func(j *store.JTx) error {
		e, _, err := j.Entry(seq)
		if o.Rev = e.Rev; e.Rev == undated {
			o.Rev = 0
		}
		return err
	})
	if err != nil {
		return crm.Outcome{}, false, err
	}
	err = r.base.View(func(tx *store.Tx) error {
		kept, ok, err := tx.Outcome(o.Node, seq)
		if ok {
			o = kept
		}
		return err
	})
	return o, err == nil, err
}

// measureOutbox notes how much waits.
func (r *Replica) measureOutbox() error {
	r.measuring.Lock()
	defer r.measuring.Unlock()
	var d store.Depth
	err := r.journal.View(func(j *store.JTx) (err error) {
		d, err = j.Depth()
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.outbox = d
	if d.Entries == 0 {
		r.low = 0
	}
	r.mu.Unlock()
	r.cfg.Metrics.outboxDepth.Set(float64(d.Entries))
	r.cfg.Metrics.outboxBytes.Set(float64(d.Bytes))
	r.measureAge()
	return nil
}

func (r *Replica) measureAge() {
	r.mu.Lock()
	oldest := r.outbox.Oldest
	r.mu.Unlock()
	age := 0.0
	if oldest != 0 {
		age = max(0, float64(r.cfg.Now().UnixMilli()-oldest)/1000)
	}
	r.cfg.Metrics.outboxAge.Set(age)
}

// measureLag says how far the base is behind the masters.
func (r *Replica) measureLag() {
	r.mu.Lock()
	entries, asOf := r.link.head-min(r.link.head, r.pos.rev), r.link.asOf
	r.mu.Unlock()
	r.cfg.Metrics.lagEntries.Set(float64(entries))
	if !asOf.IsZero() {
		r.cfg.Metrics.lagSeconds.Set(max(0, r.cfg.Now().Sub(asOf).Seconds()))
	}
}

// sawEdit measures how long an edit of another site took to get here, by the
// master's clock.
func (r *Replica) sawEdit(s crm.Stamp) {
	if s.Node == r.cfg.ID.Node {
		return
	}
	r.mu.Lock()
	offset := r.link.offset
	r.mu.Unlock()
	r.cfg.Metrics.visible.Observe(max(0, r.cfg.Now().Add(offset).Sub(s.HLC.Time()).Seconds()))
}

// lowestSeen returns the lower of low and the Revs that m's author saw; 0 stands
// for none, in both.
func lowestSeen(low crm.Rev, m *crm.Mutation) crm.Rev {
	for _, op := range m.Ops {
		if rev := op.Seen.Rev; rev > 0 && (low == 0 || rev < low) {
			low = rev
		}
	}
	return low
}

// lowerBase notes that a pending op may refer to low; 0 refers to nothing.
func (r *Replica) lowerBase(low crm.Rev) {
	r.measuring.Lock()
	defer r.measuring.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if low > 0 && (r.low == 0 || low < r.low) {
		r.low = low
	}
}

// readOutbox measures the outbox of a journal that was just opened.
func (r *Replica) readOutbox() error {
	entries, err := r.Outbox(context.Background())
	for _, e := range entries {
		r.low = lowestSeen(r.low, e.Mutation)
	}
	if err != nil {
		r.low = 1 // who knows what those refer to that cannot be read
		return r.tolerate(err)
	}
	return r.measureOutbox()
}
