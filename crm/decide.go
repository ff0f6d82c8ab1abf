package crm

import (
	"fmt"
	"slices"
)

// An Env is what a decision depends on besides the records: everything in it
// comes from the Raft entry or from decided state, never from a clock.
type Env struct {
	Rev      Rev                    // the Rev of this decision; Pending on a branch
	HLC      HLC                    // effective time of the Mutation
	Home     TerritoryID            // where records without an account live: the author's site's
	Writable func(TerritoryID) bool // whether the author's site holds the territory; nil: all
	Admin    bool                   // whether the author's node may change the cluster's own records
	Level    uint16                 // the newest decision logic that the log has activated
	Lineage  Lineage                // of the records: what a Rev of the Mutation's Timeline means among them
}

// A Decision is the verdict on a Mutation and what it writes.
type Decision struct {
	Outcome Outcome
	Writes  []*Record // new states, each record once, in order of first touch
	Refused []Refusal // creations that will never be
}

// A Refusal ties a record that was never created to the attention record that
// says why, so that later edits of it can be shown under it.
type Refusal struct{ Record, Attention RecordID }

// Decide judges m against v. It is a function of its arguments: no clock, no
// randomness, no map order. A Mutation that breaks a rule is rejected whole; a
// concurrent edit that loses is kept on the attention list. The error is v's
// only, never the Mutation's.
//
// Simple version: apply each op to the record it names. What complicates it is
// that the author may not have seen the current state; [decider.assign] holds
// that case, field by field. Invariant: every acknowledged value either stands
// in a record or is in an attention record.
func Decide(v View, m *Mutation, env Env) (Decision, error) {
	d := newDecider(v, m, env)
	err := d.run()
	if rej, ok := asRejection(err); ok {
		return d.rejected(rej)
	}
	if err != nil {
		return Decision{}, fmt.Errorf("decide %d/%d: %w", m.Node, m.Seq, err)
	}
	return d.decision(), nil
}

// A decider holds the working copies of one decision. Its View methods answer
// from the store; record answers from the working copies first.
type decider struct {
	View
	m     *Mutation
	env   Env
	stamp Stamp

	work    map[RecordID]*Record
	order   []RecordID
	created []RecordID
	touched []touch
	notes   []*Record // attention records
	about   []*Record // what each note is about, as it was found; nil: no record
	outcome Outcome
}

func newDecider(v View, m *Mutation, env Env) *decider {
	return &decider{View: v, m: m, env: env, work: map[RecordID]*Record{},
		stamp: Stamp{Rev: env.Rev, HLC: env.HLC, Node: m.Node, Seq: m.Seq, Actor: m.Actor}}
}

// A touch is a field that an op set, for the checks after all ops.
type touch struct {
	record RecordID
	field  *Field
}

// A rejection ends the decision: nothing of the Mutation stands.
type rejection struct {
	why   Error
	under RecordID // the attention record of the rejection it depends on
}

func (r *rejection) Error() string { return r.why.Error() }

func asRejection(err error) (*rejection, bool) {
	r, ok := err.(*rejection)
	return r, ok
}

func reject(code Code, item, format string, args ...any) error {
	return &rejection{why: Error{Code: code, Item: item, Message: fmt.Sprintf(format, args...)}}
}

func (d *decider) run() error {
	if len(d.m.Ops) == 0 {
		return reject(CodeInvalid, "ops", "the mutation changes nothing")
	}
	for _, g := range d.m.Guards {
		if err := d.guard(g); err != nil {
			return err
		}
	}
	for i := range d.m.Ops {
		if err := d.op(i, &d.m.Ops[i]); err != nil {
			return err
		}
	}
	for _, t := range d.touched {
		if err := d.checkField(t); err != nil {
			return err
		}
	}
	if err := d.checkSchema(); err != nil {
		return err
	}
	return d.checkSizes()
}

// MaxRecord bounds the values of one record, in bytes: a batch of the feed must
// be able to carry it.
const MaxRecord = 768 << 10

