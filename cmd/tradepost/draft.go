package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// A draft is the record that one row of a file asks for.
type draft struct {
	row     csvRow
	key     crm.Value
	id      crm.RecordID                 // that a creation gives the record
	values  map[*crm.Field]crm.Value     // null clears
	address map[*crm.Field][]addressPart // the parts that the file knows
	links   []linkText                   // still to be looked up
}

type addressPart struct {
	part catalog.Part
	text string
}

// A linkText is a link that the row names by a field of the linked record.
type linkText struct {
	field, by *crm.Field
	value     crm.Value
	column    int
}

// A rowError is why a row cannot be imported.
type rowError struct {
	line int
	code crm.Code
	text string
}

func (m *mapping) rowError(row csvRow, column int, err error) *rowError {
	e := plain(err)
	text := e.Message
	if column >= 0 {
		text = fmt.Sprintf("column %d (%s): %s", column+1, m.header[column], text)
	} else if e.Item != "" {
		text = e.Item + ": " + text
	}
	return &rowError{row.line, e.Code, text}
}

// skips reports whether the row is none of those asked for.
func (m *mapping) skips(row csvRow) bool {
	return slices.ContainsFunc(m.filled, func(i int) bool { return i >= len(row.cells) || m.cell(row, i) == "" })
}

// cell returns what a cell says: without blanks around it, with the values that
// flags replace, and nothing where the file says NULL.
func (m *mapping) cell(row csvRow, i int) string {
	s := strings.TrimSpace(row.cells[i])
	if s == "NULL" {
		s = ""
	}
	if to, ok := m.values[i][crm.FoldText(s)]; ok {
		return to
	}
	return unguard(s)
}

// An importForm is how cells are read that do not say all themselves.
type importForm struct {
	currency string // of amounts without one
	fileHash string // tells the rows of files without keys apart
}

// draft reads a row.
func (m *mapping) draft(row csvRow, form importForm) (*draft, *rowError) {
	if len(row.cells) != len(m.header) {
		return nil, &rowError{row.line, crm.CodeInvalid, fmt.Sprintf("the row has %d cells, the header %d", len(row.cells), len(m.header))}
	}
	d := &draft{row: row, values: map[*crm.Field]crm.Value{}, address: map[*crm.Field][]addressPart{}}
	for _, t := range m.targets {
		if err := d.put(t, m.cell(row, t.column), form); err != nil {
			return nil, m.rowError(row, t.column, err)
		}
	}
	for _, c := range m.set {
		t := c.target
		t.column = -1
		if err := d.put(t, c.text, form); err != nil {
			return nil, m.rowError(row, -1, err)
		}
	}
	return d, m.identify(d, form)
}

func (d *draft) put(t target, text string, form importForm) error {
	switch {
	case t.field.Kind == crm.Address:
		d.address[t.field] = append(d.address[t.field], addressPart{t.part, text})
		return nil
	case t.field.Kind == crm.Link && t.by != nil && text != "":
		return d.putLink(t, text)
	case t.last != nil:
		first, last, ok := cutLast(text, " ")
		if !ok {
			first, last = "", text
		}
		if err := d.put(target{field: t.field}, first, form); err != nil {
			return err
		}
		return d.put(target{field: t.last}, last, form)
	}
	v, err := t.field.ParseText(text)
	if err != nil {
		return err
	}
	if t.field.Money && !v.IsNull() && v.Currency() == "" {
		v = crm.DecimalValue(v.Int(), v.Scale(), form.currency)
	}
	d.values[t.field] = v
	return t.field.Check(v)
}

// putLink keeps a link for the look-up; a record id needs none.
func (d *draft) putLink(t target, text string) error {
	if id, err := crm.ParseRecordID(text); err == nil {
		d.values[t.field] = crm.LinkValue(id)
		return nil
	}
	v, err := t.by.ParseText(text)
	if err != nil {
		return err
	}
	d.links = append(d.links, linkText{t.field, t.by, v, t.column})
	return nil
}

