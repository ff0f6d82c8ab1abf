package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// seenLoses is I12: if the author of a decided edit had the field's current value
// in front of them, their value stands after it: no clock, no policy and no
// other edit makes them lose to what they had seen. Moves that the field does
// not allow are parked whoever saw what. Left out is what their node could not
// vouch for (docs/design/0002, item 6), where the price is a conflict too many: an
// edit of a disk that was put back, and after a restore of the masters what was
// seen before it and is not in the part that both timelines share.
func seenLoses(h *History) error {
	return h.eachCell(func(c change) error {
		if c.before == nil || c.edit.Disk.Reset > 0 || !c.shown() || !c.vouched() || c.field.Rule() == crm.AddWins || c.field.Rule() == crm.Counter {
			return nil
		}
		if c.field.Rule() == crm.Transition && !c.field.Allows(c.before.Value.Str(), c.asked.Str()) {
			return nil
		}
		if now := c.after.Value(c.field.ID); !now.Equal(c.asked) {
			return fmt.Errorf("edit %d of %s.%s was made over %q, and after it, at rev %d, there is %q instead of %q",
				c.edit.ID, c.key, c.field.Name, c.before.Value, c.decision.Rev, now, c.asked)
		}
		return nil
	})
}

// A change is what a decided edit asked of one field of a record that lived
// before and after it. Of several ops on one field it is the last one's.
type change struct {
	timeline *Timeline
	decision *Decision
	edit     *Edit
	key      store.RecordKey
	screen   Screen
	field    *crm.Field
	op       crm.Op
	asked    crm.Value
	before   *crm.Cell // nil: the field was never set
	after    *crm.Record
}

// shown reports whether the edit's author had the value before it in front of
// them.
func (c change) shown() bool { return c.screen.Shows(c.field.ID, c.before.Stamp) }

// vouched reports whether the masters can know that the edit's author saw the
// value before it.
func (c change) vouched() bool {
	written, l := c.decision.Mutation.Timeline, c.timeline.Lineage
	if written == 0 {
		return len(l.Forks) == 0 // it does not say which timeline it counts in
	}
	if c.screen.Token.Timeline != uint32(written) {
		return false
	}
	return written == l.Timeline || c.before.Stamp.Rev <= c.timeline.shared(written)
}

// outseen reports whether the author saw, in a timeline before a restore, a state
// in which what the stamp is of had been replaced, by somebody whose edit is
// not decided again yet, or was purged from its branch.
func (c change) outseen(by crm.Stamp) bool {
	t := c.screen.Token
	return by.Rev <= min(t.Rev, c.timeline.shared(uint64(t.Timeline)))
}

// covered reports whether the author saw the value before it replaced by an edit
// that was pending on their node: the base that their page was made from held it.
func (c change) covered() bool {
	over, t := c.screen.Stamps[c.field.ID], c.screen.Token
	if over.Rev != crm.Pending || t.Timeline != uint32(c.timeline.ID) {
		return false
	}
	under := c.timeline.State(c.key, t.Rev)
	return under != nil && under.Cell(c.field.ID) != nil && sameAuthor(under.Cell(c.field.ID).Stamp, c.before.Stamp)
}

// shared returns the last Rev that an earlier timeline has in common with t, 0 if
// none.
func (t *Timeline) shared(earlier uint64) crm.Rev {
	for _, f := range t.Lineage.Forks {
		if f.Timeline == earlier {
			return f.Rev
		}
	}
	return 0
}

// eachCell calls judge with the changes that decided and not rejected edits asked
// for.
func (h *History) eachCell(judge func(change) error) error {
	schema := h.schema()
	for t, to := range h.lasting() {
		for i := range t.Decisions {
			d := &t.Decisions[i]
			e := h.Edit(d.Edit)
			if d.Rev > to || e == nil || d.Outcome.Kind == crm.Rejected {
				continue
			}
			if err := t.eachCell(schema, d, e, judge); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Timeline) eachCell(schema *crm.Schema, d *Decision, e *Edit, judge func(change) error) error {
	for i, op := range d.Mutation.Ops {
		k := recordOf(op)
		before, after, entity := t.State(k, d.Rev-1), t.State(k, d.Rev), schema.EntityByID(op.Entity)
		if before == nil || before.Deleted || after == nil || after.Deleted || entity == nil || op.Kind != crm.OpPatch && op.Kind != crm.OpTransition {
			continue
		}
		for j, in := range op.Cells {
			if op.Kind == crm.OpTransition && j == 0 || setAgain(d.Mutation.Ops[i+1:], op, in.Field) {
				continue
			}
			c := change{timeline: t, decision: d, edit: e, key: k, screen: e.Screens[k], field: entity.FieldByID(in.Field), op: op, asked: in.Value,
				before: before.Cell(in.Field), after: after}
			if c.field == nil {
				continue
			}
			if err := judge(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// setAgain reports whether a later op sets the field too.
func setAgain(later []crm.Op, op crm.Op, f crm.FieldID) bool {
	for _, o := range later {
		for _, c := range o.Cells {
			if recordOf(o) == recordOf(op) && c.Field == f {
				return true
			}
		}
	}
	return false
}

// schema returns the newest schema; fields are only ever added.
func (h *History) schema() *crm.Schema {
	t := h.Newest()
	s := newShelf()
	for _, k := range t.Keys() {
		if r := t.State(k, t.Head()); r != nil && isMetadata(k.Entity) {
			s.put(r)
		}
	}
	return s.Schema()
}
