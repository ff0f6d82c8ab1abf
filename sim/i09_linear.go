package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// isLinear is I09: a leader read shows at least the newest Rev that anybody had
// been told of when it was asked for. Since all writes have one order and every
// base is a prefix of it (I05), that makes such reads linearizable. What a
// leader answers rests on the log that stands in for Raft; Raft's own part in it
// is tested in package master.
func isLinear(h *History) error {
	return each(h.Looks, func(l Look) error { return l.isLinear(h) })
}

func isLinearLast(h *History) error {
	return last(h.Looks, func(l Look) error { return l.isLinear(h) })
}

func (l Look) isLinear(h *History) error {
	if l.Code == "" && l.Demand.Level == crm.Leader && l.Fresh.Rev < l.Known {
		return fmt.Errorf("%s %s answered from rev %d, and %d was known before it was asked", h.name(l.Disk), when(l.At), l.Fresh.Rev, l.Known)
	}
	return nil
}
