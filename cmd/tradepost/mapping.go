package main

import (
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// A target is where the cells of one column of a file go.
type target struct {
	column int          // index into the header
	field  *crm.Field   //
	part   catalog.Part // of an address
	by     *crm.Field   // of a link: the field of its target that the cells hold
	last   *crm.Field   // of a name to split: the field that takes the last word
}

// A mapping says what becomes of the columns of a file.
type mapping struct {
	schema   *crm.Schema
	entity   *crm.Entity
	header   []string
	targets  []target
	unmapped []string // columns nobody spoke for
	ignored  map[int]bool
	values   map[int]map[string]string // column → folded cell → what stands for it
	set      []constant
	key      *crm.Field // nil: rows have no key
	keyFrom  []int      // columns whose cells, joined by a hyphen, are the key
	filled   []int      // rows where one of these columns is empty are left out
}

// A constant is a value that every row gets.
type constant struct {
	target
	text string
}

// A mappingSpec is a mapping as the flags say it.
type mappingSpec struct {
	maps, values, set  []string // Header=path, Header:cell=value, path=value
	key                string
	keyFrom, skipEmpty []string
	ignoreUnmapped     bool
}

// ownColumns are those that a file of failed rows has more than its original.
var ownColumns = []string{"error_line", "error_code", "error"}

// newMapping matches the header with the entity's fields: what the flags say
// first, then the names, labels and aliases that the schema knows.
func newMapping(schema *crm.Schema, e *crm.Entity, header []string, spec mappingSpec) (*mapping, error) {
	m := &mapping{schema: schema, entity: e, header: header, ignored: map[int]bool{}, values: map[int]map[string]string{}}
	for _, step := range []func(mappingSpec) error{m.addMaps, m.addValues, m.addSet, m.addKey, m.addSkips} {
		if err := step(spec); err != nil {
			return nil, err
		}
	}
	m.addMatches(spec.key)
	if err := m.findKey(spec.key); err != nil {
		return nil, err
	}
	if err := m.distinct(); err != nil {
		return nil, err
	}
	if len(m.unmapped) > 0 && !spec.ignoreUnmapped {
		return nil, usage(strings.Join(m.unmapped, ", "), `no field of %s is known by this header; say --map "%s=field", --map "%s=" to leave the column out, or --ignore-unmapped`, e.Name, m.unmapped[0], m.unmapped[0])
	}
	return m, nil
}

// column finds a column by its header, in any case.
func (m *mapping) column(flag, header string) (int, error) {
	if i := slices.Index(m.header, header); i >= 0 {
		return i, nil
	}
	folded := crm.FoldText(strings.TrimSpace(header))
	if i := slices.IndexFunc(m.header, func(h string) bool { return crm.FoldText(h) == folded }); i >= 0 {
		return i, nil
	}
	return 0, usage(flag, "the file has no column %q%s", header, query.Suggest(header, m.header))
}

func (m *mapping) addMaps(spec mappingSpec) error {
	for _, text := range spec.maps {
		header, path, ok := cutLast(text, "=")
		if !ok {
			return usage("--map", `%q is not "Header=field"`, text)
		}
		i, err := m.column("--map", header)
		if err != nil {
			return err
		}
		if path = strings.TrimSpace(path); path == "" {
			m.ignored[i] = true
			continue
		}
		t, err := m.parseTarget(path)
		if err != nil {
			return err
		}
		t.column = i
		m.targets = append(m.targets, t)
	}
	return nil
}

// cutLast cuts at the last separator: headers contain anything, paths do not.
func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// parseTarget reads "name", "billing_address.city", "account.external_id" and
// "first_name+last_name".
func (m *mapping) parseTarget(path string) (target, error) {
	if first, last, ok := strings.Cut(path, "+"); ok {
		f, err := m.field(first)
		if err != nil {
			return target{}, err
		}
		l, err := m.field(last)
		if err == nil && (f.Kind != crm.Text || l.Kind != crm.Text) {
			err = usage("--map", "%s: only two text fields share a cell", path)
		}
		return target{field: f, last: l}, err
	}
	name, rest, dotted := strings.Cut(path, ".")
	f, err := m.field(name)
	if err != nil {
		return target{}, err
	}
	t := target{field: f, part: catalog.Street}
	switch {
	case f.Kind == crm.Link:
		return m.linkTarget(t, rest)
	case dotted && f.Kind == crm.Address:
		if t.part = catalog.Part(rest); !slices.Contains(parts, rest) {
			return t, usage("--map", "an address has no part %q, only %s", rest, strings.Join(parts, ", "))
		}
	case dotted:
		return t, usage("--map", "%s has no parts", name)
	}
	return t, nil
}

var parts = []string{string(catalog.Street), string(catalog.City), string(catalog.State), string(catalog.PostalCode), string(catalog.Country)}

// linkTarget says by which field of the linked record the cells name it:
// external_id where the path does not say. Record ids are understood as well.
func (m *mapping) linkTarget(t target, by string) (target, error) {
	to := m.schema.Entity(t.field.Target)
	if to == nil || by == "id" {
		return t, nil
	}
	t.by = to.Field("external_id")
	if by == "" {
		return t, nil
	}
	if t.by = to.Field(by); t.by == nil {
		return t, &crm.Error{Code: crm.CodeUnknownField, Item: t.field.Name + "." + by, Message: to.Name + " has no such field" + query.Suggest(by, fieldNames(to))}
	}
	if t.by.Kind == crm.Address || t.by.Kind == crm.Choices || t.by.Kind == crm.Link {
		return t, usage("--map", "%s.%s: a record cannot be looked up by a field of kind %s", t.field.Name, by, t.by.Kind)
	}
	return t, nil
}

// field returns a field that an import may write.
func (m *mapping) field(name string) (*crm.Field, error) {
	name = strings.TrimSpace(name)
	f := m.entity.Field(name)
	switch {
	case f == nil:
		return nil, &crm.Error{Code: crm.CodeUnknownField, Item: name, Message: m.entity.Name + " has no such field" + query.Suggest(name, fieldNames(m.entity))}
	case f.ID != crm.FieldIDField && (f.ReadOnly || f.ID < crm.FirstField):
		return nil, &crm.Error{Code: crm.CodeReadOnly, Item: name, Message: "the field is set by the system"}
	}
	return f, nil
}

func fieldNames(e *crm.Entity) []string {
	names := []string{"id"}
	for _, f := range e.Fields {
		names = append(names, f.Name)
	}
	return names
}

func (m *mapping) addValues(spec mappingSpec) error {
	for _, text := range spec.values {
		before, value, ok := cutLast(text, "=")
		header, cell, ok2 := strings.Cut(before, ":")
		if !ok || !ok2 {
			return usage("--map-value", `%q is not "Header:cell=value"`, text)
		}
		i, err := m.column("--map-value", header)
		if err != nil {
			return err
		}
		if m.values[i] == nil {
			m.values[i] = map[string]string{}
		}
		m.values[i][crm.FoldText(strings.TrimSpace(cell))] = value
	}
	return nil
}

func (m *mapping) addSet(spec mappingSpec) error {
	for _, text := range spec.set {
		path, value, ok := strings.Cut(text, "=")
		if !ok {
			return usage("--set", `%q is not "field=value"`, text)
		}
		t, err := m.parseTarget(strings.TrimSpace(path))
		if err != nil {
			return err
		}
		if t.last != nil {
			return usage("--set", "%s: set the two fields one by one", path)
		}
		m.set = append(m.set, constant{t, value})
	}
	return nil
}

func (m *mapping) addKey(spec mappingSpec) error {
	for _, header := range spec.keyFrom {
		i, err := m.column("--key-from", header)
		if err != nil {
			return err
		}
		m.keyFrom = append(m.keyFrom, i)
	}
	return nil
}

func (m *mapping) addSkips(spec mappingSpec) error {
	for _, header := range spec.skipEmpty {
		i, err := m.column("--skip-empty", header)
		if err != nil {
			return err
		}
		m.filled = append(m.filled, i)
	}
	return nil
}

// addMatches maps the columns that no flag speaks for.
func (m *mapping) addMatches(key string) {
	for i, h := range m.header {
		if m.ignored[i] || slices.Contains(ownColumns, h) || slices.ContainsFunc(m.targets, func(t target) bool { return t.column == i }) {
			continue
		}
		t, ok := m.match(h, key)
		if t.column = i; ok && !m.constant(t) {
			m.targets = append(m.targets, t)
			continue
		}
		if !ok && !slices.Contains(m.keyFrom, i) && !slices.Contains(m.filled, i) {
			m.unmapped = append(m.unmapped, h)
		}
	}
}

// constant reports whether --set speaks for the whole of what t fills.
func (m *mapping) constant(t target) bool {
	return slices.ContainsFunc(m.set, func(c constant) bool { return c.field == t.field && (c.part == t.part || t.field.Kind != crm.Address) })
}

// match returns what a header means by itself: a path, as an export writes it,
// or a name, label or alias of a field.
func (m *mapping) match(header, key string) (target, bool) {
	if header == "id" && key != "id" {
		return m.aliased(header) // another program's key
	}
	if t, err := m.parseTarget(header); err == nil {
		return t, true
	}
	return m.aliased(header)
}

func (m *mapping) aliased(header string) (target, bool) {
	f, ok := catalog.MatchHeader(m.entity, header)
	if !ok || f.Kind == crm.Address {
		f, part, ok := catalog.MatchPart(m.entity, header)
		return target{field: f, part: part}, ok
	}
	if f.ReadOnly {
		return target{}, false
	}
	t, err := m.parseTarget(f.Name)
	return t, err == nil
}

// findKey settles which field tells rows apart: the one named, else external_id
// if a column fills it.
func (m *mapping) findKey(name string) error {
	explicit := name != ""
	if !explicit {
		name = "external_id"
	}
	f := m.entity.Field(name)
	switch {
	case f == nil && !explicit && m.keyFrom == nil:
		return nil
	case f == nil:
		return &crm.Error{Code: crm.CodeUnknownField, Item: name, Message: m.entity.Name + " has no such field" + query.Suggest(name, fieldNames(m.entity))}
	case !f.Unique && f.ID != crm.FieldIDField:
		return usage("--key", "%s is not unique, so it does not tell records apart; these do: %s", name, strings.Join(uniqueNames(m.entity), ", "))
	case m.keyFrom != nil:
		m.targets = slices.DeleteFunc(m.targets, func(t target) bool { return t.field == f })
	case !slices.ContainsFunc(m.targets, func(t target) bool { return t.field == f }):
		if explicit {
			return usage("--key", `no column fills %s; say --map "Header=%s" or --key-from`, name, name)
		}
		return nil
	}
	m.key = f
	return nil
}

func uniqueNames(e *crm.Entity) []string {
	names := []string{"id"}
	for _, f := range e.Fields {
		if f.Unique {
			names = append(names, f.Name)
		}
	}
	return names
}

// distinct refuses two columns for one value. Lines of a street are the
// exception: they are put below each other.
func (m *mapping) distinct() error {
	for i, t := range m.targets {
		for _, o := range m.targets[:i] {
			if t.field == o.field && (t.field.Kind != crm.Address || t.part == o.part && t.part != catalog.Street) {
				return usage("--map", `the columns %q and %q both mean %s; leave one out with --map "%s="`, m.header[o.column], m.header[t.column], t.field.Name, m.header[t.column])
			}
		}
	}
	return nil
}
