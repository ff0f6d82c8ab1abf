package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// takesEffectOnce is I02: no edit is decided twice, and every counter that a node
// holds is its first value and the deltas of the edits that stood, added up.
// Without a second decision an effect could still come twice, by a batch applied
// again; a digest would tell, and the sum does, independently.
//
// Masters that speak a version before 3 do not say which edits of a disk that was
// copied or put back they have (replica/renumber.go): there a repeated edit is seen,
// and a lost one would not be.
func takesEffectOnce(h *History) error {
	times, untold := map[EditID]int{}, map[crm.NodeID]bool{}
	for _, d := range h.Untold {
		untold[d.Node] = true
	}
	for t, to := range h.lasting() {
		for i := range t.Decisions {
			d := &t.Decisions[i]
			if d.Rev > to || d.Edit == 0 {
				continue
			}
			if times[d.Edit]++; times[d.Edit] > 1 && !untold[d.Node] {
				return fmt.Errorf("edit %d is decided again at rev %d", d.Edit, d.Rev)
			}
		}
	}
	return each(h.Stocks, func(s *Stock) error { return s.sums(h.Timeline(s.Timeline)) })
}

// counterField is the field of contacts that edits add to.
const counterField crm.FieldID = 38

func (s *Stock) sums(t *Timeline) error {
	for _, r := range s.Base {
		if r.Entity != catalog.Contact {
			continue
		}
		if got, want := r.Value(counterField).Int(), t.sumOf(keyOf(r), s.Rev); got != want {
			return fmt.Errorf("at node %d, rev %d contact %s counts %d, and the edits that stand add up to %d", s.Disk.Node, s.Rev, r.ID, got, want)
		}
	}
	return nil
}

// sumOf adds up what the decided edits did to a counter up to rev.
func (t *Timeline) sumOf(k store.RecordKey, rev crm.Rev) (sum int64) {
	if rev < t.Begin && t.parent != nil {
		return t.parent.sumOf(k, rev)
	}
	if r := t.State(k, t.Begin); r != nil {
		sum = r.Value(counterField).Int()
	}
	for i := range t.Decisions {
		d := &t.Decisions[i]
		if d.Rev > rev || d.Outcome.Kind == crm.Rejected {
			continue
		}
		before := t.State(k, d.Rev-1)
		live := before != nil && !before.Deleted
		for _, op := range d.Mutation.Ops {
			if op.Entity != k.Entity || op.Record != k.ID {
				continue
			}
			live = live || op.Kind == crm.OpCreate || op.Kind == crm.OpRestore
			for _, c := range op.Cells {
				if c.Field == counterField && live && (op.Kind == crm.OpCounterAdd || op.Kind == crm.OpCreate) {
					sum += c.Value.Int()
				}
			}
		}
	}
	return sum
}
