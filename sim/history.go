package sim

import (
	"iter"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A History is what one run recorded, in the order in which it happened. The
// invariants are functions of it alone.
type History struct {
	Edits     []*Edit             // by ID, without a gap: Edits[0] is edit 1
	Timelines []*Timeline         // in the order in which they began
	Entries   []Entry             // of the log, as it stands at the end
	Rulings   []Applied           // what each master made of each entry
	Marks     []Mark              // accumulators of masters
	Positions []Position          // of replicas, whenever one moved
	Openings  []Opening           // of replicas' files
	Looks     []Look              // reads
	Heads     []Head              // of masters, whenever one committed
	Trims     []Trim              // what was trimmed, and what was needed
	Stocks    []*Stock            // what a node held at an instant
	Answers   []Answer            // what authors were told in the end
	Refusals  []Refusal           // nodes that were fenced, frozen or told to leave
	Untold    []DiskID            // copied or put back, and not told which of their edits the masters have
	Damages   []*Damage           // done to replicas' bases
	Alarms    []Alarm             // of replicas
	Asked     []Asked             // for repairs
	Purges    []Purge             // files searched after a purge was acknowledged
	Sites     map[crm.NodeID]Site // of all nodes

	Quiet   time.Duration // when the last fault was mended
	Settled time.Duration // when everything had converged after that; 0: it never did
	Usage   Usage

	Unsettled string // what differs if Settled is 0
}

// A Site says where a node is.
type Site struct {
	Name string // of the node: r1
	Site string // of its site record
	Role string // master or replica
}

// An Entry is a place of the log.
type Entry struct {
	Index, Term uint64
	Bytes       []byte
}

// Applied is what a master made of an entry, beside the model's opinion.
type Applied struct {
	At     time.Duration
	Master crm.NodeID
	Index  uint64
	Got    []Ruling
	Want   []Ruling
	GotNo  crm.Code // the entry was refused whole
	WantNo crm.Code
}

// A Mark is a master's accumulator after an index.
type Mark struct {
	Master   crm.NodeID
	Timeline uint64
	Index    uint64
	Sum      [32]byte
}

// A Position is how far a replica is, with the digests it holds.
type Position struct {
	At       time.Duration
	Disk     DiskID
	Rebased  bool    // the base was emptied since the last one, in order to be filled again
	Timeline uint64  // of what readers see
	Rev      crm.Rev // of what readers see
	Moving   bool    // the base is being moved to another timeline; the following are of that one
	Decided  crm.Seq // own Mutations up to here are decided
	Last     crm.Seq
	Digests  map[crm.TerritoryID]store.Digest // of the territories granted; nil: not read
}

// An Opening is the state of a replica's journal at the end of Open.
type Opening struct {
	At      time.Duration
	Disk    DiskID
	Held    map[EditID]bool // in outbox or tail
	Decided crm.Seq
	Why     string // what ended the process before
}

// A Look is a read at some level, answered or not.
type Look struct {
	At      time.Duration
	Disk    DiskID
	Demand  crm.Demand
	Fresh   crm.Freshness
	Code    crm.Code // why it was not answered; then nothing else is set
	Known   crm.Rev  // a Leader look: the newest Rev that anybody had been told of when it was asked
	Head    crm.Rev  // a Bounded look: the least head of any master at the bound
	Skewed  bool     // the node's clock was set within the bound, so that it cannot tell
	Damaged bool     // the base is known to be damaged
	Renamed crm.Seq  // a Session look: the number that its Mark's Seq goes by now

	Listed  []crm.RecordID // accounts, as a list in order of their names
	Scanned []crm.RecordID // accounts, as a scan by id
}

// A Head is what a master shows from an instant on.
type Head struct {
	At       time.Duration
	Master   crm.NodeID
	Timeline uint64
	Rev      crm.Rev
}

// A Trim is an entry that drops tombstones and markers, with the Cursor of each
// active replica at that time.
type Trim struct {
	At    time.Duration
	Rev   crm.Rev
	Needs map[crm.NodeID]crm.Rev
}

// A Stock is what a node held at an instant.
type Stock struct {
	At       time.Duration
	Disk     DiskID
	Last     bool // taken after the run had settled
	Role     string
	Timeline uint64
	Lineage  crm.Lineage
	Rev      crm.Rev
	Base     []*crm.Record   // live, by entity and id
	Dead     []*crm.Record   // tombstones
	Pending  []*crm.Mutation // by Seq
	Shown    []*crm.Record   // that the overlay changes, as readers see them
	Findings []string        // of the node's own check
}

// Records yields Base.
func (s *Stock) Records() iter.Seq[*crm.Record] {
	return func(yield func(*crm.Record) bool) {
		for _, r := range s.Base {
			if !yield(r) {
				return
			}
		}
	}
}

// An Answer is what the node that took an edit says of it at the end.
type Answer struct {
	Edit    EditID
	Disk    DiskID
	Seq     crm.Seq // its number there at the end
	Decided bool
	Outcome crm.Outcome
}

// A Refusal is a node that the masters would not have any more, or that would
// not go on itself.
type Refusal struct {
	At     time.Duration
	Disk   DiskID
	Code   crm.Code      // fenced, frozen, node_removed
	Lifted time.Duration // when an administrator decided for this disk, or the masters lost it with a restore; 0: never
}

// A Purge is the search of a node's files for values of records that it may not
// hold, after its proof of the purge was decided.
type Purge struct {
	At    time.Duration
	Disk  DiskID
	Found []EditID          // whose canaries are in the files
	In    map[EditID]string // a file of each
	May   map[EditID]bool
}

// Usage is what a run cost at most, for the bounds.
type Usage struct {
	Frames int   // under way or held at once
	Bytes  int64 // of one node's files
	Outbox int   // entries
}

// Edit returns an edit, nil for 0.
func (h *History) Edit(id EditID) *Edit {
	if id < 1 || int(id) > len(h.Edits) {
		return nil
	}
	return h.Edits[id-1]
}

// Timeline returns the timeline of that number, nil if there is none.
func (h *History) Timeline(id uint64) *Timeline {
	for _, t := range h.Timelines {
		if t.ID == id {
			return t
		}
	}
	return nil
}

// At returns the timeline that tells what was decided at a Rev of another: that
// one, or the ancestor that it has the Rev from.
func (h *History) At(id uint64, rev crm.Rev) *Timeline {
	for i, t := range h.Timelines {
		if t.ID != id {
			continue
		}
		for ; i > 0 && rev < h.Timelines[i].Begin; i-- {
		}
		return h.Timelines[i]
	}
	return nil
}

// Newest returns the timeline that the run ended in.
func (h *History) Newest() *Timeline { return h.Timelines[len(h.Timelines)-1] }

// lasting yields the timelines with the last Rev of each that the next one goes
// on from, or that the run ended at.
func (h *History) lasting() iter.Seq2[*Timeline, crm.Rev] {
	return func(yield func(*Timeline, crm.Rev) bool) {
		for i, t := range h.Timelines {
			last := t.Head()
			if i+1 < len(h.Timelines) {
				last = h.Timelines[i+1].Begin
			}
			if !yield(t, last) {
				return
			}
		}
	}
}

// Decided returns the decision about an edit that lasts, nil if there is none.
func (h *History) Decided(e EditID) *Decision {
	for t, last := range h.lasting() {
		if d := t.Of(e); d != nil && d.Rev <= last {
			return d
		}
	}
	return nil
}

// acked yields the edits that their authors were told are safe.
func (h *History) acked() iter.Seq[*Edit] {
	return func(yield func(*Edit) bool) {
		for _, e := range h.Edits {
			if e != nil && e.Acked && !yield(e) {
				return
			}
		}
	}
}
