package session

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// partBudget is the size at which a catch-up is cut, in bytes: small enough to
// cross a slow line before the replica takes silence for death.
const partBudget = 256 << 10

// A Feed brings one replica from its Cursor to the head, and keeps it there.
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
//   - A replica that finds some buckets of a territory wrong makes the feed go back
//     to its Cursor. Their records are then sent from Rev 0, in the same merge,
//     while of the other buckets only what lies above the Cursor is.
//
// Invariant: of territory t, all changes up to ways[t].at have been sent, and
// every part repeats the cells set after cursor. A Feed belongs to one goroutine.
type Feed struct {
	rosters *Rosters
	node    crm.NodeID
	site    string
	server  crm.NodeID // who serves, if it is a relay; 0: a master
	version uint16     // of the protocol that the replica speaks

	timeline uint64  // that the replica was welcomed to
	trimmed  crm.Rev // as last sent
	circle   circle  // whom the replica could serve itself

	cursor  crm.Rev // the replica's base, once it has applied what was sent
	ways    map[crm.TerritoryID]*way
	staged  bool // the replica holds parts of a catch-up
	resume  crm.Rev
	resend  map[crm.TerritoryID]bool
	decided crm.Seq                                 // Decided as last sent
	digests map[crm.TerritoryID]bool                // to be sent with the next final batch
	begun   bool                                    // a final batch was sent
	repair  uint32                                  // Number of the last Repair
	wants   map[crm.TerritoryID]syncproto.BucketSet // of it, until a final batch was sent
}

// A way is how far a territory has been sent.
type way struct {
	grant crm.Rev
	at    place
	whole bool
	skip  crm.Rev             // tombstones and markers up to here are of records that were never sent
	mend  syncproto.BucketSet // buckets whose records are sent whole
}

// NewFeed returns the feed of a replica of the site that was welcomed on its
// Hello. From version 3 on what a replica wants mended it says in a Repair.
func NewFeed(rosters *Rosters, site string, h *syncproto.Hello, w *syncproto.Welcome) *Feed {
	f := &Feed{rosters: rosters, node: h.Node, site: site, version: w.Proto, timeline: w.Timeline, ways: map[crm.TerritoryID]*way{}, resend: map[crm.TerritoryID]bool{}, digests: map[crm.TerritoryID]bool{}}
	if h.Timeline != w.Timeline {
		return f // the Cursor means nothing here: everything is sent whole
	}
	f.cursor, f.staged, f.resume = h.Cursor, h.Staged > 0, h.Staged
	for _, t := range h.Resend {
		f.resend[t] = true
	}
	return f
}

// Cursor returns the To of the last final batch that was sent, or what the Hello
// said.
func (f *Feed) Cursor() crm.Rev { return f.cursor }

// Rewind goes back to where a Repair says that the replica is, and answers it
// with the next final batch. What it wants of territories that are not granted is
// left out.
func (f *Feed) Rewind(r *syncproto.Repair) {
	*f = Feed{rosters: f.rosters, node: f.node, site: f.site, server: f.server, version: f.version, timeline: f.timeline, cursor: r.Cursor, repair: r.Number,
		ways: map[crm.TerritoryID]*way{}, digests: map[crm.TerritoryID]bool{}, wants: map[crm.TerritoryID]syncproto.BucketSet{}}
	for _, w := range r.Wants {
		f.wants[w.Territory] = w.Buckets
	}
}

// foreign returns what a Repair wants of territories that are not granted, once.
func (f *Feed) foreign() (out []crm.TerritoryID) {
	for t := range f.wants {
		if f.ways[t] == nil {
			out = append(out, t)
			delete(f.wants, t)
		}
	}
	return out
}

// Matters reports whether a batch must go at once: it is a part, or says more
// than that the head moved.
func (f *Feed) Matters(b *syncproto.Batch) bool {
	return !b.Final || !f.begun || len(b.Items) > 0 || len(b.Whole) > 0 || len(b.Outcomes) > 0 || b.Decided > f.decided || len(b.Digests) > 0 || len(b.Nodes) > 0
}

