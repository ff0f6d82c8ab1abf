package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// outboxKept is I23: an edit that was pending when its node's base was emptied in
// order to be fetched anew, or that was made under an older schema than it is
// decided under, is decided like any other, and a newer schema is no reason to
// reject it: schemas only grow.
func outboxKept(h *History) error {
	if h.Settled == 0 {
		return nil
	}
	for e := range h.acked() {
		d := h.Decided(e.ID)
		if d == nil {
			if at, ok := h.rebasedAfter(e); ok && e.Excused == "" {
				return fmt.Errorf("edit %d was pending when %s began to fetch its base anew %s, and was never decided", e.ID, h.name(e.Disk), when(at.At))
			}
			continue
		}
		older := d.Mutation.Schema < h.schemaAt(d)
		if c := d.Outcome.Code; older && (c == crm.CodeUnknownEntity || c == crm.CodeUnknownField || c == crm.CodeInternal) {
			return fmt.Errorf("edit %d, made under schema %d, was rejected at rev %d with %s", e.ID, d.Mutation.Schema, d.Rev, c)
		}
	}
	return nil
}

// rebasedAfter returns the position at which the edit's disk had emptied its base.
func (h *History) rebasedAfter(e *Edit) (Position, bool) {
	for _, p := range h.Positions {
		if p.Disk == e.Disk && p.Rebased && p.At >= e.At {
			return p, true
		}
	}
	return Position{}, false
}

// schemaAt returns the version of the schema that the edit was decided under.
func (h *History) schemaAt(d *Decision) (version crm.Rev) {
	for t, to := range h.lasting() {
		if d.Rev > to || t.Decision(d.Rev) != d {
			continue
		}
		for k := range t.States {
			if r := t.State(k, d.Rev-1); r != nil && isMetadata(k.Entity) {
				version = max(version, r.Stamp.Rev)
			}
		}
	}
	return version
}
