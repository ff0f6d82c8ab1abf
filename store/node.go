package store

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/tradepost-crm/tradepost/crm"
)

// A NodeState is what a master remembers of a node in order to dedupe, judge
// and fence it.
type NodeState struct {
	Node        crm.NodeID
	Incarnation crm.Incarnation
	LastSeq     crm.Seq       // highest decided
	LastHash    crm.ChainHash // chain hash after LastSeq
	LastHLC     crm.HLC       // effective time of LastSeq: never falls
	Cursor      crm.Rev       // applied by the node, as far as it said
	LowBase     crm.Rev       // lowest Rev that a pending op of the node refers to; 0: none
	SeenMillis  int64         // when it was last heard of, Unix milliseconds
	Frozen      string        // why its history is not believed; "" while it is
}

const nodeStateSize = 4 + 8 + 16 + 8 + 8 + 8 + 8

func (n NodeState) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(n.Incarnation))
	b = binary.BigEndian.AppendUint64(b, uint64(n.LastSeq))
	b = append(b, n.LastHash[:]...)
	for _, v := range []uint64{uint64(n.LastHLC), uint64(n.Cursor), uint64(n.LowBase), uint64(n.SeenMillis)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, n.Frozen...)
}

func decodeNodeState(id crm.NodeID, b []byte) (NodeState, error) {
	if len(b) < nodeStateSize {
		return NodeState{}, errShort
	}
	word := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
	return NodeState{Node: id, Incarnation: crm.Incarnation(binary.BigEndian.Uint32(b)), LastSeq: crm.Seq(word(4)),
		LastHash: crm.ChainHash(b[12:28]), LastHLC: crm.HLC(word(28)), Cursor: crm.Rev(word(36)), LowBase: crm.Rev(word(44)),
		SeenMillis: int64(word(52)), Frozen: string(b[nodeStateSize:])}, nil
}

// Node returns what is known of the node.
func (tx *Tx) Node(id crm.NodeID) (NodeState, bool, error) {
	v, err := tx.sealed(bucketNode, nodeKey(id))
	if err != nil || v == nil {
		return NodeState{Node: id}, false, err
	}
	n, err := decodeNodeState(id, v)
	if err != nil {
		return n, false, tx.f.corrupt(fmt.Sprintf("node %d", id), err)
	}
	return n, true, nil
}

// SetNode replaces what is known of n.Node.
func (tx *Tx) SetNode(n NodeState) error {
	return tx.putSealed(bucketNode, nodeKey(n.Node), n.encode())
}

// ClearNodes forgets what is known of every node.
func (tx *Tx) ClearNodes() error { return tx.empty(bucketNode) }

// Nodes yields all nodes by number. The transaction must not be written meanwhile.
func (tx *Tx) Nodes() iter.Seq2[NodeState, error] {
	return func(yield func(NodeState, error) bool) {
		c := tx.top(bucketNode).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if len(k) != 4 {
				yield(NodeState{}, tx.f.corrupt("node", errShort))
				return
			}
			n, _, err := tx.Node(crm.NodeID(binary.BigEndian.Uint32(k)))
			if !yield(n, err) || err != nil {
				return
			}
		}
	}
}

// PutOutcome keeps the outcome of a Mutation. Plain acceptances need not be
// kept: a decided Seq without an outcome was accepted.
func (tx *Tx) PutOutcome(o crm.Outcome) error {
	return tx.putSealed(bucketOutcome, outcomeKey(o.Node, o.Seq), crm.AppendOutcome(nil, o))
}

// Outcome returns the kept outcome of the node's Mutation.
func (tx *Tx) Outcome(node crm.NodeID, seq crm.Seq) (crm.Outcome, bool, error) {
	k := outcomeKey(node, seq)
	v, err := tx.sealed(bucketOutcome, k)
	if err != nil || v == nil {
		return crm.Outcome{}, false, err
	}
	o, err := tx.decodeOutcome(k, v)
	return o, err == nil, err
}

func (tx *Tx) decodeOutcome(k, v []byte) (crm.Outcome, error) {
	o, err := decodeOutcome(v)
	if err != nil {
		return o, tx.f.corrupt(fmt.Sprintf("outcome %x", k), err)
	}
	return o, nil
}

func decodeOutcome(v []byte) (crm.Outcome, error) {
	o, rest, err := crm.DecodeOutcome(v)
	if err == nil && len(rest) > 0 {
		err = errShort
	}
	return o, err
}

// Outcomes yields the kept outcomes of the node's Mutations above since, by Seq.
// The transaction must not be written meanwhile.
func (tx *Tx) Outcomes(node crm.NodeID, since crm.Seq) iter.Seq2[crm.Outcome, error] {
	return func(yield func(crm.Outcome, error) bool) {
		c := newRowCursor(source{bucket: tx.top(bucketOutcome)}, keyRange{lo: outcomeKey(node, since+1), hi: after(nodeKey(node))}, false)
		for ; c.key != nil; c.next() {
			v, err := unseal(c.key, c.value)
			if err != nil {
				yield(crm.Outcome{}, tx.f.corrupt("outcome", err))
				return
			}
			o, err := tx.decodeOutcome(c.key, v)
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// DropOutcomes forgets the kept outcomes of the node's Mutations above since:
// they are to be decided anew.
func (tx *Tx) DropOutcomes(node crm.NodeID, since crm.Seq) error {
	var all []crm.Seq
	for o, err := range tx.Outcomes(node, since) {
		if err != nil {
			return err
		}
		all = append(all, o.Seq)
	}
	for _, seq := range all {
		if err := tx.delete(bucketOutcome, outcomeKey(node, seq)); err != nil {
			return err
		}
	}
	return nil
}

// Stage keeps an item of a catch-up that is not promoted yet, under a key that
// orders it. An item of the same key is replaced.
func (tx *Tx) Stage(key, item []byte) error { return tx.putSealed(bucketStage, key, item) }

// Staged yields the staged items in the order of their keys. Key and item stay
// valid until the transaction ends; it must not be staged into meanwhile.
func (tx *Tx) Staged() iter.Seq2[StagedItem, error] {
	return func(yield func(StagedItem, error) bool) {
		c := tx.top(bucketStage).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			item, err := unseal(k, v)
			if err != nil {
				err = tx.f.corrupt(fmt.Sprintf("stage %x", k), err)
			}
			if !yield(StagedItem{k, item}, err) || err != nil {
				return
			}
		}
	}
}

// A StagedItem is one item that Stage kept.
type StagedItem struct{ Key, Item []byte }

// ClearStage drops all staged items.
func (tx *Tx) ClearStage() error { return tx.empty(bucketStage) }
