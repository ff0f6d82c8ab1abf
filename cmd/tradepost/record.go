package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/httpapi"
)

func (c *cli) recordCommand() *cobra.Command {
	return grouped(&cobra.Command{Use: "record", Short: "Records of any entity"}, c.recordList(), c.recordGet(), c.recordCreate(), c.recordUpdate(),
		c.recordDelete(), c.recordRestore())
}

// entityOf returns an entity of the live schema.
func entityOf(ctx context.Context, api *httpapi.Client, name string) (*crm.Schema, *crm.Entity, error) {
	schema, err := api.Schema(ctx)
	if err != nil {
		return nil, nil, err
	}
	if e := schema.Entity(name); e != nil {
		return schema, e, nil
	}
	return nil, nil, &crm.Error{Code: crm.CodeUnknownEntity, Item: name, Message: "no such entity" + query.Suggest(name, schema.Names())}
}

func (c *cli) recordList() *cobra.Command {
	var q httpapi.Query
	var all bool
	cmd := &cobra.Command{
		Use: "list ENTITY", Short: "List records", Args: want("ENTITY"), ValidArgsFunction: c.live(entityNames),
		Example: `  tradepost record list account --filter 'billing_address.country == "Norway"' --sort name
  tradepost record list order --filter 'account.name.contains("acme") && total > 1000' --sort -order_date --limit 20
  tradepost record list opportunity --fields name,stage,amount --all -o json`,
	}
	f := cmd.Flags()
	f.StringVar(&q.Filter, "filter", "", "which records, such as 'stage == \"Closed Won\" && amount >= 1000'")
	f.StringVar(&q.Sort, "sort", "", "fields to sort by, a minus before those that descend")
	f.IntVar(&q.Limit, "limit", query.DefaultLimit, "records at most")
	f.BoolVar(&all, "all", false, "all records, whatever --limit says")
	f.StringSliceVar(&q.Fields, "fields", nil, "fields to show")
	c.completeFlag(cmd, "fields", fieldList)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if q.Limit < 1 {
			return usage("--limit", "%d is not 1 or more", q.Limit)
		}
		limit := q.Limit
		if all {
			limit, q.Limit = 0, query.MaxLimit
		}
		q.Limit = min(q.Limit, query.MaxLimit)
		if c.form == formTable {
			q.Expand = []string{"*"}
		}
		return c.listRecords(cmd.Context(), args[0], q, limit)
	}
	return cmd
}

// listRecords prints the records of a list, limit of them at most; 0 is no limit.
func (c *cli) listRecords(ctx context.Context, entity string, q httpapi.Query, limit int) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var items []httpapi.Item
	for it, err := range api.List(ctx, entity, q) {
		if err != nil {
			return err
		}
		if len(items) == limit && limit > 0 {
			c.note("there are more than %d; --limit or --all shows them", limit)
			break
		}
		items = append(items, it)
	}
	fields := q.Fields
	if fields == nil && c.form == formTable {
		_, e, err := entityOf(ctx, api, entity)
		if err != nil {
			return err
		}
		fields = shownFields(e, items)
	}
	return c.print(list(items), itemGrid(items, append([]string{"id"}, fields...)).render)
}

// maxColumnsShown bounds the columns of a table that nobody chose.
const maxColumnsShown = 6

// shownFields are those that name a record, and then the first that any of the
// records has.
func shownFields(e *crm.Entity, items []httpapi.Item) []string {
	var out []string
	seen := map[string]bool{"external_id": true, "description": true, "definition": true}
	add := func(name string) {
		if !seen[name] && len(out) < maxColumnsShown {
			seen[name] = true
			out = append(out, name)
		}
	}
	for _, name := range e.Title {
		add(name)
	}
	for _, f := range e.Fields {
		for i := range items {
			if items[i].Text(f.Name) != "" {
				add(f.Name)
				break
			}
		}
	}
	return out
}

// recordText is what record get prints.
type recordText struct {
	SchemaVersion int                 `json:"schema_version"`
	Record        httpapi.Item        `json:"record"`
	Attention     []httpapi.Attention `json:"attention"` // open items about the record
}

