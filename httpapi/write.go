package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// commitTimeout bounds how long a node may take to take an edit.
const commitTimeout = 30 * time.Second

// An edit is a request of an author and the records its answer shows.
type edit struct {
	crm.Request
	shown    []subject
	one      bool // the answer has "record", not "records"
	created  bool
	timeline uint64
	wait     time.Duration // for the outcome; 0: not at all
}

// A subject is a record that an edit is about.
type subject struct {
	entity *crm.Entity
	id     crm.RecordID
}

// prepare reads the parameters of an edit and lets fn fill it from what this node
// shows now, at the request's consistency demand.
func (s *Server) prepare(r *http.Request, actor string, fn func(*store.Reader, *edit) error) (edit, error) {
	q, err := readParams(r, "wait", "timeout")
	if err != nil {
		return edit{}, err
	}
	wait, err := q.wait()
	if err != nil {
		return edit{}, err
	}
	var ed edit
	f, err := s.read(r, func(rd *store.Reader) error {
		ed = edit{wait: wait, Request: crm.Request{Actor: actor}}
		return fn(rd, &ed)
	})
	ed.timeline = f.Timeline
	return ed, err
}

// create answers POST /api/v1/{entity}: the body holds the fields, and perhaps an id.
func (s *Server) create(w http.ResponseWriter, r *http.Request, actor string) error {
	in, err := readObject(w, r)
	if err != nil {
		return err
	}
	ed, err := s.prepare(r, actor, func(rd *store.Reader, ed *edit) error {
		e, err := entityOf(rd.Schema(), r.PathValue("entity"))
		if err != nil {
			return err
		}
		op, err := s.createOp(e, in)
		if err != nil {
			return err
		}
		ed.Intent, ed.Ops = e.Name+".create", []crm.Op{op}
		ed.shown, ed.one, ed.created = []subject{{e, op.Record}}, true, true
		return nil
	})
	if err != nil {
		return err
	}
	return s.commit(w, r, ed)
}

func (s *Server) createOp(e *crm.Entity, in []member) (crm.Op, error) {
	op := crm.Op{Kind: crm.OpCreate, Entity: e.ID}
	if i := slices.IndexFunc(in, func(m member) bool { return m.name == "id" }); i >= 0 {
		var text string
		if err := (shape{"id": &text}).fill(in[i : i+1]); err != nil {
			return op, err
		}
		id, err := crm.ParseRecordID(text)
		if err != nil {
			return op, invalid("id", "%s", err.Error())
		}
		op.Record, in = id, slices.Delete(slices.Clone(in), i, i+1)
	} else {
		op.Record = crm.NewRecordID(s.now(), s.cfg.Rand)
	}
	plain, err := inputs(e, in)
	if err != nil {
		return op, err
	}
	for _, c := range plain {
		if !c.Value.IsNull() {
			op.Cells = append(op.Cells, c)
		}
	}
	return op, nil
}

// patch answers PATCH /api/v1/{entity}/{id}: the body holds the fields that change.
func (s *Server) patch(w http.ResponseWriter, r *http.Request, actor string) error {
	in, err := readObject(w, r)
	if err != nil {
		return err
	}
	return s.edit(w, r, actor, "patch", func(e *crm.Entity, op crm.Op) ([]crm.Op, error) {
		return patchOps(e, op, in)
	})
}

// remove answers DELETE /api/v1/{entity}/{id}.
func (s *Server) remove(w http.ResponseWriter, r *http.Request, actor string) error {
	return s.edit(w, r, actor, "delete", func(_ *crm.Entity, op crm.Op) ([]crm.Op, error) {
		op.Kind = crm.OpDelete
		return []crm.Op{op}, nil
	})
}

// restore answers POST /api/v1/{entity}/{id}/restore.
func (s *Server) restore(w http.ResponseWriter, r *http.Request, actor string) error {
	return s.edit(w, r, actor, "restore", func(_ *crm.Entity, op crm.Op) ([]crm.Op, error) {
		op.Kind = crm.OpRestore
		return []crm.Op{op}, nil
	})
}

