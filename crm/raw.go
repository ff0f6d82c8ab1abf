package crm

import (
	"fmt"
	"slices"
	"strings"
)

// A Raw reads single fields of an encoded record, for scans that need few
// fields of many records: it costs a fraction of [DecodeRecord]. What it returns
// shares no memory with the encoding or with other fields.
//
// The zero Raw is ready for Reset, and one Raw is meant to read a whole scan. It
// belongs to one goroutine.
type Raw struct {
	record Record // without Cells
	values string // of all cells, one after the other
	cells  []rawCell
	err    error
}

// A rawCell is where the value of a field is in Raw.values.
type rawCell struct {
	field   FieldID
	at, end int
}

// Reset makes r read the record that AppendRecord wrote to b. It finds damage in
// what holds the fields together, but none in the fields themselves: see Err.
// What DecodeRecord accepts, Reset accepts.
func (r *Raw) Reset(entity EntityID, id RecordID, b []byte) error {
	d := decoder{s: string(b)}
	r.record = Record{Entity: entity, ID: id}
	r.cells, r.err = r.cells[:0], nil
	d.header(&r.record)
	r.record.Stamp = d.firstStamp()
	r.cells = d.places(r.cells)
	r.values = d.s
	if d.err != nil {
		r.err = fmt.Errorf("record %s: %w", id, d.err)
		r.cells = r.cells[:0]
	}
	return r.err
}

// EncodedDeleted reports whether what AppendRecord wrote is a tombstone.
func EncodedDeleted(b []byte) bool { return len(b) > 1 && b[1]&recordDeleted != 0 }

// firstStamp reads the stamps and returns the first, with HLC and Actor only.
func (d *decoder) firstStamp() Stamp {
	var first Stamp
	n := d.count(12)
	for i := range n {
		d.uvarint()
		hlc := d.uint64()
		d.uvarint()
		d.uvarint()
		actor := d.take(d.count(1))
		if i == 0 {
			first = Stamp{HLC: HLC(hlc), Actor: actor}
		}
	}
	return first
}

// places reads the table of cells and appends where their values are.
func (d *decoder) places(out []rawCell) []rawCell {
	field, end := uint64(0), uint64(0)
	for range d.count(3) {
		field += d.uvarint()
		d.uvarint()
		size := d.uvarint()
		if field > 1<<16-1 || size > uint64(len(d.s)) {
			d.fail("field %d of %d bytes", field, size)
			return out
		}
		out = append(out, rawCell{FieldID(field), int(end), int(end + size)})
		end += size
	}
	if end != uint64(len(d.s)) {
		d.fail("values of %d bytes, %d there", end, len(d.s))
	}
	return out
}

// Deleted reports whether the record is a tombstone.
func (r *Raw) Deleted() bool { return r.record.Deleted }

// Value is Value of the decoded [Record]. A damaged value is Null and noted for
// Err.
func (r *Raw) Value(f FieldID) Value { return detached(r.Peek(f)) }

// Peek is Value for who does not keep it: it keeps the whole encoding in memory.
func (r *Raw) Peek(f FieldID) Value {
	i, ok := slices.BinarySearchFunc(r.cells, f, func(c rawCell, f FieldID) int { return int(c.field) - int(f) })
	if !ok || f == FieldUpdatedAt || f == FieldUpdatedBy || f == FieldIDField {
		return r.record.Value(f)
	}
	d := decoder{s: r.values[r.cells[i].at:r.cells[i].end]}
	v := d.value()
	if d.err != nil && r.err == nil {
		r.err = fmt.Errorf("record %s: field %d: %w", r.record.ID, f, d.err)
	}
	return v
}

// detached returns v without the encoding that its texts are slices of.
func detached(v Value) Value {
	v.str = strings.Clone(v.str)
	for i, s := range v.set {
		v.set[i] = strings.Clone(s)
	}
	return v
}

// Err returns the first damage found since Reset, nil if there was none.
func (r *Raw) Err() error { return r.err }
