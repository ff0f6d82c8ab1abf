package master

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// numbers are the document series of this master's site, as far as the author
// has used them: the last number of each.
type numbers map[string]int64

// give fills in the document numbers that creations leave empty, ORD-HQ-000001.
// The number of an edit that is rejected stays unused.
func (a *author) give(ops []crm.Op) ([]crm.Op, error) {
	err := a.m.ledger.db().View(func(tx *store.Tx) error {
		cloned := false
		for i := range ops {
			e := tx.Schema().EntityByID(ops[i].Entity)
			if ops[i].Kind != crm.OpCreate || e == nil {
				continue
			}
			for _, f := range e.Fields {
				if f.Series == "" || hasValue(ops[i].Cells, f.ID) {
					continue
				}
				if !cloned {
					ops, cloned = slices.Clone(ops), true
				}
				v, err := a.nextNumber(tx, e, f)
				if err != nil {
					return err
				}
				cells := slices.DeleteFunc(slices.Clone(ops[i].Cells), func(c crm.Input) bool { return c.Field == f.ID })
				ops[i].Cells = append(cells, crm.Input{Field: f.ID, Value: v})
			}
		}
		return nil
	})
	return ops, err
}

func hasValue(cells []crm.Input, f crm.FieldID) bool {
	return slices.ContainsFunc(cells, func(c crm.Input) bool { return c.Field == f && !c.Value.IsNull() })
}

// nextNumber returns the next number of the series that nobody typed by hand.
func (a *author) nextNumber(tx *store.Tx, e *crm.Entity, f *crm.Field) (crm.Value, error) {
	series := f.Series + "-" + strings.ToUpper(a.m.id.Site)
	if _, known := a.numbers[series]; !known {
		n, err := highest(tx, e, f, series)
		if err != nil {
			return crm.Value{}, err
		}
		a.numbers[series] = n
	}
	for {
		a.numbers[series]++
		v := crm.TextValue(fmt.Sprintf("%s-%06d", series, a.numbers[series]))
		_, taken, err := tx.Lookup(e, f, v)
		if err != nil || !taken {
			return v, err
		}
	}
}

// highest returns the highest number of the series among the records.
func highest(tx *store.Tx, e *crm.Entity, f *crm.Field, series string) (int64, error) {
	most := int64(0)
	for r, err := range tx.Scan(e.ID) {
		if err != nil {
			return 0, err
		}
		digits, ok := strings.CutPrefix(r.Value(f.ID).Str(), series+"-")
		if n, err := strconv.ParseInt(digits, 10, 64); ok && err == nil {
			most = max(most, n)
		}
	}
	return most, nil
}