func (c *cli) recordGet() *cobra.Command {
	var fields []string
	cmd := &cobra.Command{Use: "get ENTITY ID", Short: "Show a record, its token, and what about it waits for a person", Args: want("ENTITY", "ID"), ValidArgsFunction: c.live(entityNames)}
	cmd.Flags().StringSliceVar(&fields, "fields", nil, "fields to show")
	c.completeFlag(cmd, "fields", fieldList)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := c.client()
		if err != nil {
			return err
		}
		asked := httpapi.Asked{Fields: fields}
		if c.form == formTable {
			asked.Expand = []string{"*"}
		}
		it, _, err := api.Get(ctx, args[0], args[1], asked)
		if err != nil {
			return err
		}
		open, err := api.Attention(ctx, httpapi.Watch{Record: it.ID})
		if err != nil {
			return err
		}
		_, e, err := entityOf(ctx, api, args[0])
		if err != nil {
			return err
		}
		t := recordText{schemaVersion, it, open.Items}
		return c.print(t, func(w io.Writer) { t.write(w, e) })
	}
	return cmd
}

func (t recordText) write(w io.Writer, e *crm.Entity) {
	g := columns("field", "value")
	g.add("id", t.Record.ID)
	g.add("token", t.Record.Token)
	for _, f := range e.Fields {
		if _, ok := t.Record.Fields[f.Name]; ok {
			g.add(f.Name, t.Record.Text(f.Name))
		}
	}
	for _, name := range []string{"created_at", "created_by", "updated_at", "updated_by"} {
		if s := t.Record.Text(name); s != "" {
			g.add(name, s)
		}
	}
	g.render(w)
	if len(t.Attention) > 0 {
		fmt.Fprintln(w)
		attentionGrid(t.Attention).render(w)
	}
}

func (c *cli) recordCreate() *cobra.Command {
	var in fieldsFlag
	var wait waitFlag
	cmd := &cobra.Command{
		Use: "create ENTITY [FIELD=VALUE...]", Short: "Create a record", Args: want("ENTITY", "[FIELD=VALUE...]"), ValidArgsFunction: c.live(fieldArguments(0)),
		Example: `  tradepost record create account name="Acme" billing_address.city=Oslo tags=a,b
  tradepost record create contact last_name=Nansen account.external_id=ACME --wait decided
  echo '{"name":"Acme"}' | tradepost record create account --json -`,
	}
	in.register(cmd)
	wait.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			fields, err := c.fields(ctx, api, &in, args[0], args[1:], nil)
			if err != nil {
				return httpapi.Edited{}, err
			}
			return api.Create(ctx, args[0], fields, w)
		})
	}
	return cmd
}

func (c *cli) recordUpdate() *cobra.Command {
	var in fieldsFlag
	var wait waitFlag
	var seen string
	cmd := &cobra.Command{
		Use: "update ENTITY ID [FIELD=VALUE...]", Short: "Change fields of a record; FIELD= clears", Args: want("ENTITY", "ID", "[FIELD=VALUE...]"), ValidArgsFunction: c.live(fieldArguments(1)),
		Long: `Change fields of a record; FIELD= clears one. --seen says what its author had
seen of the record: the token that record get and record list show, at this
node or another. Without it, what the node shows now counts as seen.`,
		Example: `  tradepost record update account 01890f3e-7c5a-7d2b-8e4f-0123456789ab phone="+47 22 12 34 56" --seen 1z141z3-1204`,
	}
	in.register(cmd)
	wait.register(cmd)
	cmd.Flags().StringVar(&seen, "seen", "", "token of the record as its author saw it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			it, _, err := api.Get(ctx, args[0], args[1], httpapi.Asked{})
			if err != nil {
				return httpapi.Edited{}, err
			}
			have, err := newCurrent(it)
			if err != nil {
				return httpapi.Edited{}, err
			}
			fields, err := c.fields(ctx, api, &in, args[0], args[2:], have)
			if err != nil {
				return httpapi.Edited{}, err
			}
			if seen == "" {
				seen = it.Token
			}
			return api.Patch(ctx, args[0], args[1], seen, fields, w)
		})
	}
	return cmd
}

