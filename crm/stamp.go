package crm

import "cmp"

// A Stamp says which Mutation last set a field and who asked for it.
type Stamp struct {
	Rev   Rev    // when the master decided it; Pending while it has not
	HLC   HLC    // effective time: used between concurrent edits only
	Node  NodeID // the node that took the edit
	Seq   Seq    // its number there
	Actor string // who asked; an id, never a name or address
}

// seenBy reports whether a screen that node rendered at t showed the value
// stamped s.
func (s Stamp) seenBy(node NodeID, t Token) bool {
	return s.Rev <= t.Rev || s.Node == node && s.Seq <= t.Seq
}

// concurrentOrder orders two edits of one field neither of which saw the
// other: effective time, then node, then seq, so that all nodes agree.
func concurrentOrder(a, b Stamp) int {
	return cmp.Or(cmp.Compare(a.HLC, b.HLC), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Seq, b.Seq))
}

func compareStamps(a, b Stamp) int {
	return cmp.Or(cmp.Compare(b.Rev, a.Rev), cmp.Compare(b.HLC, a.HLC), cmp.Compare(b.Node, a.Node),
		cmp.Compare(b.Seq, a.Seq), cmp.Compare(b.Actor, a.Actor))
}
