package sim

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// isPrefix is I05: after each batch the digests of a replica are those that the
// model has at its Cursor, of exactly the territories that its site was granted
// then; and each node whose records were read holds those of the model, byte for
// byte, no more and no fewer.
func isPrefix(h *History) error {
	if err := each(h.Positions, func(p Position) error { return p.digestsHold(h) }); err != nil {
		return err
	}
	return each(h.Stocks, func(s *Stock) error { return s.isPrefix(h) })
}

func isPrefixLast(h *History) error {
	return last(h.Positions, func(p Position) error { return p.digestsHold(h) })
}

func (p Position) digestsHold(h *History) error {
	if p.Digests == nil || p.Rev == 0 {
		return nil
	}
	t := h.At(p.Timeline, p.Rev)
	if t == nil || p.Rev > t.Head() {
		return fmt.Errorf("%s is at rev %d of timeline %d, and there is no such", h.name(p.Disk), p.Rev, p.Timeline)
	}
	g := t.right(h.Sites[p.Disk.Node].Site, p.Rev)
	empty := store.DigestOf(&[store.DigestBuckets]store.Bucket{})
	for _, territory := range slices.Sorted(maps.Keys(p.Digests)) {
		want := empty
		if g.holds(territory) {
			want = t.Digest(territory, p.Rev)
		}
		if p.Digests[territory] != want {
			return fmt.Errorf("%s %s does not hold territory %d as of rev %d (granted: %v)", h.name(p.Disk), when(p.At), territory, p.Rev, g.holds(territory))
		}
	}
	for _, territory := range append(g.granted, crm.Shared) {
		if _, held := p.Digests[territory]; !held && t.Digest(territory, p.Rev) != empty {
			return fmt.Errorf("%s %s holds nothing of territory %d at rev %d", h.name(p.Disk), when(p.At), territory, p.Rev)
		}
	}
	return nil
}

func (s *Stock) isPrefix(h *History) error {
	t := h.At(s.Timeline, s.Rev)
	if t == nil {
		return fmt.Errorf("%s follows timeline %d, and there is no such", h.name(s.Disk), s.Timeline)
	}
	if s.Rev == 0 {
		return nil
	}
	holds := func(crm.TerritoryID) bool { return true }
	if s.Role == "replica" {
		holds = t.right(h.Sites[s.Disk.Node].Site, s.Rev).holds
	}
	want := t.Live(s.Rev, holds)
	for _, r := range s.Base {
		w := want[keyOf(r)]
		delete(want, keyOf(r))
		if w == nil {
			return fmt.Errorf("%s at rev %d holds %s, which is not decided so", h.name(s.Disk), s.Rev, keyOf(r))
		}
		if !bytes.Equal(crm.AppendRecord(nil, r), crm.AppendRecord(nil, w)) {
			return fmt.Errorf("%s at rev %d holds %s as of rev %d, and it was decided otherwise at rev %d", h.name(s.Disk), s.Rev, keyOf(r), r.Stamp.Rev, w.Stamp.Rev)
		}
	}
	if len(want) > 0 {
		k := slices.SortedFunc(maps.Keys(want), compareKeys)[0]
		return fmt.Errorf("%s at rev %d lacks %d records, first %s of rev %d", h.name(s.Disk), s.Rev, len(want), k, want[k].Stamp.Rev)
	}
	return s.deadHold(h, t)
}

// deadHold looks at the tombstones: a replica need not have them, but none may
// be of a record that lives or was deleted otherwise.
func (s *Stock) deadHold(h *History, t *Timeline) error {
	for _, r := range s.Dead {
		w := t.State(keyOf(r), s.Rev)
		if w == nil || !w.Deleted || !bytes.Equal(crm.AppendRecord(nil, r), crm.AppendRecord(nil, w)) {
			return fmt.Errorf("%s at rev %d has a tombstone of %s that is not the decided one", h.name(s.Disk), s.Rev, keyOf(r))
		}
	}
	return nil
}
