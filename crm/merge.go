package crm

import (
	"fmt"
	"math"
	"slices"
)

// assignAll applies an op's cells to a live record, then whatever follows from
// them: a new parent or territory takes the record's tree along.
func (d *decider) assignAll(i int, e *Entity, r *Record, op *Op) error {
	r = d.edit(r)
	before := r.Clone()
	if op.Kind == OpTransition {
		if len(op.Cells) != 2 || op.Cells[0].Field != op.Cells[1].Field {
			return reject(CodeInvalid, e.Name, "a transition has one field, from and to")
		}
		return d.assign(i, e, r, op, op.Cells[1])
	}
	for _, c := range op.Cells {
		if err := d.assign(i, e, r, op, c); err != nil {
			return err
		}
	}
	if op.Kind == OpCreate {
		return nil
	}
	return d.resettle(e, before, r)
}

// assign applies one value. A value is seen if the author's screen showed the
// current one, or if this very Mutation set it.
func (d *decider) assign(i int, e *Entity, r *Record, op *Op, in Input) error {
	f := e.FieldByID(in.Field)
	if f != nil && f.Level > d.env.Level {
		f = nil // not every master knows it
	}
	if err := d.admissible(e, f, op, in); err != nil {
		return err
	}
	d.touched = append(d.touched, touch{r.ID, f})
	cur := r.Cell(f.ID)
	switch {
	case op.Kind == OpCounterAdd:
		return d.count(r, f, in.Value)
	case f.Kind == Choices:
		d.assignSet(r, f, op, in.Value)
		return nil
	case cur != nil && cur.Value.Equal(in.Value):
		return nil
	case f.Rule() == Transition && cur != nil && !f.Allows(cur.Value.Str(), in.Value.Str()):
		return d.parkMove(i, e, r, f, op, in.Value)
	case cur == nil || d.saw(cur.Stamp, op):
		d.put(r, f.ID, in.Value)
		return nil
	}
	return d.concurrent(i, e, r, f, *cur, in.Value, op)
}

// saw reports whether op's author had seen the value stamped s, or this very
// Mutation set it. What the author saw in another timeline is clamped to what
// that means in this one. A screen shows only earlier edits of its own node: a
// Seq that is not earlier, as version 1 allowed, vouches for nothing.
func (d *decider) saw(s Stamp, op *Op) bool {
	t := d.env.Lineage.Clamp(op.Seen, d.m.Timeline)
	if t.Seq >= d.m.Seq {
		t.Seq = 0
	}
	return s.seenBy(d.m.Node, t) || s.Node == d.m.Node && s.Seq == d.m.Seq
}

func (d *decider) admissible(e *Entity, f *Field, op *Op, in Input) error {
	switch {
	case f == nil:
		return reject(CodeUnknownField, fmt.Sprintf("%s.%d", e.Name, in.Field), "no such field in the schema at this time")
	case f.ID < FirstField || f.ReadOnly:
		return reject(CodeReadOnly, f.Name, "the field is set by the system")
	case f.Immut && op.Kind != OpCreate:
		return reject(CodeReadOnly, f.Name, "the field is set at creation and never changes")
	case (op.Kind == OpSetAdd || op.Kind == OpSetRemove) && f.Kind != Choices:
		return reject(CodeInvalid, f.Name, "the field is not a set")
	case op.Kind == OpCounterAdd && (f.Rule() != Counter || in.Value.kind != f.Kind):
		return reject(CodeInvalid, f.Name, "the field is not a counter of that kind")
	case op.Kind == OpTransition && f.Rule() != Transition:
		return reject(CodeInvalid, f.Name, "the field has no transitions")
	}
	if err := f.Check(in.Value); err != nil {
		return reject(CodeOf(err), "", "%v", err)
	}
	return nil
}

