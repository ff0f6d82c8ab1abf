package sim

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// A desk is the people of a cluster: what they have open, and what they ask for.
type desk struct {
	w       *world
	screens map[screenKey][]Screen // the last few of each record at each node, oldest first
	mark    crm.Mark               // the newest one that a reader or an author was given
}

// A screenKey is a record on one disk of a node: a copy of the disk shows, under
// one number, edits of its own.
type screenKey struct {
	node   crm.NodeID
	copy   int
	record store.RecordKey
}

// keptScreens is how many screens of a record stay open at a node.
const keptScreens = 4

// show remembers what a page at a branch shows of a record.
func (d *desk) show(b *branchNode, r *store.Reader, rec *crm.Record) { d.keep(b.diskID, r, rec) }

func (d *desk) keep(disk DiskID, r *store.Reader, rec *crm.Record) Screen {
	k := screenKey{disk.Node, disk.Copy, keyOf(rec)}
	s := screenOf(rec, r.Token(rec), d.w.agenda.now)
	list := append(d.screens[k], s)
	if len(list) > keptScreens {
		list = list[1:]
	}
	d.screens[k] = list
	return s
}

// A wish is what an edit of the Script asks for, before it has met a node.
type wish struct {
	id  EditID
	old int        // 0: from the page as it is now; 1: from the one opened before; ...
	ops [][]string // words
}

// parseWish reads "17 old=1 set account/a3 description ; tag account/a3 +vip".
func parseWish(words []string) (wish, error) {
	n, err := strconv.Atoi(words[0])
	if err != nil || n < 1 {
		return wish{}, fmt.Errorf("%q is no number of an edit", words[0])
	}
	v := wish{id: EditID(n)}
	words = words[1:]
	if len(words) > 0 && strings.HasPrefix(words[0], "old=") {
		if v.old, err = strconv.Atoi(words[0][len("old="):]); err != nil {
			return wish{}, fmt.Errorf("%q is no age of a page", words[0])
		}
		words = words[1:]
	}
	for len(words) > 0 {
		end := slices.Index(words, ";")
		if end < 0 {
			end = len(words)
		}
		if end < 2 || wants[words[0]] == nil {
			return wish{}, fmt.Errorf("%q is nothing to ask for", strings.Join(words[:end], " "))
		}
		v.ops = append(v.ops, words[:end])
		words = words[min(end+1, len(words)):]
	}
	if len(v.ops) == 0 {
		return wish{}, fmt.Errorf("edit %d asks for nothing", v.id)
	}
	return v, nil
}

// askBranch has a branch take an edit.
func (d *desk) askBranch(b *branchNode, v wish) {
	e := d.note(v, b.id, b.diskID)
	var req crm.Request
	_, err := b.rep.Read(context.Background(), crm.Demand{}, func(r *store.Reader) (err error) {
		req, err = d.request(r, b.diskID, v, e)
		return err
	})
	var receipt crm.Receipt
	if err == nil {
		receipt, err = b.rep.Commit(context.Background(), req)
	}
	if err != nil {
		d.refused(e, b.name, err)
		return
	}
	e.Acked, e.Seq, b.seqs[e.ID] = true, receipt.Seq, receipt.Seq
	d.mark = crm.Mark{Timeline: b.shown.Timeline, Rev: b.shown.Rev, Node: b.id, Seq: receipt.Seq}
	d.numbers(b, e)
	d.w.acked++
	b.note("takes edit %d as %d", e.ID, e.Seq)
	b.moved()
	b.pump()
}

// numbers notes what the branch has numbered.
func (d *desk) numbers(b *branchNode, e *Edit) {
	_, err := b.rep.Read(context.Background(), crm.Demand{}, func(r *store.Reader) error {
		for _, op := range e.Ops {
			rec, err := r.Record(op.Entity, op.Record)
			if err != nil {
				return err
			}
			if rec != nil && op.Kind == crm.OpCreate && (op.Entity == catalog.Order || op.Entity == catalog.Case) {
				e.Numbers = append(e.Numbers, rec.Value(numberField).Str())
			}
		}
		return nil
	})
	if err != nil {
		b.failed("read what it has numbered", err)
	}
}

// askMaster has head office take an edit, at one of the masters.
func (d *desk) askMaster(m *masterNode, v wish) {
	e := d.note(v, m.id, DiskID{Node: m.id})
	var req crm.Request
	err := m.fsm.DB().View(func(tx *store.Tx) error {
		r, err := store.NewReader(tx, nil)
		if err == nil {
			req, err = d.request(r, e.Disk, v, e)
		}
		return err
	})
	if err != nil {
		d.refused(e, m.name, err)
		return
	}
	m.author.Commit(req, func(seq crm.Seq, o crm.Outcome, err error) {
		if err != nil {
			d.refused(e, m.name, err)
			return
		}
		e.Acked, e.Seq = true, seq
		d.w.acked++
		m.note("takes edit %d as %d: %s", e.ID, seq, o.Kind)
	})
}

