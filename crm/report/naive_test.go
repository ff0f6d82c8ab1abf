package report

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// naive computes a report record by record with maps and big.Rat: the
// definition that the engine must agree with. Sort and Limit are applied too.
func (w *world) naive(def *Report) (rows []string, mixed int) {
	groups := map[string]*naiveGroup{}
	for _, r := range w.records[def.Entity.ID] {
		get := func(p *query.Path) crm.Value { return w.at(p, r) }
		if !def.Where.Match(get) {
			continue
		}
		keys := make([]crm.Value, 0, len(def.Groups)+1)
		for _, g := range def.Groups {
			keys = append(keys, cut(g.Bucket, get(g.Path)))
		}
		if def.currencies() {
			currency, ok := oneCurrency(def, get)
			if !ok {
				mixed++
				continue
			}
			keys = append(keys, crm.TextValue(currency))
		}
		g := groups[fmt.Sprint(keys)]
		if g == nil {
			g = &naiveGroup{keys: keys, values: make([][]*big.Rat, len(def.Measures))}
			groups[fmt.Sprint(keys)] = g
		}
		g.add(def, get)
	}
	if len(groups) == 0 && len(def.Groups) == 0 {
		groups[""] = &naiveGroup{values: make([][]*big.Rat, len(def.Measures))}
		if def.currencies() {
			groups[""].keys = make([]crm.Value, 1)
		}
	}
	return naiveRows(def, groups), mixed
}

type naiveGroup struct {
	keys   []crm.Value
	n      int64
	values [][]*big.Rat // by measure, without nulls
}

func (g *naiveGroup) add(def *Report, get func(*query.Path) crm.Value) {
	g.n++
	for i, m := range def.Measures {
		if m.Expr == nil {
			continue
		}
		if v := ratOf(m.Expr, get); v != nil {
			g.values[i] = append(g.values[i], v)
		}
	}
}

func (w *world) at(p *query.Path, r *crm.Record) crm.Value {
	if p.Link != nil {
		return p.Value(w.records[p.Entity.ID][r.Value(p.Link.ID).Link()])
	}
	return p.Value(r)
}

func cut(b Bucket, v crm.Value) crm.Value {
	if b == Exact || v.IsNull() {
		return v
	}
	t := v.Time().Truncate(24 * time.Hour)
	switch b {
	case Week:
		for t.Weekday() != time.Monday {
			t = t.AddDate(0, 0, -1)
		}
	case Month:
		t = t.AddDate(0, 0, 1-t.Day())
	case Quarter:
		for t.Day() != 1 || (t.Month()-1)%3 != 0 {
			t = t.AddDate(0, 0, -1)
		}
	case Year:
		t = t.AddDate(0, 0, 1-t.YearDay())
	}
	return crm.DateValue(t)
}

func ratOf(x *Expr, get func(*query.Path) crm.Value) *big.Rat {
	switch {
	case x.Path != nil:
		v := get(x.Path)
		if v.IsNull() {
			return nil
		}
		if v.Kind() == crm.Date || v.Kind() == crm.Instant {
			return new(big.Rat).SetInt64(v.Int())
		}
		return v.Rat()
	case x.Op == 0:
		return x.Value.Rat()
	}
	l, r := ratOf(x.L, get), ratOf(x.R, get)
	if l == nil || r == nil {
		return nil
	}
	switch x.Op {
	case '+':
		return l.Add(l, r)
	case '-':
		return l.Sub(l, r)
	}
	return l.Mul(l, r)
}

func oneCurrency(def *Report, get func(*query.Path) crm.Value) (string, bool) {
	var found []string
	for _, m := range def.Measures {
		if !m.money() {
			continue
		}
		for _, p := range m.Expr.paths(nil) {
			if v := get(p); p.Field.Money && !v.IsNull() {
				found = append(found, v.Currency())
			}
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) == 0 {
		return "", true
	}
	return found[0], len(found) == 1
}

func naiveRows(def *Report, groups map[string]*naiveGroup) []string {
	var list []*naiveGroup
	for _, g := range groups {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *naiveGroup) int { return slices.CompareFunc(a.keys, b.keys, crm.Compare) })
	var rows []string
	for _, g := range list {
		var b strings.Builder
		for _, k := range g.keys {
			fmt.Fprintf(&b, "%s|", exactText(k))
		}
		for i, m := range def.Measures {
			fmt.Fprintf(&b, "%s|", g.measure(i, m))
		}
		rows = append(rows, b.String())
	}
	return rows
}

func (g *naiveGroup) measure(i int, m Measure) string {
	vals := g.values[i]
	switch {
	case m.Expr == nil:
		return big.NewRat(g.n, 1).String()
	case m.Fn == Count:
		return big.NewRat(int64(len(vals)), 1).String()
	case len(vals) == 0:
		return "null"
	case m.Fn == Min:
		return slices.MinFunc(vals, (*big.Rat).Cmp).String()
	case m.Fn == Max:
		return slices.MaxFunc(vals, (*big.Rat).Cmp).String()
	}
	sum := new(big.Rat)
	for _, v := range vals {
		sum.Add(sum, v)
	}
	if m.Fn == Sum {
		return sum.String()
	}
	return evenRat(sum.Quo(sum, big.NewRat(int64(len(vals)), 1)), AvgScale).String()
}

// evenRat rounds half to even by its own route: the two neighbours and their
// distances.
func evenRat(x *big.Rat, digits int) *big.Rat {
	unit := new(big.Rat).SetInt(bigPow10(digits))
	scaled := new(big.Rat).Mul(x, unit)
	low := new(big.Int).Div(scaled.Num(), scaled.Denom()) // floor
	rest := new(big.Rat).Sub(scaled, new(big.Rat).SetInt(low))
	if c := rest.Cmp(big.NewRat(1, 2)); c > 0 || c == 0 && low.Bit(0) == 1 {
		low.Add(low, big.NewInt(1))
	}
	return new(big.Rat).Quo(new(big.Rat).SetInt(low), unit)
}

// exactText writes v so that equal values have equal texts.
func exactText(v crm.Value) string {
	switch {
	case v.IsNull():
		return "null"
	case v.Kind() == crm.Integer || v.Kind() == crm.Decimal:
		return v.Rat().String() + v.Currency()
	}
	return v.String()
}

// measureText is exactText of a measure, of which naive keeps the number only.
func measureText(v crm.Value) string {
	switch {
	case v.IsNull():
		return "null"
	case v.Rat() != nil:
		return v.Rat().String()
	}
	return big.NewRat(v.Int(), 1).String()
}

func (r *Result) exactRows(groups int) []string {
	var out []string
	for _, row := range r.Rows {
		var b strings.Builder
		for i, v := range row {
			if i < groups {
				fmt.Fprintf(&b, "%s|", exactText(v))
			} else {
				fmt.Fprintf(&b, "%s|", measureText(v))
			}
		}
		out = append(out, b.String())
	}
	return out
}
