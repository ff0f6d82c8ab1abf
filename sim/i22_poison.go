package sim

import (
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// poisonWait bounds how long after a rejected edit, or after the last fault, the
// edits behind it are decided.
const poisonWait = 3 * time.Minute

// poisonPasses is I22: an edit that is acknowledged behind one that the masters
// reject is decided within poisonWait, counted from the latest of the rejection,
// its own acknowledgement and the end of the faults.
func poisonPasses(h *History) error {
	for e := range h.acked() {
		if e.Excused != "" {
			continue
		}
		d := h.Decided(e.ID)
		for t := range h.lasting() {
			for i := range t.Decisions {
				p := &t.Decisions[i]
				if p.Outcome.Kind != crm.Rejected || p.Node != e.Node || p.Seq >= e.Seq {
					continue
				}
				by := max(p.At, e.At, h.Quiet) + poisonWait
				if d == nil && h.Settled != 0 || d != nil && d.At > by {
					return fmt.Errorf("edit %d, %s behind edit %d, which was rejected %s, is not decided by %s", e.ID, when(e.At), p.Edit, when(p.At), by)
				}
			}
		}
	}
	return nil
}
