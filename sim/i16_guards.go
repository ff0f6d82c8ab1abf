package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// guardsHeld is I16 as far as the product has limits: there is no escrow, but an
// edit may carry guards, and if it stood then each of them was true of the state
// it was decided on. Counters that are only spent under a guard of what is there
// therefore never fall below zero, which is looked at as well.
func guardsHeld(h *History) error {
	for t := range h.lasting() {
		guarded := map[store.RecordKey]bool{}
		for i := range t.Decisions {
			d := &t.Decisions[i]
			if d.Outcome.Kind == crm.Rejected {
				continue
			}
			for _, g := range d.Mutation.Guards {
				k := store.RecordKey{Entity: g.Entity, ID: g.Record}
				if !holds(g, t.State(k, d.Rev-1)) {
					return fmt.Errorf("edit %d stood at rev %d and its guard on %s did not hold", d.Edit, d.Rev, k)
				}
				guarded[k] = true
			}
			for k := range guarded {
				if r := t.State(k, d.Rev); r != nil && r.Value(counterField).Int() < 0 {
					return fmt.Errorf("%s has %d points left at rev %d, after edit %d", k, r.Value(counterField).Int(), d.Rev, d.Edit)
				}
			}
		}
	}
	return nil
}

func holds(g crm.Guard, r *crm.Record) bool {
	live := r != nil && !r.Deleted
	if g.Kind == crm.GuardAbsent {
		return !live
	}
	if !live {
		return false
	}
	v := r.Value(g.Field)
	switch g.Kind {
	case crm.GuardExists:
		return true
	case crm.GuardEquals:
		return v.Equal(g.Value)
	case crm.GuardAtLeast:
		return !v.IsNull() && crm.Compare(v, g.Value) >= 0
	case crm.GuardAtMost:
		return !v.IsNull() && crm.Compare(v, g.Value) <= 0
	}
	return false
}
