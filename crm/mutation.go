package crm

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// ProtocolVersion is the version of the wire. Its history: 1, the first.
const ProtocolVersion = 1

// The versions of the mutation encoding, each named after the version of the
// wire that brought it. A node writes 2 only once its masters speak it.
const (
	mutationUnnamed = 1 // the first; its Revs do not say which timeline they are of
	mutationNamed   = 2 // with the Timeline
)

// MaxMutation bounds an encoded Mutation, in bytes.
const MaxMutation = 64 << 10

// ChainHash links a node's Mutations: the first 16 bytes of SHA-256(previous
// chain hash ‖ encoded Mutation). The first previous hash is zero.
type ChainHash [16]byte

// A Mutation is what a user asked for: atomic, numbered by the node that
// acknowledged it, and judged once by the master.
type Mutation struct {
	Node        NodeID
	Timeline    uint64 // that the Revs its author saw count in; 0: not named, as in version 1
	Incarnation Incarnation
	Seq         Seq
	Prev        ChainHash // chain hash of the node's Mutation before this one
	HLC         HLC
	Actor       string
	Schema      Rev    // version of the schema the author worked under
	Intent      string // "opportunity.advance": for the audit trail and resubmission
	Ops         []Op
	Guards      []Guard
}

// OpKind says what an op does. Numbers are stored and sent: never renumber.
type OpKind uint8

// The kinds of op.
const (
	OpCreate     OpKind = 1 // Cells are the first values
	OpPatch      OpKind = 2 // Cells are set; Null clears
	OpDelete     OpKind = 3 //
	OpRestore    OpKind = 4 // of a deleted record, as it was
	OpSetAdd     OpKind = 5 // one cell: the Choices to add
	OpSetRemove  OpKind = 6 // one cell: the Choices to remove
	OpCounterAdd OpKind = 7 // one cell: the delta
	OpTransition OpKind = 8 // two cells of one field: from, to
)

var opNames = [...]string{"", "create", "patch", "delete", "restore", "set-add", "set-remove", "counter-add", "transition"}

// String returns the name used in the API and on the attention list.
func (k OpKind) String() string {
	if int(k) < len(opNames) {
		return opNames[k]
	}
	return "op(?)"
}

// An Op changes one record.
type Op struct {
	Kind   OpKind
	Entity EntityID
	Record RecordID
	Seen   Token // what the author's screen showed of the record; in a Mutation, what its node vouches for
	Cells  []Input
}

// An Input is a field and the value asked for it.
type Input struct {
	Field FieldID
	Value Value
}

// GuardKind says what a guard demands. Numbers are stored and sent.
type GuardKind uint8

// The kinds of guard.
const (
	GuardEquals  GuardKind = 1 // the field has the value
	GuardExists  GuardKind = 2 // the record exists
	GuardAbsent  GuardKind = 3 // the record does not exist
	GuardAtLeast GuardKind = 4 // the field's number is at least the value
	GuardAtMost  GuardKind = 5 // the field's number is at most the value
)

// A Guard is a condition on decided state, judged before any op of the
// Mutation; if it is false the whole Mutation is rejected.
type Guard struct {
	Kind   GuardKind
	Entity EntityID
	Record RecordID
	Field  FieldID
	Value  Value
}

// AppendMutation appends the canonical encoding of m, drawn in docs/format.md:
// version 2 if it names its Timeline, else version 1. So what was decoded is
// encoded in the version that it came in.
func AppendMutation(dst []byte, m *Mutation) []byte {
	if m.Timeline == 0 {
		dst = append(dst, mutationUnnamed)
	} else {
		dst = binary.BigEndian.AppendUint64(append(dst, mutationNamed), m.Timeline)
	}
	dst = binary.AppendUvarint(dst, uint64(m.Node))
	dst = binary.AppendUvarint(dst, uint64(m.Incarnation))
	dst = binary.AppendUvarint(dst, uint64(m.Seq))
	dst = append(dst, m.Prev[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.HLC))
	dst = appendString(dst, m.Actor)
	dst = binary.AppendUvarint(dst, uint64(m.Schema))
	dst = appendString(dst, m.Intent)
	dst = binary.AppendUvarint(dst, uint64(len(m.Ops)))
	for i := range m.Ops {
		dst = appendOp(dst, &m.Ops[i])
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.Guards)))
	for _, g := range m.Guards {
		dst = append(dst, byte(g.Kind))
		dst = binary.AppendUvarint(dst, uint64(g.Entity))
		dst = append(dst, g.Record[:]...)
		dst = AppendValue(binary.AppendUvarint(dst, uint64(g.Field)), g.Value)
	}
	return dst
}

func appendOp(dst []byte, op *Op) []byte {
	dst = append(dst, byte(op.Kind))
	dst = binary.AppendUvarint(dst, uint64(op.Entity))
	dst = append(dst, op.Record[:]...)
	dst = binary.AppendUvarint(dst, uint64(op.Seen.Rev))
	dst = binary.AppendUvarint(dst, uint64(op.Seen.Seq))
	dst = binary.AppendUvarint(dst, uint64(len(op.Cells)))
	for _, c := range op.Cells {
		dst = AppendValue(binary.AppendUvarint(dst, uint64(c.Field)), c.Value)
	}
	return dst
}