func (d *decider) checkSizes() error {
	for _, id := range d.order {
		size := 0
		for _, c := range d.work[id].Cells {
			size += len(c.Value.str) + 16
			for _, e := range c.Value.set {
				size += len(e) + 2
			}
		}
		if size > MaxRecord {
			return reject(CodeTooLarge, id.String(), "the record would hold %d bytes; at most %d fit", size, MaxRecord)
		}
	}
	return nil
}

func (d *decider) decision() Decision {
	dec := Decision{Outcome: d.outcome}
	for _, id := range d.order {
		dec.Writes = append(dec.Writes, d.work[id])
	}
	d.placeNotes()
	dec.Writes = append(dec.Writes, d.notes...)
	dec.Outcome.Node, dec.Outcome.Seq, dec.Outcome.Rev = d.m.Node, d.m.Seq, d.env.Rev
	dec.Outcome.Kind = max(dec.Outcome.Kind, Accepted)
	return dec
}

func (d *decider) rejected(rej *rejection) (Decision, error) {
	note := d.note("rejected", -1, nil)
	note.Root, note.Territory = RecordID{}, d.env.Home
	d.tell(note, AttentionCode, TextValue(string(rej.why.Code)))
	d.tell(note, AttentionMessage, TextValue(rej.Error()))
	d.tell(note, AttentionOps, opsText(d.Schema(), d.m.Ops))
	d.tell(note, AttentionUnder, LinkValue(rej.under))
	if len(d.m.Ops) > 0 {
		d.subject(note, &d.m.Ops[0])
	}
	dec := Decision{Writes: []*Record{note}, Outcome: Outcome{Node: d.m.Node, Seq: d.m.Seq, Rev: d.env.Rev,
		Kind: Rejected, Code: rej.why.Code, Message: rej.Error()}}
	for _, op := range d.m.Ops {
		if op.Kind != OpCreate {
			continue
		}
		r, err := d.Record(op.Entity, op.Record)
		if err != nil {
			return Decision{}, err
		}
		if r == nil {
			dec.Refused = append(dec.Refused, Refusal{op.Record, note.ID})
		}
	}
	return dec, nil
}

// record returns the working copy of a record, or nil if there is none.
func (d *decider) record(e EntityID, id RecordID) (*Record, error) {
	if r := d.work[id]; r != nil {
		if r.Entity != e {
			return nil, reject(CodeInvalid, id.String(), "the record is of another entity")
		}
		return r, nil
	}
	r, err := d.Record(e, id)
	if r == nil || err != nil {
		return nil, err
	}
	return r, nil
}

// edit makes r a working copy and stamps it.
func (d *decider) edit(r *Record) *Record {
	if d.work[r.ID] == nil {
		r = r.Clone()
		d.work[r.ID] = r
		d.order = append(d.order, r.ID)
	}
	r.Stamp, r.Schema = d.stamp, d.Schema().Version
	return r
}

func (d *decider) op(i int, op *Op) error {
	e := d.Schema().EntityByID(op.Entity)
	if e == nil {
		return reject(CodeUnknownEntity, fmt.Sprint(op.Entity), "no such entity in the schema at this time")
	}
	if err := d.permitted(e, op); err != nil {
		return err
	}
	r, err := d.record(op.Entity, op.Record)
	if err != nil {
		return err
	}
	if op.Kind == OpCreate {
		return d.create(e, r, op)
	}
	if r == nil {
		return d.gone(e, op)
	}
	if err := d.writable(e, r.Territory); err != nil {
		return err
	}
	switch op.Kind {
	case OpDelete:
		return d.delete(i, e, r, op)
	case OpRestore:
		return d.restore(e, r)
	}
	if r.Deleted {
		return d.editDeleted(i, e, r, op)
	}
	return d.assignAll(i, e, r, op)
}

