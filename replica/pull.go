package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
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

// A change is the step from one prefix of the master's order to another: the
// items that came, and once applied what they changed here.
type change struct {
	r       *Replica
	batch   *syncproto.Batch
	items   []syncproto.Item
	whole   []crm.TerritoryID
	notes   []crm.Outcome
	version uint16 // of the protocol
	told    bool   // see pull

	buckets buckets // that come whole
	wants   buckets // of the repair that a final batch answers

	tx      *store.Tx
	touched []store.RecordKey // traces of the changes
	all     bool              // anything may have changed: schema, site, territories
	changed []crm.Change
	dropped map[store.RecordKey]dropped // with what comes whole or was lost, and not put again
	mended  map[crm.TerritoryID]int     // records that a repair has changed
	cured   []suspicion
	left    bool  // records left: their bytes are in free pages
	moved   bool  // the base is of another timeline now
	lost    *lost // what was decided in the timeline that is left; nil: the base does not move
	newest  crm.HLC
}

// A dropped record was in the territory.
type dropped struct {
	territory crm.TerritoryID
	was       body
}

// finish applies everything up to a final batch in one base transaction, and
// then settles and re-folds the journal.
func (c *change) finish() error {
	var err error
	if c.r.position().isMoving() {
		err = c.r.turn(c.apply, c.settle)
	} else if err = c.r.base.Update(c.apply); err == nil {
		err = c.settle()
	}
	if err != nil {
		return fmt.Errorf("apply up to %d, settle up to %d: %w", c.batch.To, c.batch.Decided, err)
	}
	return c.r.applied(c)
}

// apply does the work of the base transaction, in tx.
func (c *change) apply(tx *store.Tx) error {
	c.tx = tx
	return c.located(c.commit())
}

// settle brings the clock and the journal up to the base.
func (c *change) settle() error {
	c.r.clock.Observe(c.newest)
	return c.r.tolerate(c.r.settle(c))
}

// commit makes the steps of apply. Whatever fails, nothing of it is kept.
func (c *change) commit() error {
	p, err := readPosition(c.tx)
	if err != nil {
		return err
	}
	if p.rev != c.batch.From || c.batch.To < p.rev {
		return badBatch("(%d, %d] does not continue %d", c.batch.From, c.batch.To, p.rev)
	}
	for _, step := range []func(position) error{c.noteLost, c.dropWhole, c.dropBuckets, c.applyItems, c.trim, c.dropForeign, c.keepCircle, c.record, c.verify, c.cure, c.judgeLost} {
		if err := step(p); err != nil {
			return err
		}
	}
	return nil
}

// dropWhole empties the territories that come whole, but on a bootstrap, which
// began with an empty base.
func (c *change) dropWhole(p position) error {
	whole, err := stagedWhole(c.tx)
	if err != nil {
		return err
	}
	c.whole = slices.Compact(slices.Sorted(slices.Values(slices.Concat(whole, c.whole))))
	if p.rev == 0 {
		return nil
	}
	for _, t := range c.whole {
		if _, err := c.dropTerritory(t); err != nil {
			return err
		}
	}
	return nil
}

// dropTerritory drops the territory's records and remembers which they were.
func (c *change) dropTerritory(t crm.TerritoryID) (int, error) {
	c.remember()
	for e, err := range c.tx.Feed(t, 0) {
		if err != nil {
			return 0, err
		}
		if !e.Left {
			c.dropped[store.RecordKey{Entity: e.Entity, ID: e.ID}] = dropped{territory: t}
		}
	}
	return c.empty(t)
}

// empty drops all that the territory has, whatever state it is in.
func (c *change) empty(t crm.TerritoryID) (int, error) {
	n, err := c.tx.DropTerritory(t)
	if crm.CodeOf(err) == crm.CodeCorrupt { // rows that lead nowhere
		for b := range syncproto.AllBuckets().All() {
			if _, err := c.tx.DropBucket(t, b); err != nil {
				return 0, err
			}
		}
		n, err = c.tx.DropTerritory(t)
	}
	if err != nil {
		return n, err
	}
	return n, c.tx.RecomputeDigests(t) // of nothing: what was dropped may not have been what was summed up
}

