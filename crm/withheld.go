package crm

import (
	"encoding/binary"
	"fmt"
)

// A Withheld stands for a Mutation whose content was purged from the branch that
// made it. Masters restored from a backup that lacks the Mutation ask for it
// again: they take its number, reject it, and go on with the Seqs behind it.
//
// After is the chain hash that the Mutation left, and the next Mutation chains
// to it. It cannot be recomputed, so whoever takes a Withheld trusts the node
// for it: that it once made a Mutation of that number, with that hash. Nothing
// else is trusted. It stands in the node's own name only, it follows the hash
// before it like any Mutation, and where the masters have the number already its
// hash must be theirs, else the node's history has forked. A node that lies here
// loses an edit of its own and cannot change or hide one of another.
type Withheld struct {
	Node        NodeID
	Incarnation Incarnation
	Seq         Seq
	Prev        ChainHash // chain hash of the node's Mutation before this one
	After       ChainHash // chain hash after this one
}

// withheldMark stands where a Mutation has its version.
const withheldMark = 0

// AppendWithheld appends the canonical encoding of w, drawn in docs/format.md.
func AppendWithheld(dst []byte, w Withheld) []byte {
	dst = binary.AppendUvarint(append(dst, withheldMark), uint64(w.Node))
	dst = binary.AppendUvarint(dst, uint64(w.Incarnation))
	dst = binary.AppendUvarint(dst, uint64(w.Seq))
	return append(append(dst, w.Prev[:]...), w.After[:]...)
}

// IsWithheld reports whether b, which may be the encoding of a Mutation, is that
// of a Withheld.
func IsWithheld(b []byte) bool { return len(b) > 0 && b[0] == withheldMark }

// DecodeWithheld decodes what AppendWithheld wrote. It never panics on damaged
// input.
func DecodeWithheld(b []byte) (Withheld, error) {
	d := decoder{s: string(b)}
	if mark := d.byte(); mark != withheldMark {
		d.fail("mark %d is not %d", mark, withheldMark)
	}
	w := Withheld{Node: NodeID(d.uint32()), Incarnation: Incarnation(d.uint32()), Seq: Seq(d.uvarint())}
	copy(w.Prev[:], d.take(len(w.Prev)))
	copy(w.After[:], d.take(len(w.After)))
	if w.Node == 0 || w.Seq == 0 {
		d.fail("edit %d of node %d", w.Seq, w.Node)
	}
	if err := d.finish(); err != nil {
		return Withheld{}, fmt.Errorf("withheld mutation: %w", err)
	}
	return w, nil
}

// DecideWithheld is [Decide] for a Withheld: always a rejection, with a note on
// the attention list of the author's home. Who the author was and what the edit
// changed is not known any more.
func DecideWithheld(v View, w Withheld, env Env) (Decision, error) {
	d := newDecider(v, &Mutation{Node: w.Node, Incarnation: w.Incarnation, Seq: w.Seq, Prev: w.Prev}, env)
	return d.rejected(&rejection{why: Error{Code: CodeWithheld, Item: fmt.Sprintf("edit %d of node %d", w.Seq, w.Node),
		Message: "its content was purged from its branch before the masters, restored from a backup, asked for it again; make the edit anew if it still matters"}})
}
