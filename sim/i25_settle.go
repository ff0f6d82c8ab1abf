package sim

import (
	"fmt"
	"time"
)

// Bounds on a run.
const (
	settleWait = 10 * time.Minute // of virtual time from the last fault
	mostFrames = 10_000           // under way or held at once, on all lines
	mostBytes  = 64 << 20         // of one node's files
)

// settles is I25: within settleWait of the last fault every node that was not
// refused is at the newest Rev of the newest timeline and has nothing pending,
// and at no time was more under way or on a disk than the bounds say.
func settles(h *History) error {
	switch {
	case h.Settled == 0:
		return fmt.Errorf("%v after the last fault, %s, nodes still differ: %s", settleWait, when(h.Quiet), h.Unsettled)
	case h.Settled-h.Quiet > settleWait:
		return fmt.Errorf("it took %v", h.Settled-h.Quiet)
	case h.Usage.Frames > mostFrames:
		return fmt.Errorf("%d frames were under way at once", h.Usage.Frames)
	case h.Usage.Bytes > mostBytes:
		return fmt.Errorf("the files of a node took %d bytes", h.Usage.Bytes)
	}
	t := h.Newest()
	return each(h.Stocks, func(s *Stock) error {
		if s.Last && (s.Timeline != t.ID || s.Rev != t.Head() || len(s.Pending) > 0) {
			return fmt.Errorf("%s ends at rev %d of timeline %d with %d edits pending; the masters are at rev %d of %d",
				h.name(s.Disk), s.Rev, s.Timeline, len(s.Pending), t.Head(), t.ID)
		}
		return nil
	})
}
