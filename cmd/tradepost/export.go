package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/httpapi"
)

func (c *cli) exportCommand() *cobra.Command {
	var q httpapi.Query
	var safe, raw bool
	cmd := &cobra.Command{
		Use: "export ENTITY", Short: "Write records as CSV, or with -o json as one JSON object a line", Args: want("ENTITY"), ValidArgsFunction: c.live(entityNames),
		Long: `Write records to standard output as CSV, or with -o json as one JSON object a
line. The header has the names of the fields, so that tradepost import takes the
file back: records are found again by external_id, or by id with --fields id,…
and import --key id.

A spreadsheet takes a cell that begins with = + - @ for a formula. Unless --raw,
such texts get a ' in front, which import takes away.`,
		Example: `  tradepost export account >accounts.csv
  tradepost export order --filter 'order_date >= date("2026-01-01")' --fields id,number,account,total >orders.csv`,
	}
	f := cmd.Flags()
	f.StringVar(&q.Filter, "filter", "", "which records")
	f.StringVar(&q.Sort, "sort", "", "fields to sort by, a minus before those that descend")
	f.StringSliceVar(&q.Fields, "fields", nil, "fields to write (default: all that an import may write)")
	f.BoolVar(&safe, "safe", false, "guard texts that a spreadsheet would take for formulas (the default)")
	f.BoolVar(&raw, "raw", false, "write texts as they are")
	cmd.MarkFlagsMutuallyExclusive("safe", "raw")
	c.completeFlag(cmd, "fields", fieldList)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if c.form == formYAML {
			return usage("--output", "an export is CSV, or with -o json JSON lines")
		}
		q.Limit = query.MaxLimit
		return c.export(cmd.Context(), args[0], q, !raw)
	}
	return cmd
}

func (c *cli) export(ctx context.Context, entity string, q httpapi.Query, safe bool) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	_, e, err := entityOf(ctx, api, entity)
	if err != nil {
		return err
	}
	fields, err := exportFields(e, q.Fields)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(c.stdout, 64<<10)
	if c.form == formJSON {
		err = exportJSON(ctx, api, w, entity, q)
	} else {
		err = exportCSV(ctx, api, w, e, fields, q, safe)
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

// exportFields returns the named fields, or all that an import may write.
func exportFields(e *crm.Entity, names []string) ([]*crm.Field, error) {
	var out []*crm.Field
	for _, name := range names {
		f := e.Field(name)
		if f == nil {
			return nil, &crm.Error{Code: crm.CodeUnknownField, Item: name, Message: e.Name + " has no such field" + query.Suggest(name, fieldNames(e))}
		}
		out = append(out, f)
	}
	if names == nil {
		for _, f := range e.Fields {
			if !f.ReadOnly {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

func exportJSON(ctx context.Context, api *httpapi.Client, w io.Writer, entity string, q httpapi.Query) error {
	e := json.NewEncoder(w)
	for it, err := range api.List(ctx, entity, q) {
		if err != nil {
			return err
		}
		if err := e.Encode(it); err != nil {
			return err
		}
	}
	return nil
}

func exportCSV(ctx context.Context, api *httpapi.Client, w io.Writer, e *crm.Entity, fields []*crm.Field, q httpapi.Query, safe bool) error {
	out := csv.NewWriter(w)
	var header []string
	for _, f := range fields {
		if f.Kind != crm.Address {
			header = append(header, f.Name)
			continue
		}
		for _, part := range parts {
			header = append(header, f.Name+"."+part)
		}
	}
	if err := out.Write(header); err != nil {
		return err
	}
	for it, err := range api.List(ctx, e.Name, q) {
		if err != nil {
			return err
		}
		row, err := exportRow(it, fields, safe)
		if err != nil {
			return err
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func exportRow(it httpapi.Item, fields []*crm.Field, safe bool) ([]string, error) {
	var row []string
	for _, f := range fields {
		if f.ID == crm.FieldIDField {
			row = append(row, it.ID)
			continue
		}
		v, err := f.ParseJSON(it.Fields[f.Name])
		if err != nil {
			return nil, err
		}
		cells := []string{v.String()}
		if f.Kind == crm.Address {
			a := v.Address()
			cells = []string{a.Street, a.City, a.State, a.PostalCode, a.Country}
		}
		for _, s := range cells {
			if safe && isText(f.Kind) {
				s = guard(s, f.Kind)
			}
			row = append(row, s)
		}
	}
	return row, nil
}

func isText(k crm.Kind) bool {
	switch k {
	case crm.Text, crm.Choice, crm.Choices, crm.Email, crm.Phone, crm.URL, crm.Address:
		return true
	}
	return false
}

// formula matches what a spreadsheet may take for a formula, and a text that
// already begins with quotes before such a one, so that guarding can be undone.
var formula = regexp.MustCompile(`^'*[=+\-@\t\r]`)

// dialled matches a telephone number, which begins with + and is no formula.
var dialled = regexp.MustCompile(`^\+[0-9 ]+$`)

// guard puts a quote before a text that a spreadsheet may take for a formula.
func guard(s string, k crm.Kind) string {
	if !formula.MatchString(s) || k == crm.Phone && dialled.MatchString(s) {
		return s
	}
	return "'" + s
}

// unguard undoes guard.
func unguard(s string) string {
	if strings.HasPrefix(s, "'") && formula.MatchString(s) {
		return s[1:]
	}
	return s
}
