package session

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// chainName is the name of the store's blob that holds the chain hash after one
// of a node's Mutations: seq 8, big-endian ‖ hash 16. The last syncproto.MaxTrail
// of each node are kept.
func chainName(n crm.NodeID, s crm.Seq) string {
	return fmt.Sprintf("chain/%d/%d", n, s%syncproto.MaxTrail)
}

// SetChain keeps the chain hash after a node's Mutation.
func SetChain(tx *store.Tx, n crm.NodeID, s crm.Seq, hash crm.ChainHash) error {
	return tx.SetMeta(chainName(n, s), append(binary.BigEndian.AppendUint64(nil, uint64(s)), hash[:]...))
}

// ChainIn returns the chain hash after a node's Mutation, and whether it is kept.
func ChainIn(tx *store.Tx, n crm.NodeID, s crm.Seq) (hash crm.ChainHash, kept bool, err error) {
	b, err := tx.Meta(chainName(n, s))
	if err != nil || len(b) != 8+len(hash) || crm.Seq(binary.BigEndian.Uint64(b)) != s {
		return hash, false, err
	}
	return crm.ChainHash(b[8:]), true, nil
}

// parts reports whether the disk's last Mutation is not the cluster's last of the
// node, but one before, or another.
func (s Standing) parts(h *syncproto.Hello) bool {
	last := h.NextSeq - 1
	return last < s.State.LastSeq || last == s.State.LastSeq && h.Chain != s.State.LastHash
}

// trail reads what syncproto.Welcome.Trail is for a disk.
func trail(tx *store.Tx, s Standing, h *syncproto.Hello) (out []crm.ChainHash, err error) {
	if h.NextSeq == 0 || !s.parts(h) {
		return nil, nil
	}
	for seq := min(h.NextSeq-1, s.State.LastSeq); seq > 0 && len(out) < syncproto.MaxTrail; seq-- {
		hash, kept, err := ChainIn(tx, h.Node, seq)
		if err != nil {
			return nil, err
		}
		if !kept {
			break
		}
		out = append(out, hash)
	}
	slices.Reverse(out)
	return out, nil
}
