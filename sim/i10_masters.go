package sim

import (
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// mastersEqual is I10: two masters that have applied the log up to the same
// index have the same accumulator, and each rules on every entry as the model
// does.
func mastersEqual(h *History) error {
	type place struct{ timeline, index uint64 }
	first := map[place]Mark{}
	for _, m := range h.Marks {
		at := place{m.Timeline, m.Index}
		f, ok := first[at]
		if !ok {
			first[at] = m
			continue
		}
		if f.Sum != m.Sum {
			return fmt.Errorf("after entry %d master %d has %x and master %d has %x", m.Index, f.Master, f.Sum[:4], m.Master, m.Sum[:4])
		}
	}
	return each(h.Rulings, Applied.agree)
}

func mastersEqualLast(h *History) error {
	if err := last(h.Rulings, Applied.agree); err != nil {
		return err
	}
	return last(h.Marks, func(m Mark) error {
		for _, f := range h.Marks {
			if f.Timeline == m.Timeline && f.Index == m.Index && f.Sum != m.Sum {
				return fmt.Errorf("after entry %d master %d has %x and master %d has %x", m.Index, f.Master, f.Sum[:4], m.Master, m.Sum[:4])
			}
		}
		return nil
	})
}

func (a Applied) agree() error {
	same := func(x, y Ruling) bool {
		return x.Duplicate == y.Duplicate && x.Gap == y.Gap && x.Fork == y.Fork && x.Fenced == y.Fenced && sameOutcome(x, y)
	}
	if a.GotNo != a.WantNo || !slices.EqualFunc(a.Got, a.Want, same) {
		return fmt.Errorf("entry %d: master %d rules %v%s and the model %v%s", a.Index, a.Master, a.Got, a.GotNo, a.Want, a.WantNo)
	}
	return nil
}

// sameOutcome compares outcomes. Of a repeat that was plainly accepted the
// masters do not know the Rev any more.
func sameOutcome(x, y Ruling) bool {
	a, b := x.Outcome, y.Outcome
	if x.Duplicate && a.Kind == crm.Accepted {
		a.Rev, b.Rev = 0, 0
	}
	return a == b
}
