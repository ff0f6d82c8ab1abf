package store

import (
	"bytes"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// A plan is a way to find the records of a list: all of them, or the ranges of
// one index.
type plan struct {
	index   *crm.Index // nil: all records by id
	ranges  []keyRange
	skip    []int // bytes of each range's keys that its equality bounds fix
	ordered bool  // yields the records in the order asked for
	bound   bool  // the ranges leave records out
}

// maxRanges bounds the ranges that `in` lists lead to; beyond it the plan makes
// no use of the list.
const maxRanges = 256

// probe is how many rows are counted to compare plans. Reading 1,000 keys costs
// about as much as reading 20 records.
const probe = 1000

// few is the number of records that are always read rather than hoping for a
// page to end a walk.
const few = 100

// plan chooses: the index that leaves the fewest records, if those are few;
// else one that yields the records in order, so that the page ends the walk;
// else the former. Rows are counted only where there is a choice.
func (l *lister) plan() plan {
	all := plan{ordered: len(l.order.keys) == 0}
	inOrder := all
	var narrowing []plan
	bounds := l.q.Where.Bounds()
	for i := range l.q.Entity.Indexes {
		p := l.indexPlan(&l.q.Entity.Indexes[i], bounds)
		if p.ordered && (!inOrder.ordered || p.bound && !inOrder.bound) {
			inOrder = p
		}
		if p.bound {
			narrowing = append(narrowing, p)
		}
	}
	if inOrder.bound && len(narrowing) == 1 {
		return inOrder
	}
	narrow, narrowRows := all, probe+1
	for _, p := range narrowing {
		if n := l.count(p, narrowRows); n < narrowRows || narrow.index == nil {
			narrow, narrowRows = p, n
		}
	}
	if inOrder.ordered && !l.cheap(narrow, narrowRows) {
		return inOrder
	}
	return narrow
}

// cheap reports whether reading all rows of the plan costs less than walking
// the entity in order until a page is full, if the matching records lie evenly:
// want × all ÷ rows.
func (l *lister) cheap(p plan, rows int) bool {
	if p.index == nil || rows > probe {
		return false
	}
	all, err := l.r.base.Count(l.q.Entity.ID)
	return err != nil || rows <= few || rows*rows <= l.want*all
}

// count returns the rows of the plan in the base, at most limit.
func (l *lister) count(p plan, limit int) int {
	n := 0
	b := l.r.base.rows.bucket(spaceIndex, l.q.Entity.ID, p.index.ID)
	if b == nil {
		return 0
	}
	for _, rng := range p.ranges {
		for c := newRowCursor(source{bucket: b}, rng, false); c.key != nil && n < limit; c.next() {
			n++
		}
	}
	return n
}

// indexPlan returns how the index can serve: equality bounds on its leading
// fields, then a range on the next.
func (l *lister) indexPlan(x *crm.Index, bounds []query.Bound) plan {
	p := plan{index: x}
	prefixes := [][]byte{nil}
	rest := x.Fields
	for len(rest) > 0 {
		longer := extend(prefixes, bounds, rest[0])
		if longer == nil {
			break
		}
		prefixes, rest, p.bound = longer, rest[1:], true
	}
	p.ordered = l.sortedBy(rest) && !l.set(rest)
	for _, prefix := range prefixes {
		rng := prefixRange(prefix)
		if len(rest) > 0 {
			cut := narrowed(rng, prefix, bounds, rest[0])
			p.bound = p.bound || !bytes.Equal(cut.lo, rng.lo) || !bytes.Equal(cut.hi, rng.hi)
			rng = cut
		}
		p.ranges, p.skip = append(p.ranges, rng), append(p.skip, len(prefix))
	}
	return p
}

// set reports whether the first of the fields is a set: its index has several
// rows a record, or none.
func (l *lister) set(fields []string) bool {
	return len(fields) > 0 && l.q.Entity.Field(fields[0]).Kind == crm.Choices
}

// sortedBy reports whether rows with these fields left come in the order asked for.
func (l *lister) sortedBy(fields []string) bool {
	return l.order.uniform() && slices.EqualFunc(fields, l.order.keys, func(name string, k query.Key) bool { return name == k.Field.Name })
}

// extend appends the values that a field must equal to each prefix; nil if
// there is no such bound.
func extend(prefixes [][]byte, bounds []query.Bound, field string) [][]byte {
	for _, b := range bounds {
		if b.Field.Name != field || b.Op != query.Eq && b.Op != query.In || len(prefixes)*len(b.Values) > maxRanges {
			continue
		}
		out := [][]byte{}
		for _, p := range prefixes {
			for _, v := range b.Values {
				key := crm.AppendKey(slices.Clone(p), v)
				if !slices.ContainsFunc(out, func(o []byte) bool { return bytes.Equal(o, key) }) {
					out = append(out, key)
				}
			}
		}
		return out
	}
	return nil
}

// narrowed cuts a range to what the range bounds on the next field leave. Bounds
// are kept a little wide where keys are cut: the filter judges again.
func narrowed(rng keyRange, prefix []byte, bounds []query.Bound, field string) keyRange {
	for _, b := range bounds {
		if b.Field.Name != field || b.Field.Kind == crm.Choices {
			continue
		}
		key := crm.AppendKey(slices.Clone(prefix), b.Values[0])
		switch b.Op {
		case query.Prefix:
			start := crm.AppendTextPrefix(slices.Clone(prefix), b.Field.Kind, b.Values[0].Str())
			rng = rng.from(start).below(after(start))
		case query.Ge, query.Gt:
			rng = rng.from(key)
		case query.Le, query.Lt:
			rng = rng.from(append(slices.Clone(prefix), 1)).below(after(key))
		}
	}
	return rng
}

// from and below return the range cut to keys from lo on, or below hi.
func (r keyRange) from(lo []byte) keyRange {
	if bytes.Compare(lo, r.lo) > 0 {
		r.lo = lo
	}
	return r
}

func (r keyRange) below(hi []byte) keyRange {
	if hi != nil && (r.hi == nil || bytes.Compare(hi, r.hi) < 0) {
		r.hi = hi
	}
	return r
}

// merge starts the plan, where it yields records in order from the list's
// cursor on.
func (p plan) merge(l *lister) *merge {
	desc := p.ordered && l.order.idDesc
	var from []byte
	if p.ordered && l.from != nil {
		from = slices.Clone(l.from)
		if desc {
			invert(from)
		}
	}
	if p.index == nil {
		return l.r.primary(l.q.Entity.ID, desc, from)
	}
	m := newMerge(l.r, l.q.Entity.ID)
	m.desc = desc
	for i, rng := range p.ranges {
		if from != nil {
			rng = past(rng, append(slices.Clone(rng.lo[:p.skip[i]]), from...), desc)
		}
		m.add(spaceIndex, l.q.Entity.ID, p.index.ID, rng, p.skip[i])
	}
	return m
}
