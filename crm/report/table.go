package report

import (
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// Tables are the columns of a schema's entities. Make new ones when the schema
// changes.
type Tables struct {
	schema     *crm.Schema
	tables     map[crm.EntityID]*table // 0: the targets of links to any entity
	currencies []string                // by code; code 0 is none
	codes      map[string]uint16
}

// NewTables returns Tables without columns.
func NewTables(schema *crm.Schema) *Tables {
	return &Tables{schema: schema, tables: map[crm.EntityID]*table{}, currencies: []string{""}, codes: map[string]uint16{"": 0}}
}

// A table holds the columns of one entity. A row once given to a record id
// stays its row, live or dead, so that links need never be mended. A row is
// given when the record or the first link to it is seen. Row 0 is "no record".
//
// Invariant: rows that are not live, row 0 among them, are null in every column.
type table struct {
	entity  *crm.Entity
	wanted  bool // some report reads its records
	rows    map[crm.RecordID]uint32
	ids     []crm.RecordID // by row
	live    []bool         // by row
	alive   int
	columns []*column
}

func (ts *Tables) table(e *crm.Entity) *table {
	var id crm.EntityID
	if e != nil {
		id = e.ID
	}
	t := ts.tables[id]
	if t == nil {
		t = &table{entity: e, rows: map[crm.RecordID]uint32{}, ids: make([]crm.RecordID, 1), live: make([]bool, 1)}
		ts.tables[id] = t
	}
	return t
}

// Extend adds the columns that are needed and not there, and returns the
// entities whose live records must all be Put, again if they were before, until
// which reports over them are wrong.
func (ts *Tables) Extend(needs []Need) []*crm.Entity {
	var scan []*crm.Entity
	for _, n := range needs {
		t := ts.table(n.Entity)
		known := t.wanted && (n.Field == nil || t.column(n.Field, n.Part) != nil)
		if known {
			continue
		}
		t.wanted = true
		if n.Field != nil {
			t.columns = append(t.columns, ts.newColumn(t, n.Field, n.Part))
		}
		if !slices.Contains(scan, n.Entity) {
			scan = append(scan, n.Entity)
		}
	}
	return scan
}

// Put inserts or replaces a live record; get returns its fields, as
// [crm.Record.Value] does. Records of entities that no report reads are
// ignored.
func (ts *Tables) Put(entity crm.EntityID, id crm.RecordID, get func(crm.FieldID) crm.Value) {
	t := ts.tables[entity]
	if t == nil || !t.wanted {
		return
	}
	row := t.row(id)
	if !t.live[row] {
		t.live[row] = true
		t.alive++
	}
	for _, c := range t.columns {
		c.set(row, c.path.Of(get(c.path.Field.ID)))
	}
}

// Kill takes a record out: deleted, or not held any more. Unknown records are
// ignored.
func (ts *Tables) Kill(entity crm.EntityID, id crm.RecordID) {
	t := ts.tables[entity]
	if t == nil {
		return
	}
	row, ok := t.rows[id]
	if !ok || !t.live[row] {
		return
	}
	t.live[row] = false
	t.alive--
	for _, c := range t.columns {
		c.set(row, crm.Value{})
	}
}

// Bytes estimates the memory held, in bytes.
func (ts *Tables) Bytes() int {
	n := 0
	for _, t := range ts.tables {
		n += 48*len(t.rows) + 17*len(t.ids)
		for _, c := range t.columns {
			n += c.bytes()
		}
	}
	return n
}

// row returns the id's row and gives it one if it has none.
func (t *table) row(id crm.RecordID) uint32 {
	row, ok := t.rows[id]
	if !ok {
		row = uint32(len(t.ids))
		t.rows[id] = row
		t.ids = append(t.ids, id)
		t.live = append(t.live, false)
		for _, c := range t.columns {
			c.grow(len(t.ids))
		}
	}
	return row
}

// column returns the column of the field or part, or nil.
func (t *table) column(f *crm.Field, part string) *column {
	for _, c := range t.columns {
		if c.path.Field.ID == f.ID && c.path.Part == part {
			return c
		}
	}
	return nil
}
