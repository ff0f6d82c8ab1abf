package sim

import "fmt"

// ownName is I19: whoever asks in another node's name, with another one's
// certificate or with a number that was given already, decides nothing: each
// decision about an edit bears the node that the edit was asked of, and no
// decision is about an edit that a liar made up. Nor is anything decided that a
// disk took after the masters had refused it.
func ownName(h *History) error {
	for _, t := range h.Timelines {
		for i := range t.Decisions {
			d := &t.Decisions[i]
			e := h.Edit(d.Edit)
			if e == nil {
				continue
			}
			if e.Forged {
				return fmt.Errorf("edit %d, forged in the name of node %d, is decided at rev %d", e.ID, d.Node, d.Rev)
			}
			if d.Node != e.Node {
				return fmt.Errorf("edit %d, asked of node %d, is decided at rev %d as one of node %d", e.ID, e.Node, d.Rev, d.Node)
			}
		}
	}
	return h.refusedStay()
}

// refusedStay looks for edits of a disk that was already refused.
func (h *History) refusedStay() error {
	for _, r := range h.Refusals {
		for e := range h.acked() {
			if e.Disk != r.Disk || e.At < r.At || r.Lifted != 0 && e.At >= r.Lifted {
				continue
			}
			if d := h.Decided(e.ID); d != nil && (r.Lifted == 0 || d.At < r.Lifted) {
				return fmt.Errorf("%s was %s %s, and edit %d that it took %s is decided", h.name(r.Disk), r.Code, when(r.At), e.ID, when(e.At))
			}
		}
	}
	return nil
}
