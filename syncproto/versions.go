package syncproto

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// The versions of the protocol this program speaks, both inclusive. What each
// added is in docs/protocol.md.
const (
	MinVersion uint16 = 1
	MaxVersion uint16 = 3
)

// Negotiate returns the highest version in both inclusive ranges. Its error has
// CodeVersion and says which side must be upgraded.
func Negotiate(ourMin, ourMax, theirMin, theirMax uint16) (uint16, error) {
	best := min(ourMax, theirMax)
	if best >= ourMin && best >= theirMin && best > 0 {
		return best, nil
	}
	advice := "upgrade this node"
	switch {
	case theirMin > theirMax || theirMax == 0:
		advice = "the peer's range is damaged"
	case theirMax < ourMin:
		advice = "upgrade the peer"
	}
	return 0, &crm.Error{Code: CodeVersion, Op: "negotiate version",
		Message: fmt.Sprintf("the peer speaks %d to %d, this node %d to %d: %s", theirMin, theirMax, ourMin, ourMax, advice)}
}
