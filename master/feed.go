package master

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// lazyHead is how long a replica may not be told of a head that changes nothing
// for it, so that an idle branch costs little while others work.
const lazyHead = 200 * time.Millisecond

// partBudget is the size at which a catch-up is cut, in bytes: small enough to
// cross a slow line before the replica takes silence for death.
const partBudget = 256 << 10

// A feed brings one replica from its Cursor to the head, and keeps it there.
//
// Simple version: a batch is what the granted territories hold above the Cursor,
// read in one transaction whose Rev is the batch's To. What complicates it:
//
//   - A catch-up may be larger than a frame. It goes in parts, each read in its
//     own transaction, and the last part reaches the head of its own. A record
//     that changes between two parts moves to the end of the index and is sent
//     again, so all parts together are exactly what the last transaction holds
//     above the Cursor, plus older states of records that are overwritten.
//   - A territory granted above the Cursor is sent whole, from Rev 0, merged with
//     the others in order of Rev.
//
// Invariant: of territory t, all changes up to ways[t].at have been sent, and
// every part repeats the cells set after cursor.
type feed struct {
	s    *session
	site string

	cursor  crm.Rev // the replica's base, once it has applied what was sent
	ways    map[crm.TerritoryID]*way
	staged  bool // the replica holds parts of a catch-up
	resume  crm.Rev
	resend  map[crm.TerritoryID]bool
	decided crm.Seq                  // Decided as last sent
	digests map[crm.TerritoryID]bool // to be sent with the next final batch
	begun   bool                     // a final batch was sent
}

// A way is how far a territory has been sent.
type way struct {
	grant crm.Rev
	at    place
	whole bool
	skip  crm.Rev // tombstones and markers up to here are of records that were never sent
}

// A place is a position in the merged feed of some territories, exclusive.
type place struct {
	rev       crm.Rev
	entity    crm.EntityID
	id        crm.RecordID
	territory crm.TerritoryID
}

// atEnd is the place after everything at rev.
func atEnd(rev crm.Rev) place {
	p := place{rev: rev, entity: 1<<16 - 1, territory: 1<<32 - 1}
	for i := range p.id {
		p.id[i] = 0xff
	}
	return p
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.rev, q.rev), cmp.Compare(p.entity, q.entity), bytes.Compare(p.id[:], q.id[:]), cmp.Compare(p.territory, q.territory))
}

func newFeed(s *session, h *syncproto.Hello, w *syncproto.Welcome) *feed {
	f := &feed{s: s, site: s.site, ways: map[crm.TerritoryID]*way{}, resend: map[crm.TerritoryID]bool{}, digests: map[crm.TerritoryID]bool{}}
	if h.Timeline != w.Timeline {
		return f // the Cursor means nothing here: everything is sent whole
	}
	f.cursor, f.staged, f.resume = h.Cursor, h.Staged > 0, h.Staged
	for _, t := range h.Resend {
		f.resend[t] = true
	}
	return f
}

// run sends batches and heartbeats until the session ends.
func (f *feed) run(ctx context.Context) error {
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	lazy := time.NewTimer(time.Hour)
	lazy.Stop()
	defer lazy.Stop()
	if err := f.ask(); err != nil {
		return err
	}
	due, armed := false, false
	for ctx.Err() == nil {
		changed := f.s.m.ledger.changed()
		b, err := f.next()
		if err != nil {
			return f.giveUp(err)
		}
		if !b.Final || due && b.To > f.cursor || f.matters(b) {
			if err := f.send(b); err != nil {
				return err
			}
			lazy.Stop()
			armed = false
		} else if b.To > f.cursor && !armed {
			lazy.Reset(lazyHead)
			armed = true
		}
		if err := f.answerBeats(); err != nil {
			return err
		}
		if b.Final {
			if due, err = f.idle(ctx, changed, lazy.C, beat.C); err != nil {
				return err
			}
		}
	}
	return nil
}

