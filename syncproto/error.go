package syncproto

import "github.com/tradepost-crm/tradepost/crm"

// The codes of this package, beside those of crm.
const (
	CodeVersion crm.Code = "protocol_version" // the peers speak no common version
	CodeFrame   crm.Code = "bad_frame"        // the peer sent bytes that are no frame
)

func badFrame(op, item, message string, cause error) error {
	return &crm.Error{Code: CodeFrame, Op: op, Item: item, Message: message, Err: cause}
}
