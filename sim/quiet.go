package sim

import (
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
)

// quiet ends all faults, and does what an administrator would do about what is
// left of them.
func (w *world) quiet() {
	w.record.Quiet = w.agenda.now
	for _, a := range w.nodes() {
		a.disk.full, a.disk.stall, a.disk.ambush, a.disk.fails = false, 0, nil, ""
		for _, b := range w.nodes() {
			if a != b {
				w.net.Mend(a.name, b.name)
			}
		}
	}
	w.ledger.fates = nil
	for _, m := range w.masters {
		m.slow = 0
		w.start(m.node)
	}
	w.ledger.Check()
	for _, b := range slices.Clone(w.branches) {
		if b.up && b.disk.broken {
			w.crash(b.node, "an administrator, who starts it again", true)
		}
		if b.retired == "" {
			w.start(b.node)
		}
		if len(b.damages()) > 0 {
			b.compare()
		}
	}
	w.administer()
}

// compare has the node's session end, because the first batch of the next one
// proves all territories. In a cluster that lives on, an edit in each would.
func (b *branchNode) compare() {
	for _, v := range b.w.servers() {
		b.w.net.Reset(b.name, v.name)
	}
}

// administer chooses among the disks that bear one node's number: of several only
// one may go on, and one that the masters will not have, none of it. It looks
// again until nothing is left to be chosen.
func (w *world) administer() {
	chosen := map[crm.NodeID]bool{}
	for _, b := range w.branches {
		if b.retired != "" || chosen[b.id] {
			continue
		}
		chosen[b.id] = true
		w.choose(b.id)
	}
	w.agenda.After(backoffMax, func() {
		if w.failed == nil && w.record.Settled == 0 {
			w.administer()
		}
	})
}

// choose keeps one disk of a node: the first that is not refused. A node that was
// frozen is thawed once, for the disk that is kept.
func (w *world) choose(n crm.NodeID) {
	var disks []*branchNode
	for _, b := range w.branches {
		if b.id == n && b.retired == "" {
			disks = append(disks, b)
		}
	}
	keep := slices.IndexFunc(disks, func(b *branchNode) bool { return w.standing(b.diskID) == "" })
	if keep < 0 && !w.thawed[n] {
		keep = slices.IndexFunc(disks, func(b *branchNode) bool { return w.standing(b.diskID) == crm.CodeFrozen })
	}
	for i, b := range disks {
		if i == keep {
			continue
		}
		if b.up {
			w.crash(b.node, "an administrator, who gives it up", true)
		}
		b.retire("its disk was given up: " + string(w.standing(b.diskID)))
	}
	if keep >= 0 && w.standing(disks[keep].diskID) == crm.CodeFrozen {
		w.thaw(disks[keep])
	}
}

// standing is why a disk was refused, "" if it was not or an administrator has
// decided for it since.
func (w *world) standing(d DiskID) crm.Code {
	for _, r := range slices.Backward(w.record.Refusals) {
		if r.Disk == d && r.Lifted == 0 {
			return r.Code
		}
	}
	return ""
}

// thaw has the masters take the node's edits again.
func (w *world) thaw(b *branchNode) {
	m := w.ledger.leader
	if m == nil {
		return
	}
	w.thawed[b.id] = true
	for i := range w.record.Refusals {
		if r := &w.record.Refusals[i]; r.Disk == b.diskID && r.Lifted == 0 {
			r.Lifted = w.agenda.now
		}
	}
	w.ledger.Propose(m, master.FreezeEntry{Node: b.id}, func(master.Verdict, uint64, error) {})
}

// retire excuses the edits of a disk that is given up: nobody can be asked about
// them any more.
func (b *branchNode) retire(why string) {
	b.retired = why
	b.note("is given up: %s", why)
	for e := range b.w.record.acked() {
		if e.Disk.Node == b.id && e.Disk.Copy == b.diskID.Copy {
			e.Excused = why
		}
	}
}