// note puts an edit into the history.
func (d *desk) note(v wish, n crm.NodeID, disk DiskID) *Edit {
	h := d.w.record
	for len(h.Edits) < int(v.id) {
		h.Edits = append(h.Edits, nil)
	}
	e := &Edit{ID: v.id, At: d.w.agenda.now, Node: n, Disk: disk, Screens: map[store.RecordKey]Screen{}}
	h.Edits[v.id-1] = e
	return e
}

func (d *desk) refused(e *Edit, by string, err error) {
	e.Refused = crm.CodeOf(err)
	d.w.trace.Note(d.w.agenda.now, by, "does not take edit %d: %s", e.ID, e.Refused)
	d.w.count("edit refused: " + string(e.Refused))
}

// request makes the edit from what the node shows, or from what it showed.
func (d *desk) request(r *store.Reader, disk DiskID, v wish, e *Edit) (crm.Request, error) {
	for _, words := range v.ops {
		a := &asking{d: d, r: r, disk: disk, e: e, old: v.old, words: slices.Clone(words)}
		if err := wants[words[0]](a); err != nil {
			return crm.Request{}, err
		}
	}
	return crm.Request{Actor: e.ID.Actor(), Intent: "sim." + v.ops[0][0], Ops: e.Ops, Guards: e.Guards}, nil
}

// An asking is one op on its way from words.
type asking struct {
	d     *desk
	r     *store.Reader
	disk  DiskID
	e     *Edit
	old   int
	words []string // verb, record, rest
}

// wants are the verbs of edits.
var wants = map[string]func(*asking) error{
	"make": (*asking).make, "set": (*asking).set, "clear": (*asking).clear, "add": (*asking).add, "spend": (*asking).spend, "tag": (*asking).tag,
	"tags": (*asking).tags, "move": (*asking).move, "delete": (*asking).delete, "restore": (*asking).restore, "link": (*asking).link,
	"grant": (*asking).grant, "revoke": (*asking).grant, "field": (*asking).field,
}

// entity is that of a record's name, such as contact/c3.
func (a *asking) entity() (*crm.Entity, error) {
	return entityOf(a.r.Schema(), a.words[1])
}

func entityOf(s *crm.Schema, record string) (*crm.Entity, error) {
	name, _, _ := strings.Cut(record, "/")
	if e := s.Entity(name); e != nil {
		return e, nil
	}
	return nil, &crm.Error{Code: crm.CodeUnknownEntity, Item: record}
}

// op begins an op on the record, as its author's page shows it.
func (a *asking) op(kind crm.OpKind) (crm.Op, Screen, *crm.Entity, error) {
	e, err := a.entity()
	if err != nil {
		return crm.Op{}, Screen{}, nil, err
	}
	op := crm.Op{Kind: kind, Entity: e.ID, Record: idOf(a.words[1])}
	rec, err := a.r.Record(e.ID, op.Record)
	if err != nil || kind == crm.OpCreate {
		return op, Screen{}, e, err
	}
	if rec == nil {
		return op, Screen{}, e, &crm.Error{Code: crm.CodeNotFound, Item: a.words[1]}
	}
	screen := a.d.keep(a.disk, a.r, rec)
	if open := a.d.screens[screenKey{a.disk.Node, a.disk.Copy, recordOf(op)}]; a.old > 0 {
		screen = open[max(0, len(open)-1-a.old)]
	}
	op.Seen = screen.Token
	a.e.Screens[recordOf(op)] = screen
	return op, screen, e, nil
}

func (a *asking) done(op crm.Op, cells ...crm.Input) error {
	op.Cells = cells
	a.e.Ops = append(a.e.Ops, op)
	return nil
}

// field returns the field that a word names.
func fieldOf(e *crm.Entity, name string) (*crm.Field, error) {
	if f := e.Field(name); f != nil {
		return f, nil
	}
	return nil, &crm.Error{Code: crm.CodeUnknownField, Item: e.Name + "." + name}
}

// make creates: make contact/c7 account=account/a3 ...
func (a *asking) make() error {
	op, _, e, err := a.op(crm.OpCreate)
	if err != nil {
		return err
	}
	cells := map[string]string{}
	for _, title := range []string{"name", "last_name", "subject"} {
		if f := e.Field(title); f != nil && f.ID >= crm.FirstField {
			cells[title] = a.e.ID.Canary()
		}
	}
	switch e.ID {
	case catalog.Order:
		cells["order_date"] = "2026-03-02"
	case catalog.Activity:
		cells["at"] = "2026-03-02T09:00:00Z"
	}
	for _, word := range a.words[2:] {
		name, v, _ := strings.Cut(word, "=")
		cells[name] = v
	}
	var in []crm.Input
	for _, f := range e.Fields {
		text, ok := cells[f.Name]
		if !ok {
			continue
		}
		v, err := valueOf(f, text)
		if err != nil {
			return err
		}
		in = append(in, crm.Input{Field: f.ID, Value: v})
	}
	return a.done(op, in...)
}

