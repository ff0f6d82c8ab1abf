package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// hasOutcome is I04: once a run has settled, each acknowledged edit is decided,
// the node that took it answers with that outcome, and what was parked or
// rejected is on the attention list. Excused are edits of a disk that was lost
// or refused, which say so.
func hasOutcome(h *History) error {
	if h.Settled == 0 {
		return nil // I25 speaks of it
	}
	answers := map[EditID]Answer{}
	for _, a := range h.Answers {
		answers[a.Edit] = a
	}
	for e := range h.acked() {
		if e.Excused != "" {
			continue
		}
		d := h.Decided(e.ID)
		if d == nil {
			return fmt.Errorf("edit %d, acknowledged by %s %s, was never decided", e.ID, h.name(e.Disk), when(e.At))
		}
		if a, asked := answers[e.ID]; h.Sites[e.Node].Role == roleReplica {
			if err := a.matches(h.latest(e.ID), asked); err != nil {
				return err
			}
		}
		if err := h.noted(d); err != nil {
			return err
		}
	}
	return nil
}

// latest returns the last decision about an edit that lasts: of one that was sent
// again from a disk that was put back there are two.
func (h *History) latest(e EditID) (found *Decision) {
	for t, to := range h.lasting() {
		for i := range t.Decisions {
			if d := &t.Decisions[i]; d.Edit == e && d.Rev <= to {
				found = d
			}
		}
	}
	return found
}

func (a Answer) matches(d *Decision, asked bool) error {
	switch {
	case !asked:
		return fmt.Errorf("nobody could be asked what became of edit %d", d.Edit)
	case !a.Decided:
		return fmt.Errorf("edit %d was %s at rev %d and its node says that it is pending", d.Edit, d.Outcome.Kind, d.Rev)
	case a.Outcome.Kind != d.Outcome.Kind || a.Outcome.Code != d.Outcome.Code:
		return fmt.Errorf("edit %d was %s (%s) at rev %d and its node says %s (%s)", d.Edit, d.Outcome.Kind, d.Outcome.Code, d.Rev, a.Outcome.Kind, a.Outcome.Code)
	}
	return nil
}

// noted looks for the attention record of what is not plainly accepted.
func (h *History) noted(d *Decision) error {
	if d.Outcome.Kind == crm.Accepted {
		return nil
	}
	for _, n := range d.notes() {
		if t := h.Newest(); t.State(keyOf(n), t.Head()) != nil {
			return nil
		}
	}
	return fmt.Errorf("edit %d was %s at rev %d and is not on the attention list", d.Edit, d.Outcome.Kind, d.Rev)
}

// notes returns the attention records that the decision made. Of an edit that its
// branch has purged nobody knows who made it.
func (d *Decision) notes() (out []*crm.Record) {
	for _, r := range d.Writes {
		signed := r.Value(crm.AttentionActor).Str() != "" || d.Outcome.Code == crm.CodeWithheld
		if r.Entity == crm.EntityAttention && r.Entered == d.Rev && signed && !d.names(r) {
			out = append(out, r)
		}
	}
	return out
}

// names reports whether an op of the Mutation is about the record.
func (d *Decision) names(r *crm.Record) bool {
	for _, op := range d.Mutation.Ops {
		if op.Entity == r.Entity && op.Record == r.ID {
			return true
		}
	}
	return false
}
