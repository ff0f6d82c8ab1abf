package sim

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// honoursMarks is I08. A session read that is answered shows at least the Rev of
// its mark and, at the node that gave it, the edit it names. A bounded one shows
// at least what every master had shown when the bound began: how far the master
// at the other end is behind the others is not the replica's to know. Instants
// of the simulator have no monotonic part, so reads at a node whose clock was
// set within the bound are left out.
func honoursMarks(h *History) error {
	return each(h.Looks, func(l Look) error { return l.honoursMark(h) })
}

func honoursMarksLast(h *History) error {
	return last(h.Looks, func(l Look) error { return l.honoursMark(h) })
}

func (l Look) honoursMark(h *History) error {
	if l.Code != "" {
		return nil
	}
	switch m := l.Demand.Session; l.Demand.Level {
	case crm.Session:
		switch {
		case m.Timeline != 0 && m.Timeline != l.Fresh.Timeline:
			return fmt.Errorf("%s %s answered a session of timeline %d from timeline %d", h.name(l.Disk), when(l.At), m.Timeline, l.Fresh.Timeline)
		case l.Fresh.Rev < m.Rev:
			return fmt.Errorf("%s %s answered a session that has seen rev %d from rev %d", h.name(l.Disk), when(l.At), m.Rev, l.Fresh.Rev)
		case m.Node == l.Disk.Node && l.Fresh.Seq < max(m.Seq, l.Renamed):
			return fmt.Errorf("%s %s answered a session that has written %d without it", h.name(l.Disk), when(l.At), m.Seq)
		}
	case crm.Bounded:
		if l.Fresh.Rev < l.Head && !l.Skewed {
			return fmt.Errorf("%s %s answered from rev %d, and %v before every master showed %d", h.name(l.Disk), when(l.At), l.Fresh.Rev, l.Demand.MaxStale, l.Head)
		}
	}
	return nil
}