// remember prepares for records to be dropped: which pending Mutations depend on
// them is not looked up one by one.
func (c *change) remember() {
	if c.dropped == nil {
		c.dropped = map[store.RecordKey]dropped{}
	}
	c.all = true
}

// applyItems writes the items, those that were staged first.
func (c *change) applyItems(p position) error {
	if p.staged == 0 || p.rev == 0 {
		if err := c.putStagedMetadata(); err != nil {
			return err
		}
		return c.writeItems(true, true)
	}
	for i := range c.items {
		if err := stageItem(c.tx, &c.items[i]); err != nil {
			return err
		}
	}
	if _, err := c.putStaged(); err != nil {
		return err
	}
	return c.tx.ClearStage()
}

// put writes one item. What was there before matters to nobody while an empty
// base is filled.
func (c *change) put(it *syncproto.Item) error {
	var old *crm.Record
	if c.batch.From > 0 || it.Partial || it.Kind == syncproto.ItemLeft {
		var err error
		old, err = c.tx.Record(it.Entity, it.ID)
		if _, damaged := errors.AsType[*store.Damage](err); damaged && !it.Partial {
			err, c.all = nil, true // what comes takes its place, whatever it was
		}
		if err != nil {
			return err
		}
	}
	now, err := c.stateOf(it, old)
	if err != nil {
		return err
	}
	if it.Territory != 0 && c.r.relay != nil {
		if err := c.tx.MarkLeft(store.RecordKey{Entity: it.Entity, ID: it.ID}, it.Territory, it.Rev); err != nil {
			return err
		}
	}
	if it.Kind == syncproto.ItemLeft && now != nil {
		return nil
	}
	c.note(it, old, now)
	if now == nil {
		_, err := c.tx.Drop(it.Entity, it.ID)
		return err
	}
	return c.tx.Put(now)
}

// stateOf returns the record as the item leaves it, nil if it left. What lives in
// another territory than the one it left, or came back, stays.
func (c *change) stateOf(it *syncproto.Item, old *crm.Record) (*crm.Record, error) {
	if it.Kind == syncproto.ItemLeft {
		if it.Territory != 0 && old != nil && (old.Territory != it.Territory || old.Stamp.Rev > it.Rev) {
			return old, nil
		}
		return nil, nil
	}
	rec, err := crm.DecodeRecord(it.Entity, it.ID, it.Body)
	if err != nil {
		return nil, badBatch("%v", err)
	}
	if rec.Deleted != (it.Kind == syncproto.ItemDeleted) {
		return nil, badBatch("record %s is deleted: %v, and comes as %s", rec.ID, rec.Deleted, it.Kind)
	}
	if it.Partial {
		part := rec
		if rec = syncproto.MergePartial(old, part); rec == nil {
			missing := &divergence{found: buckets{}, what: fmt.Sprintf("record %s is not here", it.ID)}
			missing.found.addBucket(part.Territory, c.tx.BucketOf(it.ID))
			return nil, missing
		}
	}
	if len(c.wants) > 0 || len(c.whole) > 0 {
		old = nil // what is here may be what is to be mended
	}
	return rec, plausibleRecord(old, rec, c.batch.To)
}

