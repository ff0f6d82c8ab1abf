package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// maxOps bounds the ops of one mutation; its encoding is bounded too
// (crm.MaxMutation).
const maxOps = 1000

// A MutationText is an edit of any number of records that stands or falls whole.
type MutationText struct {
	Intent string       `json:"intent"` // "order.create": for the audit trail
	Ops    []crm.OpText `json:"ops"`    // Seen absent: what the node shows now; Record absent in a create: a new one
	Guards []GuardText  `json:"guards,omitempty"`
}

// A GuardText is a condition on decided state; see crm.Guard.
type GuardText struct {
	Kind   string          `json:"kind"` // equals, exists, absent, at-least or at-most
	Entity string          `json:"entity"`
	Record string          `json:"record"`
	Field  string          `json:"field,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
}

var guardKinds = map[string]crm.GuardKind{"equals": crm.GuardEquals, "exists": crm.GuardExists, "absent": crm.GuardAbsent,
	"at-least": crm.GuardAtLeast, "at-most": crm.GuardAtMost}

// mutate answers POST /api/v1/mutations.
func (s *Server) mutate(w http.ResponseWriter, r *http.Request, actor string) error {
	m, err := readMutation(w, r)
	if err != nil {
		return err
	}
	ed, err := s.prepare(r, actor, func(rd *store.Reader, ed *edit) error { return s.fillMutation(rd, m, ed) })
	if err != nil {
		return err
	}
	return s.commit(w, r, ed)
}

func readMutation(w http.ResponseWriter, r *http.Request) (MutationText, error) {
	m := MutationText{}
	var ops, guards []json.RawMessage
	if err := readShape(w, r, shape{"intent": &m.Intent, "ops": &ops, "guards": &guards}); err != nil {
		return m, err
	}
	if len(m.Intent) > 100 || len(ops) == 0 || len(ops) > maxOps || len(guards) > maxOps {
		return m, invalid("body", "want an intent of at most 100 bytes, and 1 to %d ops", maxOps)
	}
	if m.Intent == "" {
		m.Intent = "mutation"
	}
	for i, raw := range ops {
		op, err := readOp(raw)
		if err != nil {
			return m, under(place("ops", i), err)
		}
		m.Ops = append(m.Ops, op)
	}
	for i, raw := range guards {
		var g GuardText
		in, err := members("guard", raw)
		if err == nil {
			err = shape{"kind": &g.Kind, "entity": &g.Entity, "record": &g.Record, "field": &g.Field, "value": &g.Value}.fill(in)
		}
		if err != nil {
			return m, under(place("guards", i), err)
		}
		m.Guards = append(m.Guards, g)
	}
	return m, nil
}

func place(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

func readOp(raw json.RawMessage) (crm.OpText, error) {
	var op crm.OpText
	in, err := members("op", raw)
	if err != nil {
		return op, err
	}
	var fields json.RawMessage
	err = shape{"op": &op.Op, "entity": &op.Entity, "record": &op.Record, "seen": &op.Seen, "from": &op.From, "fields": &fields}.fill(in)
	if err != nil || fields == nil {
		return op, err
	}
	if in, err = members("fields", fields); err != nil {
		return op, err
	}
	op.Fields = map[string]json.RawMessage{}
	for _, m := range in {
		op.Fields[m.name] = m.raw
	}
	return op, nil
}

// fillMutation makes the edit from its text.
func (s *Server) fillMutation(rd *store.Reader, m MutationText, ed *edit) error {
	ed.Intent = m.Intent
	for i, text := range m.Ops {
		e, op, err := s.parseOp(rd, text)
		if err != nil {
			return under(place("ops", i), err)
		}
		ed.Ops = append(ed.Ops, op)
		ed.created = ed.created || op.Kind == crm.OpCreate
		if sub := (subject{e, op.Record}); !slices.Contains(ed.shown, sub) {
			ed.shown = append(ed.shown, sub)
		}
	}
	for i, text := range m.Guards {
		g, err := parseGuard(rd.Schema(), text)
		if err != nil {
			return under(place("guards", i), err)
		}
		ed.Guards = append(ed.Guards, g)
	}
	return nil
}

func (s *Server) parseOp(rd *store.Reader, text crm.OpText) (*crm.Entity, crm.Op, error) {
	e, err := entityOf(rd.Schema(), text.Entity)
	if err != nil {
		return nil, crm.Op{}, err
	}
	for _, name := range names(text.Fields) {
		if _, err := writableField(e, name); err != nil {
			return nil, crm.Op{}, err
		}
	}
	if text.Record == "" && text.Op == crm.OpCreate.String() {
		text.Record = crm.NewRecordID(s.now(), s.cfg.Rand).String()
	}
	ops, err := crm.ParseOps(rd.Schema(), []crm.OpText{text})
	if err != nil {
		return nil, crm.Op{}, err
	}
	op := ops[0]
	if op.Kind == crm.OpCreate {
		op.Cells = slices.DeleteFunc(op.Cells, func(c crm.Input) bool { return c.Value.IsNull() })
	} else if text.Seen == "" {
		op.Seen, err = seenNow(rd, e, op.Record)
	}
	return e, op, err
}

// seenNow is what a person in front of this node has seen of a record: what it
// shows, or nothing of one that an earlier op of the mutation makes.
func seenNow(rd *store.Reader, e *crm.Entity, id crm.RecordID) (crm.Token, error) {
	rec, err := rd.Record(e.ID, id)
	if rec == nil || err != nil {
		return crm.Token{}, err
	}
	return rd.Token(rec), nil
}

func parseGuard(schema *crm.Schema, text GuardText) (crm.Guard, error) {
	kind, ok := guardKinds[text.Kind]
	if !ok {
		return crm.Guard{}, invalid("kind", "%q is no guard; there are absent, at-least, at-most, equals, exists", short(text.Kind))
	}
	e, err := entityOf(schema, text.Entity)
	if err != nil {
		return crm.Guard{}, err
	}
	g := crm.Guard{Kind: kind, Entity: e.ID}
	if g.Record, err = crm.ParseRecordID(text.Record); err != nil {
		return g, invalid("record", "%s", err.Error())
	}
	if kind == crm.GuardExists || kind == crm.GuardAbsent {
		return g, nil
	}
	f := e.Field(text.Field)
	if f == nil {
		return g, unknownField(e, text.Field)
	}
	g.Field = f.ID
	g.Value, err = f.ParseJSON(text.Value)
	return g, err
}
