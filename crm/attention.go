package crm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// note starts an attention record about r, or about no record if r is nil. Its
// id follows from the Mutation and the op, so that every master makes the same.
func (d *decider) note(kind string, op int, about *Record) *Record {
	n := &Record{Entity: EntityAttention, Stamp: d.stamp, Schema: d.Schema().Version, Entered: d.env.Rev, Territory: d.env.Home}
	n.ID = d.noteID(op)
	d.tell(n, FieldCreatedAt, InstantMillis(d.env.HLC.Millis()))
	d.tell(n, FieldCreatedBy, TextValue(d.m.Actor))
	d.tell(n, AttentionKind, ChoiceValue(kind))
	d.tell(n, AttentionStatus, ChoiceValue("open"))
	d.tell(n, AttentionNode, IntegerValue(int64(d.m.Node)))
	d.tell(n, AttentionSeq, IntegerValue(int64(d.m.Seq)))
	d.tell(n, AttentionActor, TextValue(d.m.Actor))
	d.tell(n, AttentionIntent, TextValue(d.m.Intent))
	d.notes, d.about = append(d.notes, n), append(d.about, about)
	return n
}

// placeNotes puts each note where the Mutation leaves the record that it is
// about, so that who holds the one holds the other.
func (d *decider) placeNotes() {
	for i, n := range d.notes {
		r := d.about[i]
		if r == nil {
			continue
		}
		if w := d.work[r.ID]; w != nil {
			r = w
		}
		n.Root, n.Territory = r.Root, r.Territory
		if r.Territory == Shared && d.env.Home != 0 && d.Schema().EntityByID(r.Entity).Home != HomeShared {
			n.Territory = d.env.Home
		}
		d.tell(n, AttentionAccount, LinkValue(r.Root))
	}
}

