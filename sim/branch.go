package sim

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// How long a branch waits for things.
const (
	backoffMin  = time.Second
	backoffMax  = 30 * time.Second
	dialTimeout = 10 * time.Second
)

// A branchNode is a replica: package replica without Run, whose loops are steps
// here.
type branchNode struct {
	*node
	diskID   DiskID
	protocol uint16 // the newest version that its program speaks; 0: syncproto.MaxVersion
	rep      *replica.Replica
	relay    bool    // it serves others
	serving  *server // nil: it never did
	rosters  session.Rosters
	talk     *replica.Talk // nil between sessions
	end      *end
	with     string // the node that it is in session with

	hosts    []string // to be tried in this round
	bound    time.Duration
	attempt  int // counts tries, so that a late answer to an early one is known
	wakeAt   time.Duration
	tidyAt   time.Duration
	looks    []*pendingLook
	refused  crm.Code           // why the masters will not have it; "": they will
	untidy   bool               // something is to be purged
	alarmed  bool               // something is suspect
	anew     time.Duration      // when its base was last emptied
	scrubbed [2][]byte          // how far the scrub of base and journal has come
	copied   time.Duration      // when its files were last copied
	seqs     map[EditID]crm.Seq // the numbers that its edits go by
	retired  string             // why an administrator has stopped it for good; "": nobody has

	shown   Position // the last one recorded
	rebased bool     // the base was emptied since
}

// start opens the files and begins to look for a master.
func (b *branchNode) start() (err error) {
	b.life++
	b.talk, b.end, b.looks, b.bound, b.wakeAt, b.tidyAt = nil, nil, nil, backoffMin, 0, 0
	b.alarmed, b.scrubbed = false, [2][]byte{}
	b.rep, err = replica.Open(replica.Config{Dir: b.dir, ID: replica.ID{Cluster: cluster, Site: b.site, Node: b.id},
		Protocol: b.protocol, Relay: b.relaying(), Dial: noDial, Masters: func() []string { return nil }, Now: b.now, Rand: byteSource{b.w.dice.For("rand " + b.name)},
		Logger: b.w.logger(b.name), Store: b.options(), BackoffMin: backoffMin, BackoffMax: backoffMax, CompactEvery: 20 * time.Second})
	if err != nil {
		return fmt.Errorf("start %s: %w", b.name, err)
	}
	b.up, b.rosters = true, session.Rosters{}
	if b.relay {
		b.open()
	}
	b.opened()
	b.note("starts at %s", b.where())
	b.connect()
	b.tidySoon(time.Second)
	b.after(upTo(b.w.dice.For("scrub "+b.name), scrubPace), b.scrub)
	b.after(nearerPace, b.nearer)
	return nil
}

func noDial(context.Context, string) (net.Conn, error) { return nil, errNoUpstream }

func (b *branchNode) stop() error {
	if b.rep == nil {
		return nil
	}
	defer func() { b.rep = nil }()
	return b.rep.Close()
}

// where prints how far the node is.
func (b *branchNode) where() string {
	s := b.rep.Status()
	return fmt.Sprintf("rev %d, seq %d, decided %d, staged %d", s.Cursor, s.Seq, s.Decided, s.Staged)
}

// connect begins a round through who may serve the node, in an order of its own:
// relays first.
func (b *branchNode) connect() {
	b.hosts = b.relaysFor()
	for i := range b.w.masters {
		b.hosts = append(b.hosts, b.w.masters[(i+int(b.id))%len(b.w.masters)].name)
	}
	b.try(nil)
}

// try dials the next of the round; after the last one it waits.
func (b *branchNode) try(err error) {
	b.attempt++
	if err != nil {
		b.note("is without a master: %s", crm.CodeOf(err))
		b.judgeRefusal(err)
	}
	if len(b.hosts) == 0 || b.refused != "" {
		wait := upTo(b.w.dice.For("backoff "+b.name), b.bound)
		b.bound = min(2*b.bound, backoffMax)
		b.refused = ""
		b.after(wait, b.connect)
		return
	}
	to := b.hosts[0]
	b.hosts = b.hosts[1:]
	b.dial(to, true)
}

// judgeRefusal notes that a person must act before this node goes on.
func (b *branchNode) judgeRefusal(err error) {
	switch c := crm.CodeOf(err); c {
	case crm.CodeFenced, crm.CodeFrozen, crm.CodeRemoved:
		b.refused, b.bound = c, backoffMax
		b.w.refusal(b.diskID, c)
	}
}

// dial opens a stream and introduces the node on it.
func (b *branchNode) dial(to string, retry bool) {
	attempt, life := b.attempt, b.life
	fresh := func() bool { return b.attempt == attempt }
	b.after(dialTimeout, func() {
		if fresh() && b.talk == nil {
			b.hangUp()
			b.try(errors.New("the handshake took too long"))
		}
	})
	b.w.net.Dial(b.name, to, func(e *end, err error) {
		if !b.up || b.life != life || !fresh() {
			if e != nil {
				e.Close()
			}
			return
		}
		b.resume(life, func() {
			if err != nil {
				b.try(err)
				return
			}
			b.introduce(to, e, retry)
		})
	})
}

