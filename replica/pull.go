package replica

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// maxPart is how many items of a catch-up wait in memory and go into one base
// transaction, which takes about 2 KB of memory for each. More of them share a
// sync and the pages that their index rows are scattered over; beyond 20,000
// that gains nothing any more.
const maxPart = 20_000

// maxPartSize bounds the same items in bytes: records may be large.
const maxPartSize = 16 << 20

// A pull applies the feed of one session. It belongs to one goroutine.
type pull struct {
	r       *Replica
	repairs repairs
	told    bool             // this session has begun to tell of the nodes below
	part    []syncproto.Item // of batches that were not final, not written yet
	size    int              // of part, in bytes
	whole   []crm.TerritoryID
	buckets buckets
	notes   []crm.Outcome
}

// take adds a batch to the part, and writes the part when it is large or, with
// a final batch, complete.
func (p *pull) take(b *syncproto.Batch) error {
	pos := p.r.position()
	switch {
	case b.Repair != p.repairs.number:
		return nil // it was sent before the master heard of the repair
	case b.Timeline != pos.timeline:
		return badBatch("timeline %d is not %d", b.Timeline, pos.timeline)
	case b.From != pos.rev:
		return badBatch("it begins at %d and the Cursor is %d", b.From, pos.rev)
	}
	if err := p.r.plausible(b, pos); err != nil {
		return err
	}
	p.add(b)
	if !b.Final && len(p.part) < p.r.part && p.size < maxPartSize {
		return nil
	}
	c := &change{r: p.r, batch: b, items: p.part, whole: p.whole, buckets: p.buckets, notes: p.notes, wants: p.repairs.wants, version: p.repairs.version, told: p.told}
	p.drop()
	if !b.Final {
		return c.writePart()
	}
	p.told = p.told || c.tells(p.r.cfg.ID.Node)
	err := c.finish()
	if errors.Is(err, errUntold) {
		return p.r.untold(err)
	}
	return p.judge(c, err)
}

func (p *pull) add(b *syncproto.Batch) {
	p.part = append(p.part, b.Items...)
	for i := range b.Items {
		p.size += b.Items[i].Size()
	}
	p.notes = append(p.notes, b.Outcomes...)
	for _, o := range b.Outcomes {
		p.size += syncproto.OutcomeSize(o)
	}
	p.whole = slices.Compact(slices.Sorted(slices.Values(slices.Concat(p.whole, b.Whole))))
	for _, w := range b.Buckets {
		if p.buckets == nil {
			p.buckets = buckets{}
		}
		p.buckets.add(w.Territory, w.Set)
	}
}

// drop forgets what is not written yet.
func (p *pull) drop() { p.part, p.size, p.whole, p.buckets, p.notes = nil, 0, nil, nil, nil }

func badBatch(format string, args ...any) error {
	return &crm.Error{Code: syncproto.CodeFrame, Op: "apply batch", Message: fmt.Sprintf(format, args...)}
}
