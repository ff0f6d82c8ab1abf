package query

import (
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Path leads from a record to one value: of its own field, of an address
// part, or of a field of the record one link away.
type Path struct {
	Link   *crm.Field  // the field to follow first; nil: Field is the record's own
	Entity *crm.Entity // owner of Field
	Field  *crm.Field
	Part   string // street, city, state, postal_code or country of an Address; "" the whole field
}

// Parts are the names of the parts of an address.
var Parts = []string{"street", "city", "state", "postal_code", "country"}

// ParsePath reads "name", "billing_address.city", "account.name" or
// "account.billing_address.city", starting at e. The error is a [crm.Error]
// with code invalid or unknown_field.
func ParsePath(schema *crm.Schema, e *crm.Entity, text string) (*Path, error) {
	p, m := resolvePath(schema, e, strings.Split(text, "."))
	if m != nil {
		return nil, &crm.Error{Code: m.code, Op: "parse path", Item: text, Message: m.text}
	}
	return p, nil
}

// PathAt is ParsePath for a path that stands at byte offset at of a larger
// text; the error's Item is then "line:column" in that text.
func PathAt(schema *crm.Schema, e *crm.Entity, path, op, text string, at int) (*Path, error) {
	names := strings.Split(path, ".")
	p, m := resolvePath(schema, e, names)
	if m != nil {
		lead := strings.Join(names[:m.part], ".")
		if m.part > 0 {
			lead += "."
		}
		return nil, m.at(op, text, at+len(lead))
	}
	return p, nil
}

// mistake is an error before the caller says where it stands.
type mistake struct {
	code crm.Code
	text string
	part int // which name of a path is wrong
}

func resolvePath(schema *crm.Schema, e *crm.Entity, names []string) (*Path, *mistake) {
	f, m := fieldOf(e, names[0])
	if m != nil {
		return nil, m
	}
	if f.Kind != crm.Link || len(names) == 1 {
		return resolvePart(&Path{Entity: e, Field: f}, names, 1)
	}
	target := schema.Entity(f.Target)
	if target == nil {
		return nil, &mistake{crm.CodeInvalid, f.Name + " may link to any entity, so its fields cannot be named", 1}
	}
	g, m := fieldOf(target, names[1])
	if m != nil {
		m.part = 1
		return nil, m
	}
	return resolvePart(&Path{Link: f, Entity: target, Field: g}, names, 2)
}

func resolvePart(p *Path, names []string, at int) (*Path, *mistake) {
	switch rest := names[at:]; {
	case len(rest) == 0:
		return p, nil
	case p.Field.Kind == crm.Link:
		return nil, &mistake{crm.CodeInvalid, "a path follows one link at most", at}
	case p.Field.Kind != crm.Address || len(rest) > 1:
		return nil, &mistake{crm.CodeInvalid, strings.Join(names[:at], ".") + " has no parts", at}
	case !slices.Contains(Parts, rest[0]):
		return nil, &mistake{crm.CodeUnknownField, "an address has no part " + rest[0] + ", only " + strings.Join(Parts, ", ") + Suggest(rest[0], Parts), at}
	default:
		p.Part = rest[0]
		return p, nil
	}
}

func fieldOf(e *crm.Entity, name string) (*crm.Field, *mistake) {
	if f := e.Field(name); f != nil {
		return f, nil
	}
	names := []string{"created_at", "created_by", "updated_at", "updated_by", "id"}
	for _, f := range e.Fields {
		names = append(names, f.Name)
	}
	return nil, &mistake{code: crm.CodeUnknownField, text: e.Name + " has no field " + quote(clip(name)) + Suggest(name, names)}
}

// String returns the path as ParsePath reads it. Within one entity it
// identifies the path.
func (p *Path) String() string {
	s := p.Field.Name
	if p.Link != nil {
		s = p.Link.Name + "." + s
	}
	if p.Part != "" {
		s += "." + p.Part
	}
	return s
}

// Kind returns the kind of the values at the path: Text for an address part.
func (p *Path) Kind() crm.Kind {
	if p.Part != "" {
		return crm.Text
	}
	return p.Field.Kind
}

// Value returns the value of the path's field or address part in r, a record
// of p.Entity: for a path over a link, the linked record. It is Null if r is nil.
func (p *Path) Value(r *crm.Record) crm.Value {
	if r == nil {
		return crm.Value{}
	}
	return p.Of(r.Value(p.Field.ID))
}

// Of returns v, a value of the path's field, or the path's part of it.
func (p *Path) Of(v crm.Value) crm.Value {
	if p.Part == "" {
		return v
	}
	a := v.Address()
	switch p.Part {
	case "street":
		return crm.TextValue(a.Street)
	case "city":
		return crm.TextValue(a.City)
	case "state":
		return crm.TextValue(a.State)
	case "postal_code":
		return crm.TextValue(a.PostalCode)
	}
	return crm.TextValue(a.Country)
}

// typed returns a field whose ParseText judges literals at the path.
func (p *Path) typed() *crm.Field {
	if p.Part != "" {
		return &crm.Field{Name: p.String(), Kind: crm.Text}
	}
	return p.Field
}
