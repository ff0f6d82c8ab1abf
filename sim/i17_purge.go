package sim

import "fmt"

// purgedGone is I17: once a replica's proof that it has purged a territory is
// decided, none of its files, free pages and all, holds a text that an edit put
// only into records that the node may not hold. It is the files that are
// searched, byte by byte.
func purgedGone(h *History) error {
	return each(h.Purges, func(p Purge) error { return p.clean(h) })
}

func purgedGoneLast(h *History) error {
	return last(h.Purges, func(p Purge) error { return p.clean(h) })
}

func (p Purge) clean(h *History) error {
	for _, e := range p.Found {
		if !p.May[e] {
			return fmt.Errorf("%s has proven a purge, and %s its file %s holds what edit %d wrote into records that it may not hold", h.name(p.Disk), when(p.At), p.In[e], e)
		}
	}
	return nil
}