// identify gives the draft its key and the id that a creation would have. The id
// follows from the key, or from the file and line where rows have no key, so
// that importing a row again can never make a second record.
func (m *mapping) identify(d *draft, form importForm) *rowError {
	if m.key == nil {
		d.id = derivedID("file", form.fileHash, strconv.Itoa(d.row.line))
		return nil
	}
	if m.keyFrom != nil {
		var parts []string
		for _, i := range m.keyFrom {
			parts = append(parts, m.cell(d.row, i))
		}
		if slices.Contains(parts, "") {
			return &rowError{d.row.line, crm.CodeRequired, m.key.Name + ": the row has no key: a column of --key-from is empty"}
		}
		v, err := m.key.ParseText(strings.Join(parts, "-"))
		if err != nil {
			return m.rowError(d.row, -1, err)
		}
		d.values[m.key] = v
	}
	if d.key = d.values[m.key]; d.key.IsNull() {
		return &rowError{d.row.line, crm.CodeRequired, m.key.Name + ": the row has no key"}
	}
	if m.key.ID != crm.FieldIDField {
		d.id = derivedID(m.entity.Name, m.key.Name, crm.FoldText(d.key.String()))
		return nil
	}
	delete(d.values, m.key)
	id, err := crm.ParseRecordID(d.key.Str())
	if err != nil {
		return &rowError{d.row.line, crm.CodeInvalid, "id: " + err.Error()}
	}
	d.id = id
	return nil
}

// derivedID hashes what identifies a row into a record id of RFC 9562 §5.8.
func derivedID(parts ...string) crm.RecordID {
	h := sha256.New()
	h.Write([]byte("tradepost import v1"))
	for _, p := range parts {
		fmt.Fprintf(h, "\x00%d\x00%s", len(p), p)
	}
	id := crm.RecordID(h.Sum(nil)[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// A current record is one that a node holds already.
type current struct {
	id     crm.RecordID
	token  string
	fields map[string]json.RawMessage
}

func newCurrent(it httpapi.Item) (*current, error) {
	id, err := crm.ParseRecordID(it.ID)
	return &current{id, it.Token, it.Fields}, err
}

// value returns the record's value of a field.
func (c *current) value(f *crm.Field) (crm.Value, error) {
	if c == nil {
		return crm.Value{}, nil
	}
	return f.ParseJSON(c.fields[f.Name])
}

// contents returns every value that the draft asks for, the parts of an address
// laid over the address that the record has.
func (d *draft) contents(c *current) (map[*crm.Field]crm.Value, error) {
	out := maps.Clone(d.values)
	for f, list := range d.address {
		was, err := c.value(f)
		if err != nil {
			return nil, err
		}
		out[f] = crm.AddressValue(merge(was.Address(), list))
		if err := f.Check(out[f]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// changes returns what of the draft differs from the record, or, if there is
// none, what has a value.
func (d *draft) changes(c *current) (map[string]json.RawMessage, error) {
	contents, err := d.contents(c)
	if err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	for f, is := range contents {
		was, err := c.value(f)
		if err != nil {
			return nil, err
		}
		if is.Equal(was) {
			continue
		}
		if out[f.Name], err = is.MarshalJSON(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// merge lays the parts that a file knows over an address.
func merge(a crm.PostalAddress, list []addressPart) crm.PostalAddress {
	for _, p := range list {
		if p.part == catalog.Street {
			a.Street = ""
		}
	}
	for _, p := range list {
		p.part.Put(&a, p.text)
	}
	return a
}

// missing returns a required field that a creation from d would leave empty.
func (m *mapping) missing(d *draft) *crm.Field {
	for _, f := range m.entity.Fields {
		if !f.Required || f.Default != "" || f.Series != "" || f.ReadOnly {
			continue
		}
		if v, ok := d.values[f]; (!ok || v.IsNull()) && len(d.address[f]) == 0 {
			return f
		}
	}
	return nil
}
