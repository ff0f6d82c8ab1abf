package main

import (
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

type reportText struct {
	SchemaVersion int `json:"schema_version"`
	httpapi.ReportText
}

func (c *cli) reportCommand() *cobra.Command {
	var s httpapi.Summary
	cmd := &cobra.Command{
		Use: "report ENTITY", Short: "Group, count and add up records", Args: want("ENTITY"), ValidArgsFunction: c.live(entityNames),
		Long: `Group the records of an entity and count or add them up. A group is a field, or a
field one link away, with :day, :week, :month, :quarter or :year for dates. A
measure is count, or sum, avg, min or max of an expression of number fields.

The table is for reading: numbers have their digits grouped, amounts are rounded to
the minor unit of their currency. -o json and -o yaml have every number exact.`,
		Example: `  tradepost report order_line --measure 'sum(quantity*unit_price*(1-discount)) as revenue'
  tradepost report order --group order_date:month,shipping_address.country --measure 'count, sum(freight)' --sort -count --limit 20
  tradepost report opportunity --group stage --measure 'count, sum(amount)' --filter 'close_date >= date("2017-01-01")'`,
	}
	f := cmd.Flags()
	f.StringVar(&s.Group, "group", "", "fields to group by, such as account.name,order_date:month")
	f.StringVar(&s.Measure, "measure", "count", "what to compute, such as 'count, sum(amount) as total'")
	f.StringVar(&s.Filter, "filter", "", "which records")
	f.StringVar(&s.Sort, "sort", "", "columns to sort by, a minus before those that descend")
	f.IntVar(&s.Limit, "limit", 0, "rows at most (default: as many as the node allows)")
	c.completeFlag(cmd, "group", fieldList)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("limit") && s.Limit < 1 {
			return usage("--limit", "%d is not 1 or more", s.Limit)
		}
		api, err := c.client()
		if err != nil {
			return err
		}
		s.Entity, s.Titles = args[0], c.form == formTable
		r, _, err := api.Report(cmd.Context(), s)
		if err != nil {
			return err
		}
		if r.Mixed > 0 {
			c.note("%d records were left out: their amounts are of different currencies", r.Mixed)
		}
		return c.print(reportText{schemaVersion, r}, reportGrid(r).render)
	}
	return cmd
}

// reportGrid shows a report with its totals below.
func reportGrid(r httpapi.ReportText) *grid {
	var names []string
	for _, col := range r.Columns {
		names = append(names, col.Name)
	}
	g := columns(names...)
	for i, col := range r.Columns {
		if numeric(col) {
			g.right = append(g.right, i)
		}
	}
	for _, row := range r.Rows {
		g.add(reportCells(r.Columns, row)...)
	}
	if len(r.Rows) > 1 {
		g.footer = totalCells(r)
	}
	return g
}

// totalCells returns the last line of a report, none where nothing can be added
// up, as amounts of several currencies.
func totalCells(r httpapi.ReportText) []string {
	var line []string
	for _, v := range reportCells(r.Columns, r.Totals) {
		line = append(line, cell(v))
	}
	if strings.Join(line, "") == "" {
		return nil
	}
	if line[0] == "" {
		line[0] = "total"
	}
	return line
}

func reportCells(cols []httpapi.ColumnText, row []json.RawMessage) []any {
	out := make([]any, len(row))
	for i, raw := range row {
		if i < len(cols) {
			out[i] = reportCell(cols[i], raw)
		}
	}
	return out
}

func reportCell(col httpapi.ColumnText, raw json.RawMessage) string {
	if text, ok := moneyText(raw); ok {
		return text
	}
	it := httpapi.Item{Fields: map[string]json.RawMessage{"": raw}}
	text := it.Text("")
	if numeric(col) {
		return grouped3(text)
	}
	return bucketText(col.Bucket, text)
}

func numeric(col httpapi.ColumnText) bool {
	return col.Kind == crm.Integer.String() || col.Kind == crm.Decimal.String()
}

// bucketText shortens the first day of a bucket to what names the bucket.
func bucketText(bucket, day string) string {
	switch {
	case len(day) != len("2006-01-02"):
		return day
	case bucket == "month":
		return day[:7]
	case bucket == "year":
		return day[:4]
	}
	return day
}
