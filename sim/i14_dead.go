package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// deadStay is I14: a record that is deleted lives again only by a decision that
// restores it or a record that it was deleted along with, or, where its entity
// says so, that edits it.
func deadStay(h *History) error {
	schema := h.schema()
	for t := range h.lasting() {
		for i := range t.Decisions {
			d := &t.Decisions[i]
			for _, r := range d.Writes {
				before := t.State(keyOf(r), d.Rev-1)
				if before == nil || !before.Deleted || r.Deleted || d.revives(schema, t, before) {
					continue
				}
				return fmt.Errorf("%s was deleted at rev %d and lives again at rev %d, by edit %d, which does not restore it", keyOf(r), before.Stamp.Rev, d.Rev, d.Edit)
			}
		}
	}
	return nil
}

// revives reports whether the decision may bring back the tombstone.
func (d *Decision) revives(schema *crm.Schema, t *Timeline, dead *crm.Record) bool {
	e := schema.EntityByID(dead.Entity)
	for _, op := range d.Mutation.Ops {
		self := recordOf(op) == keyOf(dead)
		if self && (op.Kind == crm.OpRestore || e.DeletePolicy() == crm.EditWins && op.Kind != crm.OpDelete) {
			return true
		}
		owner := t.State(recordOf(op), d.Rev-1)
		if op.Kind == crm.OpRestore && e.Owned && owner != nil && owner.Stamp == dead.Stamp {
			return true
		}
	}
	return false
}

// recordOf returns the key of the record that an op is about.
func recordOf(op crm.Op) store.RecordKey {
	return store.RecordKey{Entity: op.Entity, ID: op.Record}
}