// edit commits what ops makes of the record in the path. The op it is given
// names the record and what the author had seen of it.
func (s *Server) edit(w http.ResponseWriter, r *http.Request, actor, verb string, ops func(*crm.Entity, crm.Op) ([]crm.Op, error)) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	seen, err := parseIfMatch(r.Header)
	if err != nil {
		return err
	}
	ed, err := s.prepare(r, actor, func(rd *store.Reader, ed *edit) error {
		e, rec, err := anyRecord(rd, r.PathValue("entity"), id)
		if err != nil {
			return err
		}
		op := crm.Op{Entity: e.ID, Record: id, Seen: rd.Token(rec)}
		if seen != nil {
			op.Seen = *seen
		}
		ed.Intent, ed.shown, ed.one = e.Name+"."+verb, []subject{{e, id}}, true
		ed.Ops, err = ops(e, op)
		return err
	})
	if err != nil {
		return err
	}
	return s.commit(w, r, ed)
}

// inputs reads fields and their values, by field id, so that equal bodies make
// equal mutations.
func inputs(e *crm.Entity, in []member) ([]crm.Input, error) {
	var out []crm.Input
	for _, m := range in {
		f, err := writableField(e, m.name)
		if err != nil {
			return nil, err
		}
		v, err := f.ParseJSON(m.raw)
		if err != nil {
			return nil, err
		}
		out = append(out, crm.Input{Field: f.ID, Value: v})
	}
	slices.SortFunc(out, func(a, b crm.Input) int { return int(a.Field) - int(b.Field) })
	return out, nil
}

func writableField(e *crm.Entity, name string) (*crm.Field, error) {
	f := e.Field(name)
	switch {
	case f == nil:
		return nil, unknownField(e, name)
	case f.ID < crm.FirstField || f.ReadOnly:
		return nil, &crm.Error{Code: crm.CodeReadOnly, Item: name, Message: "the field is set by the system"}
	}
	return f, nil
}

// patchOps makes one patch of the plain values, and an op for each
// {"add":…,"remove":…} of a set or a counter.
func patchOps(e *crm.Entity, op crm.Op, in []member) ([]crm.Op, error) {
	var plain []member
	var deltas []crm.Op
	for _, m := range in {
		f, err := writableField(e, m.name)
		if err != nil {
			return nil, err
		}
		if m.raw[0] != '{' || f.Kind != crm.Choices && f.Rule() != crm.Counter || isMoney(f, m.raw) {
			plain = append(plain, m)
			continue
		}
		more, err := deltaOps(f, op, m.raw)
		if err != nil {
			return nil, err
		}
		deltas = append(deltas, more...)
	}
	cells, err := inputs(e, plain)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(deltas, func(a, b crm.Op) int { return int(a.Cells[0].Field) - int(b.Cells[0].Field) })
	if len(cells) > 0 {
		op.Kind, op.Cells = crm.OpPatch, cells
		deltas = slices.Insert(deltas, 0, op)
	}
	if len(deltas) == 0 {
		return nil, invalid("body", "the edit changes nothing")
	}
	return deltas, nil
}

// isMoney tells a counter of money set to an amount from one added to.
func isMoney(f *crm.Field, raw json.RawMessage) bool {
	in, err := members(f.Name, raw)
	return f.Kind == crm.Decimal && err == nil && slices.ContainsFunc(in, func(m member) bool { return m.name == "amount" })
}

func deltaOps(f *crm.Field, op crm.Op, raw json.RawMessage) ([]crm.Op, error) {
	in, err := members(f.Name, raw)
	if err != nil {
		return nil, err
	}
	var add, remove json.RawMessage
	parts := []struct {
		raw  *json.RawMessage
		kind crm.OpKind
	}{{&add, crm.OpSetAdd}, {&remove, crm.OpSetRemove}}
	s := shape{"add": &add, "remove": &remove}
	if f.Kind != crm.Choices {
		delete(s, "remove")
		parts[0].kind = crm.OpCounterAdd
	}
	if err := s.fill(in); err != nil {
		return nil, under(f.Name, err)
	}
	var out []crm.Op
	for _, part := range parts {
		v, err := f.ParseJSON(*part.raw)
		if err != nil {
			return nil, err
		}
		if !v.IsNull() {
			op.Kind, op.Cells = part.kind, []crm.Input{{Field: f.ID, Value: v}}
			out = append(out, op)
		}
	}
	return out, nil
}

