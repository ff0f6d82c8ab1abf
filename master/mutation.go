package master

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// In a push entry these stand before a Mutation that is to be rejected without
// being judged. A Mutation itself begins with its version, which is less.
const (
	poisonMark = 255
	bareMark   = 254 // not even what it would have changed can be told
)

// A mutation is one Mutation of a push, or what stands for one whose content was
// purged from its branch.
type mutation struct {
	*crm.Mutation               // of a withheld one what is known of it: node, number and the hash before
	withheld      *crm.Withheld // nil: it is whole
	poison        bool          // it bears one of the marks
	bare          bool          // it bears bareMark
	raw           []byte        // without the mark
	after         crm.ChainHash // the node's chain hash after it
}

func readMutation(raw []byte) (*mutation, error) {
	if crm.IsWithheld(raw) {
		return readWithheld(raw)
	}
	out := &mutation{raw: raw}
	if len(raw) > 0 {
		out.bare = raw[0] == bareMark
		out.poison = out.bare || raw[0] == poisonMark
	}
	if out.poison {
		out.raw = raw[1:]
	}
	var err error
	if out.Mutation, err = crm.DecodeMutation(out.raw); err != nil {
		return nil, err
	}
	out.after = crm.Chain(out.Prev, out.raw)
	return out, nil
}

func readWithheld(raw []byte) (*mutation, error) {
	w, err := crm.DecodeWithheld(raw)
	if err != nil {
		return nil, err
	}
	m := &crm.Mutation{Node: w.Node, Incarnation: w.Incarnation, Seq: w.Seq, Prev: w.Prev}
	return &mutation{Mutation: m, withheld: &w, raw: raw, after: w.After}, nil
}

// version is the least level at which every master reads the mutation.
func (m *mutation) version() uint16 {
	switch {
	case m.poison:
		return levelPoison
	case m.Timeline != 0 || m.withheld != nil:
		return levelTimelines
	}
	return 1
}

// item names the mutation in errors.
func (m *mutation) item() string { return fmt.Sprintf("edit %d of node %d", m.Seq, m.Node) }
