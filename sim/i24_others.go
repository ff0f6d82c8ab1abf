package sim

import (
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// othersKept is I24 as far as there is one version of the protocol: whatever a
// decision writes, the fields that its Mutation does not name keep their values,
// stamps and elements, those included that the schema of its author does not
// know. Mixed releases come with the second version.
func othersKept(h *History) error {
	for _, t := range h.Timelines {
		for i := range t.Decisions {
			d := &t.Decisions[i]
			for _, r := range d.Writes {
				if err := d.keepsOthers(t.State(keyOf(r), d.Rev-1), r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (d *Decision) keepsOthers(before, after *crm.Record) error {
	if before == nil {
		return nil
	}
	named := map[crm.FieldID]bool{}
	for _, op := range d.Mutation.Ops {
		for _, c := range op.Cells {
			named[c.Field] = named[c.Field] || recordOf(op) == keyOf(after)
		}
	}
	for _, c := range before.Cells {
		now := after.Cell(c.Field)
		if !named[c.Field] && (now == nil || now.Stamp != c.Stamp || !now.Value.Equal(c.Value) || !slices.Equal(now.Elems, c.Elems)) {
			return fmt.Errorf("edit %d does not name field %d of %s and changes it at rev %d", d.Edit, c.Field, keyOf(after), d.Rev)
		}
	}
	return nil
}