// note remembers what the item changes for pending Mutations and readers.
func (c *change) note(it *syncproto.Item, old, now *crm.Record) {
	k := store.RecordKey{Entity: it.Entity, ID: it.ID}
	d, was := c.dropped[k]
	delete(c.dropped, k)
	if old == nil && now == nil && !was {
		return
	}
	if now != nil && !now.Deleted && c.mends(now) {
		if d.was == bodyOf(now) {
			return
		}
		c.mend(now.Territory, now.Stamp.Rev)
	}
	ch := crm.Change{Entity: it.Entity, Record: it.ID, Rev: it.Rev, Left: now == nil}
	c.left = c.left || now == nil
	if now != nil {
		ch.Rev, ch.Deleted = now.Stamp.Rev, now.Deleted
		c.newest = max(c.newest, now.Stamp.HLC)
	}
	if c.batch.From == 0 {
		return
	}
	c.changed = append(c.changed, ch)
	if now != nil {
		c.r.sawEdit(now.Stamp)
	}
	if it.Entity < crm.FirstEntity && it.Entity != crm.EntityAttention && it.Entity != crm.EntityPurge {
		c.all = true
	}
	if !c.all && (old != nil || now != nil) {
		c.touched = changes(c.touched, c.tx.Schema(), old, now)
	}
}

// mend counts a record that a repair has changed: not one that was decided since.
func (c *change) mend(t crm.TerritoryID, rev crm.Rev) {
	if rev > c.batch.From {
		return
	}
	if c.mended == nil {
		c.mended = map[crm.TerritoryID]int{}
	}
	c.mended[t]++
}

// record writes where the base stands now.
func (c *change) record(position) error {
	for _, o := range c.notes {
		if err := c.tx.PutOutcome(o); err != nil {
			return err
		}
	}
	if err := setNumber(c.tx, metaDecided, uint64(c.batch.Decided)); err != nil {
		return err
	}
	for _, name := range []string{metaStaged, metaWhole, metaBuckets} {
		if err := c.tx.SetMeta(name, nil); err != nil {
			return err
		}
	}
	c.left = c.left || len(c.dropped) > 0
	if c.left {
		if err := setNumber(c.tx, metaCompact, uint64(c.batch.To)); err != nil {
			return err
		}
	}
	if err := c.settleTimeline(); err != nil {
		return err
	}
	return c.tx.SetRev(c.batch.To)
}

// begins reports whether the journal must ask the base anew what is decided: the
// base was filled, or is of another timeline now.
func (c *change) begins() bool { return c.moved || c.batch.From == 0 }

