package query

import "github.com/tradepost-crm/tradepost/crm"

// A Bound is a condition that every matching record meets and that an index on
// the field can answer. Bounds are necessary, not sufficient: who uses one
// still asks Match.
//
// Op is Eq, In, Lt, Le, Gt, Ge or Prefix. Eq of a field of kind Choices holds
// one element, whose index key the set has. Prefix holds a value of the field's
// kind for crm.AppendTextPrefix. Values are never Null, so that a null key is
// always outside, and compare as their index keys do: strict bounds on text,
// whose keys are cut, are given as Le and Ge.
type Bound struct {
	Field  *crm.Field
	Op     Op
	Values []crm.Value // one, but any number for In
}

// Bounds returns what the filter demands of the entity's own fields: the usable
// among the conditions that it joins by && at its outermost level.
func (x *Expr) Bounds() []Bound {
	if x == nil {
		return nil
	}
	if x.root.Op != And {
		return x.root.bound(nil)
	}
	var out []Bound
	for _, k := range x.root.Kids {
		out = k.bound(out)
	}
	return out
}

func (n *Node) bound(out []Bound) []Bound {
	if n.Path == nil || n.Path.Link != nil || n.Path.Part != "" {
		return out
	}
	f := n.Path.Field
	for _, v := range n.Values {
		if f.Money && v.Kind() == crm.Decimal && v.Currency() == "" {
			return out
		}
	}
	switch n.Op {
	case Eq, In, Le, Ge:
		return append(out, Bound{f, n.Op, n.Values})
	case Elem:
		return append(out, Bound{f, Eq, n.Values})
	case Lt, Gt:
		return append(out, Bound{f, n.strictness(), n.Values})
	case Prefix:
		if f.Kind != crm.Phone {
			return append(out, Bound{f, Prefix, []crm.Value{ofKind(f.Kind, n.Values[0].Str())}})
		}
	}
	return out
}

// strictness widens < and > on kinds whose keys may be equal for different values.
func (n *Node) strictness() Op {
	switch {
	case n.folded == nil:
		return n.Op
	case n.Op == Lt:
		return Le
	}
	return Ge
}

func ofKind(k crm.Kind, s string) crm.Value {
	switch k {
	case crm.Choice:
		return crm.ChoiceValue(s)
	case crm.Email:
		return crm.EmailValue(s)
	case crm.URL:
		return crm.URLValue(s)
	}
	return crm.TextValue(s)
}
