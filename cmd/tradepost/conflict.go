package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/httpapi"
)

func (c *cli) conflictCommand() *cobra.Command {
	return grouped(&cobra.Command{Use: "conflict", Short: "Edits that wait for a person: conflicts, parked and rejected"},
		c.conflictList(), c.conflictShow(), c.conflictResolve())
}

func (c *cli) conflictList() *cobra.Command {
	var watch httpapi.Watch
	var detailed bool
	limit := 100
	cmd := &cobra.Command{Use: "list", Short: "List what waits for a person, newest first", Args: want()}
	f := cmd.Flags()
	f.StringVar(&watch.Status, "status", "open", "open, resolved, dismissed or all")
	f.StringVar(&watch.Kind, "kind", "", "conflict, parked or rejected (default: any)")
	f.StringVar(&watch.Record, "record", "", "id of the record they are about")
	f.IntVar(&limit, "limit", limit, "items at most")
	detailedFlag(cmd, &detailed, "there are any")
	complete(cmd, "status", "open", "resolved", "dismissed", "all")
	complete(cmd, "kind", "conflict", "parked", "rejected")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 1 {
			return usage("--limit", "%d is not 1 or more", limit)
		}
		api, err := c.client()
		if err != nil {
			return err
		}
		items, more, err := attentionItems(cmd.Context(), api, watch, limit)
		if err != nil {
			return err
		}
		if more {
			c.note("there are more than %d; --limit shows them", limit)
		}
		g := attentionGrid(items)
		if watch.Status != "open" {
			g = withStatus(items)
		}
		if err := c.print(list(items), g.render); err != nil {
			return err
		}
		return attention(detailed && len(items) > 0)
	}
	return cmd
}

// attentionItems reads pages until there are limit items.
func attentionItems(ctx context.Context, api *httpapi.Client, watch httpapi.Watch, limit int) (items []httpapi.Attention, more bool, err error) {
	for {
		watch.Limit = min(limit-len(items), 1000)
		page, err := api.Attention(ctx, watch)
		if err != nil {
			return nil, false, err
		}
		items = append(items, page.Items...)
		if page.Next == "" || len(items) >= limit {
			return items, page.Next != "", nil
		}
		watch.Cursor = page.Next
	}
}

func attentionGrid(items []httpapi.Attention) *grid {
	g := columns("id", "kind", "about", "field", "message", "since")
	for _, a := range items {
		g.add(a.ID, a.Kind, strings.TrimSpace(a.Entity+" "+a.Title), a.Field, a.Message, a.CreatedAt.UTC().Format("2006-01-02 15:04"))
	}
	return g
}

// withStatus says beside each item whether it is settled.
func withStatus(items []httpapi.Attention) *grid {
	g := attentionGrid(items)
	g.names = slices.Insert(g.names, 2, "status")
	for i, a := range items {
		g.rows[i] = slices.Insert(g.rows[i], 2, cell(words(a.Status+" "+a.Resolution, "")))
	}
	return g
}

func (c *cli) conflictShow() *cobra.Command {
	return &cobra.Command{Use: "show ID", Short: "Tell what happened, with both values", Args: want("ID"), ValidArgsFunction: c.live(openItems), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		a, err := api.AttentionItem(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		nodes, err := api.Nodes(cmd.Context())
		if err != nil {
			return err
		}
		return c.print(one(a), func(w io.Writer) { tell(w, a, nodes) })
	}}
}

func openItems(ctx context.Context, api *httpapi.Client, _ []string) []string {
	page, err := api.Attention(ctx, httpapi.Watch{})
	if err != nil {
		return nil
	}
	var ids []string
	for _, a := range page.Items {
		ids = append(ids, a.ID)
	}
	return ids
}

// tell writes an item in words.
func tell(w io.Writer, a httpapi.Attention, nodes []httpapi.NodeText) {
	say := func(format string, args ...any) { fmt.Fprintln(w, visible(fmt.Sprintf(format, args...))) }
	about := strings.TrimSpace(a.Entity + " " + a.Title)
	say("%s, %s: %s", a.Kind, a.Status, a.Message)
	say("  about    %s (%s)", about, a.Record)
	if a.Field != "" {
		label := a.Label
		if label == "" {
			label = a.Field
		}
		say("  field    %s (%s)", label, a.Field)
	}
	kept, lost := "stands", "lost"
	if a.Kind == "parked" {
		lost = "waits"
	}
	for _, s := range []struct {
		word string
		side *crm.Side
	}{{"before", a.Base}, {kept, a.Kept}, {lost, a.Lost}} {
		if s.side != nil {
			say("  %-8s %s", s.word, sideWords(*s.side, nodes))
		}
	}
	if len(a.Ops) > 0 {
		say("  edit     by %s, at %s", words(a.Actor, "somebody"), place(a.Node, nodes))
	}
	for _, op := range a.Ops {
		say("           %s", opWords(op))
	}
	if a.Under != "" {
		say("  because  %s was rejected", a.Under)
	}
	if a.Status == "open" {
		say("  resolve  tradepost conflict resolve %s --take %s", a.ID, strings.Join(a.Takes, "|"))
	} else {
		say("  resolved %s", a.Resolution)
	}
}

func words(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// sideWords says what, who, where and when.
func sideWords(s crm.Side, nodes []httpapi.NodeText) string {
	it := httpapi.Item{Fields: map[string]json.RawMessage{"": s.Value}}
	out := words(it.Text(""), "(empty)")
	if s.Actor != "" {
		out += ", by " + s.Actor
	}
	if s.Node != 0 {
		out += ", at " + place(s.Node, nodes)
	}
	if s.At != nil {
		out += ", " + s.At.UTC().Format("2 January 2006 15:04:05 UTC")
	}
	return out
}

// place names a node by its site and city.
func place(n crm.NodeID, nodes []httpapi.NodeText) string {
	i := slices.IndexFunc(nodes, func(t httpapi.NodeText) bool { return t.Node == n })
	if i < 0 {
		return fmt.Sprintf("node %d", n)
	}
	return fmt.Sprintf("%s (node %d)", strings.Join(strings.Fields(nodes[i].Site+" "+nodes[i].City), ", "), n)
}

func opWords(op crm.OpText) string {
	var names []string
	for name := range op.Fields {
		names = append(names, name)
	}
	sort.Strings(names)
	out := op.Op + " " + op.Entity + " " + op.Record
	for _, name := range names {
		it := httpapi.Item{Fields: op.Fields}
		out += fmt.Sprintf(" %s=%q", name, it.Text(name))
	}
	return out
}

func (c *cli) conflictResolve() *cobra.Command {
	var take string
	var wait waitFlag
	cmd := &cobra.Command{
		Use: "resolve ID --take WHAT", Short: "Settle an item",
		Long: `Settle an item of the attention list.

  lost      set the value that lost or waits
  kept      leave the value that stands
  apply     apply the refused edit again, as if made here and now
  dismiss   close the item without doing anything`,
		Args: want("ID"), ValidArgsFunction: c.live(openItems),
	}
	takes := []string{"lost", "kept", "apply", "dismiss"}
	cmd.Flags().StringVar(&take, "take", "", strings.Join(takes, ", "))
	complete(cmd, "take", takes...)
	wait.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(takes, take) {
			return usage("--take", "say one of %s%s", strings.Join(takes, ", "), query.Suggest(take, takes))
		}
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			m, err := api.Resolve(ctx, args[0], take, w)
			e := httpapi.Edited{Written: m.Written, Mark: m.Mark}
			if len(m.Items) > 0 {
				e.Item = m.Items[0]
			}
			return e, err
		})
	}
	return cmd
}