// permitted judges an op on a record of the cluster itself. A node may tell of
// its own purges, and where it is reached. An attention record is evidence:
// people only close it.
func (d *decider) permitted(e *Entity, op *Op) error {
	switch {
	case !e.System:
		return nil
	case e.ID == EntityAttention:
		closes := func(c Input) bool { return c.Field == AttentionStatus || c.Field == AttentionResolved }
		if op.Kind == OpPatch && !slices.ContainsFunc(op.Cells, func(c Input) bool { return !closes(c) }) {
			return nil
		}
		return reject(CodeForbidden, e.Name, "it tells what happened to an edit: only its status and resolution can change")
	case d.env.Admin:
		return nil
	case e.ID == EntityPurge:
		foreign := func(c Input) bool { return c.Field == PurgeNode && !c.Value.Equal(IntegerValue(int64(d.m.Node))) }
		if op.Kind == OpCreate && !slices.ContainsFunc(op.Cells, foreign) {
			return nil
		}
		return reject(CodeForbidden, e.Name, "a node proves its own purges, once each")
	case e.ID == EntityNode && d.env.Level >= levelRelays:
		own, err := d.announces(op)
		if own || err != nil {
			return err
		}
	}
	return reject(CodeForbidden, e.Name, "only a master changes the cluster's own records: run the command against a master")
}

// levelRelays is the level from which on a node may say in its own record where
// it is reached, and a master may be kept from voting.
const levelRelays = 3

// announces reports whether the op sets nothing but addresses in the record of
// the author's node.
func (d *decider) announces(op *Op) (bool, error) {
	other := func(c Input) bool { return c.Field != NodeSync && c.Field != NodeHTTP }
	if op.Kind != OpPatch || slices.ContainsFunc(op.Cells, other) {
		return false, nil
	}
	r, err := d.record(op.Entity, op.Record)
	if err != nil || r == nil {
		return false, err
	}
	return r.Value(NodeNumber).Equal(IntegerValue(int64(d.m.Node))), nil
}

// levelGone is the level from which on a record that is not there any more is told
// from one that never was.
const levelGone = 3

// gone explains why there is no record to edit. The masters hold all records: one
// that the author saw decided and that is not among them was deleted, so long ago
// that its tombstone is dropped. A branch cannot tell that from a record that left.
func (d *decider) gone(e *Entity, op *Op) error {
	seen := d.env.Lineage.Clamp(op.Seen, d.m.Timeline).Rev
	err := d.missing(e, op.Record)
	r, ok := asRejection(err)
	if !ok || r.why.Code != CodeNotFound || d.env.Level < levelGone || d.env.Rev == Pending || seen == 0 || seen != op.Seen.Rev {
		return err
	}
	return reject(CodeDeleted, e.Name, "it was deleted so long ago that it cannot be restored; make it anew if your edit still matters")
}

// missing explains why a record is not there.
func (d *decider) missing(e *Entity, id RecordID) error {
	under, ok, err := d.Refused(id)
	if err != nil {
		return err
	}
	if ok {
		return &rejection{Error{Code: CodeDependsOn, Item: e.Name, Message: "the creation of this " + e.Label + " was rejected; resolve that first"}, under}
	}
	return reject(CodeNotFound, e.Name, "no record %s", id)
}

// writable judges whether the author's site holds the territory. A purge proof
// goes to head office from every site.
func (d *decider) writable(e *Entity, t TerritoryID) error {
	if d.env.Writable == nil || d.env.Writable(t) || e.ID == EntityPurge {
		return nil
	}
	return reject(CodeTerritory, e.Name, "the site does not hold the record's territory (%d)", t)
}

func (d *decider) create(e *Entity, old *Record, op *Op) error {
	if old != nil {
		return reject(CodeExists, e.Name, "record %s exists already", op.Record)
	}
	r := d.edit(&Record{Entity: e.ID, ID: op.Record, Entered: d.env.Rev})
	d.created = append(d.created, r.ID)
	d.put(r, FieldCreatedAt, InstantMillis(d.env.HLC.Millis()))
	d.put(r, FieldCreatedBy, TextValue(d.m.Actor))
	if err := d.assignAll(0, e, r, op); err != nil {
		return err
	}
	if err := d.defaults(e, r); err != nil {
		return err
	}
	if err := d.number(e, r); err != nil {
		return err
	}
	for _, f := range e.Fields {
		d.touched = append(d.touched, touch{r.ID, f})
	}
	if err := d.settle(e, r); err != nil {
		return err
	}
	return d.writable(e, r.Territory)
}

