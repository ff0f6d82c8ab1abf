package sim

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// isFolded is I06: at instants spread over the run and after each start, the
// records that a replica shows otherwise than its base has them are what its
// pending Mutations make of that base, one after the other.
func isFolded(h *History) error {
	return each(h.Stocks, func(s *Stock) error { return s.isFolded(h) })
}

func (s *Stock) isFolded(h *History) error {
	if s.Role != "replica" || s.Rev == 0 || len(s.Pending) == 0 && len(s.Shown) == 0 {
		return nil
	}
	base := shelve(func(yield func(*crm.Record) bool) {
		for _, r := range slices.Concat(s.Base, s.Dead) {
			if !yield(r) {
				return
			}
		}
	})
	want, err := base.fold(h.Sites[s.Disk.Node].Site, s.Lineage, s.Pending)
	if err != nil {
		return err
	}
	for _, r := range s.Shown {
		w := want[keyOf(r)]
		delete(want, keyOf(r))
		if w == nil {
			return fmt.Errorf("%s %s shows %s changed, and no pending edit changes it", h.name(s.Disk), when(s.At), keyOf(r))
		}
		if !bytes.Equal(crm.AppendRecord(nil, r), crm.AppendRecord(nil, w)) {
			return fmt.Errorf("%s %s does not show %s as its %d pending edits leave it", h.name(s.Disk), when(s.At), keyOf(r), len(s.Pending))
		}
	}
	for k := range want {
		return fmt.Errorf("%s %s shows nothing of what pending edits do to %s", h.name(s.Disk), when(s.At), k)
	}
	return nil
}