// valueOf reads a field's text; a link is a name.
func valueOf(f *crm.Field, text string) (crm.Value, error) {
	if f.Kind == crm.Link && text != "" {
		return crm.LinkValue(idOf(text)), nil
	}
	return f.ParseText(text)
}

// set writes one field: set account/a3 description [value]; without a value, the
// edit's canary.
func (a *asking) set() error {
	text := a.e.ID.Canary()
	if len(a.words) > 3 {
		text = a.words[3]
	}
	return a.patch(a.words[2], text)
}

func (a *asking) clear() error { return a.patch(a.words[2], "") }

// link points a record at another: link contact/c1 account account/a2.
func (a *asking) link() error { return a.patch(a.words[2], a.words[3]) }

func (a *asking) patch(field, text string) error {
	op, _, e, err := a.op(crm.OpPatch)
	if err != nil {
		return err
	}
	f, err := fieldOf(e, field)
	if err != nil {
		return err
	}
	v, err := valueOf(f, text)
	if err != nil {
		return err
	}
	return a.done(op, crm.Input{Field: f.ID, Value: v})
}

// add counts: add contact/c3 5.
func (a *asking) add() error {
	op, _, _, err := a.op(crm.OpCounterAdd)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(a.words[2], 10, 64)
	if err != nil {
		return err
	}
	return a.done(op, crm.Input{Field: counterField, Value: crm.IntegerValue(n)})
}

// spend takes points away if they are there: spend contact/c3 5.
func (a *asking) spend() error {
	n, err := strconv.ParseInt(a.words[2], 10, 64)
	if err != nil {
		return err
	}
	op, _, _, err := a.op(crm.OpCounterAdd)
	if err != nil {
		return err
	}
	a.e.Guards = append(a.e.Guards, crm.Guard{Kind: crm.GuardAtLeast, Entity: op.Entity, Record: op.Record, Field: counterField, Value: crm.IntegerValue(n)})
	return a.done(op, crm.Input{Field: counterField, Value: crm.IntegerValue(-n)})
}

// tag adds or removes an element: tag account/a3 +vip.
func (a *asking) tag() error {
	kind := crm.OpSetAdd
	if strings.HasPrefix(a.words[2], "-") {
		kind = crm.OpSetRemove
	}
	op, _, e, err := a.op(kind)
	if err != nil {
		return err
	}
	f, err := fieldOf(e, "tags")
	if err != nil {
		return err
	}
	return a.done(op, crm.Input{Field: f.ID, Value: crm.ChoicesValue(a.words[2][1:])})
}

// tags writes the whole set: what the page shows, without the first element, and
// one more.
func (a *asking) tags() error {
	op, screen, e, err := a.op(crm.OpPatch)
	if err != nil {
		return err
	}
	f, err := fieldOf(e, "tags")
	if err != nil {
		return err
	}
	shown := screen.Values[f.ID].Set()
	if len(shown) > 0 {
		shown = shown[1:]
	}
	return a.done(op, crm.Input{Field: f.ID, Value: crm.ChoicesValue(append(slices.Clone(shown), a.words[2])...)})
}

// move takes a stage or status on: move opportunity/o3 stage 4, to its fourth
// option. From is what the page shows.
func (a *asking) move() error {
	op, screen, e, err := a.op(crm.OpTransition)
	if err != nil {
		return err
	}
	f, err := fieldOf(e, a.words[2])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(a.words[3])
	if err != nil {
		return err
	}
	to := crm.ChoiceValue(f.Options[n%len(f.Options)].Value)
	return a.done(op, crm.Input{Field: f.ID, Value: screen.Values[f.ID]}, crm.Input{Field: f.ID, Value: to})
}

func (a *asking) delete() error {
	op, _, _, err := a.op(crm.OpDelete)
	if err != nil {
		return err
	}
	return a.done(op)
}

func (a *asking) restore() error {
	op, _, _, err := a.op(crm.OpRestore)
	if err != nil {
		return err
	}
	return a.done(op)
}

// grant gives a site a territory or, as revoke, takes it away: grant r1 south.
func (a *asking) grant() error {
	kind := crm.OpSetAdd
	if a.words[0] == "revoke" {
		kind = crm.OpSetRemove
	}
	a.words[1] = "site/" + a.words[1]
	op, _, _, err := a.op(kind)
	if err != nil {
		return err
	}
	return a.done(op, crm.Input{Field: crm.SiteTerritories, Value: crm.ChoicesValue(a.words[2])})
}

// field adds a text field to accounts: field extra1 201.
func (a *asking) field() error {
	n, err := strconv.Atoi(a.words[2])
	if err != nil {
		return err
	}
	e := *a.r.Schema().Entity("account")
	e.Fields = []*crm.Field{{ID: crm.FieldID(n), Name: a.words[1], Label: a.words[1], Kind: crm.Text, KindName: crm.Text.String()}}
	ops := crm.MetadataOps(&e)
	a.e.Ops = append(a.e.Ops, ops[len(ops)-1])
	return nil
}
