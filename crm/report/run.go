package report

import (
	"math"

	"github.com/tradepost-crm/tradepost/crm"
)

// A run is one execution of a report. It goes over the records of the base
// table in blocks. For each record it finds the slot of its group values, or
// that the record does not count, and adds its measures to that slot.
//
// What depends on a linked record alone, parts of the filter and groups, is
// computed first, once for every row of the linked table; see side.
type run struct {
	ts    *Tables
	def   *Report
	base  *table
	dims  []*dim
	sides []*side // side 0 is the base itself
	space *space
	money []*term // the fields of money that measures read
	acc   []*accumulator

	counts []int64 // records by slot
	mixed  int
}

// A side gathers what is computed from one table: the base, or the target of
// one link.
type side struct {
	link  *column // nil: the base
	table *table
	masks []mask
	dims  []sideDim
	sums  []int32 // of a target, by row: the sum of its dims' codes × strides, or excluded
}

// A sideDim is a dim of the report with its number.
type sideDim struct {
	*dim
	no int
}

// excluded marks a row that does not count. It stays negative when slots, which
// are below -excluded, are added to it.
const excluded = math.MinInt32 / 4

// Run computes the report. The error is a [crm.Error]: internal if Extend was
// not called with its needs, too_large if a result does not fit a Value.
func (ts *Tables) Run(def *Report) (*Result, error) {
	for _, n := range def.Needs() {
		t := ts.tables[n.Entity.ID]
		if t == nil || !t.wanted || n.Field != nil && t.column(n.Field, n.Part) == nil {
			return nil, &crm.Error{Code: crm.CodeInternal, Op: "run report", Item: n.Entity.Name, Message: "a column is missing; call Extend first"}
		}
	}
	r := &run{ts: ts, def: def, base: ts.tables[def.Entity.ID]}
	r.plan()
	r.scan()
	return r.result()
}

// plan assigns groups and the filter to sides and lays out the slots.
func (r *run) plan() {
	r.sides = []*side{{table: r.base}}
	for i, g := range r.def.Groups {
		s := r.side(g.Path.Link)
		d := newDim(s.table.column(g.Path.Field, g.Path.Part), g.Bucket)
		r.dims = append(r.dims, d)
		s.dims = append(s.dims, sideDim{d, i})
	}
	for _, n := range conjuncts(r.def.Where) {
		link, one := oneLink(n)
		s := r.sides[0]
		if one {
			s = r.side(link)
		}
		s.masks = append(s.masks, s.table.mask(n, s.link != nil))
	}
	currencies := 1
	if r.def.currencies() {
		currencies = len(r.ts.currencies)
	}
	r.space = newSpace(r.dims, currencies, len(r.base.ids))
	for i := range r.def.Measures {
		m := &r.def.Measures[i]
		a := &accumulator{measure: m}
		if m.Expr != nil {
			a.term = r.base.bind(m.Expr)
			if m.money() {
				r.money = a.term.amounts(r.money)
			}
		}
		r.acc = append(r.acc, a)
	}
	for _, s := range r.sides[1:] {
		s.prepare(r.space)
	}
}

// side returns the side of a link, nil for the base, and adds it if it is new.
func (r *run) side(link *crm.Field) *side {
	if link == nil {
		return r.sides[0]
	}
	col := r.base.column(link, "")
	for _, s := range r.sides[1:] {
		if s.link == col {
			return s
		}
	}
	s := &side{link: col, table: col.target}
	r.sides = append(r.sides, s)
	return s
}

// amounts appends the fields of money of the expression.
func (n *term) amounts(out []*term) []*term {
	switch {
	case n.op != 0:
		return n.r.amounts(n.l.amounts(out))
	case n.col != nil && n.col.currency != nil:
		for _, known := range out {
			if known.col == n.col && known.link == n.link {
				return out
			}
		}
		return append(out, n)
	}
	return out
}

// prepare computes sums for every row of a target.
func (s *side) prepare(sp *space) {
	s.sums = make([]int32, len(s.table.ids))
	codes := make([]uint32, block)
	pass := make([]bool, block)
	for from := 0; from < len(s.sums); from += block {
		part := s.sums[from:min(from+block, len(s.sums))]
		if sp.dense {
			s.addCodes(sp, from, part, codes)
		}
		s.exclude(from, part, pass)
	}
}

// addCodes adds codes × strides of the side's dims to the slots.
func (s *side) addCodes(sp *space, from int, slots []int32, codes []uint32) {
	for _, d := range s.dims {
		c := codes[:len(slots)]
		d.fill(from, c)
		stride := int32(sp.strides[d.no])
		for i, code := range c {
			slots[i] += int32(code) * stride
		}
	}
}