// settle brings the journal up to the base after a change. It looks whether
// anything is pending only once it holds the journal: an edit that is being
// written may have been judged on the base before the change.
func (r *Replica) settle(c *change) error {
	err := r.folding(func(all bool) error {
		c.all = c.all || all
		return r.journal.Update(func(j *store.JTx) error {
			d, err := j.Depth()
			if err != nil {
				return err
			}
			if d.Entries == 0 && !j.HasOverlay() && !c.begins() {
				return errNothing
			}
			return r.base.View(func(tx *store.Tx) error { return r.follow(j, tx, c) })
		})
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// follow does the work of the journal's transaction.
func (r *Replica) follow(j *store.JTx, tx *store.Tx, c *change) error {
	f, err := r.newFolder(j, tx)
	if err != nil {
		return err
	}
	keys, err := f.settle(c.batch.Decided, c.batch.To)
	if err != nil {
		return err
	}
	if c.begins() {
		if _, err := reopen(j, c.batch.Decided, c.batch.To); err != nil {
			return err
		}
	}
	own := slices.DeleteFunc(slices.Clone(c.notes), func(o crm.Outcome) bool { return o.Node != r.cfg.ID.Node })
	if err := dropForbidden(j, own); err != nil {
		return err
	}
	if c.all || c.batch.From == 0 {
		return f.all()
	}
	return f.around(append(keys, c.touched...))
}

// applied makes a change known.
func (r *Replica) applied(c *change) error {
	for _, o := range c.notes {
		if o.Node != r.cfg.ID.Node {
			continue
		}
		if o.Kind == crm.Rejected {
			r.cfg.Metrics.rejected.WithLabelValues(string(o.Code)).Inc()
		}
		c.left = c.left || o.Code == crm.CodeTerritory
	}
	for k, d := range c.dropped {
		c.changed = append(c.changed, crm.Change{Entity: k.Entity, Record: k.ID, Rev: c.batch.To, Left: true})
		if _, ok := c.buckets[d.territory]; ok {
			c.mend(d.territory, 0)
		}
	}
	r.cfg.Metrics.batchSize.WithLabelValues("base").Observe(float64(len(c.items)))
	r.cfg.Metrics.appliedIndex.Set(float64(c.batch.To))
	if len(c.batch.Digests) > 0 {
		r.cfg.Metrics.verified.Set(float64(c.batch.To))
	}
	r.change(func(l *link) {
		l.head = max(l.head, c.batch.To)
		if len(c.batch.Digests) > 0 {
			l.verified = c.batch.To
		}
	})
	r.advance(func(p *position) {
		p.timeline, p.rev, p.decided, p.staged, p.target = c.batch.Timeline, c.batch.To, c.batch.Decided, 0, 0
		p.shown = shown{}
	})
	r.changes.Publish(c.changed)
	if err := r.tellCured(c); err != nil {
		return err
	}
	r.tellLost(c)
	r.measureLag()
	nudge(r.kick)
	if c.batch.From > 0 && len(c.whole)+len(c.buckets) > 0 {
		r.dismiss("what this relay holds was sent to it anew")
	}
	if c.left || c.batch.From == 0 {
		nudge(r.dirty)
	}
	return r.tolerate(r.measureOutbox())
}

// writePart keeps a part of a catch-up: in the stage, so that readers see the
// old prefix until the new one is whole, or at once in a base that nobody reads
// because it is being filled.
func (c *change) writePart() error {
	direct := c.batch.From == 0
	err := c.tryPart(direct, direct)
	if direct && errIsSchema(err) {
		err = c.tryPart(true, false)
	}
	if err != nil {
		return fmt.Errorf("keep items up to %d: %w", c.batch.Upto, err)
	}
	c.r.cfg.Metrics.batchSize.WithLabelValues("base").Observe(float64(len(c.items)))
	c.r.advance(func(p *position) { p.staged, p.target = c.batch.Upto, c.batch.To })
	return nil
}

// tryPart writes the items into the base if direct is set, else into the stage.
// Definitions of entities and fields go there too unless metadata is set:
// half of a catalogue may be no schema.
func (c *change) tryPart(direct, metadata bool) error {
	return c.r.base.Update(func(tx *store.Tx) error {
		c.tx, c.changed, c.touched = tx, nil, nil
		if metadata {
			if err := c.putStagedMetadata(); err != nil {
				return err
			}
		}
		if err := c.writeItems(direct, metadata); err != nil {
			return err
		}
		if metadata {
			if err := c.schemaNow(); err != nil {
				return err
			}
		}
		for _, o := range c.notes {
			if err := tx.PutOutcome(o); err != nil {
				return err
			}
		}
		at := binary.BigEndian.AppendUint64(nil, uint64(c.batch.Upto))
		if err := tx.SetMeta(metaStaged, binary.BigEndian.AppendUint64(at, uint64(c.batch.To))); err != nil {
			return err
		}
		if err := errors.Join(addStagedWhole(tx, c.whole), addStagedBuckets(tx, c.buckets)); err != nil {
			return err
		}
		if !direct {
			return nil // the stage is not the base yet
		}
		return tx.SetTimeline(c.batch.Timeline)
	})
}

// writeItems writes in the order of the keys, so that pages are filled one after
// the other. Of two items that concern the same the later one counts.
func (c *change) writeItems(direct, metadata bool) error {
	sortItems(c.items)
	for i := range c.items {
		it := &c.items[i]
		if i+1 < len(c.items) && sameConcern(it, &c.items[i+1]) {
			continue
		}
		write := stageItem
		if direct && (metadata || !isMetadata(it.Entity)) {
			write = func(_ *store.Tx, it *syncproto.Item) error { return c.put(it) }
		}
		if err := write(c.tx, it); err != nil {
			return err
		}
		if metadata && isMetadata(it.Entity) && (i+1 == len(c.items) || !isMetadata(c.items[i+1].Entity)) {
			if err := c.schemaNow(); err != nil {
				return err
			}
		}
	}
	return nil
}
