package syncproto

import (
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// Delta returns what a replica at the Cursor after lacks of the decided record
// r: its header and the cells set later. partial is false, and part is r itself,
// when the replica may not hold the record, because it entered its territory
// later, or when every cell is new. Whoever brings a record back that replicas
// may have dropped (a restore after the tombstone was collected) must set
// Entered anew.
func Delta(r *crm.Record, after crm.Rev) (part *crm.Record, partial bool) {
	if r.Entered > after {
		return r, false
	}
	p := *r
	p.Cells = nil
	for _, c := range r.Cells {
		if newer(c, after) {
			p.Cells = append(p.Cells, c)
		}
	}
	if len(p.Cells) == len(r.Cells) {
		return r, false
	}
	return &p, true
}

func newer(c crm.Cell, after crm.Rev) bool {
	return c.Stamp.Rev > after || slices.ContainsFunc(c.Elems, func(s crm.Stamp) bool { return s.Rev > after })
}

// MergePartial returns base with the header and the cells of part, which Delta
// made for a replica that holds base. It changes neither and shares cells' inner
// slices with both. Without base it returns nil: the replica is not where the
// sender believed, and must ask for the territory whole.
func MergePartial(base, part *crm.Record) *crm.Record {
	if base == nil {
		return nil
	}
	r := *part
	r.Cells = make([]crm.Cell, 0, max(len(base.Cells), len(part.Cells)))
	old := base.Cells
	for _, c := range part.Cells {
		for len(old) > 0 && old[0].Field < c.Field {
			r.Cells, old = append(r.Cells, old[0]), old[1:]
		}
		if len(old) > 0 && old[0].Field == c.Field {
			old = old[1:]
		}
		r.Cells = append(r.Cells, c)
	}
	r.Cells = append(r.Cells, old...)
	return &r
}
