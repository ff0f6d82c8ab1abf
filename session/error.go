package session

import (
	"errors"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// The codes of a refused handshake.
const (
	CodeWrongCluster crm.Code = "wrong_cluster" // the node is of another cluster
	CodeWrongNode    crm.Code = "wrong_node"    // it says it is a node that its certificate does not bear
)

// ErrUnknown is in the chain of an error after which a Submission may yet be
// decided: submit the same bytes again, a repeat does no harm.
var ErrUnknown = errors.New("the outcome is unknown")

// Why a session ended.
var (
	errReplaced = errors.New("the node opened another session")
	errSilent   = errors.New("the replica was silent for too long")
	errLifetime = errors.New("the session was long enough")
	errAnswered = errors.New("the replica was told why")
	errPushes   = errors.New("too many pushes wait")
	errKnocks   = errors.New("the node introduces itself too often")
	errOutdated = errors.New("a newer version of the protocol can be spoken")
)

// NoLeader is the error of what only a leader can do.
func NoLeader(op string) error {
	return &crm.Error{Code: crm.CodeNoLeader, Op: op, Message: "no master leads now; try again when a majority of the masters can reach each other"}
}

// Transient reports whether trying again later may help.
func Transient(err error) bool {
	switch crm.CodeOf(err) {
	case crm.CodeNoLeader, crm.CodeUnavailable, crm.CodeTimeout, crm.CodeStale:
		return true
	}
	return false
}

// Refusal words an error for a peer whose conversation it ends.
func Refusal(why error) *syncproto.Refused {
	return &syncproto.Refused{Code: crm.CodeOf(why), Message: why.Error()}
}

// Unexpected is the error for a frame that does not belong in a conversation.
func Unexpected(f syncproto.Frame) error {
	return &crm.Error{Code: syncproto.CodeFrame, Op: "talk to another master", Item: f.Kind().String(), Message: "the frame does not belong here; run the same release on all masters"}
}