// commit gives the edit to the node, waits for its outcome if asked to, and
// answers with how far it came and what the records look like now.
func (s *Server) commit(w http.ResponseWriter, r *http.Request, ed edit) error {
	ctx, cancel := context.WithTimeout(r.Context(), commitTimeout)
	defer cancel()
	receipt, err := s.cfg.Node.Commit(ctx, ed.Request)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if ed.created {
		status = http.StatusCreated
	}
	if receipt.Outcome == nil && ed.wait > 0 && !s.await(r.Context(), &receipt, ed.wait) {
		status = http.StatusAccepted
	}
	if o := receipt.Outcome; o != nil && o.Kind == crm.Rejected {
		return &rejected{&crm.Error{Code: o.Code, Op: ed.Intent, Message: o.Message}, *outcomeText(o)}
	}
	return s.show(w, r, ed, receipt, status)
}

// await fills in the outcome and reports whether it came in time.
func (s *Server) await(ctx context.Context, receipt *crm.Receipt, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	o, err := s.cfg.Node.Await(ctx, receipt.Seq)
	if err != nil {
		return false // the edit is safe here whatever ended the wait
	}
	receipt.Outcome = &o
	return true
}

// show answers an edit that was taken.
func (s *Server) show(w http.ResponseWriter, r *http.Request, ed edit, receipt crm.Receipt, status int) error {
	p := newPage()
	defer p.free()
	f, err := s.readOwn(r.Context(), ed.timeline, receipt, func(rd *store.Reader) error {
		p.body, p.etag = p.body[:0], p.etag[:0]
		return appendWritten(p, rd, ed, receipt)
	})
	if err != nil {
		return err
	}
	f.Mark.Node, f.Mark.Seq = receipt.Node, max(f.Mark.Seq, receipt.Seq)
	if ed.created && ed.one {
		w.Header().Set("Location", "/api/v1/"+ed.shown[0].entity.Name+"/"+ed.shown[0].id.String())
	}
	w.Header().Set("Tradepost-Saved", saved(receipt))
	p.send(w, r, status, f, s.now())
	return nil
}

// readOwn reads a state with the edit in it; where that cannot be had in a
// moment it reads what there is, because the edit itself is safe.
func (s *Server) readOwn(ctx context.Context, timeline uint64, receipt crm.Receipt, fn func(*store.Reader) error) (crm.Freshness, error) {
	mark := crm.Mark{Timeline: timeline, Node: receipt.Node, Seq: receipt.Seq}
	if receipt.Outcome != nil {
		mark.Rev = receipt.Outcome.Rev
	}
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	f, err := s.cfg.Node.Read(soon, crm.Demand{Level: crm.Session, Session: mark}, fn)
	if err == nil {
		return f, nil
	}
	return s.cfg.Node.Read(ctx, crm.Demand{Level: crm.Local}, fn)
}

func saved(receipt crm.Receipt) string {
	if receipt.Outcome != nil {
		return "everywhere"
	}
	return "here"
}

// appendWritten writes a Written.
func appendWritten(p *page, rd *store.Reader, ed edit, receipt crm.Receipt) error {
	head, err := json.Marshal(Written{Saved: saved(receipt), Node: receipt.Node, Seq: receipt.Seq, Outcome: outcomeText(receipt.Outcome)})
	if err != nil {
		return err
	}
	p.body = append(p.body, head[:len(head)-1]...)
	if ed.one {
		p.body = append(p.body, `,"record":`...)
		rec, err := p.appendShown(rd, ed.shown[0])
		if rec != nil {
			p.etag = rd.Token(rec).AppendTo(p.etag)
		}
		p.body = append(p.body, '}')
		return err
	}
	p.body = append(p.body, `,"records":[`...)
	for i, sub := range ed.shown {
		if i > 0 {
			p.body = append(p.body, ',')
		}
		if _, err := p.appendShown(rd, sub); err != nil {
			return err
		}
	}
	p.body = append(p.body, ']', '}')
	return nil
}

// appendShown writes a record as it is now, null if it is deleted or not held.
func (p *page) appendShown(rd *store.Reader, sub subject) (*crm.Record, error) {
	rec, err := rd.Record(sub.entity.ID, sub.id)
	if rec == nil || rec.Deleted {
		p.body = append(p.body, "null"...)
		return rec, err
	}
	p.body = appendRecord(p.body, sub.entity, rec, &view{rd: rd})
	return rec, err
}
