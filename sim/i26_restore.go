package sim

import "fmt"

// broughtBack is I26: of what was decided after the state that the masters were
// restored to, everything that a branch had taken is decided in the new
// timeline, once (I02). What was taken at head office went with the masters.
func broughtBack(h *History) error {
	if h.Settled == 0 {
		return nil
	}
	for i, t := range h.Timelines[:len(h.Timelines)-1] {
		for j := range t.Decisions {
			d := &t.Decisions[j]
			e := h.Edit(d.Edit)
			if e == nil || d.Rev <= h.Timelines[i+1].Begin || h.Sites[d.Node].Role != "replica" || e.Excused != "" {
				continue
			}
			if h.Decided(d.Edit) == nil {
				return fmt.Errorf("edit %d was decided at rev %d, the masters were restored to rev %d, and it was not decided again", d.Edit, d.Rev, h.Timelines[i+1].Begin)
			}
		}
	}
	return nil
}
