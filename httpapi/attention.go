package httpapi

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/store"
)

// An Attention is an edit that a person must see: a conflict, of which Lost is
// the value that lost, or a parked or rejected edit, of which Lost is the value
// that waits. Ops are there instead where the edit was refused whole.
type Attention struct {
	ID         string       `json:"id"`
	Token      string       `json:"token"`
	Kind       string       `json:"kind"`   // conflict, parked or rejected
	Status     string       `json:"status"` // open, resolved or dismissed
	CreatedAt  time.Time    `json:"created_at"`
	Message    string       `json:"message"`
	Code       crm.Code     `json:"code,omitempty"`
	Entity     string       `json:"entity,omitempty"`
	Record     string       `json:"record,omitempty"` // id of the record it is about
	Title      string       `json:"title,omitempty"`  // what people call that record, if it is held here
	Field      string       `json:"field,omitempty"`
	Label      string       `json:"label,omitempty"` // what people call the field
	Kept       *crm.Side    `json:"kept,omitempty"`
	Lost       *crm.Side    `json:"lost,omitempty"`
	Base       *crm.Side    `json:"base,omitempty"`
	Ops        []crm.OpText `json:"ops,omitempty"`
	Intent     string       `json:"intent,omitempty"`
	Actor      string       `json:"actor,omitempty"` // whose edit lost or waits
	Node       crm.NodeID   `json:"node,omitempty"`
	Seq        crm.Seq      `json:"seq,omitempty"`
	Account    string       `json:"account,omitempty"`
	Under      string       `json:"under,omitempty"` // the rejection this one depends on
	Resolution string       `json:"resolution,omitempty"`
	Takes      []string     `json:"takes,omitempty"` // what resolve may take
}

// Attentions is a page of the attention list.
type Attentions struct {
	Items []Attention `json:"items"`
	Next  string      `json:"next,omitempty"`
}

// listAttention answers GET /api/v1/attention?status=&kind=&record=&limit=&cursor=,
// newest first; without a status the open ones, with status=all everything.
func (s *Server) listAttention(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := readParams(r, "status", "kind", "record", "limit", "cursor")
	if err != nil {
		return err
	}
	return s.answer(w, r, "attention", func(rd *store.Reader, p *page) (int, error) {
		l, err := attentionList(rd.Schema(), q)
		if err != nil {
			return 0, err
		}
		found, err := rd.List(l)
		if err != nil {
			return 0, err
		}
		out := Attentions{Items: []Attention{}, Next: found.Next}
		for _, rec := range found.Records {
			a, err := attentionOf(rd, rec)
			if err != nil {
				return 0, err
			}
			out.Items = append(out.Items, a)
		}
		return found.Scanned, p.marshal(out)
	})
}

func attentionList(schema *crm.Schema, q params) (query.List, error) {
	e := schema.EntityByID(crm.EntityAttention)
	l := query.List{Entity: e, Cursor: q.text("cursor")}
	var conditions []string
	for _, c := range []struct {
		name string
		id   crm.FieldID
		text string
	}{{"status", crm.AttentionStatus, cmp.Or(q.text("status"), "open")}, {"kind", crm.AttentionKind, q.text("kind")}} {
		if c.text == "" || c.name == "status" && c.text == "all" {
			continue
		}
		if err := e.FieldByID(c.id).Check(crm.ChoiceValue(c.text)); err != nil {
			return l, err
		}
		conditions = append(conditions, c.name+` == "`+c.text+`"`)
	}
	if text := q.text("record"); text != "" {
		id, err := crm.ParseRecordID(text)
		if err != nil {
			return l, invalid("record", "%s", err.Error())
		}
		conditions = append(conditions, `record == "`+id.String()+`"`)
	}
	var err error
	if l.Where, err = query.Parse(schema, e, strings.Join(conditions, " && ")); err != nil {
		return l, err
	}
	if l.Limit, err = q.limit("limit", query.MaxLimit); err != nil {
		return l, err
	}
	l.Sort, err = query.ParseSort(e, "-created_at")
	return l, err
}

// getAttention answers GET /api/v1/attention/{id}.
func (s *Server) getAttention(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	id, err := pathID(r)
	if err != nil {
		return err
	}
	return s.answer(w, r, "point", func(rd *store.Reader, p *page) (int, error) {
		_, rec, err := liveRecord(rd, "attention", id)
		if err != nil {
			return 1, err
		}
		a, err := attentionOf(rd, rec)
		if err != nil {
			return 1, err
		}
		p.etag = rd.Token(rec).AppendTo(p.etag)
		return 1, p.marshal(a)
	})
}

// marshal writes v where speed does not matter.
func (p *page) marshal(v any) error {
	b, err := json.Marshal(v)
	p.body = append(p.body, b...)
	return err
}

func attentionOf(rd *store.Reader, rec *crm.Record) (Attention, error) {
	text := func(f crm.FieldID) string { return rec.Value(f).String() }
	a := Attention{ID: rec.ID.String(), Token: rd.Token(rec).String(), Kind: text(crm.AttentionKind), Status: text(crm.AttentionStatus),
		CreatedAt: rec.Value(crm.FieldCreatedAt).Time(), Message: text(crm.AttentionMessage), Code: crm.Code(text(crm.AttentionCode)),
		Entity: text(crm.AttentionEntity), Record: text(crm.AttentionRecord), Field: text(crm.AttentionField),
		Kept: sideOf(text(crm.AttentionKept)), Lost: sideOf(text(crm.AttentionLost)), Base: sideOf(text(crm.AttentionBase)),
		Intent: text(crm.AttentionIntent), Actor: text(crm.AttentionActor), Account: text(crm.AttentionAccount),
		Node: crm.NodeID(rec.Value(crm.AttentionNode).Int()), Seq: crm.Seq(rec.Value(crm.AttentionSeq).Int()),
		Under: text(crm.AttentionUnder), Resolution: text(crm.AttentionResolved)}
	a.Ops = opsOf(text(crm.AttentionOps))
	if a.Status == "open" {
		a.Takes = takes(a)
	}
	return a, a.name(rd)
}

