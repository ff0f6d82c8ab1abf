package report

import (
	"math"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

type columnKind uint8

const (
	integers columnKind = iota // integer, date, instant, bool
	decimals                   // decimal, with its currency where the field is of money
	coded                      // everything else, through a dictionary
	links                      // rows of the target's table
)

// A column holds one field, or part of an address, of every row of a table.
type column struct {
	path *query.Path // Field and Part
	kind columnKind

	// integers and decimals
	ints     []int64  // 0 where null; of decimals unscaled, all at the same scale
	has      []uint64 // bitmap: bit row%64 of word row/64 is set unless null
	min, max int64    // of integers: of every value there ever was; min > max if none
	scale    uint8
	odd      map[uint32]crm.Value // decimals that do not fit 64 bits at scale; 0 in ints
	currency []uint16             // codes of the Tables, 0 where null; nil if the field is not of money

	// coded
	codes []uint32 // 0 is null
	dict  []crm.Value
	index map[string]uint32

	// links
	links  []uint32 // rows of target, 0 is none
	target *table

	owner *Tables
}

func (ts *Tables) newColumn(t *table, f *crm.Field, part string) *column {
	c := &column{path: &query.Path{Entity: t.entity, Field: f, Part: part}, owner: ts, min: math.MaxInt64, max: math.MinInt64}
	switch c.path.Kind() {
	case crm.Integer, crm.Date, crm.Instant, crm.Bool:
		c.kind = integers
	case crm.Decimal:
		c.kind = decimals
		if f.Money {
			c.currency = []uint16{}
		}
	case crm.Link:
		c.kind, c.target = links, ts.table(ts.schema.Entity(f.Target))
	default:
		c.kind, c.dict, c.index = coded, make([]crm.Value, 1), map[string]uint32{}
	}
	c.grow(len(t.ids))
	return c
}

// grow makes room for n rows, the new ones null.
func (c *column) grow(n int) {
	switch c.kind {
	case integers, decimals:
		c.ints = extend(c.ints, n)
		c.has = extend(c.has, (n+63)/64)
		if c.currency != nil {
			c.currency = extend(c.currency, n)
		}
	case coded:
		c.codes = extend(c.codes, n)
	case links:
		c.links = extend(c.links, n)
	}
}

func extend[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	return append(s, make([]T, n-len(s))...)
}

// set stores v, null if it is not of the column's kind.
func (c *column) set(row uint32, v crm.Value) {
	if v.Kind() != c.path.Kind() {
		v = crm.Value{}
	}
	switch c.kind {
	case integers:
		c.setInt(row, v.Int(), !v.IsNull())
	case decimals:
		c.setDecimal(row, v)
	case coded:
		c.codes[row] = c.code(v)
	case links:
		target := uint32(0)
		if !v.IsNull() {
			target = c.target.row(v.Link()) // may grow c.links, if the link is to its own entity
		}
		c.links[row] = target
	}
}

func (c *column) setInt(row uint32, n int64, has bool) {
	bit := uint64(1) << (row % 64)
	if !has {
		c.has[row/64] &^= bit
		c.ints[row] = 0
		return
	}
	c.has[row/64] |= bit
	c.ints[row] = n
	c.min, c.max = min(c.min, n), max(c.max, n)
}

func (c *column) setDecimal(row uint32, v crm.Value) {
	delete(c.odd, row)
	if c.currency != nil {
		c.currency[row] = c.owner.currencyCode(v.Currency())
	}
	if v.IsNull() || v.Currency() != "" && c.currency == nil {
		c.setInt(row, 0, false)
		return
	}
	if v.Scale() > c.scale {
		c.rescale(v.Scale())
	}
	n, ok := mul(v.Int(), pow10[c.scale-v.Scale()])
	c.setInt(row, n, true)
	if !ok {
		c.putOdd(row, v)
	}
}

func (c *column) putOdd(row uint32, v crm.Value) {
	if c.odd == nil {
		c.odd = map[uint32]crm.Value{}
	}
	c.odd[row] = v
	c.ints[row] = 0
}

// rescale raises the scale of every row; what no longer fits becomes odd.
func (c *column) rescale(scale uint8) {
	f := pow10[scale-c.scale]
	for row, n := range c.ints {
		scaled, ok := mul(n, f)
		if !ok {
			c.putOdd(uint32(row), crm.DecimalValue(n, c.scale, c.currencyOf(uint32(row))))
			continue
		}
		c.ints[row] = scaled
	}
	c.scale = scale
}

func (c *column) currencyOf(row uint32) string {
	if c.currency == nil {
		return ""
	}
	return c.owner.currencies[c.currency[row]]
}

func (ts *Tables) currencyCode(currency string) uint16 {
	code, ok := ts.codes[currency]
	if !ok {
		code = uint16(len(ts.currencies))
		ts.codes[currency] = code
		ts.currencies = append(ts.currencies, currency)
	}
	return code
}

func (c *column) code(v crm.Value) uint32 {
	if v.IsNull() {
		return 0
	}
	key := v.Str()
	if key == "" {
		key = string(crm.AppendValue(nil, v))
	}
	code, ok := c.index[key]
	if !ok {
		code = uint32(len(c.dict))
		c.index[key] = code
		c.dict = append(c.dict, v)
	}
	return code
}

func (c *column) null(row uint32) bool { return c.has[row/64]>>(row%64)&1 == 0 }

// value returns what was set, decimals at the column's scale.
func (c *column) value(row uint32) crm.Value {
	switch c.kind {
	case coded:
		return c.dict[c.codes[row]]
	case links:
		return crm.LinkValue(c.target.ids[c.links[row]])
	}
	if c.null(row) {
		return crm.Value{}
	}
	if c.kind == integers {
		return intValue(c.path.Kind(), c.ints[row])
	}
	if v, ok := c.odd[row]; ok {
		return v
	}
	return crm.DecimalValue(c.ints[row], c.scale, c.currencyOf(row))
}

func intValue(k crm.Kind, n int64) crm.Value {
	switch k {
	case crm.Date:
		return crm.DateDays(n)
	case crm.Instant:
		return crm.InstantMillis(n)
	case crm.Bool:
		return crm.BoolValue(n != 0)
	}
	return crm.IntegerValue(n)
}

// bytes estimates the memory held.
func (c *column) bytes() int {
	n := 8*cap(c.ints) + 8*cap(c.has) + 2*cap(c.currency) + 4*cap(c.codes) + 4*cap(c.links) + 96*len(c.odd) + 120*len(c.dict)
	for _, v := range c.dict {
		n += len(v.Str())
	}
	return n
}
