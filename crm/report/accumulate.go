package report

import (
	"math/big"

	"github.com/tradepost-crm/tradepost/crm"
)

// An accumulator collects one measure for every slot, a slot being one
// combination of group values.
type accumulator struct {
	measure *Measure
	term    *term // nil: records are counted, by the run
	cells   []cell
	big     map[uint32]*big.Int // beside cells: sums, or the extreme, that 64 bits do not hold
}

// A cell is what one slot has so far: of Sum and Avg num is the sum, to which
// that in big is added, of Min and Max the extreme among the values that fit.
type cell struct {
	num  int64
	n    int64 // values, wide ones included
	fits int64 // values that num stands for; of Min and Max
}

func (a *accumulator) grow(slots int) { a.cells = extend(a.cells, slots) }

// add takes the values of the chosen rows of a block: at[i] is a row's place in
// the block, slots[i] its slot.
func (a *accumulator) add(from, size int, at, slots []uint32) {
	if a.term == nil {
		return
	}
	v := a.term.block(from, size)
	if v.ok == nil && v.wide == nil && (a.measure.Fn == Sum || a.measure.Fn == Avg) {
		a.addAll(v.v, at, slots)
		return
	}
	for i, slot := range slots {
		switch row := at[i]; {
		case v.ok != nil && !v.ok[row]:
		case v.wide != nil && v.wide[row] && a.measure.Fn != Count:
			a.addBig(slot, a.term.exact(uint32(from)+row))
		default:
			a.addOne(slot, v.v[row])
		}
	}
}

// addAll is addOne for sums of values that are all there and fit.
func (a *accumulator) addAll(v []int64, at, slots []uint32) {
	for i, slot := range slots {
		c := &a.cells[slot]
		sum, fits := add(c.num, v[at[i]])
		if !fits {
			a.addOne(slot, v[at[i]])
			continue
		}
		c.num = sum
		c.n++
	}
}

func (a *accumulator) addOne(slot uint32, v int64) {
	c := &a.cells[slot]
	c.n++
	switch a.measure.Fn {
	case Sum, Avg:
		sum, fits := add(c.num, v)
		if !fits {
			a.spill(slot, big.NewInt(c.num))
			sum = v
		}
		c.num = sum
	case Min:
		if c.fits == 0 || v < c.num {
			c.num = v
		}
		c.fits++
	case Max:
		if c.fits == 0 || v > c.num {
			c.num = v
		}
		c.fits++
	}
}

func (a *accumulator) addBig(slot uint32, v *big.Int) {
	a.cells[slot].n++
	a.spill(slot, v)
}

func (a *accumulator) spill(slot uint32, v *big.Int) {
	if a.big == nil {
		a.big = map[uint32]*big.Int{}
	}
	old := a.big[slot]
	switch {
	case old == nil:
		a.big[slot] = new(big.Int).Set(v)
	case a.measure.Fn == Sum || a.measure.Fn == Avg:
		old.Add(old, v)
	case a.measure.Fn == Min && v.Cmp(old) < 0, a.measure.Fn == Max && v.Cmp(old) > 0:
		old.Set(v)
	}
}

// total returns an accumulator with one slot that holds all of a's.
func (a *accumulator) total() *accumulator {
	t := &accumulator{measure: a.measure, term: a.term, cells: make([]cell, 1)}
	for slot, c := range a.cells {
		if c.n == 0 {
			continue
		}
		if c.fits > 0 || a.measure.Fn == Sum || a.measure.Fn == Avg {
			t.addOne(0, c.num)
			t.cells[0].n--
		}
		if v := a.big[uint32(slot)]; v != nil {
			t.spill(0, v)
		}
		t.cells[0].n += c.n
	}
	return t
}

// exact returns the sum or extreme of a slot with at least one value.
func (a *accumulator) exact(slot uint32) *big.Int {
	c, wide := a.cells[slot], a.big[slot]
	n := big.NewInt(c.num)
	switch {
	case wide == nil:
		return n
	case a.measure.Fn == Sum || a.measure.Fn == Avg:
		return n.Add(n, wide)
	case c.fits == 0, a.measure.Fn == Min && wide.Cmp(n) < 0, a.measure.Fn == Max && wide.Cmp(n) > 0:
		return wide
	}
	return n
}

// AvgScale is the number of decimals an average is rounded to.
const AvgScale = 6

// value returns the measure of a slot; false if a Value cannot hold it.
func (a *accumulator) value(slot uint32, currency string) (crm.Value, bool) {
	c := a.cells[slot]
	switch {
	case a.measure.Fn == Count:
		return crm.IntegerValue(c.n), true
	case c.n == 0:
		return crm.Value{}, true
	case a.measure.Fn == Avg:
		return a.average(slot, currency)
	}
	x := a.measure.Expr
	if len(a.big) == 0 && x.Kind != crm.Decimal {
		return intValue(x.Kind, c.num), true
	}
	if len(a.big) == 0 && a.term.scale <= crm.MaxScale {
		return shorten(c.num, uint8(a.term.scale), x.Digits, currency), true
	}
	n := a.exact(slot)
	if x.Kind != crm.Decimal {
		return intValue(x.Kind, n.Int64()), n.IsInt64()
	}
	return decimalValue(n, a.term.scale, x.Digits, currency)
}

// average is the sum over the count, rounded half to even once.
func (a *accumulator) average(slot uint32, currency string) (crm.Value, bool) {
	num := a.exact(slot)
	num = new(big.Int).Mul(num, bigPow10(AvgScale))
	den := new(big.Int).Mul(big.NewInt(a.cells[slot].n), bigPow10(a.term.scale))
	return decimalValue(halfEven(num, den), AvgScale, min(a.measure.Expr.Digits, AvgScale), currency)
}
