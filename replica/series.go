package replica

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// numberRoom is what a document number may add to an encoded op, in bytes.
const numberRoom = 128

// number gives the documents that m creates their numbers, ORD-LIS-000001, and
// reports whether there were any. The numbers are taken in the transaction that
// keeps m, and only after m was found good, so the series has no gaps.
func (w *writer) number(m *crm.Mutation) (bool, error) {
	numbered := false
	for i := range m.Ops {
		op := &m.Ops[i]
		e := w.view.Schema().EntityByID(op.Entity)
		if op.Kind != crm.OpCreate {
			continue
		}
		for _, f := range e.Fields {
			if f.Series == "" || hasValue(op, f.ID) {
				continue
			}
			v, err := w.next(e, f)
			if err != nil {
				return false, err
			}
			op.Cells = append(without(op.Cells, f.ID), crm.Input{Field: f.ID, Value: v})
			numbered = true
		}
	}
	return numbered, nil
}

func hasValue(op *crm.Op, f crm.FieldID) bool {
	for _, c := range op.Cells {
		if c.Field == f && !c.Value.IsNull() {
			return true
		}
	}
	return false
}

func without(cells []crm.Input, f crm.FieldID) []crm.Input {
	out := cells[:0]
	for _, c := range cells {
		if c.Field != f {
			out = append(out, c)
		}
	}
	return out
}

// next takes the next free number. One that somebody typed by hand is skipped.
func (w *writer) next(e *crm.Entity, f *crm.Field) (crm.Value, error) {
	series := f.Series + "-" + strings.ToUpper(w.id.Site)
	n, err := w.j.NextInSeries(series)
	if err == nil && n == 1 {
		n, err = w.seed(e, f, series)
	}
	for ; err == nil; n, err = w.j.NextInSeries(series) {
		v := crm.TextValue(fmt.Sprintf("%s-%06d", series, n))
		_, taken, err := w.view.Lookup(e, f, v)
		if err != nil || !taken {
			return v, err
		}
	}
	return crm.Value{}, err
}

// seed starts a series in a journal that does not know it: after the highest
// number among the records, which an earlier journal of the site may have given.
func (w *writer) seed(e *crm.Entity, f *crm.Field, series string) (int64, error) {
	highest := int64(0)
	for rec, err := range w.tx.Scan(e.ID) {
		if err != nil {
			return 0, err
		}
		digits, ok := strings.CutPrefix(rec.Value(f.ID).Str(), series+"-")
		if n, err := strconv.ParseInt(digits, 10, 64); ok && err == nil {
			highest = max(highest, n)
		}
	}
	if highest == 0 {
		return 1, nil
	}
	if err := w.j.SetSeries(series, highest); err != nil {
		return 0, err
	}
	return w.j.NextInSeries(series)
}
