package sim

import "fmt"

// neverGoesBack is I07: from one position of a disk to the next, within a
// timeline, neither the Cursor nor the decided Seq falls, but where a base is
// emptied in order to be fetched anew; the number of the newest edit never does.
// Readers see the old timeline until a base has been moved to another one, while
// what is decided of the node's edits is already said by the masters of the new one.
func neverGoesBack(h *History) error {
	before := map[DiskID]Position{}
	return each(h.Positions, func(p Position) error {
		b, ok := before[p.Disk]
		before[p.Disk] = p
		if !ok {
			return nil
		}
		return p.goesOn(h, b)
	})
}

func neverGoesBackLast(h *History) error {
	return last(h.Positions, func(p Position) error {
		for i := len(h.Positions) - 2; i >= 0; i-- {
			if b := h.Positions[i]; b.Disk == p.Disk {
				return p.goesOn(h, b)
			}
		}
		return nil
	})
}

func (p Position) goesOn(h *History, b Position) error {
	back := func(what string, from, to any) error {
		return fmt.Errorf("%s %s: %s went back from %v to %v", h.name(p.Disk), when(p.At), what, from, to)
	}
	switch {
	case p.Last < b.Last:
		return back("the newest edit", b.Last, p.Last)
	case p.Rebased || p.Timeline != b.Timeline:
		return nil
	case p.Rev < b.Rev:
		return back("the Cursor", b.Rev, p.Rev)
	case p.Decided < b.Decided && !p.Moving:
		return back("the decided Seq", b.Decided, p.Decided)
	}
	return nil
}