func (d *decider) put(r *Record, f FieldID, v Value) {
	r.set(Cell{Field: f, Value: v, Stamp: d.stamp, Elems: elemStamps(v, d.stamp)})
}

func elemStamps(v Value, s Stamp) []Stamp {
	if v.kind != Choices || len(v.set) == 0 {
		return nil
	}
	return slices.Repeat([]Stamp{s}, len(v.set))
}

func (d *decider) defaults(e *Entity, r *Record) error {
	for _, f := range e.Fields {
		if f.Default == "" || r.Cell(f.ID) != nil {
			continue
		}
		v, err := f.ParseText(f.Default)
		if err != nil {
			return reject(CodeInvalid, f.Name, "the field's default does not fit it: %v", err)
		}
		d.put(r, f.ID, v)
	}
	return nil
}

// number gives a new territory or node its number. Only the master does: a
// number is a decision.
func (d *decider) number(e *Entity, r *Record) error {
	f := map[EntityID]FieldID{EntityTerritory: TerritoryNumber, EntityNode: NodeNumber}[e.ID]
	if f == 0 || d.env.Rev == Pending || r.Cell(f) != nil {
		return nil
	}
	n, err := d.NextNumber(e.ID)
	if err != nil {
		return err
	}
	for _, id := range d.created {
		if id != r.ID && d.work[id].Entity == e.ID {
			n++
		}
	}
	d.put(r, f, IntegerValue(n))
	return nil
}

// checkField judges a field after all ops: required, unique, linked.
func (d *decider) checkField(t touch) error {
	r := d.work[t.record]
	if r == nil || r.Deleted {
		return nil
	}
	v := r.Value(t.field.ID)
	if v.IsNull() {
		if t.field.Required {
			return reject(CodeRequired, t.field.Name, "the field must not be empty")
		}
		return nil
	}
	if t.field.Unique {
		if err := d.checkUnique(r, t.field, v); err != nil {
			return err
		}
	}
	if t.field.Kind == Link && d.env.Rev != Pending {
		return d.checkLink(t.field, v.Link())
	}
	return nil
}

func (d *decider) checkUnique(r *Record, f *Field, v Value) error {
	e := d.Schema().EntityByID(r.Entity)
	taken := func(id RecordID) error {
		return reject(CodeDuplicateKey, f.Name, "%q is taken by %s %s", clip(v.String()), e.Name, id)
	}
	id, ok, err := d.Lookup(e, f, v)
	if err != nil {
		return err
	}
	if ok && id != r.ID && d.work[id] == nil {
		return taken(id)
	}
	key := string(AppendKey(nil, v))
	for _, id := range d.order {
		o := d.work[id]
		if id != r.ID && o.Entity == r.Entity && !o.Deleted && string(AppendKey(nil, o.Value(f.ID))) == key {
			return taken(id)
		}
	}
	return nil
}

func (d *decider) checkLink(f *Field, id RecordID) error {
	target := d.Schema().Entity(f.Target)
	if target == nil {
		return nil
	}
	r, err := d.record(target.ID, id)
	if err != nil || r != nil {
		return err
	}
	return d.missing(target, id)
}

func (d *decider) guard(g Guard) error {
	r, err := d.Record(g.Entity, g.Record)
	if err != nil {
		return err
	}
	live := r != nil && !r.Deleted
	holds := false
	switch g.Kind {
	case GuardExists:
		holds = live
	case GuardAbsent:
		holds = !live
	case GuardEquals:
		holds = live && r.Value(g.Field).Equal(g.Value)
	case GuardAtLeast:
		holds = live && numeric(r.Value(g.Field), g.Value) && Compare(r.Value(g.Field), g.Value) >= 0
	case GuardAtMost:
		holds = live && numeric(r.Value(g.Field), g.Value) && Compare(r.Value(g.Field), g.Value) <= 0
	}
	if holds {
		return nil
	}
	return reject(CodeGuard, g.Record.String(), "the condition the edit was made under no longer holds")
}

func numeric(v, w Value) bool { return v.kind == w.kind && v.str == w.str && !v.IsNull() }