func (b *branchNode) introduce(to string, e *end, retry bool) {
	h, err := b.rep.Hello()
	if err != nil {
		e.Close()
		b.failed("introduce itself", err)
		b.try(err)
		return
	}
	b.moved()
	asked, life := b.now(), b.life
	h.Sent = asked.UnixMilli()
	b.end = e
	e.Ended = func(err error) { b.resume(life, func() { b.lost(e, err) }) }
	e.Hear = func(f syncproto.Frame) {
		b.resume(life, func() {
			switch {
			case b.end != e:
			case b.talk != nil:
				b.hear(f)
			default:
				b.greeted(to, h, f, asked, retry)
			}
		})
	}
	b.send(h)
}

func (b *branchNode) greeted(to string, h *syncproto.Hello, f syncproto.Frame, asked time.Time, retry bool) {
	if w, ok := f.(*syncproto.Welcome); ok && w.LastSeq >= h.NextSeq && len(w.Trail) == 0 {
		b.w.record.Untold = append(b.w.record.Untold, b.diskID)
	}
	talk, err := b.rep.Greeted(h, f, asked)
	b.held()
	b.moved()
	switch {
	case replica.Again(err) && retry:
		b.rebased = b.rep.Status().Cursor == 0
		b.moved()
		b.hangUp()
		b.attempt++
		b.dial(to, false)
	case err != nil:
		b.hangUp()
		b.failed("take a welcome", err)
		b.try(err)
	default:
		b.talk, b.with, b.bound = talk, to, backoffMin
		if b.w.branchOf(b.w.node(to)) != nil {
			b.w.count("other sessions with a relay")
		}
		if talk.Version() != b.end.spoken {
			b.w.fail("%s speaks version %d after a Welcome of version %d", b.name, talk.Version(), b.end.spoken)
		}
		b.attempt++
		b.pump()
		b.tidySoon(0)
	}
}

func (b *branchNode) send(frames ...syncproto.Frame) {
	if b.end == nil {
		return
	}
	if err := b.end.Send(frames...); err != nil {
		b.w.fail("%s: %v", b.name, err)
	}
}

func (b *branchNode) hear(f syncproto.Frame) {
	if err := b.talk.Hear(f); err != nil {
		b.failed("hear a "+f.Kind().String(), err)
		b.moved()
		b.leave(err)
		return
	}
	b.moved()
	if f.Kind() == syncproto.KindBatch {
		b.tidySoon(0)
	}
	b.pump()
}

// pump sends what is due and sees that the rest is looked at in time.
func (b *branchNode) pump() {
	for b.talk != nil {
		frames, err := b.talk.Due()
		b.asks(frames)
		b.send(frames...)
		if err != nil {
			b.failed("send", err)
			b.leave(err)
			return
		}
		next := b.talk.Next().Sub(b.now())
		if next <= 0 {
			continue
		}
		b.wake(b.w.agenda.now + next)
		return
	}
}

// asks records the repairs among frames to be sent.
func (b *branchNode) asks(frames []syncproto.Frame) {
	for _, f := range frames {
		if f, ok := f.(*syncproto.Repair); ok {
			for _, w := range f.Wants {
				b.w.record.Asked = append(b.w.record.Asked, Asked{b.w.agenda.now, b.diskID, w.Territory, w.Buckets.Len()})
			}
			b.w.count("error repair asked for")
		}
	}
}

func (b *branchNode) wake(at time.Duration) {
	if b.wakeAt > b.w.agenda.now && b.wakeAt <= at {
		return
	}
	b.wakeAt = at
	b.after(at-b.w.agenda.now, func() {
		if b.wakeAt == at {
			b.pump()
		}
	})
}

// lost is told that a stream has ended.
func (b *branchNode) lost(e *end, err error) {
	if b.end == e {
		b.leave(err)
	}
}

// leave ends the conversation and looks for another master after a while.
func (b *branchNode) leave(err error) {
	had := b.talk != nil
	b.hangUp()
	if had {
		b.hosts = nil
	}
	b.try(err)
}

func (b *branchNode) hangUp() {
	if b.talk != nil {
		b.talk.End()
	}
	if b.end != nil {
		b.end.Close()
	}
	b.talk, b.end = nil, nil
}

// failed notes an error of the product that a fault explains; one that none does
// ends the run.
func (b *branchNode) failed(what string, err error) {
	code := crm.CodeOf(err)
	b.note("does not %s: %s", what, code)
	b.w.count("error " + string(code))
	if code == crm.CodeInternal || code == crm.CodeCorrupt && len(b.damages()) == 0 {
		b.w.logger(b.name).Warn("an error that no fault explains", "doing", what, "error", err)
		b.note("because %v", err)
	}
}