// noteID hashes the Mutation's number, the op's and the count of notes so far.
func (d *decider) noteID(op int) RecordID {
	b := []byte("tradepost attention v1")
	for _, n := range []uint64{uint64(d.m.Node), uint64(d.m.Seq), uint64(int64(op)), uint64(len(d.notes))} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	sum := sha256.Sum256(b)
	id := RecordID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

func (d *decider) fieldNote(kind string, i int, e *Entity, r *Record, f *Field, op *Op) *Record {
	n := d.note(kind, i, r)
	d.subject(n, op)
	d.tell(n, AttentionField, TextValue(f.Name))
	return n
}

// subject names the record an op is about.
func (d *decider) subject(n *Record, op *Op) {
	if e := d.Schema().EntityByID(op.Entity); e != nil {
		d.tell(n, AttentionEntity, TextValue(e.Name))
	}
	d.tell(n, AttentionRecord, TextValue(op.Record.String()))
}

func (d *decider) tell(n *Record, f FieldID, v Value) {
	if !v.IsNull() {
		n.set(Cell{Field: f, Value: v, Stamp: d.stamp})
	}
}

// A Side is one of two values that met: what, by whom, where and when.
type Side struct {
	Value json.RawMessage `json:"value"`
	Actor string          `json:"actor,omitempty"`
	Node  NodeID          `json:"node,omitempty"`
	At    *time.Time      `json:"at,omitempty"`
}

func side(v Value, s Stamp) Value {
	raw, err := v.MarshalJSON()
	if err != nil {
		panic("crm: a value does not encode: " + err.Error())
	}
	x := Side{Value: raw, Actor: s.Actor, Node: s.Node}
	if s.HLC != 0 {
		at := s.HLC.Time()
		x.At = &at
	}
	b, err := json.Marshal(x)
	if err != nil {
		panic("crm: a side does not encode: " + err.Error())
	}
	return TextValue(string(b))
}

// OpText is an op as the API and the attention list write it.
type OpText struct {
	Op     string                     `json:"op"`
	Entity string                     `json:"entity"`
	Record string                     `json:"record"`
	Seen   string                     `json:"seen,omitempty"` // a record token; of a Mutation of version 1 "rev.seq", which ParseOps refuses
	Fields map[string]json.RawMessage `json:"fields,omitempty"`
	From   json.RawMessage            `json:"from,omitempty"` // of a transition
}

func opsText(s *Schema, ops []Op) Value {
	b, err := json.Marshal(FormatOps(s, ops))
	if err != nil {
		panic("crm: ops do not encode: " + err.Error())
	}
	return TextValue(string(b))
}

// FormatOps writes ops as text. Entities and fields unknown to the schema are
// written by number.
func FormatOps(s *Schema, ops []Op) []OpText {
	out := make([]OpText, 0, len(ops))
	for _, op := range ops {
		e := s.EntityByID(op.Entity)
		t := OpText{Op: op.Kind.String(), Entity: fmt.Sprint(op.Entity), Record: op.Record.String(), Seen: op.Seen.String()}
		if e != nil {
			t.Entity = e.Name
		}
		for i, c := range op.Cells {
			raw, err := c.Value.MarshalJSON()
			if err != nil {
				panic("crm: a value does not encode: " + err.Error())
			}
			if op.Kind == OpTransition && i == 0 {
				t.From = raw
				continue
			}
			if t.Fields == nil {
				t.Fields = map[string]json.RawMessage{}
			}
			t.Fields[fieldName(e, c.Field)] = raw
		}
		out = append(out, t)
	}
	return out
}

func fieldName(e *Entity, id FieldID) string {
	if e != nil && e.FieldByID(id) != nil {
		return e.FieldByID(id).Name
	}
	return fmt.Sprint(id)
}

// ParseOps reads ops that FormatOps or an API client wrote.
func ParseOps(s *Schema, texts []OpText) ([]Op, error) {
	out := make([]Op, 0, len(texts))
	for i, t := range texts {
		op, err := parseOp(s, t)
		if err != nil {
			return nil, fmt.Errorf("op %d: %w", i+1, err)
		}
		out = append(out, op)
	}
	return out, nil
}

func parseOp(s *Schema, t OpText) (Op, error) {
	e := s.Entity(t.Entity)
	if e == nil {
		return Op{}, &Error{Code: CodeUnknownEntity, Item: t.Entity, Message: "no such entity"}
	}
	id, err := ParseRecordID(t.Record)
	if err != nil {
		return Op{}, &Error{Code: CodeInvalid, Item: "record", Message: err.Error()}
	}
	op := Op{Entity: e.ID, Record: id}
	for k, name := range opNames {
		if k > 0 && name == t.Op {
			op.Kind = OpKind(k)
		}
	}
	if op.Kind == 0 {
		return Op{}, &Error{Code: CodeInvalid, Item: "op", Message: fmt.Sprintf("%q is not an op; there are create, patch, delete, restore, set-add, set-remove, counter-add, transition", clip(t.Op))}
	}
	if t.Seen != "" {
		if op.Seen, err = ParseToken(t.Seen); err != nil {
			return Op{}, err
		}
	}
	if op.Kind == OpTransition && len(t.Fields) != 1 {
		return Op{}, &Error{Code: CodeInvalid, Item: "fields", Message: "a transition names one field"}
	}
	op.Cells, err = e.parseFields(t)
	return op, err
}

// parseFields reads the fields in id order, so that equal requests make equal
// mutations.
func (e *Entity) parseFields(t OpText) ([]Input, error) {
	for name := range t.Fields {
		if e.Field(name) == nil {
			return nil, &Error{Code: CodeUnknownField, Item: e.Name + "." + clip(name), Message: "no such field"}
		}
	}
	var out []Input
	for _, f := range e.Fields {
		raw, ok := t.Fields[f.Name]
		if !ok {
			continue
		}
		if t.Op == "transition" {
			from, err := f.ParseJSON(t.From)
			if err != nil {
				return nil, err
			}
			out = append(out, Input{f.ID, from})
		}
		v, err := f.ParseJSON(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, Input{f.ID, v})
	}
	for name := range t.Fields {
		if e.Field(name).ID < FirstField {
			return nil, &Error{Code: CodeReadOnly, Item: name, Message: "the field is set by the system"}
		}
	}
	return out, nil
}