// idle answers and asks heartbeats until there may be more to send. due says
// that the head must be told whatever it brings.
func (f *feed) idle(ctx context.Context, changed <-chan struct{}, lazy, beat <-chan time.Time) (due bool, err error) {
	for err == nil {
		select {
		case <-ctx.Done():
			return false, nil
		case <-changed:
			return false, nil
		case <-lazy:
			return true, nil
		case q := <-f.s.beats:
			err = f.answer(q)
		case <-beat:
			err = f.ask()
		}
	}
	return false, err
}

func (f *feed) answerBeats() error {
	for {
		select {
		case q := <-f.s.beats:
			if err := f.answer(q); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (f *feed) answer(q *syncproto.Heartbeat) error {
	q.Reply, q.T3, q.Head = true, f.s.m.millis(), f.s.m.ledger.head()
	return f.s.conn.Send(q)
}

func (f *feed) ask() error {
	return f.s.conn.Send(&syncproto.Heartbeat{T1: f.s.m.millis(), Head: f.s.m.ledger.head()})
}

// matters reports whether a final batch says more than that the head moved.
func (f *feed) matters(b *syncproto.Batch) bool {
	return !f.begun || len(b.Items) > 0 || len(b.Whole) > 0 || len(b.Outcomes) > 0 || b.Decided > f.decided || len(b.Digests) > 0
}

// send waits until the connection has taken the batch. A slow replica slows its
// own feed: nothing is skipped, and at most one batch is held for it.
func (f *feed) send(b *syncproto.Batch) error {
	f.s.sending.Store(true)
	err := f.s.conn.Send(b)
	f.s.sending.Store(false)
	if err != nil {
		return fmt.Errorf("send batch: %w", err)
	}
	f.s.m.cfg.Metrics.sent(b)
	f.sent(b)
	return nil
}

// sent notes that the replica will apply b.
func (f *feed) sent(b *syncproto.Batch) {
	if !b.Final {
		f.staged = true
		return
	}
	f.cursor, f.decided, f.begun, f.staged, f.resume = b.To, b.Decided, true, false, 0
	clear(f.digests)
	clear(f.resend)
	for _, w := range f.ways {
		w.at, w.whole, w.skip = atEnd(b.To), false, 0
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.sent = b.To
}

// giveUp tells the replica why its feed ends.
func (f *feed) giveUp(err error) error {
	f.s.m.sendRefusal(f.s.conn, err)
	return err
}

// next reads the next batch in one transaction.
func (f *feed) next() (b *syncproto.Batch, err error) {
	err = f.s.m.ledger.db().View(func(tx *store.Tx) error {
		b, err = f.read(tx)
		return err
	})
	return b, err
}

func (f *feed) read(tx *store.Tx) (*syncproto.Batch, error) {
	s, err := f.s.m.standingIn(tx, f.s.node)
	if err != nil {
		return nil, err
	}
	if err := s.belongs(auth.Identity{Role: auth.RoleReplica, Site: f.site, Node: uint32(f.s.node)}); err != nil {
		return nil, err
	}
	trimmed, err := trimmedIn(tx)
	if err != nil {
		return nil, err
	}
	f.align(s.roster.sites[f.site].Grants, s.head, trimmed)
	b := &syncproto.Batch{Timeline: s.timeline, From: f.cursor, To: s.head, Final: true, Decided: s.state.LastSeq}
	if b.From > b.To {
		return nil, &crm.Error{Code: crm.CodeInternal, Op: "read feed", Message: fmt.Sprintf("the replica is at rev %d, this master at %d", b.From, b.To)}
	}
	for _, t := range sortedKeys(f.ways) {
		if f.ways[t].whole {
			b.Whole = append(b.Whole, t)
		}
	}
	p := &packer{feed: f, tx: tx, batch: b, left: partBudget}
	if err := p.outcomes(); err != nil {
		return nil, err
	}
	if err := p.items(); err != nil {
		return nil, err
	}
	if !b.Final {
		b.Outcomes = nil
		return b, nil
	}
	return b, p.digests()
}

// align makes the ways those of the territories granted now. A territory is
// begun anew, whole, if it was granted above the Cursor, if the replica asked
// for it, or if markers that it needs are gone.
func (f *feed) align(grants []grant, head, trimmed crm.Rev) {
	granted := map[crm.TerritoryID]crm.Rev{crm.Shared: 0}
	for _, g := range grants {
		granted[g.Territory] = g.Rev
	}
	for t := range f.ways {
		if _, still := granted[t]; !still {
			delete(f.ways, t)
		}
	}
	for t, rev := range granted {
		if w := f.ways[t]; w == nil || w.grant != rev {
			f.ways[t] = f.begin(t, rev, head, trimmed)
			f.digests[t] = true
		}
	}
}

// begin returns where to start with a territory.
func (f *feed) begin(t crm.TerritoryID, granted, head, trimmed crm.Rev) *way {
	w := &way{grant: granted, whole: f.cursor == 0 || granted > f.cursor || f.resend[t] || f.cursor < trimmed}
	switch {
	case !w.whole:
		w.at = atEnd(max(f.cursor, f.resume))
	case f.resume >= granted && f.resume >= trimmed && !f.resend[t]:
		w.at = atEnd(f.resume) // the parts up to there were read after the grant
	case !f.staged:
		w.skip = head
	}
	return w
}

func trimmedIn(tx *store.Tx) (crm.Rev, error) {
	b, err := tx.Meta(metaTrimmed)
	if err != nil || len(b) != 8 {
		return 0, err
	}
	return crm.Rev(binary.BigEndian.Uint64(b)), nil
}

// A packer fills one batch from one transaction.
type packer struct {
	*feed
	tx    *store.Tx
	batch *syncproto.Batch
	left  int // bytes
}

// outcomes lists what became of the replica's Mutations since the Cursor, where
// that is more than acceptance. If they are very many, their messages are left
// out: the attention list has them.
func (p *packer) outcomes() error {
	size := 0
	for o, err := range p.tx.Outcomes(p.s.node, p.decided) {
		if err != nil {
			return err
		}
		if o.Rev <= p.cursor {
			continue
		}
		if size += syncproto.OutcomeSize(o); size > syncproto.BatchBudget/2 {
			o.Message = ""
		}
		p.batch.Outcomes = append(p.batch.Outcomes, o)
	}
	return nil
}

// items adds changed records in order of the feed. If they do not fit, the batch
// becomes a part.
func (p *packer) items() error {
	m, err := p.merge()
	if err != nil {
		return err
	}
	defer m.stop()
	for m.more() {
		at, entry := m.head()
		it, ok, err := p.item(at.territory, entry)
		if err != nil {
			return err
		}
		if ok {
			if p.left -= it.Size(); p.left < 0 && len(p.batch.Items) > 0 {
				p.cut(at)
				return nil
			}
			p.batch.Items = append(p.batch.Items, it)
		}
		p.feed.digests[at.territory] = true
		p.advance(at)
		if err := m.next(); err != nil {
			return err
		}
	}
	return nil
}

// advance notes that everything up to at has been sent.
func (p *packer) advance(at place) {
	for _, w := range p.ways {
		if w.at.compare(at) < 0 {
			w.at = at
		}
	}
}

// cut ends the batch before the entry at next.
func (p *packer) cut(next place) {
	p.batch.Final = false
	p.batch.Upto = next.rev - 1
}

// item returns what the replica must be told of an entry; ok is false if that
// is nothing.
func (p *packer) item(t crm.TerritoryID, entry store.FeedEntry) (it syncproto.Item, ok bool, err error) {
	r, err := p.tx.Record(entry.Entity, entry.ID)
	if err != nil {
		return it, false, err
	}
	w := p.ways[t]
	it = syncproto.Item{Kind: syncproto.ItemRecord, Entity: entry.Entity, ID: entry.ID}
	switch {
	case entry.Left:
		if entry.Rev <= w.skip || r != nil && p.tells(r) {
			return it, false, nil // never sent, or its new territory's feed has it
		}
		it.Kind, it.Rev = syncproto.ItemLeft, entry.Rev
		return it, true, nil
	case r == nil:
		return it, false, &crm.Error{Code: crm.CodeCorrupt, Op: "read feed", Item: entry.ID.String(), Message: "the feed names a record that is not there; run `tradepost check`"}
	case r.Deleted:
		if entry.Rev <= w.skip {
			return it, false, nil
		}
		it.Kind = syncproto.ItemDeleted
	}
	if !w.whole {
		r, it.Partial = syncproto.Delta(r, p.cursor)
	}
	it.Body = crm.AppendRecord(nil, r)
	return it, true, nil
}

// tells reports whether the feed of its territory tells the replica what became
// of r.
func (p *packer) tells(r *crm.Record) bool {
	w := p.ways[r.Territory]
	return w != nil && !(r.Deleted && r.Stamp.Rev <= w.skip)
}

// digests adds those of the territories that changed since they were last sent.
func (p *packer) digests() error {
	for _, t := range sortedKeys(p.feed.digests) {
		if p.ways[t] == nil {
			continue
		}
		d, err := p.tx.Digest(t)
		if err != nil {
			return err
		}
		sum := syncproto.TerritoryDigest{Territory: t}
		copy(sum.Sum[:], d[:])
		p.batch.Digests = append(p.batch.Digests, sum)
	}
	return nil
}

// A merger yields the feeds of several territories as one, in order of place.
type merger struct{ runs []*run }

// A run is the rest of one territory's feed.
type run struct {
	territory crm.TerritoryID
	pull      func() (store.FeedEntry, error, bool)
	stop      func()
	entry     store.FeedEntry
	at        place
}

func (p *packer) merge() (*merger, error) {
	m := &merger{}
	for _, t := range sortedKeys(p.ways) {
		from := p.ways[t].at
		since := from.rev
		if since > 0 && from != atEnd(since) {
			since-- // the place lies amid the entries of its Rev
		}
		r := &run{territory: t}
		r.pull, r.stop = iter.Pull2(p.tx.Feed(t, since))
		m.runs = append(m.runs, r)
		for first := true; first || r.pull != nil && r.at.compare(from) <= 0; first = false {
			if err := r.advance(); err != nil {
				m.stop()
				return nil, err
			}
		}
	}
	m.drop()
	return m, nil
}

// advance reads the run's next entry; pull is nil when there is none.
func (r *run) advance() error {
	e, err, ok := r.pull()
	if err != nil {
		return err
	}
	if !ok {
		r.pull = nil
		return nil
	}
	r.entry, r.at = e, place{e.Rev, e.Entity, e.ID, r.territory}
	return nil
}

// drop forgets the runs that have ended and puts the first in front.
func (m *merger) drop() {
	rest := m.runs[:0]
	for _, r := range m.runs {
		if r.pull == nil {
			r.stop()
			continue
		}
		rest = append(rest, r)
		if n := len(rest) - 1; rest[n].at.compare(rest[0].at) < 0 {
			rest[0], rest[n] = rest[n], rest[0]
		}
	}
	m.runs = rest
}

func (m *merger) more() bool { return len(m.runs) > 0 }

func (m *merger) head() (place, store.FeedEntry) { return m.runs[0].at, m.runs[0].entry }

func (m *merger) next() error {
	if err := m.runs[0].advance(); err != nil {
		return err
	}
	m.drop()
	return nil
}

func (m *merger) stop() {
	for _, r := range m.runs {
		r.stop()
	}
}
