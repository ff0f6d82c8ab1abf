package master

import "github.com/tradepost-crm/tradepost/crm"

// A mutation is one Mutation of a push, or what stands for one whose content was
// purged from its branch.
type mutation struct {
	*crm.Mutation               // of a withheld one what is known of it: node, number and the hash before
	withheld      *crm.Withheld // nil: it is whole
	raw           []byte
	after         crm.ChainHash // the node's chain hash after it
}

func readMutation(raw []byte) (*mutation, error) {
	if !crm.IsWithheld(raw) {
		m, err := crm.DecodeMutation(raw)
		if err != nil {
			return nil, err
		}
		return &mutation{Mutation: m, raw: raw, after: crm.Chain(m.Prev, raw)}, nil
	}
	w, err := crm.DecodeWithheld(raw)
	if err != nil {
		return nil, err
	}
	m := &crm.Mutation{Node: w.Node, Incarnation: w.Incarnation, Seq: w.Seq, Prev: w.Prev}
	return &mutation{Mutation: m, withheld: &w, raw: raw, after: w.After}, nil
}

// version is the least level at which every master reads the mutation.
func (m *mutation) version() uint16 {
	if m.Timeline != 0 || m.withheld != nil {
		return levelTimelines
	}
	return 1
}
