package sim

import "fmt"

// ackedSurvives is I01: whenever a replica has opened its files, each edit that
// the disk in it had acknowledged is in its outbox or tail, or is decided. What
// was acknowledged on a disk after the copy was made that is put back now is
// another matter: that disk is gone.
func ackedSurvives(h *History) error {
	return each(h.Openings, func(o Opening) error { return o.holdsAcked(h) })
}

func ackedSurvivesLast(h *History) error {
	return last(h.Openings, func(o Opening) error { return o.holdsAcked(h) })
}

func (o Opening) holdsAcked(h *History) error {
	for e := range h.acked() {
		if e.Disk != o.Disk || e.At > o.At || o.Held[e.ID] {
			continue
		}
		if d := h.Decided(e.ID); d == nil || d.At > o.At {
			return fmt.Errorf("edit %d, acknowledged by %s %s, is not there when it opens %s after %s", e.ID, h.name(o.Disk), when(e.At), when(o.At), o.Why)
		}
	}
	return nil
}

// name prints a disk as people know it.
func (h *History) name(d DiskID) string {
	name := h.Sites[d.Node].Name
	if d.Copy > 0 {
		name += fmt.Sprintf("'s copy %d", d.Copy)
	}
	if d.Reset > 0 {
		name += fmt.Sprintf(" (put back %d times)", d.Reset)
	}
	return name
}
