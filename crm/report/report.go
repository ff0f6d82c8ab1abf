package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// Bounds of a report.
const (
	MaxGroups   = 8
	MaxMeasures = 32
	maxLength   = 8 << 10 // bytes of each text
	maxTerms    = 64      // fields and numbers in one measure
	maxDepth    = 64      // parentheses within one another
)

// A Report says how to summarise the records of an entity.
type Report struct {
	Entity   *crm.Entity
	Where    *query.Expr // nil: every record
	Groups   []Group     // none: one row over all
	Measures []Measure   // at least one
	Sort     []Key       // ties, and all without it: by the groups, ascending
	Limit    int         // rows of the result after sorting; 0: all
}

// A Group splits the records by the value at a path.
type Group struct {
	Name   string // of the result's column
	Path   *query.Path
	Bucket Bucket
}

// A Measure is a number computed for each group.
type Measure struct {
	Name string // of the result's column
	Fn   Fn
	Expr *Expr // nil: Count of records
}

// A Fn is what a measure does with the values of its expression.
type Fn uint8

// The functions. Null values are left out; over no value, Count is 0 and the
// others are null.
const (
	Count Fn = iota
	Sum
	Avg
	Min
	Max
)

var fnNames = []string{"count", "sum", "avg", "min", "max"}

// String returns the name a report is parsed with.
func (f Fn) String() string { return fnNames[f] }

// A Key is one column of the order of a result.
type Key struct {
	Column int // index into Result.Columns
	Desc   bool
}

// Parse reads a report over the records of e.
//
//   - groups: paths, each optionally with :day, :week, :month, :quarter or
//     :year, as "account.name, order_date:month"
//   - measures: count, or count, sum, avg, min and max of an expression of
//     number fields, decimals, + - * and parentheses; blank text is "count".
//     min and max also take a date or instant
//   - where: a filter, see [query.Parse]
//   - sort: names of columns, a minus before those that descend
//
// A group or measure may end in "as name"; without it its column is named by
// its text without blanks. Errors are [crm.Error] with "line:column" as Item.
func Parse(schema *crm.Schema, e *crm.Entity, groups, measures, where, sort string, limit int) (*Report, error) {
	if limit < 0 {
		return nil, &crm.Error{Code: crm.CodeInvalid, Op: "parse report", Item: "limit", Message: "a limit is 0, for all rows, or more"}
	}
	x, err := query.Parse(schema, e, where)
	if err != nil {
		return nil, err
	}
	r := &Report{Entity: e, Where: x, Limit: limit}
	if r.Groups, err = parseGroups(schema, e, groups); err != nil {
		return nil, err
	}
	if strings.TrimSpace(measures) == "" {
		measures = "count"
	}
	if r.Measures, err = parseMeasures(schema, e, measures); err != nil {
		return nil, err
	}
	if err := r.checkNames(); err != nil {
		return nil, err
	}
	r.Sort, err = r.parseSort(sort)
	return r, err
}

func (r *Report) checkNames() error {
	names := map[string]bool{}
	for _, c := range r.columns() {
		if names[c.Name] {
			return &crm.Error{Code: crm.CodeInvalid, Op: "parse report", Item: c.Name, Message: "two columns have this name; rename one with as"}
		}
		names[c.Name] = true
	}
	return nil
}

func (r *Report) parseSort(text string) ([]Key, error) {
	const op = "parse sort"
	columns := r.columns()
	var keys []Key
	s := scanner{op: op, src: text}
	for part := range s.parts() {
		desc := strings.HasPrefix(part.text, "-")
		name := strings.TrimPrefix(strings.Join(strings.Fields(part.text), ""), "-")
		i := slices.IndexFunc(columns, func(c Column) bool { return c.Name == name })
		if i < 0 {
			known := make([]string, len(columns))
			for j, c := range columns {
				known[j] = c.Name
			}
			return nil, query.ErrorAt(op, text, part.at, fmt.Sprintf("there is no column %q, only %s", name, strings.Join(known, ", ")))
		}
		keys = append(keys, Key{i, desc})
	}
	return keys, nil
}

func parseGroups(schema *crm.Schema, e *crm.Entity, text string) ([]Group, error) {
	s := scanner{op: "parse groups", src: text}
	if len(text) > maxLength {
		return nil, s.fail(0, "%d bytes; at most %d are read", len(text), maxLength)
	}
	var groups []Group
	for part := range s.parts() {
		g, err := s.group(schema, e, part)
		if err != nil {
			return nil, err
		}
		if groups = append(groups, g); len(groups) > MaxGroups {
			return nil, s.fail(part.at, "at most %d groups", MaxGroups)
		}
	}
	return groups, nil
}

func (s *scanner) group(schema *crm.Schema, e *crm.Entity, p part) (Group, error) {
	p, name, err := s.alias(p)
	if err != nil {
		return Group{}, err
	}
	path, bucket, cut := strings.Cut(p.text, ":")
	g := Group{}
	if g.Path, err = query.PathAt(schema, e, strings.TrimSpace(path), s.op, s.src, p.at); err != nil {
		return g, err
	}
	kind, at := g.Path.Kind(), p.at+len(path)+1
	switch {
	case kind == crm.Choices || kind == crm.Address:
		return g, s.fail(p.at, "records are not grouped by a field of kind %s", kind)
	case cut && kind != crm.Date && kind != crm.Instant:
		return g, s.fail(at, "%s is no date but of kind %s", g.Path, kind)
	}
	if cut {
		if g.Bucket, cut = parseBucket(strings.TrimSpace(bucket)); !cut {
			return g, s.fail(at, "a date is grouped by day, week, month, quarter or year, not %q", strings.TrimSpace(bucket))
		}
	}
	g.Name = cmp.Or(name, g.String())
	return g, nil
}

// String returns the group as Parse reads it, without a name.
func (g Group) String() string {
	if g.Bucket == Exact {
		return g.Path.String()
	}
	return g.Path.String() + ":" + g.Bucket.String()
}

// String returns the measure as Parse reads it, without a name.
func (m Measure) String() string {
	if m.Expr == nil {
		return m.Fn.String()
	}
	return m.Fn.String() + "(" + m.Expr.String() + ")"
}

// money reports whether the measure's values are amounts of a currency.
func (m Measure) money() bool { return m.Fn != Count && m.Expr.Money }

// currencies reports whether the result is split by currency.
func (r *Report) currencies() bool { return slices.ContainsFunc(r.Measures, Measure.money) }

// A Need is a column that a report reads: a field of an entity or, of an
// address, one part. A nil Field needs only to know which records there are.
type Need struct {
	Entity *crm.Entity
	Field  *crm.Field
	Part   string
}

// Needs returns the columns the report reads, for [Tables.Extend]; repeats are
// possible.
func (r *Report) Needs() []Need {
	needs := []Need{{Entity: r.Entity}}
	for _, p := range r.paths() {
		if p.Link != nil {
			needs = append(needs, Need{Entity: r.Entity, Field: p.Link})
		}
		needs = append(needs, Need{p.Entity, p.Field, p.Part})
	}
	return needs
}

func (r *Report) paths() []*query.Path {
	paths := slices.Clone(r.Where.Paths())
	for _, g := range r.Groups {
		paths = append(paths, g.Path)
	}
	for _, m := range r.Measures {
		paths = m.Expr.paths(paths)
	}
	return paths
}
