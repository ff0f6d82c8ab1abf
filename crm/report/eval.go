package report

import (
	"math/big"

	"github.com/tradepost-crm/tradepost/crm"
)

// block is how many rows are computed at once: small enough that what is
// computed from them stays in the fastest cache.
const block = 1024

// A vec holds the values of an expression for the rows of a block, unscaled.
type vec struct {
	v    []int64
	ok   []bool // not null; nil: all
	wide []bool // does not fit 64 bits, ask exact; nil: none
}

// A term is an expression bound to columns. It belongs to one Run.
type term struct {
	op    byte // as in Expr
	l, r  *term
	col   *column // of a field
	link  *column // of a field one link away
	num   int64   // of a number
	scale int

	lf, rf   int64 // what the sides are multiplied by to meet scale; 0: more than 10^18
	v        []int64
	ok, wide []bool
}

// bind compiles x for the rows of t.
func (t *table) bind(x *Expr) *term {
	n := &term{op: x.Op, lf: 1, rf: 1, v: make([]int64, block), ok: make([]bool, block), wide: make([]bool, block)}
	switch {
	case x.Path != nil:
		n.col = t.column(x.Path.Field, x.Path.Part)
		if x.Path.Link != nil {
			n.link = t.column(x.Path.Link, "")
			n.col = n.link.target.column(x.Path.Field, x.Path.Part)
		}
		n.scale = int(n.col.scale)
	case x.Op == 0:
		n.num, n.scale = x.Value.Int(), int(x.Value.Scale())
		for i := range n.v {
			n.v[i] = n.num
		}
	default:
		n.l, n.r = t.bind(x.L), t.bind(x.R)
		n.align()
	}
	return n
}

// align gives both sides of + and - the larger scale.
func (n *term) align() {
	if n.op == '*' {
		n.scale = n.l.scale + n.r.scale
		return
	}
	n.scale = max(n.l.scale, n.r.scale)
	n.lf, n.rf = factor(n.scale-n.l.scale), factor(n.scale-n.r.scale)
}

func factor(digits int) int64 {
	if digits >= len(pow10) {
		return 0
	}
	return pow10[digits]
}

// block computes size rows from row from on. The vec is the term's until the
// next call.
func (n *term) block(from, size int) vec {
	switch {
	case n.link != nil:
		return n.gather(from, size)
	case n.col != nil:
		return n.load(from, size)
	case n.op == 0:
		return vec{v: n.v[:size]}
	}
	l, r := n.l.block(from, size), n.r.block(from, size)
	out := vec{v: n.v[:size], ok: n.both(l.ok, r.ok, size)}
	overflow := n.compute(l.v, r.v, out.v)
	if l.wide != nil || r.wide != nil {
		overflow = n.spread(l.wide, r.wide, overflow, size)
	}
	if overflow {
		out.wide = n.wide[:size]
	}
	return out
}

// load reads rows of an own column.
func (n *term) load(from, size int) vec {
	out := vec{v: n.col.ints[from : from+size]}
	if !n.col.full(from, size) {
		out.ok = n.ok[:size]
		for i := range out.ok {
			out.ok[i] = !n.col.null(uint32(from + i))
		}
	}
	if len(n.col.odd) > 0 {
		out.wide = n.wide[:size]
		for i := range out.wide {
			_, out.wide[i] = n.col.odd[uint32(from+i)]
		}
	}
	return out
}

// full reports whether none of the rows is null.
func (c *column) full(from, size int) bool {
	for row := from; row < from+size; {
		word := c.has[row/64] >> (row % 64)
		want := ^uint64(0) >> (row % 64)
		step := 64 - row%64
		if rest := from + size - row; rest < step {
			want &= 1<<rest - 1
		}
		if word&want != want {
			return false
		}
		row += step
	}
	return true
}