// exclude marks the rows that a mask refuses.
func (s *side) exclude(from int, slots []int32, pass []bool) {
	for _, m := range s.masks {
		p := pass[:len(slots)]
		m(from, p)
		for i, ok := range p {
			if !ok {
				slots[i] = excluded
			}
		}
	}
}

// A scratch is the memory of one block.
type scratch struct {
	slots  []int32
	codes  []uint32
	pass   []bool
	at     []uint32   // places in the block of the rows that count
	chosen []uint32   // their slots
	byDim  [][]uint32 // of a sparse space: codes by dim, the currency last
}

func (r *run) scan() {
	w := &scratch{slots: make([]int32, block), codes: make([]uint32, block), pass: make([]bool, block), at: make([]uint32, block), chosen: make([]uint32, block)}
	for range len(r.dims) + 1 {
		w.byDim = append(w.byDim, make([]uint32, block))
	}
	for from := 1; from < len(r.base.ids); from += block {
		size := min(block, len(r.base.ids)-from)
		r.locate(w, from, size)
		r.collect(w, from, size)
	}
}

// locate computes the slots of a block, excluded where a row does not count.
// In a sparse space the slot is 0 here.
func (r *run) locate(w *scratch, from, size int) {
	slots := w.slots[:size]
	clear(slots)
	base := r.sides[0]
	if r.space.dense {
		base.addCodes(r.space, from, slots, w.codes)
	}
	base.exclude(from, slots, w.pass)
	if r.base.alive < len(r.base.ids)-1 {
		for i, live := range r.base.live[from : from+size] {
			if !live {
				slots[i] = excluded
			}
		}
	}
	for _, s := range r.sides[1:] {
		for i, target := range s.link.links[from : from+size] {
			slots[i] = max(slots[i]+s.sums[target], excluded)
		}
	}
	if len(r.money) > 0 {
		r.addCurrency(w, from, slots)
	}
}

// addCurrency adds the code of each row's currency, the last dim, whose stride
// is 1, and excludes the rows that have several.
func (r *run) addCurrency(w *scratch, from int, slots []int32) {
	if one := r.money[0]; len(r.money) == 1 && one.link == nil && r.space.dense {
		for i, code := range one.col.currency[from : from+len(slots)] {
			slots[i] += int32(code)
		}
		return
	}
	codes := w.byDim[len(r.dims)][:len(slots)]
	r.agree(from, slots, codes)
	if r.space.dense {
		for i, code := range codes {
			slots[i] += int32(code)
		}
	}
}

// agree finds the currency of each row from all fields of money that are read,
// and excludes the rows where they do not agree.
func (r *run) agree(from int, slots []int32, codes []uint32) {
	for i := range slots {
		if slots[i] < 0 {
			continue
		}
		code, mixed := r.currency(uint32(from + i))
		codes[i] = uint32(code)
		if mixed {
			r.mixed++
			slots[i] = excluded
		}
	}
}

// currency returns the code of the one currency of the row's amounts, 0 if it
// has none.
func (r *run) currency(row uint32) (code uint16, mixed bool) {
	any := false
	for _, n := range r.money {
		at := row
		if n.link != nil {
			at = n.link.links[row]
		}
		if n.col.null(at) {
			continue
		}
		c := n.col.currency[at]
		if any && c != code {
			return 0, true
		}
		code, any = c, true
	}
	return code, false
}

// collect packs the rows that count and adds them up.
func (r *run) collect(w *scratch, from, size int) {
	k := 0
	for i, slot := range w.slots[:size] {
		w.at[k], w.chosen[k] = uint32(i), uint32(slot)
		if slot >= 0 {
			k++
		}
	}
	if k == 0 {
		return
	}
	at, chosen := w.at[:k], w.chosen[:k]
	if !r.space.dense {
		r.fillCodes(w, from, size)
		r.space.enter(w.byDim, at, chosen)
	}
	r.grow(r.space.slots())
	for _, slot := range chosen {
		r.counts[slot]++
	}
	for _, a := range r.acc {
		a.add(from, size, at, chosen)
	}
}

// fillCodes writes the codes of every dim for a sparse space.
func (r *run) fillCodes(w *scratch, from, size int) {
	for _, s := range r.sides {
		for _, d := range s.dims {
			out := w.byDim[d.no][:size]
			if s.link == nil {
				d.fill(from, out)
				continue
			}
			for i, target := range s.link.links[from : from+size] {
				d.fill(int(target), out[i:i+1])
			}
		}
	}
}

func (r *run) grow(slots int) {
	if slots <= len(r.counts) {
		return
	}
	r.counts = extend(r.counts, slots)
	for _, a := range r.acc {
		a.grow(slots)
	}
}
