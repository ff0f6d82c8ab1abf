package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Column describes a column of a result: the groups in their order, then the
// currency if there is one, then the measures.
type Column struct {
	Name   string
	Kind   crm.Kind // of its values; each may be Null
	Bucket Bucket   // of a group: how its dates are cut
}

// A Result is the table a report yields.
type Result struct {
	Columns []Column
	Rows    [][]crm.Value
	Totals  []crm.Value // by column, over all groups, Limit notwithstanding; Null for groups and for amounts of several currencies
	Scanned int         // live records looked at, before the filter
	Mixed   int         // records that passed the filter but were left out: their amounts are of different currencies
}

func (r *Report) columns() []Column {
	var out []Column
	for _, g := range r.Groups {
		k := g.Path.Kind()
		if g.Bucket != Exact {
			k = crm.Date
		}
		out = append(out, Column{g.Name, k, g.Bucket})
	}
	if r.currencies() {
		out = append(out, Column{Name: "currency", Kind: crm.Text})
	}
	for _, m := range r.Measures {
		out = append(out, Column{Name: m.Name, Kind: m.kind()})
	}
	return out
}

func (m Measure) kind() crm.Kind {
	switch m.Fn {
	case Count:
		return crm.Integer
	case Avg:
		return crm.Decimal
	}
	return m.Expr.Kind
}

// result turns the accumulated slots into rows.
func (r *run) result() (*Result, error) {
	out := &Result{Columns: r.def.columns(), Scanned: r.base.alive, Mixed: r.mixed}
	slots := r.used()
	if len(slots) == 0 && len(r.def.Groups) == 0 {
		r.grow(1)
		slots = []uint32{0}
	}
	r.count()
	all := r.ordered(slots)
	shown := all
	if limit := r.def.Limit; limit > 0 && limit < len(all) && len(r.def.Sort) == 0 {
		shown = all[:limit]
	}
	var err error
	if out.Rows, err = r.rows(shown); err != nil {
		return nil, err
	}
	sortRows(out.Rows, r.def.Sort)
	if limit := r.def.Limit; limit > 0 && limit < len(out.Rows) {
		out.Rows = slices.Clone(out.Rows[:limit])
	}
	out.Totals, err = r.totals(all)
	return out, err
}

// count copies the counts of records to the measures that ask for them.
func (r *run) count() {
	for _, a := range r.acc {
		if a.term != nil {
			continue
		}
		for slot, n := range r.counts {
			a.cells[slot].n = n
		}
	}
}

// used returns the slots that records fell into.
func (r *run) used() []uint32 {
	var slots []uint32
	for slot, n := range r.counts {
		if n > 0 {
			slots = append(slots, uint32(slot))
		}
	}
	return slots
}

// A slotRow is a slot with the codes of its group values. Their places among
// all values make key, the most significant first.
type slotRow struct {
	slot  uint32
	codes []uint32
	key   uint64
}

// ordered sorts slots by their group values.
func (r *run) ordered(slots []uint32) []slotRow {
	width := len(r.dims) + 1 // the currency is last
	rows := make([]slotRow, len(slots))
	backing := make([]uint32, len(slots)*width)
	for i, slot := range slots {
		codes := backing[i*width : (i+1)*width]
		r.space.decode(slot, codes)
		rows[i] = slotRow{slot: slot, codes: codes}
	}
	ranks, wide := r.ranks(rows), false
	for i := range rows {
		rows[i].key, wide = r.space.key(rows[i].codes, ranks)
	}
	slices.SortFunc(rows, func(a, b slotRow) int {
		if !wide {
			return cmp.Compare(a.key, b.key)
		}
		for i, rank := range ranks {
			if c := cmp.Compare(rank[a.codes[i]], rank[b.codes[i]]); c != 0 {
				return c
			}
		}
		return 0
	})
	return rows
}

func (r *run) ranks(rows []slotRow) [][]uint32 {
	var out [][]uint32
	used := make([]uint32, len(rows))
	for i, d := range r.dims {
		for j, row := range rows {
			used[j] = row.codes[i]
		}
		out = append(out, d.ranks(used))
	}
	return append(out, rankTexts(r.ts.currencies))
}

// rankTexts returns the place of each text in ascending order.
func rankTexts(texts []string) []uint32 {
	order := make([]uint32, len(texts))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(texts[a], texts[b]) })
	rank := make([]uint32, len(texts))
	for i, code := range order {
		rank[code] = uint32(i)
	}
	return rank
}

// rows returns the values of slots, group values first.
func (r *run) rows(slots []slotRow) ([][]crm.Value, error) {
	width := len(r.def.columns())
	out := make([][]crm.Value, len(slots))
	backing := make([]crm.Value, 0, len(slots)*width)
	for i, s := range slots {
		start := len(backing)
		var err error
		if backing, err = r.row(backing, s); err != nil {
			return nil, err
		}
		out[i] = backing[start:len(backing):len(backing)]
	}
	return out, nil
}

func (r *run) row(out []crm.Value, s slotRow) ([]crm.Value, error) {
	for i, d := range r.dims {
		out = append(out, d.valueOf(s.codes[i]))
	}
	currency := r.ts.currencies[s.codes[len(r.dims)]]
	if r.def.currencies() {
		out = append(out, crm.TextValue(currency))
	}
	return r.measures(out, s.slot, currency)
}

// measures appends the value of each measure at slot.
func (r *run) measures(out []crm.Value, slot uint32, currency string) ([]crm.Value, error) {
	for _, a := range r.acc {
		unit := ""
		if a.measure.money() {
			unit = currency
		}
		v, err := a.checked(slot, unit)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (a *accumulator) checked(slot uint32, currency string) (crm.Value, error) {
	v, ok := a.value(slot, currency)
	if !ok {
		return v, &crm.Error{Code: crm.CodeTooLarge, Op: "run report", Item: a.measure.Name,
			Message: fmt.Sprintf("a result is beyond ±%d; filter or group more finely", int64(1<<63-1))}
	}
	return v, nil
}

// totals computes each measure over all rows.
func (r *run) totals(rows []slotRow) ([]crm.Value, error) {
	out := make([]crm.Value, len(r.dims), len(r.dims)+1+len(r.acc))
	if r.def.currencies() {
		out = append(out, crm.Value{})
	}
	for _, a := range r.acc {
		currency, one := "", true
		if a.measure.money() {
			currency, one = r.oneCurrency(a, rows)
		}
		v, err := a.total().checked(0, currency)
		switch {
		case !one:
			v = crm.Value{}
		case err != nil:
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// oneCurrency returns the currency of all values of a, if they share one.
func (r *run) oneCurrency(a *accumulator, rows []slotRow) (string, bool) {
	found, any := uint32(0), false
	for _, row := range rows {
		if a.cells[row.slot].n == 0 {
			continue
		}
		code := row.codes[len(r.dims)]
		if any && code != found {
			return "", false
		}
		found, any = code, true
	}
	return r.ts.currencies[found], true
}

// sortRows orders rows, which stand in the order of their groups, by keys.
func sortRows(rows [][]crm.Value, keys []Key) {
	if len(keys) == 0 {
		return
	}
	slices.SortStableFunc(rows, func(a, b []crm.Value) int {
		for _, k := range keys {
			c := crm.Compare(number(a[k.Column]), number(b[k.Column]))
			if k.Desc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}

// number drops the currency of an amount, so that it is ordered by size.
func number(v crm.Value) crm.Value {
	if v.Currency() == "" {
		return v
	}
	return crm.DecimalValue(v.Int(), v.Scale(), "")
}
