package sim

import (
	"fmt"
	"slices"
	"time"
)

// checksFind is I11: the check of a node's files, which recomputes digests,
// index rows, counters and checksums from the records, and on a replica the
// chain of the outbox and the overlay, finds nothing. It runs at instants spread
// over the run, but for those at which a damage is not mended yet, and on every
// node at the end.
//
// What damages a record of a replica's base is mended by then, and not silently:
// the status of the node shows an alarm before, unless meanwhile the record was
// decided anew, or what holds it was sent whole for another reason: the base, which
// was lost, or the territory, which was granted again. What cannot be read is
// then replaced before anybody has met it, and the log says so. No alarm is shown without a damage,
// none that says that repairs do not cure, and nothing is asked for but sums and
// as many buckets as are damaged.
func checksFind(h *History) error {
	for _, s := range h.Stocks {
		if len(s.Findings) > 0 {
			return fmt.Errorf("%s %s: %d findings, first %s", h.name(s.Disk), when(s.At), len(s.Findings), s.Findings[0])
		}
	}
	if err := each(h.Damages, func(d *Damage) error { return d.isMended(h) }); err != nil {
		return err
	}
	if err := each(h.Alarms, func(a Alarm) error { return a.hasCause(h) }); err != nil {
		return err
	}
	return each(h.Asked, func(a Asked) error { return a.isSmall(h) })
}

func (d *Damage) isMended(h *History) error {
	atEnd := slices.ContainsFunc(h.Stocks, func(s *Stock) bool { return s.Last && s.Disk == d.Disk })
	switch {
	case d.Mended == 0 && atEnd:
		return fmt.Errorf("%s was damaged on %s %s, and is not mended", d.Record, h.name(d.Disk), when(d.At))
	case d.Mended == 0 || d.Anew:
		return nil
	}
	if !slices.ContainsFunc(h.Alarms, func(a Alarm) bool { return a.Disk == d.Disk && d.At <= a.At && a.At <= d.Mended }) {
		return fmt.Errorf("%s was damaged on %s %s and mended %s without an alarm", d.Record, h.name(d.Disk), when(d.At), when(d.Mended))
	}
	return nil
}

func (a Alarm) hasCause(h *History) error {
	switch {
	case a.Beyond != "":
		return fmt.Errorf("%s %s shows what a repair of some buckets does not cure: %s", h.name(a.Disk), when(a.At), a.Beyond)
	case len(h.damagedBuckets(a.Disk, a.At)) == 0:
		return fmt.Errorf("%s %s shows an alarm about territories %v, and nothing is damaged", h.name(a.Disk), when(a.At), a.Suspect)
	}
	return nil
}

func (a Asked) isSmall(h *History) error {
	if n := len(h.damagedBuckets(a.Disk, a.At)); a.Buckets > n {
		return fmt.Errorf("%s %s asks for %d buckets of territory %d, and %d are damaged", h.name(a.Disk), when(a.At), a.Buckets, a.Territory, n)
	}
	return nil
}

// damagedBuckets returns the buckets of a disk with damage at the instant: the last
// bytes of the records' ids.
func (h *History) damagedBuckets(disk DiskID, at time.Duration) map[byte]bool {
	out := map[byte]bool{}
	for _, d := range h.Damages {
		if d.Disk == disk && d.At <= at && (d.Mended == 0 || at <= d.Mended) {
			out[d.Record.ID[len(d.Record.ID)-1]] = true
		}
	}
	return out
}
