package query

import (
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// An Op is an operator of a filter.
type Op uint8

// The operators. Not has one kid, And and Or two or more; the others are leaves.
const (
	And Op = iota + 1
	Or
	Not
	Null     // path == null
	Present  // path != null
	Eq       // one value
	Ne       // one value; true for null
	Lt       // one value
	Le       // one value
	Gt       // one value
	Ge       // one value
	In       // any number of values; none is never true
	Elem     // one value, a set of one element: the set at the path has it
	Contains // one Text
	Prefix   // one Text
	Suffix   // one Text
)

var opText = [...]string{Eq: "==", Ne: "!=", Lt: "<", Le: "<=", Gt: ">", Ge: ">=", Contains: "contains", Prefix: "startsWith", Suffix: "endsWith"}

// A Node is one operator of a parsed filter. It must not be changed.
type Node struct {
	Op     Op
	Kids   []*Node
	Path   *Path
	Values []crm.Value // of the path's kind, but Text for Contains, Prefix and Suffix

	folded []string // of Values that are text
}

// An Expr is a parsed filter. The nil Expr matches every record.
type Expr struct {
	root  *Node
	paths []*Path
	text  string
}

// Root returns the outermost operator, nil for the nil Expr.
func (x *Expr) Root() *Node {
	if x == nil {
		return nil
	}
	return x.root
}

// Paths returns the distinct paths the filter reads. Match asks for these and
// no others.
func (x *Expr) Paths() []*Path {
	if x == nil {
		return nil
	}
	return x.paths
}

// String returns the canonical text, which parses to an equal filter; "" for
// the nil Expr.
func (x *Expr) String() string {
	if x == nil {
		return ""
	}
	return x.text
}

// Match reports whether a record passes. get returns the record's value at a
// path (see [Path.Value]), Null where there is none.
func (x *Expr) Match(get func(p *Path) crm.Value) bool {
	return x == nil || x.root.match(get)
}

func (n *Node) match(get func(p *Path) crm.Value) bool {
	switch n.Op {
	case And:
		for _, k := range n.Kids {
			if !k.match(get) {
				return false
			}
		}
		return true
	case Or:
		for _, k := range n.Kids {
			if k.match(get) {
				return true
			}
		}
		return false
	case Not:
		return !n.Kids[0].match(get)
	}
	return n.Test(get(n.Path))
}

// write appends the canonical text of n; inside is the operator around it.
func (n *Node) write(b *strings.Builder, inside Op) {
	switch n.Op {
	case And, Or:
		n.writeKids(b, inside)
	case Not:
		b.WriteByte('!')
		n.Kids[0].write(b, Not)
	case Contains, Prefix, Suffix:
		b.WriteString(n.Path.String() + "." + opText[n.Op] + "(" + Literal(n.Values[0]) + ")")
	default:
		if inside == Not {
			b.WriteString("(" + n.relation() + ")")
			return
		}
		b.WriteString(n.relation())
	}
}

func (n *Node) writeKids(b *strings.Builder, inside Op) {
	parens := inside == Not || inside == And
	sep := " && "
	if n.Op == Or {
		sep = " || "
	}
	if parens {
		b.WriteByte('(')
	}
	for i, k := range n.Kids {
		if i > 0 {
			b.WriteString(sep)
		}
		k.write(b, n.Op)
	}
	if parens {
		b.WriteByte(')')
	}
}

func (n *Node) relation() string {
	switch n.Op {
	case Null:
		return n.Path.String() + " == null"
	case Present:
		return n.Path.String() + " != null"
	case Elem:
		return quote(n.Values[0].Set()[0]) + " in " + n.Path.String()
	case In:
		list := make([]string, len(n.Values))
		for i, v := range n.Values {
			list[i] = Literal(v)
		}
		return n.Path.String() + " in [" + strings.Join(list, ", ") + "]"
	}
	return n.Path.String() + " " + opText[n.Op] + " " + Literal(n.Values[0])
}

// Literal writes v as the language spells it.
func Literal(v crm.Value) string {
	switch v.Kind() {
	case crm.Integer, crm.Bool:
		return v.String()
	case crm.Decimal:
		if v.Currency() == "" {
			return v.Number()
		}
	case crm.Date:
		return "date(" + quote(v.String()) + ")"
	case crm.Instant:
		return "timestamp(" + quote(v.String()) + ")"
	}
	return quote(v.String())
}
