package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// keepsOrder is I03: in each timeline the decided Mutations of a node bear
// consecutive numbers, in the order of their Revs.
func keepsOrder(h *History) error {
	for _, t := range h.Timelines {
		seqs := map[crm.NodeID]crm.Seq{}
		for i := range t.Decisions {
			d := &t.Decisions[i]
			if err := follows(seqs[d.Node], d); err != nil {
				return err
			}
			seqs[d.Node] = d.Seq
		}
	}
	return nil
}

// keepsOrderLast looks for the node's decision before the last one.
func keepsOrderLast(h *History) error {
	t := h.Newest()
	return last(t.Decisions, func(d Decision) error {
		for i := len(t.Decisions) - 2; i >= 0; i-- {
			if t.Decisions[i].Node == d.Node {
				return follows(t.Decisions[i].Seq, &d)
			}
		}
		return nil
	})
}

func follows(before crm.Seq, d *Decision) error {
	if before != 0 && d.Seq != before+1 {
		return fmt.Errorf("node %d's edit %d is decided at rev %d after its edit %d", d.Node, d.Seq, d.Rev, before)
	}
	return nil
}
