package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/crm/report"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	opRevenue        = "report revenue: 36 months × region over 300 k lines, one link away"
	opMonth          = "report one month: region × owner over 300 k lines"
	opPipeline       = "report pipeline: stage × owner over 50 k opportunities"
	opRevenueCold    = "report revenue, first run: columns are read"
	opMonthCold      = "report one month, first run"
	opPipelineCold   = "report pipeline, first run"
	opRevenueChanged = "report revenue after one line changed"
)

// An answer is what a report adds up to. All engines must agree on it.
type answer struct {
	rows     int
	n        int64 // sum over the rows of their counts
	cents    int64 // sum over the rows of their amounts
	weighted int64 // of the pipeline: amount × probability
}

// A query is one report in both languages.
type question struct {
	warm, cold                      string // operations
	budget                          time.Duration
	entity, groups, measures, where string
	sql                             string
	amount                          int // column of the amount in sql
	want                            answer
}

func questions(want answers) []question {
	const isSold = `order.status in ["shipped", "invoiced"]`
	return []question{
		{opRevenue, opRevenueCold, 2500 * time.Microsecond, "order_line", "order.order_date:month,order.region", "count,sum(amount)", isSold, revenueSQL, 3, want.revenue},
		{opMonth, opMonthCold, time.Millisecond, "order_line", "order.region,order.owner", "count,sum(amount)",
			isSold + ` && order.order_date >= date("2024-05-01") && order.order_date < date("2024-06-01")`, monthSQL, 3, want.month},
		{opPipeline, opPipelineCold, time.Millisecond, "opportunity", "stage,owner", "count,sum(amount),sum(amount*probability)",
			`!(stage in ["Closed Won", "Closed Lost"])`, pipelineSQL, 3, want.pipeline},
	}
}

// reports compares answers and then races for them.
func (k *desk) reports(ctx context.Context, want answers) error {
	columns := store.NewColumns(0)
	for _, q := range questions(want) {
		if !k.wants(q.warm) && !k.wants(q.cold) {
			continue
		}
		if err := k.agree(ctx, q, columns); err != nil {
			return fmt.Errorf("%s: %w", q.warm, err)
		}
		mine := func(ctx context.Context, _ int) error {
			_, err := k.run(ctx, q, columns)
			return err
		}
		theirs := func(ctx context.Context, p peer, client int) error {
			n, err := p.query(ctx, client, q.sql, nil)
			return expect(n, q.want.rows, err)
		}
		if err := k.contest(ctx, q.warm, 1, within(q.budget), k.sides(mine, theirs)...); err != nil {
			return err
		}
		if err := k.cold(ctx, q); err != nil {
			return err
		}
	}
	k.note("report columns hold %d MiB", columns.Stats().Bytes>>20)
	return k.changed(ctx, questions(want)[0], columns)
}

func (k *desk) run(ctx context.Context, q question, c *store.Columns) (res *report.Result, err error) {
	err = k.read(ctx, func(r *store.Reader) error {
		s := r.Schema()
		def, err := report.Parse(s, s.Entity(q.entity), q.groups, q.measures, q.where, "", 0)
		if err != nil {
			return err
		}
		res, err = c.Run(ctx, r, def)
		return err
	})
	return res, err
}

// agree refuses an engine that answers otherwise than the data set asks for.
func (k *desk) agree(ctx context.Context, q question, c *store.Columns) error {
	res, err := k.run(ctx, q, c)
	if err != nil {
		return err
	}
	if got := answerOf(res); got != q.want {
		return fmt.Errorf("our answer is %+v, want %+v", got, q.want)
	}
	for name, p := range k.peers {
		var got answer
		rows, err := p.query(ctx, 0, q.sql, func(row []any) {
			got.n += row[2].(int64)
			got.cents += row[q.amount].(int64)
			if len(row) > q.amount+1 {
				got.weighted += row[q.amount+1].(int64)
			}
		})
		if got.rows = rows; err != nil || got != q.want {
			return fmt.Errorf("%s answers %+v, want %+v: %w", name, got, q.want, err)
		}
	}
	return nil
}

// answerOf adds up the rows of a result whose columns are groups, the currency,
// a count and one or two amounts.
func answerOf(res *report.Result) answer {
	a := answer{rows: len(res.Rows)}
	for _, row := range res.Rows {
		for i, c := range res.Columns {
			switch c.Name {
			case "count":
				a.n += row[i].Int()
			case "sum(amount)":
				a.cents += cents(row[i])
			case "sum(amount*probability)":
				a.weighted += cents(row[i])
			}
		}
	}
	return a
}

func cents(v crm.Value) int64 {
	n := v.Int()
	for s := v.Scale(); s > 2; s-- {
		n /= 10
	}
	for s := v.Scale(); s < 2; s++ {
		n *= 10
	}
	return n
}

// cold measures the first run: every record concerned is read.
func (k *desk) cold(ctx context.Context, q question) error {
	if !k.wants(q.cold) {
		return nil
	}
	var times []time.Duration
	for range k.rounds {
		began := time.Now()
		if _, err := k.run(ctx, q, store.NewColumns(0)); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	k.add(row{operation: q.cold, clients: 1, ours: "p50 " + span(median(times))})
	return nil
}

// changed measures the run after an edit of one line: the columns follow it.
func (k *desk) changed(ctx context.Context, q question, c *store.Columns) error {
	if !k.wants(opRevenueChanged) {
		return nil
	}
	var times []time.Duration
	for n := range 10 * k.rounds {
		op := crm.Op{Kind: crm.OpPatch, Entity: catalog.OrderLine, Record: recordID(catalog.OrderLine, 1+n),
			Cells: []crm.Input{{Field: amountField, Value: crm.DecimalValue(int64(100_000+n), 2, "EUR")}}}
		if _, err := k.branch.Commit(ctx, crm.Request{Actor: "bench", Intent: "line.update", Ops: []crm.Op{op}}); err != nil {
			return err
		}
		began := time.Now()
		if _, err := k.run(ctx, q, c); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	k.add(row{operation: opRevenueChanged, clients: 1, ours: "p50 " + span(median(times)), budget: "p50 ≤ " + span(q.budget), met: median(times) <= q.budget})
	return nil
}

// answers are what the data set itself says.
type answers struct{ revenue, month, pipeline answer }

func (d *data) answers() answers {
	return answers{d.revenue(), d.month("2024-05"), d.pipeline()}
}

func (d *data) revenue() answer {
	return d.sales(func(o order) (string, bool) { return day(o.at)[:7] + regions[o.region], true })
}

func (d *data) month(of string) answer {
	return d.sales(func(o order) (string, bool) { return fmt.Sprint(o.region, o.owner), day(o.at)[:7] == of })
}

// sales adds up the lines of orders that count, by group.
func (d *data) sales(group func(order) (string, bool)) (a answer) {
	groups := map[string]bool{}
	for _, l := range d.lines[1:] {
		o := d.orders[l.order]
		if !sold(o.status) {
			continue
		}
		if g, in := group(o); in {
			groups[g] = true
			a.n++
			a.cents += l.cents
		}
	}
	a.rows = len(groups)
	return a
}

func (d *data) pipeline() (a answer) {
	groups := map[[2]int]bool{}
	for _, o := range d.opportunities[1:] {
		if stages[o.stage] == "won" || stages[o.stage] == "lost" {
			continue
		}
		groups[[2]int{o.stage, o.owner}] = true
		a.n++
		a.cents += int64(o.cents)
		a.weighted += int64(o.cents) * int64(stageOdds[o.stage])
	}
	a.rows = len(groups)
	return a
}
