package report

import (
	"cmp"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// An Expr is an arithmetic expression over the fields of a record: an operator
// with both sides, a field or a number.
type Expr struct {
	Op    byte        // '+', '-' or '*'; 0 of a field or number
	L, R  *Expr       // of an operator
	Path  *query.Path // of a field
	Value crm.Value   // of a number, Decimal

	Kind   crm.Kind // of the result: Integer, Decimal, Date or Instant
	Money  bool     // the result is an amount of a currency
	Digits uint8    // decimals that a result shows even where they are 0
}

func (x *Expr) paths(out []*query.Path) []*query.Path {
	switch {
	case x == nil:
		return out
	case x.Path != nil:
		return append(out, x.Path)
	case x.Op != 0:
		return x.R.paths(x.L.paths(out))
	}
	return out
}

// String returns the expression without blanks and needless parentheses.
func (x *Expr) String() string {
	switch {
	case x.Path != nil:
		return x.Path.String()
	case x.Op == 0:
		return x.Value.Number()
	}
	l, r := x.L.String(), x.R.String()
	if x.Op == '*' && x.L.additive() {
		l = "(" + l + ")"
	}
	if x.R.additive() || x.Op == '*' && x.R.Op == '*' {
		r = "(" + r + ")"
	}
	return l + string(x.Op) + r
}

func (x *Expr) additive() bool { return x.Op == '+' || x.Op == '-' }

// parseMeasures reads "count, sum(a*b) as revenue".
func parseMeasures(schema *crm.Schema, e *crm.Entity, text string) ([]Measure, error) {
	s := scanner{op: "parse measures", src: text}
	if len(text) > maxLength {
		return nil, s.fail(0, "%d bytes; at most %d are read", len(text), maxLength)
	}
	var out []Measure
	for p := range s.parts() {
		m, err := s.measure(schema, e, p)
		if err != nil {
			return nil, err
		}
		if out = append(out, m); len(out) > MaxMeasures {
			return nil, s.fail(p.at, "at most %d measures", MaxMeasures)
		}
	}
	return out, nil
}

func (s *scanner) measure(schema *crm.Schema, e *crm.Entity, p part) (Measure, error) {
	p, name, err := s.alias(p)
	if err != nil {
		return Measure{}, err
	}
	m := Measure{}
	word, rest, args := strings.Cut(p.text, "(")
	fn, ok := parseFn(strings.TrimSpace(word))
	switch {
	case !ok:
		return m, s.fail(p.at, "%q is no measure; write count, sum(…), avg(…), min(…) or max(…)", strings.TrimSpace(word))
	case !args && fn != Count:
		return m, s.fail(p.at+len(word), "write %s(field)", fn)
	}
	m.Fn = fn
	if args {
		a := arithmetic{scanner: s, schema: schema, entity: e, at: p.at + len(word) + 1, end: p.at + len(word) + 1 + len(rest)}
		if m.Expr, err = a.argument(fn); err != nil {
			return m, err
		}
	}
	m.Name = cmp.Or(name, m.String())
	return m, nil
}

func parseFn(name string) (Fn, bool) {
	for i, n := range fnNames {
		if n == name {
			return Fn(i), true
		}
	}
	return 0, false
}

// arithmetic parses src[at:end].
type arithmetic struct {
	*scanner
	schema  *crm.Schema
	entity  *crm.Entity
	at, end int
	terms   int
	depth   int
}

// argument reads "expr)" to the end.
func (a *arithmetic) argument(fn Fn) (*Expr, error) {
	start := a.at
	x, err := a.sum()
	if err != nil {
		return nil, err
	}
	if a.peek() != ')' {
		return nil, a.unexpected("+, -, * or )")
	}
	if a.at++; a.peek() != 0 {
		return nil, a.unexpected("a comma or the end")
	}
	if (x.Kind == crm.Date || x.Kind == crm.Instant) && (fn == Sum || fn == Avg) {
		return nil, a.fail(start, "%s takes numbers; of a date there are min, max and count", fn)
	}
	return x, nil
}

// peek skips blanks and returns the next byte, 0 at the end.
func (a *arithmetic) peek() byte {
	for a.at < a.end && isBlank(a.src[a.at]) {
		a.at++
	}
	if a.at == a.end {
		return 0
	}
	return a.src[a.at]
}

func (a *arithmetic) unexpected(want string) error {
	switch c := a.peek(); c {
	case 0:
		return a.fail(a.at, "want %s, not the end", want)
	case '/':
		return a.fail(a.at, "there is no division, which is not exact; multiply by a decimal")
	default:
		r := []rune(a.src[a.at:a.end])[0]
		return a.fail(a.at, "want %s, not %q", want, r)
	}
}

func (a *arithmetic) sum() (*Expr, error) {
	x, err := a.product()
	for err == nil && (a.peek() == '+' || a.peek() == '-') {
		op, at := a.src[a.at], a.at
		a.at++
		var y *Expr
		if y, err = a.product(); err == nil {
			x, err = a.join(op, at, x, y)
		}
	}
	return x, err
}

func (a *arithmetic) product() (*Expr, error) {
	x, err := a.factor()
	for err == nil && a.peek() == '*' {
		at := a.at
		a.at++
		var y *Expr
		if y, err = a.factor(); err == nil {
			x, err = a.join('*', at, x, y)
		}
	}
	return x, err
}

func (a *arithmetic) factor() (*Expr, error) {
	c := a.peek()
	if c == '(' || c == '-' {
		return a.nested(c)
	}
	if a.terms++; a.terms > maxTerms {
		return nil, a.fail(a.at, "more than %d fields and numbers", maxTerms)
	}
	switch {
	case c >= '0' && c <= '9':
		return a.number()
	case isNameByte(c):
		return a.field()
	}
	return nil, a.unexpected("a field, a number or (")
}

// nested reads "(expr)" or "-factor", which is 0-factor.
func (a *arithmetic) nested(open byte) (*Expr, error) {
	if a.depth++; a.depth > maxDepth {
		return nil, a.fail(a.at, "more than %d levels of parentheses", maxDepth)
	}
	defer func() { a.depth-- }()
	at := a.at
	a.at++
	if open == '-' {
		x, err := a.factor()
		if err != nil {
			return nil, err
		}
		return a.join('-', at, numberExpr(crm.DecimalValue(0, 0, "")), x)
	}
	x, err := a.sum()
	if err != nil {
		return nil, err
	}
	if a.peek() != ')' {
		return nil, a.unexpected("+, -, * or )")
	}
	a.at++
	return x, nil
}

func numberExpr(v crm.Value) *Expr {
	if v.Scale() == 0 {
		return &Expr{Value: v, Kind: crm.Integer}
	}
	return &Expr{Value: v, Kind: crm.Decimal}
}

func (a *arithmetic) number() (*Expr, error) {
	start := a.at
	for a.at < a.end && (isNameByte(a.src[a.at]) || a.src[a.at] == '.') {
		a.at++
	}
	v, ok := crm.ParseDecimal(a.src[start:a.at])
	if !ok {
		return nil, a.fail(start, "%q is not a number with at most %d decimals", a.src[start:a.at], crm.MaxScale)
	}
	return numberExpr(v), nil
}

func (a *arithmetic) field() (*Expr, error) {
	start := a.at
	for a.at < a.end && (isNameByte(a.src[a.at]) || a.src[a.at] == '.') {
		a.at++
	}
	p, err := query.PathAt(a.schema, a.entity, a.src[start:a.at], a.op, a.src, start)
	if err != nil {
		return nil, err
	}
	switch k := p.Kind(); k {
	case crm.Integer, crm.Date, crm.Instant:
		return &Expr{Path: p, Kind: k}, nil
	case crm.Decimal:
		return &Expr{Path: p, Kind: k, Money: p.Field.Money, Digits: min(p.Field.Scale, crm.MaxScale)}, nil
	}
	return nil, a.fail(start, "%s is no number but of kind %s", p, p.Kind())
}

// join types the operation: dates do not compute, amounts do not multiply with
// amounts, and add with amounts only. The number 0 is an amount of any currency.
func (a *arithmetic) join(op byte, at int, l, r *Expr) (*Expr, error) {
	x := &Expr{Op: op, L: l, R: r, Kind: crm.Decimal, Money: l.Money || r.Money, Digits: max(l.Digits, r.Digits)}
	for _, y := range []*Expr{l, r} {
		if y.Kind == crm.Date || y.Kind == crm.Instant {
			return nil, a.fail(at, "%s is a date; dates are not computed with", y)
		}
	}
	switch {
	case op == '*' && l.Money && r.Money:
		return nil, a.fail(at, "an amount of money times an amount of money has no meaning")
	case op != '*' && l.Money != r.Money && !l.isZero() && !r.isZero():
		return nil, a.fail(at, "an amount of money and a plain number cannot be added")
	}
	if l.Kind == crm.Integer && r.Kind == crm.Integer {
		x.Kind = crm.Integer
	}
	return x, nil
}

func (x *Expr) isZero() bool { return x.Op == 0 && x.Path == nil && x.Value.Int() == 0 }