// DecodeMutation decodes what AppendMutation wrote, in either version. It never
// panics on damaged input.
func DecodeMutation(b []byte) (*Mutation, error) {
	if len(b) > MaxMutation {
		return nil, fmt.Errorf("mutation: %w: %d bytes is more than %d", errDamaged, len(b), MaxMutation)
	}
	d := decoder{s: string(b)}
	timeline := d.timeline()
	m := &Mutation{Timeline: timeline, Node: NodeID(d.uint32()), Incarnation: Incarnation(d.uint32()), Seq: Seq(d.uvarint())}
	copy(m.Prev[:], d.take(len(m.Prev)))
	m.HLC, m.Actor, m.Schema, m.Intent = HLC(d.uint64()), d.string(), Rev(d.uvarint()), d.string()
	m.Ops = d.ops(m)
	m.Guards = d.guards()
	if err := d.finish(); err != nil {
		return nil, fmt.Errorf("mutation: %w", err)
	}
	return m, nil
}

// timeline reads the version and, if it has one, the timeline.
func (d *decoder) timeline() uint64 {
	switch v := d.byte(); v {
	case mutationUnnamed:
	case mutationNamed:
		t := d.uint64()
		if t == 0 {
			d.fail("version %d names no timeline", v)
		}
		return t
	case withheldMark:
		d.fail("the content was withheld")
	default:
		d.fail("version %d is neither %d nor %d", v, mutationUnnamed, mutationNamed)
	}
	return 0
}

// ops reads the ops of m.
func (d *decoder) ops(m *Mutation) []Op {
	n := d.count(20)
	out := make([]Op, 0, n)
	for range n {
		op := Op{Kind: OpKind(d.byte()), Entity: EntityID(d.uint16()), Record: d.id()}
		op.Seen = Token{Timeline: uint32(m.Timeline), Rev: Rev(d.uvarint()), Seq: Seq(d.uvarint())}
		if op.Seen.Seq != 0 {
			op.Seen.Node = m.Node
		}
		if op.Kind < OpCreate || op.Kind > OpTransition {
			d.fail("op kind %d", op.Kind)
		}
		for range d.count(2) {
			op.Cells = append(op.Cells, Input{FieldID(d.uint16()), d.value()})
		}
		out = append(out, op)
	}
	return out
}

func (d *decoder) guards() []Guard {
	var out []Guard
	for range d.count(20) {
		g := Guard{Kind: GuardKind(d.byte()), Entity: EntityID(d.uint16()), Record: d.id(), Field: FieldID(d.uint16()), Value: d.value()}
		if g.Kind < GuardEquals || g.Kind > GuardAtMost {
			d.fail("guard kind %d", g.Kind)
		}
		out = append(out, g)
	}
	return out
}

// uint16 reads a metadata number.
func (d *decoder) uint16() uint16 {
	n := d.uvarint()
	if n > 1<<16-1 {
		d.fail("number %d is over 65535", n)
	}
	return uint16(n)
}

// uint32 reads the number of a node or of an incarnation.
func (d *decoder) uint32() uint32 {
	n := d.uvarint()
	if n > 1<<32-1 {
		d.fail("number %d is over 32 bits", n)
	}
	return uint32(n)
}

// Chain returns the chain hash after the encoded Mutation.
func Chain(prev ChainHash, encoded []byte) ChainHash {
	h := sha256.New()
	h.Write(prev[:])
	h.Write(encoded)
	var out ChainHash
	copy(out[:], h.Sum(nil))
	return out
}

// OutcomeKind is the master's verdict on a Mutation. Numbers are stored and
// sent: never renumber.
type OutcomeKind uint8

// The outcomes. Every decided Mutation has exactly one.
const (
	Accepted OutcomeKind = 1 // all of it stands
	Merged   OutcomeKind = 2 // it stands, and at least one concurrent value lost and was kept
	Parked   OutcomeKind = 3 // part of it waits for a person
	Rejected OutcomeKind = 4 // none of it stands
)

var outcomeNames = [...]string{"", "accepted", "merged", "parked", "rejected"}

func (k OutcomeKind) String() string {
	if int(k) < len(outcomeNames) {
		return outcomeNames[k]
	}
	return "outcome(?)"
}

// An Outcome is the verdict on one Mutation.
type Outcome struct {
	Node    NodeID
	Seq     Seq
	Rev     Rev // when it was decided
	Kind    OutcomeKind
	Code    Code   // of a rejection or parking
	Message string // a sentence for the author
}

// AppendOutcome appends the encoding of o.
func AppendOutcome(dst []byte, o Outcome) []byte {
	dst = append(dst, byte(o.Kind))
	dst = binary.AppendUvarint(dst, uint64(o.Node))
	dst = binary.AppendUvarint(dst, uint64(o.Seq))
	dst = binary.AppendUvarint(dst, uint64(o.Rev))
	return appendString(appendString(dst, string(o.Code)), o.Message)
}

// DecodeOutcome decodes one outcome and returns the bytes after it.
func DecodeOutcome(b []byte) (Outcome, []byte, error) {
	end := outcomeEnd(b)
	d := decoder{s: string(b[:end])}
	o := Outcome{Kind: OutcomeKind(d.byte())}
	o.Node, o.Seq, o.Rev = NodeID(d.uvarint()), Seq(d.uvarint()), Rev(d.uvarint())
	o.Code, o.Message = Code(d.string()), d.string()
	if o.Kind < Accepted || o.Kind > Rejected {
		d.fail("outcome kind %d", o.Kind)
	}
	return o, b[end-len(d.s):], d.err
}

// outcomeEnd returns where the outcome at the start of b ends, len(b) if it is
// cut off. A frame holds thousands of outcomes, and a decoder copies what it is
// given.
func outcomeEnd(b []byte) int {
	at := min(1, len(b))
	for range 3 {
		_, n := binary.Uvarint(b[at:])
		at += max(n, 0)
	}
	for range 2 {
		size, n := binary.Uvarint(b[at:])
		if n <= 0 || size > uint64(len(b)-at-n) {
			return len(b)
		}
		at += n + int(size)
	}
	return at
}
