package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// Bounds of a filter: bytes of its text, as given and as String writes it, and
// parentheses or negations within one another.
const (
	MaxLength = 8 << 10
	MaxDepth  = 64
)

// Parse reads a filter over the records of e. Blank text is the nil Expr, which
// matches everything. The error is a [crm.Error] whose Item is "line:column"
// and whose code is invalid, unknown_field or too_large.
func Parse(schema *crm.Schema, e *crm.Entity, text string) (*Expr, error) {
	if len(text) > MaxLength {
		return nil, &crm.Error{Code: crm.CodeTooLarge, Op: operation, Item: "1:1", Message: fmt.Sprintf("the filter has %d bytes; at most %d are read", len(text), MaxLength)}
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	tokens, message, at := lex(text)
	if at >= 0 {
		return nil, ErrorAt(operation, text, at, message)
	}
	p := parser{schema: schema, entity: e, src: text, tokens: tokens, paths: map[string]*Path{}}
	return p.parse()
}

const operation = "parse filter"

type parser struct {
	schema *crm.Schema
	entity *crm.Entity
	src    string
	tokens []token // the last is end
	depth  int
	paths  map[string]*Path // by text
	order  []*Path
}

// An operand is one side of a relation: exactly one field is set, or lit.
type operand struct {
	at   int
	cond *Node // a whole condition
	path *Path
	list []literalToken
	kind operandKind
	lit  literalToken
}

type operandKind uint8

const (
	isLiteral operandKind = iota
	isCondition
	isPath
	isList
)

// A literalToken is a literal before its type is known from the field.
type literalToken struct {
	kind literalKind
	val  string
	at   int
}

type literalKind uint8

const (
	nullLiteral literalKind = iota
	textLiteral
	numberLiteral
	boolLiteral
	dateLiteral
	timestampLiteral
)

func (p *parser) parse() (*Expr, error) {
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != end {
		return nil, p.fail(t.at, "%s is out of place; join conditions with && or ||", t.shown())
	}
	var b strings.Builder
	root.write(&b, 0)
	if b.Len() > MaxLength {
		return nil, &crm.Error{Code: crm.CodeTooLarge, Op: operation, Item: "1:1", Message: fmt.Sprintf("written out the filter has %d bytes; at most %d are read", b.Len(), MaxLength)}
	}
	return &Expr{root: root, paths: p.order, text: b.String()}, nil
}

func (p *parser) peek() token { return p.tokens[0] }

// next takes a token; the end stays.
func (p *parser) next() token {
	t := p.tokens[0]
	if t.kind != end {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) expect(sym string) error {
	if t := p.next(); !t.is(sym) {
		return p.fail(t.at, "want %s, not %s", sym, t.shown())
	}
	return nil
}

func (p *parser) fail(at int, format string, args ...any) error {
	return ErrorAt(operation, p.src, at, fmt.Sprintf(format, args...))
}

// enter counts one level of nesting; the caller leaves by depth--.
func (p *parser) enter(at int) error {
	if p.depth++; p.depth > MaxDepth {
		return p.fail(at, "more than %d levels of nesting", MaxDepth)
	}
	return nil
}

func (p *parser) or() (*Node, error)  { return p.joined(Or, "||", p.and) }
func (p *parser) and() (*Node, error) { return p.joined(And, "&&", p.relation) }

// joined reads one or more of item between seps. Equal operators within one
// another are one operator.
func (p *parser) joined(op Op, sep string, item func() (*Node, error)) (*Node, error) {
	var kids []*Node
	for {
		n, err := item()
		if err != nil {
			return nil, err
		}
		if n.Op == op {
			kids = append(kids, n.Kids...)
		} else {
			kids = append(kids, n)
		}
		if !p.peek().is(sep) {
			break
		}
		p.next()
	}
	if len(kids) == 1 {
		return kids[0], nil
	}
	return &Node{Op: op, Kids: kids}, nil
}

func (p *parser) relation() (*Node, error) {
	left, err := p.unary()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	op := relation(t)
	if op == 0 {
		return p.condition(left)
	}
	p.next()
	right, err := p.unary()
	if err != nil {
		return nil, err
	}
	if again := p.peek(); relation(again) != 0 {
		return nil, p.fail(again.at, "comparisons do not chain; join two with &&")
	}
	return p.relate(left, op, t.at, right)
}

// relation returns the operator a token stands for between two operands, or 0.
func relation(t token) Op {
	if t.kind == name && t.val == "in" {
		return In
	}
	for _, op := range []Op{Eq, Ne, Lt, Le, Gt, Ge} {
		if t.is(opText[op]) {
			return op
		}
	}
	return 0
}

func (p *parser) unary() (operand, error) {
	t := p.peek()
	if !t.is("!") {
		return p.primary()
	}
	p.next()
	if err := p.enter(t.at); err != nil {
		return operand{}, err
	}
	o, err := p.unary()
	p.depth--
	if err != nil {
		return operand{}, err
	}
	n, err := p.condition(o)
	return operand{kind: isCondition, at: t.at, cond: not(n)}, err
}

// not negates n with the shortest text, so that the canonical text nests no
// deeper than what was parsed.
func not(n *Node) *Node {
	flip := map[Op]Op{Eq: Ne, Ne: Eq, Null: Present, Present: Null}
	switch {
	case n == nil:
		return nil
	case n.Op == Not:
		return n.Kids[0]
	case flip[n.Op] != 0:
		c := *n
		c.Op = flip[n.Op]
		return &c
	}
	return &Node{Op: Not, Kids: []*Node{n}}
}

// condition makes of an operand that stands alone a condition.
func (p *parser) condition(o operand) (*Node, error) {
	switch {
	case o.kind == isCondition:
		return o.cond, nil
	case o.kind == isPath && o.path.Kind() == crm.Bool:
		return &Node{Op: Eq, Path: o.path, Values: []crm.Value{crm.BoolValue(true)}}, nil
	case o.kind == isPath:
		return nil, p.fail(o.at, "%s alone is no condition; compare it, as %s != null", o.path, o.path)
	}
	return nil, p.fail(o.at, "a literal alone is no condition; compare a field with it")
}

func (p *parser) primary() (operand, error) {
	switch t := p.next(); {
	case t.is("("):
		return p.group(t.at)
	case t.is("["):
		return p.list(t.at)
	case t.is("-"):
		n := p.next()
		if n.kind != number {
			return operand{}, p.fail(n.at, "want a number after -, not %s", n.shown())
		}
		return operand{at: t.at, lit: literalToken{numberLiteral, "-" + n.val, t.at}}, nil
	case t.kind == number:
		return operand{at: t.at, lit: literalToken{numberLiteral, t.val, t.at}}, nil
	case t.kind == text:
		return operand{at: t.at, lit: literalToken{textLiteral, t.val, t.at}}, nil
	case t.kind == name:
		return p.named(t)
	default:
		return operand{}, p.fail(t.at, "want a field or a literal, not %s", t.shown())
	}
}

func (p *parser) group(at int) (operand, error) {
	if err := p.enter(at); err != nil {
		return operand{}, err
	}
	n, err := p.or()
	p.depth--
	if err != nil {
		return operand{}, err
	}
	return operand{kind: isCondition, at: at, cond: n}, p.expect(")")
}

func (p *parser) list(at int) (operand, error) {
	o := operand{kind: isList, at: at}
	for !p.peek().is("]") {
		item, err := p.primaryLiteral()
		if err != nil {
			return o, err
		}
		o.list = append(o.list, item)
		if !p.peek().is(",") {
			break
		}
		p.next()
	}
	return o, p.expect("]")
}

// primaryLiteral reads an element of a list. A list within it would recurse
// without a level of nesting, so it is refused first.
func (p *parser) primaryLiteral() (literalToken, error) {
	t := p.peek()
	if t.is("(") || t.is("[") {
		return literalToken{}, p.fail(t.at, "a list holds literals only")
	}
	o, err := p.primary()
	if err == nil && o.kind != isLiteral {
		err = p.fail(t.at, "a list holds literals only")
	}
	return o.lit, err
}

// reserved are the words CEL keeps for itself.
var reserved = []string{"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "namespace", "package", "return", "var", "void", "while"}

// named reads what starts with a name: a literal word, a function, a path or
// a method of a path.
func (p *parser) named(t token) (operand, error) {
	switch t.val {
	case "true", "false":
		return operand{at: t.at, lit: literalToken{boolLiteral, t.val, t.at}}, nil
	case "null":
		return operand{at: t.at, lit: literalToken{nullLiteral, t.val, t.at}}, nil
	}
	if t.val == "in" || slices.Contains(reserved, t.val) {
		return operand{}, p.fail(t.at, "%s is a reserved word", t.val)
	}
	if p.peek().is("(") {
		return p.function(t)
	}
	return p.path(t)
}

func (p *parser) function(t token) (operand, error) {
	p.next()
	switch t.val {
	case "has":
		arg := p.next()
		if arg.kind != name {
			return operand{}, p.fail(arg.at, "has asks about a field, as has(email)")
		}
		o, err := p.path(arg)
		if err != nil {
			return o, err
		}
		if o.kind != isPath {
			return o, p.fail(arg.at, "has asks about a field, as has(email)")
		}
		return operand{kind: isCondition, at: t.at, cond: &Node{Op: Present, Path: o.path}}, p.expect(")")
	case "date", "timestamp":
		arg := p.next()
		if arg.kind != text {
			return operand{}, p.fail(arg.at, "%s takes a text", t.val)
		}
		kind := dateLiteral
		if t.val == "timestamp" {
			kind = timestampLiteral
		}
		return operand{at: t.at, lit: literalToken{kind, arg.val, arg.at}}, p.expect(")")
	}
	known := []string{"has", "date", "timestamp"}
	return operand{}, p.fail(t.at, "there is no function %s, only has, date and timestamp%s", clip(t.val), Suggest(t.val, known))
}

var methods = map[string]Op{"contains": Contains, "startsWith": Prefix, "endsWith": Suffix}

// path reads the names that follow the first; a call after the last makes it a
// method of the path before it.
func (p *parser) path(first token) (operand, error) {
	parts := []token{first}
	for p.peek().is(".") {
		p.next()
		t := p.next()
		if t.kind != name {
			return operand{}, p.fail(t.at, "want a name after the point, not %s", t.shown())
		}
		parts = append(parts, t)
	}
	if !p.peek().is("(") || len(parts) == 1 {
		path, err := p.resolve(parts)
		return operand{kind: isPath, at: first.at, path: path}, err
	}
	path, err := p.resolve(parts[:len(parts)-1])
	if err != nil {
		return operand{}, err
	}
	return p.method(path, parts[len(parts)-1])
}

func (p *parser) resolve(parts []token) (*Path, error) {
	names := make([]string, len(parts))
	for i, t := range parts {
		names[i] = t.val
	}
	key := strings.Join(names, ".")
	if known := p.paths[key]; known != nil {
		return known, nil
	}
	path, m := resolvePath(p.schema, p.entity, names)
	if m != nil {
		return nil, m.at(operation, p.src, parts[m.part].at)
	}
	p.paths[key] = path
	p.order = append(p.order, path)
	return path, nil
}

func (p *parser) method(path *Path, t token) (operand, error) {
	op, ok := methods[t.val]
	if !ok {
		known := []string{"contains", "startsWith", "endsWith"}
		return operand{}, p.fail(t.at, "there is no method %s, only contains, startsWith and endsWith%s", clip(t.val), Suggest(t.val, known))
	}
	if !isText(path.Kind()) {
		return operand{}, p.fail(t.at, "%s asks a text; %s is of kind %s", t.val, path, path.Kind())
	}
	p.next()
	arg := p.next()
	if arg.kind != text {
		return operand{}, p.fail(arg.at, "%s takes a text, not %s", t.val, arg.shown())
	}
	folded := crm.FoldText(arg.val)
	if folded == "" {
		return operand{}, p.fail(arg.at, "an empty text is in every text; write %s != null", path)
	}
	n := &Node{Op: op, Path: path, Values: []crm.Value{crm.TextValue(arg.val)}, folded: []string{folded}}
	return operand{kind: isCondition, at: t.at, cond: n}, p.expect(")")
}
