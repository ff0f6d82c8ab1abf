package syncproto

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// MaxPush bounds the Mutations of one Push or Forward together, in bytes of
// their canonical encoding.
const MaxPush = 256 << 10

// A Push carries consecutive Mutations of the sending replica.
type Push struct {
	First     crm.Seq  // number of Mutations[0]
	Mutations [][]byte // canonical encodings, at least one, at most MaxPush together
}

// Kind returns KindPush.
func (*Push) Kind() Kind { return KindPush }

func (f *Push) fields(c *codec) {
	number(c, "first", &f.First)
	c.mutations("mutations", &f.Mutations)
}

func (c *codec) mutations(name string, v *[][]byte) {
	total := 0
	each(c, name, v, MaxPush/minMutation, 1+minMutation, func(m *[]byte) {
		c.bytes("encoding", m, minMutation, crm.MaxMutation)
		if total += len(*m); total > MaxPush {
			c.fail("encoding", "%d bytes of mutations are over %d", total, MaxPush)
		}
	})
	if len(*v) == 0 {
		c.fail(name, "no mutation")
	}
}

// minMutation is the least a canonical encoding can take: version, node,
// incarnation, seq, chain hash, time, three empty fields and two empty lists.
const minMutation = 4 + 16 + 8 + 3 + 2

// A Pushed says that the Mutations up to Seq are durable in the masters' log.
// It is not an outcome: those come in the feed.
type Pushed struct {
	Seq crm.Seq
}

// Kind returns KindPushed.
func (*Pushed) Kind() Kind { return KindPushed }

func (f *Pushed) fields(c *codec) { number(c, "seq", &f.Seq) }

// A Busy asks to push again later, from the last Pushed on.
type Busy struct {
	RetryAfterMillis uint32 // at most an hour
	Reason           string
}

// Kind returns KindBusy.
func (*Busy) Kind() Kind { return KindBusy }

func (f *Busy) fields(c *codec) {
	atMost(c, "retry_after_ms", &f.RetryAfterMillis, maxBusy)
	c.message("reason", &f.Reason)
}

// A Gap says that a Push began after the number the master expects.
type Gap struct {
	Expected crm.Seq
}

// Kind returns KindGap.
func (*Gap) Kind() Kind { return KindGap }

func (f *Gap) fields(c *codec) { number(c, "expected", &f.Expected) }

// A Fenced tells a node that its disk is an old copy: the cluster knows a newer
// incarnation of it. The node must be admitted again before it writes.
type Fenced struct {
	Incarnation crm.Incarnation // the one the cluster knows
	Reason      string
}

// Kind returns KindFenced.
func (*Fenced) Kind() Kind { return KindFenced }

func (f *Fenced) fields(c *codec) {
	number(c, "incarnation", &f.Incarnation)
	c.message("reason", &f.Reason)
}

// A Frozen tells a node that two histories bear its number: an admin must
// choose one.
type Frozen struct {
	Reason string
}

// Kind returns KindFrozen.
func (*Frozen) Kind() Kind { return KindFrozen }

func (f *Frozen) fields(c *codec) { c.message("reason", &f.Reason) }

// A Forward carries a replica's Mutations from a following master to the
// leader.
type Forward struct {
	ID           uint64 // echoed in the answer
	Node         crm.NodeID
	Incarnation  crm.Incarnation
	OffsetMillis int64    // how far the master is ahead of the node's clock, as measured
	Mutations    [][]byte // as in Push
}

// Kind returns KindForward.
func (*Forward) Kind() Kind { return KindForward }

func (f *Forward) fields(c *codec) {
	number(c, "id", &f.ID)
	number(c, "node", &f.Node)
	number(c, "incarnation", &f.Incarnation)
	c.signed("offset_ms", &f.OffsetMillis)
	if f.OffsetMillis > maxMillis || f.OffsetMillis < -maxMillis {
		c.fail("offset_ms", "%d is beyond ±%d", f.OffsetMillis, int64(maxMillis))
	}
	c.mutations("mutations", &f.Mutations)
}

// A Forwarded answers a Forward.
type Forwarded struct {
	ID        uint64
	LastSeq   crm.Seq  // of the node, durable in the log
	RaftIndex uint64   // of the entry that holds it
	Code      crm.Code // "" if all were taken
	Message   string
}

// Kind returns KindForwarded.
func (*Forwarded) Kind() Kind { return KindForwarded }

func (f *Forwarded) fields(c *codec) {
	number(c, "id", &f.ID)
	number(c, "last_seq", &f.LastSeq)
	number(c, "raft_index", &f.RaftIndex)
	c.code("code", &f.Code)
	c.message("message", &f.Message)
}

// AskKind says what a node asks the leader. Numbers are sent: never renumber.
type AskKind uint8

// The questions.
const (
	AskLeader  AskKind = 1 // are you still the leader, and what is committed?
	AskBarrier AskKind = 2 // apply everything before now, then what is applied?
)

// String returns the question's name.
func (k AskKind) String() string {
	switch k {
	case AskLeader:
		return "leader"
	case AskBarrier:
		return "barrier"
	}
	return fmt.Sprintf("ask %d", uint8(k))
}

// An Ask is a question whose answer lets a node read what the leader would.
type Ask struct {
	ID   uint64 // echoed in the answer
	What AskKind
}

// Kind returns KindAsk.
func (*Ask) Kind() Kind { return KindAsk }

func (f *Ask) fields(c *codec) {
	number(c, "id", &f.ID)
	choice(c, "what", &f.What, AskBarrier)
}

// An Answer answers an Ask.
type Answer struct {
	ID      uint64
	Index   uint64   // Raft index that a read must have applied
	Rev     crm.Rev  // Rev that a replica's read must have reached
	Code    crm.Code // "" if it could be answered
	Message string
}

// Kind returns KindAnswer.
func (*Answer) Kind() Kind { return KindAnswer }

func (f *Answer) fields(c *codec) {
	number(c, "id", &f.ID)
	number(c, "index", &f.Index)
	c.rev("rev", &f.Rev)
	c.code("code", &f.Code)
	c.message("message", &f.Message)
}