// gather reads rows of a column one link away.
func (n *term) gather(from, size int) vec {
	out := vec{v: n.v[:size], ok: n.ok[:size]}
	targets := n.link.links[from : from+size]
	for i, target := range targets {
		out.v[i] = n.col.ints[target]
		out.ok[i] = !n.col.null(target)
	}
	if len(n.col.odd) > 0 {
		out.wide = n.wide[:size]
		for i, target := range targets {
			_, out.wide[i] = n.col.odd[target]
		}
	}
	return out
}

func (n *term) both(l, r []bool, size int) []bool {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	}
	out := n.ok[:size]
	for i := range out {
		out[i] = l[i] && r[i]
	}
	return out
}

// compute applies the operator and marks in n.wide what overflowed; false if
// nothing did, and n.wide is not written then.
func (n *term) compute(l, r, out []int64) bool {
	overflow := false
	for i := n.simple(l, r, out); i < len(out); i++ {
		c, fits := n.apply(l[i], r[i])
		out[i] = c
		if fits {
			continue
		}
		if !overflow {
			overflow = true
			clear(n.wide)
		}
		n.wide[i] = true
	}
	return overflow
}

// simple computes rows from the first on, without care for alignment and
// overflow, and returns the first row that needs it.
func (n *term) simple(l, r, out []int64) int {
	l, r = l[:len(out)], r[:len(out)]
	switch {
	case n.op == '*':
		const half = 1 << 31
		for i := range out {
			a, b := l[i], r[i]
			if (uint64(a+half) | uint64(b+half)) >= 2*half {
				return i
			}
			out[i] = a * b
		}
	case n.op == '-' && n.rf == 1 && n.lf > 0:
		for i := range out {
			a, fits := mul(l[i], n.lf)
			c := a - r[i]
			if !fits || (a^r[i])&(a^c) < 0 {
				return i
			}
			out[i] = c
		}
	default:
		return 0
	}
	return len(out)
}

func (n *term) apply(a, b int64) (int64, bool) {
	if n.op == '*' {
		return mul(a, b)
	}
	a, fa := n.scaled(a, n.lf)
	b, fb := n.scaled(b, n.rf)
	if n.op == '-' {
		c := a - b
		return c, fa && fb && (a^b)&(a^c) >= 0
	}
	c, fc := add(a, b)
	return c, fa && fb && fc
}

func (n *term) scaled(a, f int64) (int64, bool) {
	switch {
	case f == 1:
		return a, true
	case f == 0:
		return 0, a == 0
	}
	return mul(a, f)
}

// spread marks in n.wide what is wide on either side as well.
func (n *term) spread(l, r []bool, marked bool, size int) bool {
	if !marked {
		clear(n.wide)
	}
	for i := range n.wide[:size] {
		n.wide[i] = n.wide[i] || l != nil && l[i] || r != nil && r[i]
	}
	return true
}

// exact computes one row without bounds, unscaled; nil is null.
func (n *term) exact(row uint32) *big.Int {
	switch {
	case n.col != nil:
		if n.link != nil {
			row = n.link.links[row]
		}
		return n.col.exact(row)
	case n.op == 0:
		return big.NewInt(n.num)
	}
	l, r := n.l.exact(row), n.r.exact(row)
	if l == nil || r == nil {
		return nil
	}
	if n.op == '*' {
		return l.Mul(l, r)
	}
	l.Mul(l, bigPow10(n.scale-n.l.scale))
	r.Mul(r, bigPow10(n.scale-n.r.scale))
	if n.op == '-' {
		return l.Sub(l, r)
	}
	return l.Add(l, r)
}

func (c *column) exact(row uint32) *big.Int {
	if c.null(row) {
		return nil
	}
	v := crm.DecimalValue(c.ints[row], c.scale, "")
	if odd, ok := c.odd[row]; ok {
		v = odd
	}
	n := big.NewInt(v.Int())
	return n.Mul(n, bigPow10(int(c.scale-v.Scale())))
}
