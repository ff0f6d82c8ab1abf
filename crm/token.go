package crm

import (
	"fmt"
	"strconv"
	"strings"
)

// A Token is what a reader has seen of a record: everything decided up to Rev
// in the Timeline, and the pending Mutations of Node up to Seq.
//
// On its way to a node it is an opaque text that may come from any node and any
// time. [Request.Mutation] turns it into what the node that takes the edit can
// vouch for; in a Mutation the Timeline and the Node are the Mutation's own, and
// only Rev and Seq are encoded.
type Token struct {
	Timeline uint32 // the low 32 bits of the timeline, which no two of a Lineage share; 0: not named
	Node     NodeID // 0 if Seq is
	Rev      Rev
	Seq      Seq // 0 if the reader saw no edit that was pending at Node
}

// TokenAt returns what a reader of r has seen of it, where r's Revs are of the
// given timeline. Use store's Reader.Token, which knows the timeline.
func (r *Record) TokenAt(timeline uint64) Token {
	t := Token{Timeline: uint32(timeline), Rev: r.Stamp.Rev}
	if t.Rev != Pending {
		return t
	}
	// Only a node's own edits are pending in what it shows.
	t.Rev, t.Node, t.Seq = 0, r.Stamp.Node, r.Stamp.Seq
	for _, c := range r.Cells {
		if c.Stamp.Rev != Pending {
			t.Rev = max(t.Rev, c.Stamp.Rev)
		}
		for _, s := range c.Elems {
			if s.Rev != Pending {
				t.Rev = max(t.Rev, s.Rev)
			}
		}
	}
	return t
}

// timelineBase is the base in which a token's text names its timeline.
const timelineBase = 36

// AppendTo appends the text of t: "timeline-rev", with "-node.seq" after it if
// the reader saw pending edits. A token that names no timeline is written as
// "rev.seq", as version 1 did and as its decided records hold.
func (t Token) AppendTo(dst []byte) []byte {
	if t.Timeline == 0 {
		return t.appendSeq(strconv.AppendUint(dst, uint64(t.Rev), 10))
	}
	dst = append(strconv.AppendUint(dst, uint64(t.Timeline), timelineBase), '-')
	dst = strconv.AppendUint(dst, uint64(t.Rev), 10)
	if t.Seq == 0 {
		return dst
	}
	return t.appendSeq(strconv.AppendUint(append(dst, '-'), uint64(t.Node), 10))
}

func (t Token) appendSeq(dst []byte) []byte {
	return strconv.AppendUint(append(dst, '.'), uint64(t.Seq), 10)
}

// String returns what AppendTo appends.
func (t Token) String() string { return string(t.AppendTo(nil)) }

// ParseToken reads what String wrote, in that form only. The "rev.seq" of
// version 1 is refused: it does not say which node showed the one and which
// timeline the other counts in, so it could vouch for what its reader never saw.
// Errors are of code invalid.
func ParseToken(s string) (Token, error) {
	t, ok := parseToken(s)
	if ok && t.String() == s {
		return t, nil
	}
	message := "%q is not a record token such as 1z141z3-1204; take the one that a read of the record shows"
	if isOldToken(s) {
		message = "%q is a token of an earlier release, which vouches for nothing; read the record again and take the token that it shows now"
	}
	return Token{}, &Error{Code: CodeInvalid, Item: "token", Message: fmt.Sprintf(message, clip(s))}
}

func parseToken(s string) (Token, bool) {
	timeline, rest, _ := strings.Cut(s, "-")
	rev, pending, more := strings.Cut(rest, "-")
	var p tokenParser
	t := Token{Timeline: uint32(p.number(timeline, timelineBase, 32)), Rev: Rev(p.number(rev, 10, 63))}
	if more {
		node, seq, _ := strings.Cut(pending, ".")
		t.Node, t.Seq = NodeID(p.number(node, 10, 32)), Seq(p.number(seq, 10, 63))
		p.bad = p.bad || t.Node == 0
	}
	return t, !p.bad && t.Timeline != 0
}

func isOldToken(s string) bool {
	rev, seq, ok := strings.Cut(s, ".")
	var p tokenParser
	p.number(rev, 10, 63)
	p.number(seq, 10, 63)
	return ok && !p.bad
}

// A tokenParser reads the numbers of a token; the first bad one sticks.
type tokenParser struct{ bad bool }

func (p *tokenParser) number(s string, base, bits int) uint64 {
	n, err := strconv.ParseUint(s, base, bits)
	p.bad = p.bad || err != nil
	return n
}