// concurrent judges an edit whose author had not seen the current value. An
// allowed move stands whenever it was made: only its order can be judged.
func (d *decider) concurrent(i int, e *Entity, r *Record, f *Field, cur Cell, v Value, op *Op) error {
	if f.Rule() == Review {
		d.park(d.fieldNote("parked", i, e, r, f, op), CodeConflict, fmt.Sprintf("%s of %s was changed meanwhile; your proposal waits for review", f.Label, e.TitleOf(r)),
			side(cur.Value, cur.Stamp), side(v, d.stamp))
		return nil
	}
	kept, lost := cur.Stamp, d.stamp
	keptValue, lostValue := cur.Value, v
	if f.Rule() == Transition || concurrentOrder(d.stamp, cur.Stamp) > 0 {
		kept, lost, keptValue, lostValue = lost, kept, lostValue, keptValue
		d.put(r, f.ID, v)
	}
	n := d.fieldNote("conflict", i, e, r, f, op)
	d.park(n, CodeConflict, fmt.Sprintf("Two people changed %s of %s without seeing each other's edit; the later one stands", f.Label, e.TitleOf(r)),
		side(keptValue, kept), side(lostValue, lost))
	d.tell(n, AttentionActor, TextValue(lost.Actor))
	d.tell(n, AttentionNode, IntegerValue(int64(lost.Node)))
	d.tell(n, AttentionSeq, IntegerValue(int64(lost.Seq)))
	d.verdict(Merged, "", "")
	return nil
}

func (d *decider) parkMove(i int, e *Entity, r *Record, f *Field, op *Op, to Value) error {
	cur := r.Cell(f.ID)
	n := d.fieldNote("parked", i, e, r, f, op)
	msg := fmt.Sprintf("%s of %s is %q now and cannot move to %q", f.Label, e.TitleOf(r), cur.Value.Str(), to.Str())
	d.park(n, CodeTransition, msg, side(cur.Value, cur.Stamp), side(to, d.stamp))
	if op.Kind == OpTransition {
		d.tell(n, AttentionBase, side(op.Cells[0].Value, Stamp{}))
	}
	d.verdict(Parked, CodeTransition, msg)
	return nil
}

// park fills a note whose edit waits or lost.
func (d *decider) park(n *Record, code Code, message string, kept, lost Value) {
	d.tell(n, AttentionCode, TextValue(string(code)))
	d.tell(n, AttentionMessage, TextValue(message))
	d.tell(n, AttentionKept, kept)
	d.tell(n, AttentionLost, lost)
	if n.Value(AttentionKind).Str() == "parked" {
		d.verdict(Parked, code, message)
	}
}

// verdict keeps the gravest outcome and its first reason.
func (d *decider) verdict(k OutcomeKind, code Code, message string) {
	if k > d.outcome.Kind {
		d.outcome = Outcome{Kind: k, Code: code, Message: message}
	}
}

// assignSet changes a set element by element. A plain patch names the whole
// set: what it lacks is removed, if its author had seen it there.
func (d *decider) assignSet(r *Record, f *Field, op *Op, v Value) {
	var elems []string
	var stamps []Stamp
	if c := r.Cell(f.ID); c != nil {
		elems, stamps = c.Value.set, c.Elems
	}
	out := map[string]Stamp{}
	for i, e := range elems {
		named := slices.Contains(v.set, e)
		removes := op.Kind == OpSetRemove && named || op.Kind == OpPatch && !named
		if !removes || !d.saw(stamps[i], op) {
			out[e] = stamps[i]
		}
	}
	if op.Kind != OpSetRemove {
		for _, e := range v.set {
			if _, there := out[e]; !there || op.Kind == OpSetAdd {
				out[e] = d.stamp
			}
		}
	}
	d.putSet(r, f.ID, out)
}

func (d *decider) putSet(r *Record, f FieldID, elems map[string]Stamp) {
	c := Cell{Field: f, Stamp: d.stamp}
	names := make([]string, 0, len(elems))
	for e := range elems {
		names = append(names, e)
	}
	if len(names) > 0 {
		c.Value = ChoicesValue(names...)
		for _, e := range c.Value.set {
			c.Elems = append(c.Elems, elems[e])
		}
	}
	if old := r.Cell(f); old != nil && old.Value.Equal(c.Value) && slices.Equal(old.Elems, c.Elems) {
		return
	}
	r.set(c)
}

func (d *decider) count(r *Record, f *Field, delta Value) error {
	sum, ok := Add(r.Value(f.ID), delta)
	if !ok {
		return reject(CodeInvalid, f.Name, "the counter would overflow, or mixes currencies")
	}
	d.put(r, f.ID, sum)
	return nil
}

// Add returns v + w for integers, and for decimals of one currency. A Null
// counts as zero. It reports false if the kinds or currencies differ or the sum
// does not fit.
func Add(v, w Value) (Value, bool) {
	if v.IsNull() {
		return w, true
	}
	if v.kind != w.kind || v.str != w.str || v.kind != Integer && v.kind != Decimal {
		return Value{}, false
	}
	scale := max(v.scale, w.scale)
	a, okA := mulInt(v.num, pow10[scale-v.scale])
	b, okB := mulInt(w.num, pow10[scale-w.scale])
	sum := a + b
	if !okA || !okB || b > 0 && sum < a || b < 0 && sum > a {
		return Value{}, false
	}
	return Value{kind: v.kind, num: sum, scale: scale, str: v.str}, true
}

