package sim

import (
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// seenOnce is I18: a reader that looks in a loop sees each account that the node
// holds at that Rev once, in a list by name and in a scan by id alike, also while
// accounts move from one of its territories to another. Accounts that edits of
// the node itself concern may be seen otherwise while these are pending, and a
// base with a damage shows what it can.
func seenOnce(h *History) error {
	return each(h.Looks, func(l Look) error { return l.seesOnce(h) })
}

func seenOnceLast(h *History) error {
	return last(h.Looks, func(l Look) error { return l.seesOnce(h) })
}

func (l Look) seesOnce(h *History) error {
	t := h.Timeline(l.Fresh.Timeline)
	if l.Code != "" || l.Damaged || t == nil || l.Scanned == nil {
		return nil
	}
	listed := slices.SortedFunc(slices.Values(l.Listed), compareIDs)
	if i := twice(listed); i >= 0 {
		return fmt.Errorf("%s %s, rev %d, lists account %s twice", h.name(l.Disk), when(l.At), l.Fresh.Rev, listed[i])
	}
	if !slices.Equal(listed, l.Scanned) {
		return fmt.Errorf("%s %s, rev %d, lists %d accounts and scans %d", h.name(l.Disk), when(l.At), l.Fresh.Rev, len(listed), len(l.Scanned))
	}
	want := t.accounts(l.Fresh.Rev, t.right(h.Sites[l.Disk.Node].Site, l.Fresh.Rev))
	for _, id := range symmetricDifference(want, listed) {
		if l.Fresh.Pending > 0 && h.concerns(l.Disk.Node, id) {
			continue
		}
		return fmt.Errorf("%s %s, rev %d, with %d edits pending: account %s is listed %v and held %v", h.name(l.Disk), when(l.At), l.Fresh.Rev,
			l.Fresh.Pending, id, slices.Contains(listed, id), slices.Contains(want, id))
	}
	return nil
}

// accounts returns the live accounts at rev that g holds, by id.
func (t *Timeline) accounts(rev crm.Rev, g right) (out []crm.RecordID) {
	for k := range t.States {
		if k.Entity != catalog.Account {
			continue
		}
		if r := t.State(k, rev); r != nil && !r.Deleted && g.holds(r.Territory) {
			out = append(out, k.ID)
		}
	}
	slices.SortFunc(out, compareIDs)
	return out
}

// twice returns the index of the second of two equal neighbours, -1 if there are
// none.
func twice(sorted []crm.RecordID) int {
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return i
		}
	}
	return -1
}

// symmetricDifference returns what is in one of two sorted lists only.
func symmetricDifference(a, b []crm.RecordID) (out []crm.RecordID) {
	for len(a) > 0 && len(b) > 0 {
		switch c := compareIDs(a[0], b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return slices.Concat(out, a, b)
}

// concerns reports whether an edit of the node is about the account.
func (h *History) concerns(n crm.NodeID, account crm.RecordID) bool {
	k := store.RecordKey{Entity: catalog.Account, ID: account}
	for _, e := range h.Edits {
		if e != nil && e.Node == n && slices.ContainsFunc(e.Ops, func(op crm.Op) bool { return recordOf(op) == k }) {
			return true
		}
	}
	return false
}
