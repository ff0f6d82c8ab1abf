package clustertest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/store"
)

// show prints "field=value", with "(pending)" where no master has decided it.
func show(w *world, ctx context.Context, args []string) error {
	return w.read(ctx, args[0], func(r *store.Reader) error {
		e, err := w.entity(r, args[1])
		if err != nil {
			return err
		}
		rec, err := r.Record(e.ID, w.id(args[1]))
		switch {
		case err != nil:
			return err
		case rec == nil:
			w.printf("not held")
			return nil
		case rec.Deleted:
			w.printf("deleted")
			return nil
		}
		for _, name := range args[2:] {
			f := e.Field(name)
			if f == nil {
				return fmt.Errorf("no field %s", name)
			}
			pending := ""
			if c := rec.Cell(f.ID); c != nil && c.Stamp.Rev == crm.Pending {
				pending = " (pending)"
			}
			w.printf("%s=%s%s", name, w.plain(rec.Value(f.ID).String()), pending)
		}
		return nil
	})
}

func list(w *world, ctx context.Context, args []string) error {
	return w.read(ctx, args[0], func(r *store.Reader) error {
		e := r.Schema().Entity(args[1])
		if e == nil {
			return fmt.Errorf("no entity %s", args[1])
		}
		where, err := query.Parse(r.Schema(), e, strings.Join(args[2:], " "))
		if err != nil {
			return err
		}
		page, err := r.List(query.List{Entity: e, Where: where, Limit: query.MaxLimit})
		if err != nil {
			return err
		}
		var titles []string
		for _, rec := range page.Records {
			titles = append(titles, e.TitleOf(rec))
		}
		slices.Sort(titles)
		w.printf("%d: %s", len(titles), strings.Join(titles, ", "))
		return nil
	})
}

func holds(w *world, ctx context.Context, args []string) error {
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	v, err := w.c.View(ctx, m)
	if err != nil {
		return err
	}
	codes := map[crm.TerritoryID]string{}
	err = w.read(ctx, args[0], func(r *store.Reader) error {
		for rec, err := range r.Scan(r.Schema().EntityByID(crm.EntityTerritory)) {
			if err != nil {
				return err
			}
			codes[crm.TerritoryID(rec.Value(crm.TerritoryNumber).Int())] = rec.Value(crm.TerritoryCode).Str()
		}
		return nil
	})
	for _, t := range slices.Sorted(maps.Keys(v.Sums)) {
		if t != crm.Shared {
			w.printf("%s %d", codes[t], v.Sums[t].Records)
		}
	}
	return err
}

func purges(w *world, ctx context.Context, _ []string) error {
	return w.read(ctx, "hq", func(r *store.Reader) error {
		var lines []string
		for rec, err := range r.Scan(r.Schema().EntityByID(crm.EntityPurge)) {
			if err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("%s dropped %d records of %s, %d left", rec.Value(crm.PurgeSite), rec.Value(crm.PurgeCount).Int(), rec.Value(crm.PurgeTerritory), rec.Value(crm.PurgeLeft).Int()))
		}
		slices.Sort(lines)
		for _, l := range lines {
			w.printf("%s", l)
		}
		return nil
	})
}

// items returns the open items of the attention list in an order that does not
// depend on their ids.
func (w *world) items(ctx context.Context, node string) ([]httpapi.Attention, error) {
	client, err := w.client(ctx, node)
	if err != nil {
		return nil, err
	}
	page, err := client.Attention(ctx, httpapi.Watch{Limit: query.MaxLimit})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(page.Items, func(a, b httpapi.Attention) int { return cmp.Compare(w.describe(a), w.describe(b)) })
	return page.Items, nil
}

func (w *world) describe(a httpapi.Attention) string {
	text := a.Kind + " " + w.name(a.Entity, a.Record)
	if a.Field != "" {
		text += " " + a.Field
	}
	text += fmt.Sprintf(" (%s)", a.Code)
	if a.Kept != nil && a.Lost != nil {
		text += fmt.Sprintf(" kept %s, lost %s", a.Kept.Value, a.Lost.Value)
	}
	for _, op := range a.Ops {
		text += fmt.Sprintf(", %s %s", op.Op, w.name(op.Entity, op.Record))
	}
	return w.plain(text + ", take " + strings.Join(a.Takes, "|"))
}

func attention(w *world, ctx context.Context, args []string) error {
	items, err := w.items(ctx, args[0])
	if err != nil {
		return err
	}
	for _, a := range items {
		w.printf("%s", w.describe(a))
	}
	if len(items) == 0 {
		w.printf("nothing")
	}
	return nil
}

func resolve(w *world, ctx context.Context, args []string) error {
	items, err := w.items(ctx, args[0])
	if err != nil {
		return err
	}
	id := w.id(args[1]).String()
	items = slices.DeleteFunc(items, func(a httpapi.Attention) bool { return a.Record != id })
	if len(items) != 1 {
		return fmt.Errorf("%d open items are about %s", len(items), args[1])
	}
	client, err := w.client(ctx, args[0])
	if err != nil {
		return err
	}
	got, err := client.Resolve(ctx, items[0].ID, args[2], 0)
	if err != nil {
		return err
	}
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	w.edits[m.Name] = append(w.edits[m.Name], got.Seq)
	w.printf("saved %s", got.Saved)
	return nil
}

func outbox(w *world, ctx context.Context, args []string) error {
	client, err := w.client(ctx, args[0])
	if err != nil {
		return err
	}
	waiting, err := client.Outbox(ctx)
	if err != nil {
		return err
	}
	w.printf("%d edits wait", len(waiting))
	return nil
}

// outcomes prints "3 accepted, 1 rejected (duplicate_key)".
func outcomes(w *world, ctx context.Context, args []string) error {
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	api, err := m.API()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	count := map[string]int{}
	for _, seq := range w.edits[m.Name] {
		o, err := api.Await(ctx, seq)
		if err != nil {
			return fmt.Errorf("edit %d: %w", seq, err)
		}
		count[o.Kind.String()+w.why(o)]++
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d %s", count[kind], kind))
	}
	w.printf("%s", strings.Join(parts, ", "))
	return nil
}