func (c *cli) recordDelete() *cobra.Command {
	var wait waitFlag
	var seen string
	cmd := &cobra.Command{Use: "delete ENTITY ID", Short: "Delete a record and what it owns", Args: want("ENTITY", "ID"), ValidArgsFunction: c.live(entityNames)}
	wait.register(cmd)
	cmd.Flags().StringVar(&seen, "seen", "", "token of the record as its author saw it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.confirm("delete the " + args[0] + " " + args[1]); err != nil {
			return err
		}
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			return api.Delete(ctx, args[0], args[1], seen, w)
		})
	}
	return cmd
}

func (c *cli) recordRestore() *cobra.Command {
	var wait waitFlag
	cmd := &cobra.Command{
		Use: "restore ENTITY ID", Short: "Bring a deleted record back", Args: want("ENTITY", "ID"), ValidArgsFunction: c.live(entityNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
				return api.Restore(ctx, args[0], args[1], w)
			})
		},
	}
	wait.register(cmd)
	return cmd
}

// A fieldsFlag is where the fields of an edit come from besides the arguments.
type fieldsFlag struct{ file string }

func (in *fieldsFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&in.file, "json", "", "read the fields from a JSON object in this file, - for standard input")
}

// fields returns the fields of an edit of the record have, nil for a new one.
func (c *cli) fields(ctx context.Context, api *httpapi.Client, in *fieldsFlag, entity string, args []string, have *current) (httpapi.Fields, error) {
	if in.file != "" {
		if len(args) > 0 {
			return nil, usage(args[0], "give the fields as arguments or with --json, not both")
		}
		return c.fieldsOfJSON(in.file)
	}
	if len(args) == 0 {
		return nil, usage("FIELD=VALUE", "name at least one field, such as name=Acme, or use --json")
	}
	schema, e, err := entityOf(ctx, api, entity)
	if err != nil {
		return nil, err
	}
	d, err := parseArguments(&mapping{schema: schema, entity: e}, args)
	if err != nil {
		return nil, err
	}
	if err := lookUpLinks(ctx, api, schema, e, d); err != nil {
		return nil, err
	}
	contents, err := d.contents(have)
	if err != nil {
		return nil, err
	}
	out := httpapi.Fields{}
	for f, v := range contents {
		if have != nil || !v.IsNull() {
			out[f.Name] = v
		}
	}
	return out, nil
}

func (c *cli) fieldsOfJSON(name string) (httpapi.Fields, error) {
	if strings.HasPrefix(name, "{") {
		return nil, usage("--json", "name a file that holds the object, or - to read it from standard input")
	}
	b, err := c.input(name, httpapi.MaxBody)
	if err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil || raw == nil {
		return nil, usage("--json", "%s does not hold a JSON object: %v", name, err)
	}
	out := httpapi.Fields{}
	for k, v := range raw {
		out[k] = v
	}
	return out, nil
}

// parseArguments reads "name=Acme", "billing_address.city=Oslo", "tags=a,b" and
// "account.external_id=ACME".
func parseArguments(m *mapping, args []string) (*draft, error) {
	d := &draft{values: map[*crm.Field]crm.Value{}, address: map[*crm.Field][]addressPart{}}
	given := map[string]bool{}
	for _, arg := range args {
		path, text, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, usage(arg, "want FIELD=VALUE")
		}
		if given[path] {
			return nil, usage(arg, "%s is given twice", path)
		}
		given[path] = true
		t, err := m.parseTarget(path)
		if err != nil {
			return nil, err
		}
		if t.last != nil {
			return nil, usage(arg, "name the two fields one by one")
		}
		if t.field.Kind == crm.Choices {
			text = strings.ReplaceAll(text, ",", ";")
		}
		t.column = -1
		if err := d.put(t, text, importForm{}); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// lookUpLinks replaces what the arguments name by another field with ids.
func lookUpLinks(ctx context.Context, api *httpapi.Client, schema *crm.Schema, e *crm.Entity, d *draft) error {
	var bad *rowError
	im := &importer{
		api: api, m: &mapping{schema: schema, entity: e}, links: map[linkKey]crm.RecordID{},
		fail: func(_ csvRow, r *rowError) error { bad = r; return nil },
	}
	if _, err := im.resolveLinks(ctx, []*draft{d}); err != nil || bad == nil {
		return err
	}
	return &crm.Error{Code: bad.code, Message: bad.text}
}