// tidySoon has purged bytes removed, as production does in a loop of its own.
func (b *branchNode) tidySoon(d time.Duration) {
	at := b.w.agenda.now + d
	if b.tidyAt > b.w.agenda.now && b.tidyAt <= at {
		return
	}
	b.tidyAt = at
	b.after(d, func() {
		if b.tidyAt != at {
			return
		}
		b.tidyAt = 0
		wait, err := b.rep.Tidy(context.Background())
		if err != nil {
			b.failed("tidy", err)
		}
		b.moved()
		b.pump()
		if b.untidy = wait >= 0; b.untidy {
			b.tidySoon(max(wait, 50*time.Millisecond))
		}
	})
}

// moved records the position if it has changed, and answers the looks that
// waited for it.
func (b *branchNode) moved() {
	b.watch()
	if b.serving != nil && b.relay {
		defer b.serving.committed()
	}
	s := b.rep.Status()
	if s.Moving {
		b.lookAgain()
		return // the base is not at the Cursor of the timeline that it goes over to
	}
	p := Position{At: b.w.agenda.now, Disk: b.diskID, Timeline: s.Timeline, Rev: s.Cursor, Decided: s.Decided, Last: s.Seq, Rebased: b.rebased}
	if timeline, rev := b.base(); rev > 0 {
		p.Timeline, p.Rev, p.Moving = timeline, rev, timeline != s.Timeline
	}
	if p.Timeline == b.shown.Timeline && p.Rev == b.shown.Rev && p.Moving == b.shown.Moving && p.Decided == b.shown.Decided && p.Last == b.shown.Last && p.Disk == b.shown.Disk && !b.rebased {
		return
	}
	if p.Rev != b.shown.Rev || p.Timeline != b.shown.Timeline || p.Disk != b.shown.Disk {
		if len(b.damages()) == 0 {
			p.Digests = b.digests()
		}
		b.note("stands at %s", b.where())
	}
	if b.rebased {
		b.anew = p.At
	}
	b.shown, b.rebased = p, false
	b.w.record.Positions = append(b.w.record.Positions, p)
	b.w.record.Usage.Outbox = max(b.w.record.Usage.Outbox, s.Outbox.Entries)
	b.w.judge(onPosition)
	b.lookAgain()
}

// base returns the state that the base holds: what readers see.
func (b *branchNode) base() (timeline uint64, rev crm.Rev) {
	_, base := b.rep.Files()
	err := base.View(func(tx *store.Tx) (err error) {
		if rev, err = tx.Rev(); err == nil {
			timeline, err = tx.Timeline()
		}
		return err
	})
	if err != nil {
		b.failed("read where its base stands", err)
		return 0, 0
	}
	return timeline, rev
}

// digests reads those of all territories that have a record.
func (b *branchNode) digests() map[crm.TerritoryID]store.Digest {
	out := map[crm.TerritoryID]store.Digest{}
	_, base := b.rep.Files()
	err := base.View(func(tx *store.Tx) error {
		for _, t := range slices.Collect(tx.Territories()) {
			d, err := tx.Digest(t)
			if err != nil {
				return err
			}
			out[t] = d
		}
		return nil
	})
	if err != nil {
		b.failed("read digests", err)
		return nil
	}
	return out
}

// opened records what the journal holds after Open.
func (b *branchNode) opened() {
	o := Opening{At: b.w.agenda.now, Disk: b.diskID, Held: b.held(), Why: b.down, Decided: b.rep.Status().Decided}
	b.shown = Position{}
	b.w.record.Openings = append(b.w.record.Openings, o)
	b.w.judge(onOpening)
	b.moved()
}

// held returns the edits in outbox and tail, and notes the numbers that they go
// by: these change when a disk was put back.
func (b *branchNode) held() map[EditID]bool {
	out := map[EditID]bool{}
	if b.seqs == nil {
		b.seqs = map[EditID]crm.Seq{}
	}
	journal, _ := b.rep.Files()
	err := journal.View(func(j *store.JTx) error {
		for _, part := range []func(crm.Seq) iter.Seq2[store.Entry, error]{j.Outbox, j.Tail} {
			for e, err := range part(0) {
				if err != nil {
					return err
				}
				if e.Withheld { // it was decided, and its record has left; its number goes on
					out[b.numbered(e.Seq)] = true
					continue
				}
				m, err := crm.DecodeMutation(e.Bytes)
				if err != nil {
					return err
				}
				out[editBy(m.Actor)] = true
				b.seqs[editBy(m.Actor)] = e.Seq
			}
		}
		return nil
	})
	if err != nil {
		b.w.fail("%s cannot read its journal: %w", b.name, err)
	}
	return out
}

// numbered returns the edit that goes by a number, 0 if that is not known.
func (b *branchNode) numbered(s crm.Seq) EditID {
	for e, seq := range b.seqs {
		if seq == s && e != 0 {
			return e
		}
	}
	return 0
}

func (b *branchNode) path(file string) string { return filepath.Join(b.dir, file) }
