package crm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// A Cell is one field of a record: its value and the stamp of the Mutation that
// last set it. A field once set keeps its cell, with a Null value when cleared,
// because a concurrent edit must be judged against the clearing too.
type Cell struct {
	Field FieldID
	Value Value
	Stamp Stamp
	Elems []Stamp // of Choices: when each element of Value.Set was added; else nil
}

// A Record is one instance of an entity as some prefix of the master's order
// left it.
type Record struct {
	Entity    EntityID
	ID        RecordID
	Territory TerritoryID
	Root      RecordID // the root account; zero if none; an account's own id
	Schema    Rev      // version of the schema it was last decided under
	Stamp     Stamp    // the last change of any kind
	Entered   Rev      // when it came into Territory: a Cursor below needs it whole
	Deleted   bool     // a tombstone: the cells are kept for a restore
	Cells     []Cell   // by Field
}

// Cell returns the field's cell, or nil if it was never set.
func (r *Record) Cell(f FieldID) *Cell {
	i, ok := slices.BinarySearchFunc(r.Cells, f, func(c Cell, f FieldID) int { return cmp.Compare(c.Field, f) })
	if !ok {
		return nil
	}
	return &r.Cells[i]
}

// Value returns the field's value, Null if never set. The system fields that
// are not cells are answered from the record itself.
func (r *Record) Value(f FieldID) Value {
	switch f {
	case FieldUpdatedAt:
		return InstantMillis(r.Stamp.HLC.Millis())
	case FieldUpdatedBy:
		return TextValue(r.Stamp.Actor)
	case FieldIDField:
		return TextValue(r.ID.String())
	}
	if c := r.Cell(f); c != nil {
		return c.Value
	}
	return Value{}
}

// Clone returns a copy that shares no slice with r but those inside values.
func (r *Record) Clone() *Record {
	c := *r
	c.Cells = slices.Clone(r.Cells)
	return &c
}

// set replaces or inserts the cell.
func (r *Record) set(c Cell) {
	i, ok := slices.BinarySearchFunc(r.Cells, c.Field, func(c Cell, f FieldID) int { return cmp.Compare(c.Field, f) })
	if ok {
		r.Cells[i] = c
		return
	}
	r.Cells = slices.Insert(r.Cells, i, c)
}

// recordVersion is the first byte of an encoded record.
const recordVersion = 1

const (
	recordDeleted = 1 << 0
	recordRooted  = 1 << 1 // a root follows
	recordIsRoot  = 1 << 2 // the record is its own root
)

// AppendRecord appends the canonical encoding of r, drawn in docs/format.md.
// Entity and id are the key and are left out. Equal records have equal bytes
// and the digest is taken over them.
func AppendRecord(dst []byte, r *Record) []byte {
	flags := byte(0)
	if r.Deleted {
		flags |= recordDeleted
	}
	switch {
	case r.Root == r.ID:
		flags |= recordIsRoot
	case !r.Root.IsZero():
		flags |= recordRooted
	}
	dst = append(dst, recordVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(r.Territory))
	if flags&recordRooted != 0 {
		dst = append(dst, r.Root[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(r.Schema))
	dst = binary.AppendUvarint(dst, uint64(r.Entered))
	var room [fewStamps]Stamp
	stamps := r.appendDistinct(room[:0])
	dst = appendStamps(dst, stamps)
	dst = binary.AppendUvarint(dst, uint64(len(r.Cells)))
	return appendCells(dst, r.Cells, stamps)
}

// appendDistinct appends to an empty dst the record's own stamp and then each
// other distinct one, newest first, so that fields which share the last change
// cost one byte each.
func (r *Record) appendDistinct(dst []Stamp) []Stamp {
	dst = append(dst, r.Stamp)
	for i := range r.Cells {
		c := &r.Cells[i]
		if stampIndex(dst, &c.Stamp) < 0 {
			dst = append(dst, c.Stamp)
		}
		for j := range c.Elems {
			if stampIndex(dst, &c.Elems[j]) < 0 {
				dst = append(dst, c.Elems[j])
			}
		}
	}
	slices.SortFunc(dst[1:], compareStamps)
	return dst
}

// stampIndex is slices.Index for what is nearly always the first.
func stampIndex(stamps []Stamp, s *Stamp) int {
	for i := range stamps {
		if stamps[i] == *s {
			return i
		}
	}
	return -1
}

// fewStamps and smallValues are what most records have at most of stamps and
// bytes of values.
const (
	fewStamps   = 8
	smallValues = 512
)

func appendStamps(dst []byte, stamps []Stamp) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(stamps)))
	for _, s := range stamps {
		dst = binary.AppendUvarint(dst, uint64(s.Rev))
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.HLC))
		dst = binary.AppendUvarint(dst, uint64(s.Node))
		dst = binary.AppendUvarint(dst, uint64(s.Seq))
		dst = appendString(dst, s.Actor)
	}
	return dst
}

