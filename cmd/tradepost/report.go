package main

import (
	"encoding/json"

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
measure is count, or sum, avg, min or max of an expression of number fields.`,
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
		api, err := c.client()
		if err != nil {
			return err
		}
		s.Entity = args[0]
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
		if col.Kind == crm.Integer.String() || col.Kind == crm.Decimal.String() {
			g.right = append(g.right, i)
		}
	}
	for _, row := range r.Rows {
		g.add(reportCells(r.Columns, row)...)
	}
	if len(r.Rows) > 1 {
		for _, v := range reportCells(r.Columns, r.Totals) {
			g.footer = append(g.footer, cell(v))
		}
		if len(g.footer) > 0 && g.footer[0] == "" {
			g.footer[0] = "total"
		}
	}
	return g
}

func reportCells(cols []httpapi.ColumnText, row []json.RawMessage) []any {
	out := make([]any, len(row))
	for i, raw := range row {
		it := httpapi.Item{Fields: map[string]json.RawMessage{"": raw}}
		s := it.Text("")
		if i < len(cols) {
			s = bucketText(cols[i].Bucket, s)
		}
		out[i] = s
	}
	return out
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