// Sent notes that the replica will apply b.
func (f *Feed) Sent(b *syncproto.Batch) {
	f.circle.sent(b)
	if !b.Final {
		f.staged = true
		return
	}
	f.cursor, f.decided, f.begun, f.staged, f.resume = b.To, b.Decided, true, false, 0
	f.trimmed = max(f.trimmed, b.Trimmed)
	clear(f.digests)
	clear(f.resend)
	clear(f.wants)
	for _, w := range f.ways {
		w.at, w.whole, w.skip, w.mend = atEnd(b.To), false, 0, syncproto.BucketSet{}
	}
}

// Next reads the next batch, from one transaction. Its error has code forbidden
// or removed if the node does not belong to the cluster any more.
func (f *Feed) Next(tx *store.Tx) (*syncproto.Batch, error) {
	s, err := f.rosters.Standing(tx, f.node)
	if err != nil {
		return nil, err
	}
	if err := s.Belongs(auth.Identity{Role: auth.RoleReplica, Site: f.site, Node: uint32(f.node)}); err != nil {
		return nil, err
	}
	if err := f.servable(s); err != nil {
		return nil, err
	}
	kept, err := keptIn(tx)
	if err != nil {
		return nil, err
	}
	f.align(s.Roster.Sites[f.site].Grants, s.Head, kept)
	b := &syncproto.Batch{Timeline: s.Timeline, From: f.cursor, To: s.Head, Final: true, Decided: s.State.LastSeq, Repair: f.repair}
	if b.From > b.To {
		return nil, &crm.Error{Code: syncproto.CodeFrame, Op: "read feed", Message: fmt.Sprintf("the replica is at rev %d, this master at %d", b.From, b.To)}
	}
	for _, t := range sortedKeys(f.ways) {
		switch w := f.ways[t]; {
		case w.whole:
			b.Whole = append(b.Whole, t)
		case !w.mend.IsEmpty():
			b.Buckets = append(b.Buckets, syncproto.WholeBuckets{Territory: t, Set: w.mend})
		}
	}
	if f.version >= versionRelays && kept.trimmed > f.trimmed {
		b.Trimmed = kept.trimmed
	}
	p := &packer{Feed: f, tx: tx, batch: b, left: partBudget}
	if err := p.nodes(s.Roster); err != nil || !b.Final {
		return b, err
	}
	if err := p.outcomes(); err != nil {
		return nil, err
	}
	if err := p.items(); err != nil {
		return nil, err
	}
	if !b.Final {
		b.Outcomes, b.Nodes, b.Trimmed = nil, nil, 0
		return b, nil
	}
	if err := p.digests(); err != nil {
		return nil, err
	}
	return b, p.sums()
}

// align makes the ways those of the territories granted now. A territory is
// begun anew, whole, if it was granted above the Cursor, if the replica asked
// for it, or if markers that it needs are not here.
func (f *Feed) align(grants []Grant, head crm.Rev, kept kept) {
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
			f.ways[t] = f.begin(t, rev, head, kept.above(t))
			f.digests[t] = true
		}
	}
}

// begin returns where to start with a territory of which tombstones and markers
// are there above kept.
func (f *Feed) begin(t crm.TerritoryID, granted, head, kept crm.Rev) *way {
	// What is staged may be from another node. It would have sent the territory
	// whole too if that follows from the Cursor and the grant alone.
	whole := f.cursor == 0 || granted > f.cursor
	w := &way{grant: granted, whole: whole || f.resend[t] || f.cursor < kept}
	switch {
	case !w.whole && !f.wants[t].IsEmpty():
		w.mend = f.wants[t] // from the beginning
	case !w.whole:
		w.at = atEnd(max(f.cursor, f.resume))
	case whole && f.resume >= granted && f.resume >= kept && !f.resend[t]:
		w.at = atEnd(f.resume) // the parts up to there were read after the grant
	case !f.staged:
		w.skip = head
	}
	return w
}