// appendCells writes the table of (field, stamp, length) and then the values.
func appendCells(dst []byte, cells []Cell, stamps []Stamp) []byte {
	var room [smallValues]byte
	values := room[:0]
	prev := FieldID(0)
	for i := range cells {
		c := &cells[i]
		start := len(values)
		values = appendCellValue(values, c, stamps)
		dst = binary.AppendUvarint(dst, uint64(c.Field-prev))
		dst = binary.AppendUvarint(dst, uint64(stampIndex(stamps, &c.Stamp)))
		dst = binary.AppendUvarint(dst, uint64(len(values)-start))
		prev = c.Field
	}
	return append(dst, values...)
}

func appendCellValue(dst []byte, c *Cell, stamps []Stamp) []byte {
	dst = AppendValue(dst, c.Value)
	for i := range c.Elems {
		dst = binary.AppendUvarint(dst, uint64(stampIndex(stamps, &c.Elems[i])))
	}
	return dst
}

// DecodeRecord decodes what AppendRecord wrote under the given key. It never
// panics on damaged input.
func DecodeRecord(entity EntityID, id RecordID, b []byte) (*Record, error) {
	d := decoder{s: string(b)}
	r := &Record{Entity: entity, ID: id}
	d.header(r)
	var room [fewStamps]Stamp
	stamps := d.stamps(room[:0])
	r.Cells = d.cells(stamps)
	if len(stamps) > 0 {
		r.Stamp = stamps[0]
	}
	if err := d.finish(); err != nil {
		return nil, fmt.Errorf("record %s: %w", id, err)
	}
	return r, nil
}

func (d *decoder) header(r *Record) {
	if v := d.byte(); v != recordVersion && d.err == nil {
		d.fail("encoding version %d is not %d", v, recordVersion)
	}
	flags := d.byte()
	if flags&^(recordDeleted|recordRooted|recordIsRoot) != 0 {
		d.fail("unknown flags %#x", flags)
	}
	r.Deleted = flags&recordDeleted != 0
	r.Territory = TerritoryID(d.uvarint())
	switch {
	case flags&recordIsRoot != 0:
		r.Root = r.ID
	case flags&recordRooted != 0:
		r.Root = RecordID(d.id())
	}
	r.Schema = Rev(d.uvarint())
	r.Entered = Rev(d.uvarint())
}

// stamps appends to an empty out.
func (d *decoder) stamps(out []Stamp) []Stamp {
	n := d.count(12)
	if n > cap(out) {
		out = make([]Stamp, 0, n)
	}
	for range n {
		out = append(out, Stamp{Rev: Rev(d.uvarint()), HLC: HLC(d.uint64()), Node: NodeID(d.uvarint()), Seq: Seq(d.uvarint()), Actor: d.string()})
	}
	if n == 0 {
		d.fail("no stamp")
	}
	return out
}

// cells reads the table of heads and, beside it, the values that follow.
func (d *decoder) cells(stamps []Stamp) []Cell {
	n := d.count(3)
	heads := *d
	for range 3 * n {
		d.uvarint()
	}
	out := make([]Cell, n)
	prev := uint64(0)
	for i := range out {
		delta := heads.uvarint()
		prev += delta
		if prev > 1<<16-1 || i > 0 && delta == 0 {
			d.fail("fields out of order")
		}
		c := &out[i]
		c.Field = FieldID(prev)
		heads.stampAt(&c.Stamp, stamps)
		d.cell(c, int(min(heads.uvarint(), 1<<30)), stamps)
	}
	if heads.err != nil && d.err == nil {
		d.err = heads.err
	}
	return out
}

func (d *decoder) cell(c *Cell, size int, stamps []Stamp) {
	sub := decoder{s: d.take(size), err: d.err}
	c.Value = sub.value()
	if n := len(c.Value.set); n > 0 {
		c.Elems = make([]Stamp, n)
	}
	for i := range c.Elems {
		sub.stampAt(&c.Elems[i], stamps)
	}
	if err := sub.finish(); err != nil && d.err == nil {
		d.err = err
	}
}

func (d *decoder) stampAt(dst *Stamp, stamps []Stamp) {
	i := d.uvarint()
	if i >= uint64(len(stamps)) {
		d.fail("stamp %d of %d", i, len(stamps))
		return
	}
	*dst = stamps[i]
}
