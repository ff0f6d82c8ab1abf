package crm

import (
	"iter"
	"slices"
	"time"
)

// A View is the state that a Mutation is judged against: the master's decided
// records inside the deciding transaction, or a branch's base with its overlay.
// Errors of a View are failures of the store, never of the Mutation.
type View interface {
	Schema() *Schema
	// Record returns the live record or its tombstone, or nil if neither exists.
	Record(EntityID, RecordID) (*Record, error)
	// Lookup returns the live record whose unique field has the value.
	Lookup(*Entity, *Field, Value) (RecordID, bool, error)
	// Children yields the live records of the child entity whose link field is parent.
	Children(c Child, parent RecordID) iter.Seq2[*Record, error]
	// Deleted yields the tombstones of the child entity whose link field is parent.
	Deleted(c Child, parent RecordID) iter.Seq2[*Record, error]
	// Under yields every live record whose Root is root, root itself excluded.
	Under(root RecordID) iter.Seq2[*Record, error]
	// Refused returns the attention record of the rejected Mutation that would
	// have created the record.
	Refused(RecordID) (RecordID, bool, error)
	// TerritoryByCode returns the number of the territory with that code.
	TerritoryByCode(code string) (TerritoryID, bool, error)
	// NextNumber returns the number that the next territory or node gets.
	NextNumber(EntityID) (int64, error)
}

// A Request is an edit before a node has taken it: what becomes a Mutation.
type Request struct {
	Actor  string
	Intent string
	Ops    []Op
	Guards []Guard
}

// Mutation returns what a node whose base has lineage l makes of r, without its
// number, clock and chain: in the Timeline of the base, and with of each Op's
// Seen what the node can vouch for. A token of another node says nothing of the
// edits pending here, one of an earlier timeline counts up to the fork, one of an
// unknown timeline for nothing. If named is false the masters speak version 1,
// to which the Timeline cannot be told.
func (r Request) Mutation(node NodeID, l Lineage, named bool) *Mutation {
	m := &Mutation{Node: node, Actor: r.Actor, Intent: r.Intent, Ops: slices.Clone(r.Ops), Guards: r.Guards}
	if named {
		m.Timeline = l.Timeline
	}
	for i := range m.Ops {
		op := &m.Ops[i]
		op.Cells, op.Seen = slices.Clone(op.Cells), l.vouch(op.Seen, node)
		op.Seen.Timeline = uint32(m.Timeline)
	}
	return m
}

// A Receipt says how far a Request has come.
type Receipt struct {
	Node    NodeID
	Seq     Seq
	Outcome *Outcome // nil while the master has not decided: "saved here"
}

// Level is a consistency demand on a read (DESIGN §5.7).
type Level string

// The levels.
const (
	Local   Level = "local"   // this node, now
	Session Level = "session" // at least what the session token names
	Bounded Level = "bounded" // at most MaxStale behind the master
	Leader  Level = "leader"  // linearizable, through the master's leader
)

// A Demand is a Level with its parameters.
type Demand struct {
	Level    Level
	MaxStale time.Duration // of Bounded
	Session  Mark          // of Session
}

// A Mark is a position a reader has reached: everything decided up to Rev in
// the Timeline, and Mutations of Node up to Seq.
type Mark struct {
	Timeline uint64
	Rev      Rev
	Node     NodeID
	Seq      Seq
}

// Freshness says what a read was answered from.
type Freshness struct {
	Mark
	AsOf      time.Time // when the master was at Rev, as far as this node knows
	Pending   int       // Mutations of this node the master has not decided
	Connected bool      // whether the node hears from a master now; true on masters with a leader
}

// A Change tells a subscriber that a record of this node is not what it was.
type Change struct {
	Entity  EntityID
	Record  RecordID
	Rev     Rev // Pending for an edit taken here and not decided yet
	Deleted bool
	Left    bool // it left the territories this node holds
}
