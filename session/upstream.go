package session

import (
	"context"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// An Upstream decides what a serving node cannot: the ledger of a master that
// leads, a [Link] to a node above elsewhere.
type Upstream interface {
	// Greet judges a Hello by the newest decided state. The error says that
	// nobody could be asked, or that who was asked cannot tell.
	Greet(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error)

	// Submit has Mutations decided. If ErrUnknown is in the error's chain they may
	// yet be; any other error means that nothing was changed.
	Submit(ctx context.Context, s Submission) (Reply, error)

	// Ask asks who leads. The Answer's Code says why it could not be answered; the
	// error, that nobody could be asked.
	Ask(ctx context.Context, what syncproto.AskKind) (*syncproto.Answer, error)
}

// A Submission is a batch of a node's consecutive Mutations on its way to the
// leader. Together they take at most Room.
type Submission struct {
	Node         crm.NodeID
	Incarnation  crm.Incarnation
	OffsetMillis int64   // what to add to the node's clock to get the masters'
	First        crm.Seq // number of Mutations[0]
	Mutations    [][]byte
}

// A Reply is what the leader made of a Submission. At most one of Gap, Fork and
// Fenced is set.
type Reply struct {
	Last     crm.Seq         // the node's Mutations up to here are durable in the log
	Index    uint64          // of the entry that holds them
	Outcomes []crm.Outcome   // where the leader itself replies: one a Mutation that was taken; Rev 0 of an accepted one that was decided before
	Gap      crm.Seq         // if not 0: the number that is expected
	Fork     bool            // the node is frozen
	Fenced   crm.Incarnation // if not 0: the incarnation that the cluster knows
}

// Taken reports whether the leader took the Mutations up to Last: all, or those
// before one that it refuses if it is submitted again.
func (r Reply) Taken() bool { return r.Gap == 0 && !r.Fork && r.Fenced == 0 }

// Room is how many bytes one log entry has for the Mutations of a Submission, of
// which each takes RoomHead at most beside its own.
const (
	Room     = 256<<10 - 64
	RoomHead = 3
)

// fitting returns how many of the Mutations one Submission holds; at least one.
func fitting(mutations [][]byte) int {
	room := Room
	for i, m := range mutations {
		if room -= len(m) + RoomHead; room < 0 && i > 0 {
			return i
		}
	}
	return len(mutations)
}
