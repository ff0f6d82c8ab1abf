package query

import (
	"bytes"
	"cmp"
	"math/bits"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// Test reports whether a leaf holds for a record whose value at n.Path is v.
func (n *Node) Test(v crm.Value) bool {
	if v.IsNull() {
		return n.Op == Null || n.Op == Ne
	}
	switch n.Op {
	case Present:
		return true
	case Eq:
		return n.equal(v, 0)
	case Ne:
		return !n.equal(v, 0)
	case In:
		for i := range n.Values {
			if n.equal(v, i) {
				return true
			}
		}
	case Elem:
		return n.hasElement(v)
	case Contains:
		return strings.Contains(crm.FoldText(v.Str()), n.folded[0])
	case Prefix:
		return strings.HasPrefix(crm.FoldText(v.Str()), n.folded[0])
	case Suffix:
		return strings.HasSuffix(crm.FoldText(v.Str()), n.folded[0])
	case Lt, Le, Gt, Ge:
		c, ok := n.compare(v, 0)
		return ok && (n.Op == Lt && c < 0 || n.Op == Le && c <= 0 || n.Op == Gt && c > 0 || n.Op == Ge && c >= 0)
	}
	return false
}

func (n *Node) hasElement(v crm.Value) bool {
	for _, e := range v.Set() {
		if crm.FoldText(e) == n.folded[0] {
			return true
		}
	}
	return false
}

func (n *Node) equal(v crm.Value, i int) bool {
	w := n.Values[i]
	switch {
	case v.Kind() != w.Kind():
		return false
	case w.Kind() == crm.Phone:
		return bytes.Equal(crm.AppendKey(nil, v), crm.AppendKey(nil, w))
	case w.Kind() == crm.Link:
		return v.Link() == w.Link()
	}
	c, ok := n.compare(v, i)
	return ok && c == 0
}

// compare orders v against the i-th value; false if the two have no order:
// different kinds, or amounts of different currencies.
func (n *Node) compare(v crm.Value, i int) (int, bool) {
	w := n.Values[i]
	if v.Kind() != w.Kind() {
		return 0, false
	}
	switch v.Kind() {
	case crm.Integer, crm.Bool, crm.Date, crm.Instant:
		return cmp.Compare(v.Int(), w.Int()), true
	case crm.Decimal:
		ok := w.Currency() == "" || w.Currency() == v.Currency()
		return compareDecimal(v.Int(), v.Scale(), w.Int(), w.Scale()), ok
	}
	return cmp.Compare(crm.FoldText(v.Str()), n.folded[i]), true
}

// compareDecimal compares a·10^-as with b·10^-bs exactly.
func compareDecimal(a int64, as uint8, b int64, bs uint8) int {
	if as == bs || a == 0 || b == 0 || (a < 0) != (b < 0) {
		return cmp.Compare(a, b)
	}
	ah, al := bits.Mul64(abs(a), pow10[crm.MaxScale-min(as, crm.MaxScale)])
	bh, bl := bits.Mul64(abs(b), pow10[crm.MaxScale-min(bs, crm.MaxScale)])
	c := cmp.Or(cmp.Compare(ah, bh), cmp.Compare(al, bl))
	if a < 0 {
		return -c
	}
	return c
}

func abs(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

var pow10 = [crm.MaxScale + 1]uint64{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}