func mulInt(a, b int64) (int64, bool) {
	p := a * b
	if a != 0 && (p/a != b || a == -1 && b == math.MinInt64) {
		return 0, false
	}
	return p, true
}

// delete makes a tombstone of r and of what it owns. If the author had not seen
// some value of it, the entity's policy says whether the deletion stands.
func (d *decider) delete(i int, e *Entity, r *Record, op *Op) error {
	if r.Deleted {
		return nil
	}
	unseen := slices.ContainsFunc(r.Cells, func(c Cell) bool { return !d.saw(c.Stamp, op) })
	if unseen {
		d.deleteUnseen(i, e, r, op)
		if e.DeletePolicy() == EditWins {
			return nil
		}
	}
	r = d.edit(r)
	r.Deleted = true
	return d.owned(e, r, d.Children, func(child *Record) bool { return !child.Deleted }, true)
}

// deleteUnseen notes a deletion that met edits its author had not seen.
func (d *decider) deleteUnseen(i int, e *Entity, r *Record, op *Op) {
	kind, msg := "parked", fmt.Sprintf("%s was deleted by someone who had not seen its latest changes; restore it to keep them", e.TitleOf(r))
	again := []Op{d.restoring(op)}
	switch e.DeletePolicy() {
	case EditWins:
		msg = fmt.Sprintf("%s was changed meanwhile and stays; delete it again if you still want to", e.TitleOf(r))
		again = []Op{*op}
	case DeleteWins:
		kind, msg = "conflict", fmt.Sprintf("%s was deleted by someone who had not seen its latest changes", e.TitleOf(r))
	}
	n := d.note(kind, i, r)
	d.subject(n, op)
	d.park(n, CodeDeleted, msg, Value{}, Value{})
	d.tell(n, AttentionOps, opsText(d.Schema(), again))
	if kind == "conflict" {
		d.verdict(Merged, "", "")
	}
}

// editDeleted judges an edit of a record that is deleted.
func (d *decider) editDeleted(i int, e *Entity, r *Record, op *Op) error {
	if d.saw(r.Stamp, op) {
		return reject(CodeDeleted, e.Name, "%s is deleted; restore it first", e.TitleOf(r))
	}
	kind, msg := "parked", fmt.Sprintf("%s was deleted meanwhile; restore it to apply your edit", e.TitleOf(r))
	switch e.DeletePolicy() {
	case EditWins:
		if err := d.restore(e, r); err != nil {
			return err
		}
		return d.assignAll(i, e, d.work[r.ID], op)
	case DeleteWins:
		kind = "conflict"
		d.verdict(Merged, "", "")
	}
	n := d.note(kind, i, r)
	d.subject(n, op)
	d.park(n, CodeDeleted, msg, Value{}, Value{})
	d.tell(n, AttentionOps, opsText(d.Schema(), []Op{d.restoring(op), *op}))
	return nil
}

// restoring returns the op that undoes the deletion of op's record. It vouches
// for nothing.
func (d *decider) restoring(op *Op) Op {
	return Op{Kind: OpRestore, Entity: op.Entity, Record: op.Record, Seen: Token{Timeline: uint32(d.m.Timeline)}}
}

// restore brings a tombstone back, and what was deleted along with it. Entered
// moves to this Rev because a replica bootstrapped since never had the record.
func (d *decider) restore(e *Entity, r *Record) error {
	if !r.Deleted {
		return nil
	}
	at := r.Stamp
	r = d.edit(r)
	r.Deleted, r.Entered = false, d.env.Rev
	d.touchUnique(e, r)
	if err := d.settle(e, r); err != nil {
		return err
	}
	if err := d.writable(e, r.Territory); err != nil {
		return err
	}
	return d.owned(e, r, d.View.Deleted, func(child *Record) bool { return child.Deleted && child.Stamp == at }, false)
}

// touchUnique has the unique values of a record that comes back checked: they
// may have been given again.
func (d *decider) touchUnique(e *Entity, r *Record) {
	for _, f := range e.Fields {
		if f.Unique {
			d.touched = append(d.touched, touch{r.ID, f})
		}
	}
}
