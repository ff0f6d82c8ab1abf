package report

import (
	"math"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// A mask evaluates a filter for len(out) rows of a table from row from on.
type mask func(from int, out []bool)

// conjuncts returns the parts of the filter that must all hold.
func conjuncts(x *query.Expr) []*query.Node {
	switch root := x.Root(); {
	case root == nil:
		return nil
	case root.Op == query.And:
		return root.Kids
	default:
		return []*query.Node{root}
	}
}

// oneLink reports whether all paths of n start at the same link, or none at
// any, and returns that link, nil for none.
func oneLink(n *query.Node) (*crm.Field, bool) {
	if n.Path != nil {
		return n.Path.Link, true
	}
	first, ok := oneLink(n.Kids[0])
	for _, k := range n.Kids[1:] {
		link, one := oneLink(k)
		ok = ok && one && link == first
	}
	return first, ok
}

// mask compiles n for the rows of t. Paths are resolved from t itself when
// inner, which is so for the target of a link, and along their link otherwise.
func (t *table) mask(n *query.Node, inner bool) mask {
	link, one := oneLink(n)
	switch {
	case one && link != nil && !inner:
		return t.linkedMask(n, t.column(link, ""))
	case n.Op == query.And || n.Op == query.Or:
		return t.joinedMask(n, inner)
	case n.Op == query.Not:
		kid := t.mask(n.Kids[0], inner)
		return func(from int, out []bool) {
			kid(from, out)
			for i, v := range out {
				out[i] = !v
			}
		}
	}
	return t.column(n.Path.Field, n.Path.Part).mask(n)
}

// linkedMask evaluates n once for every row of the target and looks it up.
func (t *table) linkedMask(n *query.Node, link *column) mask {
	passes := make([]bool, len(link.target.ids))
	link.target.mask(n, true)(0, passes)
	return func(from int, out []bool) {
		for i, target := range link.links[from : from+len(out)] {
			out[i] = passes[target]
		}
	}
}

func (t *table) joinedMask(n *query.Node, inner bool) mask {
	kids := make([]mask, len(n.Kids))
	for i, k := range n.Kids {
		kids[i] = t.mask(k, inner)
	}
	and := n.Op == query.And
	var buf []bool
	return func(from int, out []bool) {
		kids[0](from, out)
		buf = extend(buf, len(out))
		for _, kid := range kids[1:] {
			more := buf[:len(out)]
			kid(from, more)
			for i, v := range more {
				if and {
					out[i] = out[i] && v
				} else {
					out[i] = out[i] || v
				}
			}
		}
	}
}

// mask compiles a leaf.
func (c *column) mask(n *query.Node) mask {
	switch c.kind {
	case coded:
		return c.codedMask(n)
	case links:
		return c.linksMask(n)
	}
	lo, hi, ok := c.interval(n)
	if !ok {
		return c.anyMask(n)
	}
	negate, onNull := n.Op == query.Ne, n.Test(crm.Value{})
	return func(from int, out []bool) {
		for i, v := range c.ints[from : from+len(out)] {
			if c.null(uint32(from + i)) {
				out[i] = onNull
				continue
			}
			out[i] = (v >= lo && v <= hi) != negate
		}
	}
}

// codedMask asks once for every value of the dictionary.
func (c *column) codedMask(n *query.Node) mask {
	passes := make([]bool, len(c.dict))
	for code, v := range c.dict {
		passes[code] = n.Test(v)
	}
	return func(from int, out []bool) {
		for i, code := range c.codes[from : from+len(out)] {
			out[i] = passes[code]
		}
	}
}

// linksMask answers the only leaves a link has: ==, !=, in, and null.
func (c *column) linksMask(n *query.Node) mask {
	passes := make([]bool, len(c.target.ids))
	others := n.Op == query.Ne || n.Op == query.Present
	for row := range passes {
		passes[row] = others
	}
	passes[0] = n.Test(crm.Value{})
	for _, v := range n.Values {
		if row, ok := c.target.rows[v.Link()]; ok {
			passes[row] = !others
		}
	}
	return func(from int, out []bool) {
		for i, target := range c.links[from : from+len(out)] {
			out[i] = passes[target]
		}
	}
}

// anyMask tests value by value.
func (c *column) anyMask(n *query.Node) mask {
	return func(from int, out []bool) {
		for i := range out {
			out[i] = n.Test(c.value(uint32(from + i)))
		}
	}
}

// interval turns a leaf into lo <= n <= hi, negated for Ne, over the column's
// numbers; false if it cannot.
func (c *column) interval(n *query.Node) (lo, hi int64, ok bool) {
	lo, hi = math.MinInt64, math.MaxInt64
	if n.Op == query.Present {
		return lo, hi, true
	}
	if n.Op == query.Null || n.Op == query.In || len(c.odd) > 0 {
		return 0, 0, false
	}
	v, ok := c.aligned(n.Values[0])
	if !ok {
		return 0, 0, false
	}
	switch n.Op {
	case query.Eq, query.Ne:
		return v, v, true
	case query.Le:
		return lo, v, true
	case query.Ge:
		return v, hi, true
	case query.Lt:
		return lo, v - 1, v > lo
	case query.Gt:
		return v + 1, hi, v < hi
	}
	return 0, 0, false
}

// aligned returns v as the column's numbers are kept, if it can be exactly.
func (c *column) aligned(v crm.Value) (int64, bool) {
	switch {
	case c.kind == integers:
		return v.Int(), true
	case v.Currency() != "" || v.Scale() > c.scale:
		return 0, false
	}
	return mul(v.Int(), pow10[c.scale-v.Scale()])
}
