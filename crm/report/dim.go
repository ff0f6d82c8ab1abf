package report

import (
	"bytes"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// A dim numbers the values that one group of a report takes over the rows of a
// table: codes from 0, which is null, to card-1.
type dim struct {
	col    *column
	bucket Bucket
	card   int

	lookup []uint32    // integers: code by bucketed value - base; nil: use codes
	base   int64       //
	codes  []uint32    // by row, where no lookup is possible
	values []crm.Value // by code, of integers and decimals
}

// lookupLimit bounds the span of values that get a lookup table.
const lookupLimit = 1 << 17

func newDim(c *column, b Bucket) *dim {
	d := &dim{col: c, bucket: b}
	switch c.kind {
	case coded:
		d.codes, d.card = c.codes, len(c.dict)
	case links:
		d.codes, d.card = c.links, len(c.target.ids)
	default:
		d.number()
	}
	return d
}

// number codes integers and decimals.
func (d *dim) number() {
	c := d.col
	d.values = make([]crm.Value, 1)
	if c.kind == integers && c.min <= c.max {
		lo, hi := d.unit(c.min), d.unit(c.max)
		if span := uint64(hi) - uint64(lo); span < lookupLimit {
			d.tabulate(lo, int(span)+1)
			return
		}
	}
	d.enumerate()
}

// unit is what the lookup table is indexed by: the value, or the day of an
// instant that is bucketed.
func (d *dim) unit(n int64) int64 {
	if d.bucket != Exact && d.col.path.Kind() == crm.Instant {
		return floorDiv(n, millisPerDay)
	}
	return n
}

func (d *dim) tabulate(lo int64, n int) {
	d.base, d.lookup = lo, make([]uint32, n)
	last := int64(0)
	for i := range d.lookup {
		start := d.bucket.start(lo + int64(i))
		if i == 0 || start != last {
			d.values = append(d.values, d.value(start))
			last = start
		}
		d.lookup[i] = uint32(len(d.values) - 1)
	}
	d.card = len(d.values)
}

// value of the start of a bucket, or of an exact integer.
func (d *dim) value(n int64) crm.Value {
	if d.bucket != Exact {
		return crm.DateDays(n)
	}
	return intValue(d.col.path.Kind(), n)
}

// enumerate numbers the values in the order of their first row.
func (d *dim) enumerate() {
	c := d.col
	d.codes = make([]uint32, len(c.ints))
	known := map[string]uint32{}
	var key []byte
	for row := range d.codes {
		if c.null(uint32(row)) {
			continue
		}
		v := c.value(uint32(row))
		if c.kind == integers {
			v = d.value(d.bucket.start(d.unit(v.Int())))
		} else {
			v = shorten(v.Int(), v.Scale(), min(c.path.Field.Scale, crm.MaxScale), v.Currency())
		}
		key = crm.AppendKey(key[:0], v)
		code, ok := known[string(key)]
		if !ok {
			d.values = append(d.values, v)
			code = uint32(len(d.values) - 1)
			known[string(key)] = code
		}
		d.codes[row] = code
	}
	d.card = len(d.values)
}

// fill writes the codes of len(out) rows from row from on.
func (d *dim) fill(from int, out []uint32) {
	if d.lookup == nil {
		copy(out, d.codes[from:])
		return
	}
	c := d.col
	instant := d.bucket != Exact && c.path.Kind() == crm.Instant
	for i, v := range c.ints[from : from+len(out)] {
		if c.null(uint32(from + i)) {
			out[i] = 0
			continue
		}
		if instant {
			v = floorDiv(v, millisPerDay)
		}
		out[i] = d.lookup[v-d.base]
	}
}

// valueOf returns what a code stands for.
func (d *dim) valueOf(code uint32) crm.Value {
	switch d.col.kind {
	case coded:
		return d.col.dict[code]
	case links:
		return crm.LinkValue(d.col.target.ids[code])
	}
	return d.values[code]
}

// ranks returns, by code, the place of each used code's value among the values
// in ascending order.
func (d *dim) ranks(used []uint32) []uint32 {
	slices.Sort(used)
	used = slices.Compact(used)
	if d.col.kind == links {
		ids := d.col.target.ids
		slices.SortFunc(used, func(a, b uint32) int { return bytes.Compare(ids[a][:], ids[b][:]) })
	} else {
		slices.SortFunc(used, func(a, b uint32) int { return crm.Compare(d.valueOf(a), d.valueOf(b)) })
	}
	rank := make([]uint32, d.card)
	for i, code := range used {
		rank[code] = uint32(i)
	}
	return rank
}
