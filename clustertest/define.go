package clustertest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// define changes a field: NODE ENTITY.FIELD required | read_only | options=a,b.
func define(w *world, ctx context.Context, args []string) error {
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	api, err := m.API()
	if err != nil {
		return err
	}
	var op crm.Op
	err = w.read(ctx, m.Name, func(r *store.Reader) (err error) {
		op, err = definition(r, args[1], args[2])
		return err
	})
	if err != nil {
		return err
	}
	receipt, err := api.Commit(ctx, crm.Request{Actor: "admin@" + m.Site, Intent: "script.define", Ops: []crm.Op{op}})
	if err != nil {
		return err
	}
	w.printf("%s", receipt.Outcome.Kind)
	_, err = api.Await(ctx, receipt.Seq)
	return err
}

// definition returns the op that changes the field's record.
func definition(r *store.Reader, name, change string) (op crm.Op, err error) {
	entity, field, _ := strings.Cut(name, ".")
	e := r.Schema().Entity(entity)
	if e == nil || e.Field(field) == nil {
		return op, fmt.Errorf("%q is no field: want entity.field", name)
	}
	f := *e.Field(field)
	what, values, _ := strings.Cut(change, "=")
	switch what {
	case "required":
		f.Required = true
	case "read_only":
		f.ReadOnly = true
	case "options":
		f.Options = nil
		for _, v := range commas(values) {
			f.Options = append(f.Options, crm.Option{Value: v})
		}
	default:
		return op, fmt.Errorf("no change %q of a field", what)
	}
	all := crm.MetadataOps(&crm.Entity{ID: e.ID, Name: e.Name, Fields: []*crm.Field{&f}})
	op = all[len(all)-1]
	rec, err := r.Record(op.Entity, op.Record)
	if err != nil || rec == nil {
		return op, fmt.Errorf("the record of %s: %v, %w", name, rec, err)
	}
	op.Kind, op.Seen = crm.OpPatch, r.Token(rec)
	op.Cells = slices.DeleteFunc(op.Cells, func(c crm.Input) bool { return c.Field != crm.MetaDefinition })
	return op, nil
}
