package sim

import "fmt"

// checksFind is I11: the check of a node's files, which recomputes digests,
// index rows, counters and checksums from the records, and on a replica the
// chain of the outbox and the overlay, finds nothing. It runs at instants spread
// over the run and on every node at the end, after all repairs.
func checksFind(h *History) error {
	return each(h.Stocks, func(s *Stock) error {
		if len(s.Findings) > 0 {
			return fmt.Errorf("%s %s: %d findings, first %s", h.name(s.Disk), when(s.At), len(s.Findings), s.Findings[0])
		}
		return nil
	})
}