// name fills in what people call the record and its field.
func (a *Attention) name(rd *store.Reader) error {
	e := rd.Schema().Entity(a.Entity)
	id, wrong := crm.ParseRecordID(a.Record)
	if e == nil || wrong != nil {
		return nil
	}
	if f := e.Field(a.Field); f != nil {
		a.Label = f.Label
	}
	var err error
	a.Title, err = rd.Title(e.ID, id)
	return err
}

// sideOf reads a side as package crm wrote it; nil if there is none, or if
// somebody wrote something else into the record by hand.
func sideOf(text string) *crm.Side {
	var side crm.Side
	if json.Unmarshal([]byte(text), &side) != nil {
		return nil
	}
	return &side
}

func opsOf(text string) []crm.OpText {
	var ops []crm.OpText
	if json.Unmarshal([]byte(text), &ops) != nil {
		return nil
	}
	return ops
}

// takes lists the ways an open item can be resolved.
func takes(a Attention) []string {
	var out []string
	if a.Lost != nil && a.Field != "" {
		out = append(out, "lost", "kept")
	}
	if len(a.Ops) > 0 {
		out = append(out, "apply")
	}
	return append(out, "dismiss")
}

// resolve answers POST /api/v1/attention/{id}/resolve {"take":…}. Lost sets the
// losing or waiting value, kept leaves the other, apply applies the refused ops
// again, dismiss only closes the item. It is an ordinary edit: what this node
// shows now counts as seen, and the item closes if the edit stands.
func (s *Server) resolve(w http.ResponseWriter, r *http.Request, actor string) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	var take string
	if err := readShape(w, r, shape{"take": &take}); err != nil {
		return err
	}
	ed, err := s.prepare(r, actor, func(rd *store.Reader, ed *edit) error {
		e, rec, err := liveRecord(rd, "attention", id)
		if err != nil {
			return err
		}
		return fillResolution(rd, e, rec, take, ed)
	})
	if err != nil {
		return err
	}
	return s.commit(w, r, ed)
}

func fillResolution(rd *store.Reader, e *crm.Entity, rec *crm.Record, take string, ed *edit) error {
	a, err := attentionOf(rd, rec)
	if err != nil {
		return err
	}
	if a.Status != "open" {
		return &crm.Error{Code: crm.CodeGuard, Item: a.ID, Message: "this is " + a.Status + " already"}
	}
	switch take {
	case "kept", "dismiss":
	case "lost":
		err = takeLost(rd, a, ed)
	case "apply":
		err = applyAgain(rd, a, ed)
	default:
		err = invalid("take", "%q is not one of: %s", short(take), strings.Join(a.Takes, ", "))
	}
	if err != nil {
		return err
	}
	status := "resolved"
	if take == "dismiss" {
		status = "dismissed"
	}
	ed.Intent = "attention." + take
	ed.Ops = append(ed.Ops, crm.Op{Kind: crm.OpPatch, Entity: e.ID, Record: rec.ID, Seen: rd.Token(rec), Cells: []crm.Input{
		{Field: crm.AttentionStatus, Value: crm.ChoiceValue(status)}, {Field: crm.AttentionResolved, Value: crm.TextValue(take)}}})
	ed.Guards = append(ed.Guards, crm.Guard{Kind: crm.GuardEquals, Entity: e.ID, Record: rec.ID, Field: crm.AttentionStatus, Value: crm.ChoiceValue("open")})
	ed.shown = append(ed.shown, subject{e, rec.ID})
	return nil
}

// takeLost makes the losing value the record's.
func takeLost(rd *store.Reader, a Attention, ed *edit) error {
	id, err := crm.ParseRecordID(a.Record)
	if err != nil || a.Lost == nil || a.Field == "" {
		return invalid("take", "there is no single value to take; take one of: %s", strings.Join(a.Takes, ", "))
	}
	e, rec, err := liveRecord(rd, a.Entity, id)
	if err != nil {
		return err
	}
	f, err := writableField(e, a.Field)
	if err != nil {
		return err
	}
	v, err := f.ParseJSON(a.Lost.Value)
	if err != nil {
		return err
	}
	ed.Ops = []crm.Op{{Kind: crm.OpPatch, Entity: e.ID, Record: id, Seen: rd.Token(rec), Cells: []crm.Input{{Field: f.ID, Value: v}}}}
	ed.shown = []subject{{e, id}}
	return nil
}

// applyAgain takes the refused ops, as if made in front of this node now. What
// their first author had seen counts no more, and may be written in an old form.
func applyAgain(rd *store.Reader, a Attention, ed *edit) error {
	for i := range a.Ops {
		a.Ops[i].Seen = ""
	}
	ops, err := crm.ParseOps(rd.Schema(), a.Ops)
	if err != nil {
		return err
	}
	if len(ops) == 0 {
		return invalid("take", "there is no edit to apply; take one of: %s", strings.Join(a.Takes, ", "))
	}
	for i := range ops {
		e := rd.Schema().EntityByID(ops[i].Entity)
		if ops[i].Seen, err = seenNow(rd, e, ops[i].Record); err != nil {
			return err
		}
		ed.shown = append(ed.shown, subject{e, ops[i].Record})
	}
	ed.Ops = ops
	return nil
}
