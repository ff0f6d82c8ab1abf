package query

import (
	"errors"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

var mirrored = map[Op]Op{Eq: Eq, Ne: Ne, Lt: Gt, Le: Ge, Gt: Lt, Ge: Le}

// relate makes the condition "left op right"; at is where op stands.
func (p *parser) relate(left operand, op Op, at int, right operand) (*Node, error) {
	switch {
	case left.kind == isCondition || right.kind == isCondition:
		return nil, p.fail(at, "a condition cannot be compared; negate it as !(…)")
	case op == In:
		return p.member(left, at, right)
	case left.kind == isPath && right.kind == isLiteral:
		return p.compare(left.path, op, at, right.lit)
	case left.kind == isLiteral && right.kind == isPath:
		return p.compare(right.path, mirrored[op], at, left.lit)
	case left.kind == isPath && right.kind == isPath:
		return nil, p.fail(right.at, "two fields cannot be compared; a text literal stands in quotes")
	case left.kind == isList || right.kind == isList:
		return nil, p.fail(at, "a list stands after in")
	}
	return nil, p.fail(at, "two literals are compared; compare a field")
}

// member reads field in [list] and "element" in set.
func (p *parser) member(left operand, at int, right operand) (*Node, error) {
	switch {
	case left.kind == isPath && right.kind == isList:
		return p.oneOf(left.path, at, right.list)
	case left.kind == isLiteral && right.kind == isPath && right.path.Kind() == crm.Choices:
		return p.element(right.path, left.lit)
	case right.kind == isPath:
		return nil, p.fail(right.at, "%s is not a set but of kind %s", right.path, right.path.Kind())
	}
	return nil, p.fail(at, `want field in ["a", "b"] or "a" in field`)
}

func (p *parser) oneOf(path *Path, at int, list []literalToken) (*Node, error) {
	if path.Kind() == crm.Choices || path.Kind() == crm.Address {
		return nil, p.unordered(path, at)
	}
	n := &Node{Op: In, Path: path}
	for _, lit := range list {
		v, err := p.typed(path, lit)
		if err != nil {
			return nil, err
		}
		if v.IsNull() {
			return nil, p.fail(lit.at, "no value in a list; add || %s == null", path)
		}
		n.Values = append(n.Values, v)
	}
	n.fold()
	return n, nil
}

func (p *parser) element(path *Path, lit literalToken) (*Node, error) {
	if lit.kind != textLiteral {
		return nil, p.fail(lit.at, "an element of %s is a text", path)
	}
	v, err := p.parseText(path, lit)
	if err != nil {
		return nil, err
	}
	if len(v.Set()) != 1 {
		return nil, p.fail(lit.at, "want one element; join several with &&")
	}
	return &Node{Op: Elem, Path: path, Values: []crm.Value{v}, folded: []string{crm.FoldText(v.Set()[0])}}, nil
}

func (p *parser) compare(path *Path, op Op, at int, lit literalToken) (*Node, error) {
	v := crm.Value{}
	if lit.kind != nullLiteral {
		if path.Kind() == crm.Choices || path.Kind() == crm.Address {
			return nil, p.unordered(path, at)
		}
		var err error
		if v, err = p.typed(path, lit); err != nil {
			return nil, err
		}
	}
	switch {
	case v.IsNull() && op == Eq:
		return &Node{Op: Null, Path: path}, nil
	case v.IsNull() && op == Ne:
		return &Node{Op: Present, Path: path}, nil
	case v.IsNull():
		return nil, p.fail(at, "no value has no order; use == null or != null")
	case op != Eq && op != Ne && !ordered(path.Kind()):
		return nil, p.fail(at, "values of kind %s have no order; use == or !=", path.Kind())
	}
	n := &Node{Op: op, Path: path, Values: []crm.Value{v}}
	n.fold()
	return n, nil
}

func ordered(k crm.Kind) bool { return k != crm.Bool && k != crm.Link && k != crm.Phone }

func (p *parser) unordered(path *Path, at int) error {
	if path.Kind() == crm.Choices {
		return p.fail(at, `%s is a set; ask for an element, as "red" in %s`, path, path)
	}
	return p.fail(at, "%s is an address; name a part, as %s.city", path, path)
}

// fold prepares the values that are compared as folded text.
func (n *Node) fold() {
	if !isText(n.Path.Kind()) {
		return
	}
	n.folded = make([]string, len(n.Values))
	for i, v := range n.Values {
		n.folded[i] = crm.FoldText(v.Str())
	}
}

// isText reports whether values of the kind answer Str.
func isText(k crm.Kind) bool {
	switch k {
	case crm.Text, crm.Choice, crm.Email, crm.Phone, crm.URL:
		return true
	}
	return false
}

// typed reads a literal as a value of the path's kind.
func (p *parser) typed(path *Path, lit literalToken) (crm.Value, error) {
	k := path.Kind()
	fits := false
	switch lit.kind {
	case textLiteral:
		fits = isText(k) || k == crm.Link || path.Field.Money
	case numberLiteral:
		fits = k == crm.Integer || k == crm.Decimal
	case boolLiteral:
		fits = k == crm.Bool
	case dateLiteral:
		fits = k == crm.Date || k == crm.Instant
	case timestampLiteral:
		fits = k == crm.Instant
	}
	if !fits {
		return crm.Value{}, p.fail(lit.at, "%s is of kind %s; compare it with %s", path, k, example(k))
	}
	if err := p.checkTime(lit); err != nil {
		return crm.Value{}, err
	}
	v, err := p.parseText(path, lit)
	if err == nil && lit.kind == textLiteral && k == crm.Decimal && v.Currency() == "" {
		return v, p.fail(lit.at, `an amount in quotes names its currency, as "1000 EUR"; a number has no quotes`)
	}
	if y := v.Time().Year(); err == nil && k == crm.Instant && (y < 1000 || y > 9999) {
		return v, p.fail(lit.at, "the year %d is not between 1000 and 9999", y)
	}
	return v, err
}

// example is a literal for the kind, for error messages.
func example(k crm.Kind) string {
	switch k {
	case crm.Integer:
		return "a whole number, as 5"
	case crm.Decimal:
		return "a number, as 12.50"
	case crm.Bool:
		return "true or false"
	case crm.Date:
		return `a date, as date("2026-01-31")`
	case crm.Instant:
		return `a time, as timestamp("2026-01-31T10:00:00Z")`
	case crm.Link:
		return `a record id in quotes`
	}
	return `a text in quotes, as "abc"`
}

func (p *parser) checkTime(lit literalToken) error {
	switch lit.kind {
	case dateLiteral:
		if _, err := time.Parse(time.DateOnly, lit.val); err != nil {
			return p.fail(lit.at, `%s is not a date; write date("2026-01-31")`, quote(clip(lit.val)))
		}
	case timestampLiteral:
		if _, err := time.Parse(time.RFC3339Nano, lit.val); err != nil {
			return p.fail(lit.at, `%s is not a time; write timestamp("2026-01-31T10:00:00Z")`, quote(clip(lit.val)))
		}
	}
	return nil
}

// parseText reads the literal through the field, whose errors it places.
func (p *parser) parseText(path *Path, lit literalToken) (crm.Value, error) {
	f := path.typed()
	v, err := f.ParseText(lit.val)
	if err == nil {
		return v, nil
	}
	m := mistake{code: crm.CodeOf(err), text: err.Error()}
	if e, ok := errors.AsType[*crm.Error](err); ok {
		m.text = path.String() + ": " + e.Message
	}
	if len(f.Options) > 0 {
		m.text += Suggest(strings.TrimSpace(lit.val), optionValues(f))
	}
	return crm.Value{}, m.at(operation, p.src, lit.at)
}

func optionValues(f *crm.Field) []string {
	values := make([]string, len(f.Options))
	for i, o := range f.Options {
		values[i] = o.Value
	}
	return values
}
