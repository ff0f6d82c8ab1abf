package clustertest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// kinds are the verbs that edit.
var kinds = map[string]crm.OpKind{"create": crm.OpCreate, "edit": crm.OpPatch, "delete": crm.OpDelete, "restore": crm.OpRestore}

// edit commits one op: create|edit|delete|restore NODE RECORD [as=CLERK] [field=value …].
func edit(verb string) func(*world, context.Context, []string) error {
	return func(w *world, ctx context.Context, args []string) error {
		return w.commit(ctx, args[0], slices.Concat([]string{verb}, args[1:]))
	}
}

// mutate commits several ops as one Mutation: NODE op ; op ; …
func mutate(w *world, ctx context.Context, args []string) error {
	var parts [][]string
	for _, word := range args[1:] {
		if len(parts) == 0 || word == ";" {
			parts = append(parts, nil)
		}
		if word != ";" {
			parts[len(parts)-1] = append(parts[len(parts)-1], word)
		}
	}
	return w.commit(ctx, args[0], parts...)
}

// commit makes the ops from what the node shows now and prints what it answers.
func (w *world) commit(ctx context.Context, name string, parts ...[]string) error {
	receipt, err := w.save(ctx, name, nil, parts...)
	if err != nil {
		return err
	}
	if o := receipt.Outcome; o != nil {
		w.printf("%s%s", o.Kind, w.why(*o))
		return nil
	}
	w.printf("saved here")
	return nil
}

// save is commit without a word. Look, if not nil, is given what the author sees.
func (w *world) save(ctx context.Context, name string, look func(*store.Reader) error, parts ...[]string) (receipt crm.Receipt, err error) {
	m, err := w.node(ctx, name)
	if err != nil {
		return receipt, err
	}
	api, err := m.API()
	if err != nil {
		return receipt, err
	}
	req := crm.Request{Actor: "clerk@" + m.Site, Intent: "script." + parts[0][0]}
	err = w.read(ctx, m.Name, func(r *store.Reader) error {
		for _, part := range parts {
			ops, err := w.ops(r, m.Name, part)
			if err != nil {
				return err
			}
			req.Ops = append(req.Ops, ops...)
		}
		if look != nil {
			return look(r)
		}
		return nil
	})
	if err != nil {
		return receipt, err
	}
	if receipt, err = api.Commit(ctx, req); err != nil {
		return receipt, err
	}
	w.edits[m.Name] = append(w.edits[m.Name], receipt.Seq)
	if receipt.Outcome != nil { // decided, but not shown here yet
		_, err = api.Await(ctx, receipt.Seq)
	}
	return receipt, err
}

func (w *world) why(o crm.Outcome) string {
	if o.Code == "" {
		return ""
	}
	return w.plain(fmt.Sprintf(" (%s)", o.Code))
}

// ops reads "verb RECORD [as=CLERK] field=value …".
func (w *world) ops(r *store.Reader, node string, words []string) ([]crm.Op, error) {
	if len(words) < 2 || kinds[words[0]] == 0 {
		return nil, fmt.Errorf("%q is no edit: want create, edit, delete or restore and a record", strings.Join(words, " "))
	}
	name := words[1]
	e, err := w.entity(r, name)
	if err != nil {
		return nil, err
	}
	op := crm.Op{Kind: kinds[words[0]], Entity: e.ID, Record: w.id(name)}
	clerk, fields := "", words[2:]
	if len(fields) > 0 && strings.HasPrefix(fields[0], "as=") {
		clerk, fields = fields[0], fields[1:]
	}
	if op.Kind != crm.OpCreate {
		if op.Seen, err = w.seen(r, node, name, clerk); err != nil {
			return nil, err
		}
	}
	return w.cells(e, op, fields)
}

// seen is what the clerk's open page shows; without a clerk, what the node does.
func (w *world) seen(r *store.Reader, node, name, clerk string) (crm.Token, error) {
	if clerk != "" {
		t, ok := w.screens[clerk+" "+node+" "+name]
		if !ok {
			return t, fmt.Errorf("%s has not opened %s at %s", clerk, name, node)
		}
		return t, nil
	}
	e, err := w.entity(r, name)
	if err != nil {
		return crm.Token{}, err
	}
	rec, err := r.Record(e.ID, w.id(name))
	if rec == nil || err != nil {
		return crm.Token{}, err
	}
	return r.Token(rec), nil
}

// open remembers what a page shows: NODE RECORD as=CLERK.
func open(w *world, ctx context.Context, args []string) error {
	return w.read(ctx, args[0], func(r *store.Reader) (err error) {
		w.screens[args[2]+" "+args[0]+" "+args[1]], err = w.seen(r, args[0], args[1], "")
		return err
	})
}

func (w *world) entity(r *store.Reader, name string) (*crm.Entity, error) {
	entity, _, ok := strings.Cut(name, "/")
	if e := r.Schema().Entity(entity); ok && e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("%q is no record: want entity/alias", name)
}

// cells makes one op of all field=value, and one of each field+=value and
// field-=value.
func (w *world) cells(e *crm.Entity, op crm.Op, words []string) ([]crm.Op, error) {
	var deltas []crm.Op
	for _, word := range words {
		name, text, ok := strings.Cut(word, "=")
		bare := strings.TrimRight(name, "+-")
		f := e.Field(bare)
		if !ok || f == nil {
			return nil, fmt.Errorf("%q sets no field of %s", word, e.Name)
		}
		v, err := w.value(f, text)
		if err != nil {
			return nil, err
		}
		if bare == name {
			op.Cells = append(op.Cells, crm.Input{Field: f.ID, Value: v})
			continue
		}
		delta := op
		delta.Cells = []crm.Input{{Field: f.ID, Value: v}}
		switch {
		case f.Kind != crm.Choices:
			delta.Kind = crm.OpCounterAdd
		case strings.HasSuffix(name, "+"):
			delta.Kind = crm.OpSetAdd
		default:
			delta.Kind = crm.OpSetRemove
		}
		deltas = append(deltas, delta)
	}
	if len(op.Cells) > 0 || len(deltas) == 0 {
		deltas = append([]crm.Op{op}, deltas...)
	}
	return deltas, nil
}

// value reads a field's text; a link is an alias.
func (w *world) value(f *crm.Field, text string) (crm.Value, error) {
	if f.Kind == crm.Link && text != "" {
		if !strings.Contains(text, "/") {
			text = f.Target + "/" + text
		}
		return crm.LinkValue(w.id(text)), nil
	}
	return f.ParseText(text)
}
