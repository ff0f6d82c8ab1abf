package syncproto

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// MaxFrame bounds kind and fields of a frame, in bytes before compression.
const MaxFrame = 2 << 20

// Bounds of the fields of frames. Sizes are in bytes.
const (
	maxName      = 255     // of a cluster, site, role, code, or the id of a token
	maxAddress   = 255     // of a host and port
	maxMessage   = 4 << 10 // of a sentence for people
	maxSecret    = 255     // of a gossip key
	maxDER       = 16 << 10
	maxAddresses = 64        // masters, peers
	maxList      = 1 << 17   // territories, digests, items, outcomes: MaxFrame bounds them too
	maxBusy      = 3_600_000 // milliseconds
)

// Kind numbers the frames. Numbers are sent: never renumber.
type Kind uint8

// The kinds of frame.
const (
	KindHello     Kind = 1
	KindWelcome   Kind = 2
	KindPush      Kind = 3
	KindPushed    Kind = 4
	KindBatch     Kind = 5
	KindApplied   Kind = 6
	KindBusy      Kind = 7
	KindGap       Kind = 8
	KindFenced    Kind = 9
	KindFrozen    Kind = 10
	KindHeartbeat Kind = 11
	KindRefused   Kind = 12
	KindJoin      Kind = 13
	KindJoined    Kind = 14
	KindForward   Kind = 15
	KindForwarded Kind = 16
	KindAsk       Kind = 17
	KindAnswer    Kind = 18
	KindRepair    Kind = 19 // from version 3
	KindReports   Kind = 20 // from version 3
)

var kindNames = [...]string{"", "hello", "welcome", "push", "pushed", "batch", "applied", "busy", "gap", "fenced", "frozen",
	"heartbeat", "refused", "join", "joined", "forward", "forwarded", "ask", "answer", "repair", "reports"}

// String returns the kind's name in errors, metrics and docs/protocol.md.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// A Frame is one of the pointers to the structs of this package: *Hello,
// *Welcome and so on.
type Frame interface {
	Kind() Kind
	fields(*codec)
}

// newFrame returns an empty frame to decode into, nil for an unknown kind.
func newFrame(k Kind) Frame {
	switch k {
	case KindHello:
		return new(Hello)
	case KindWelcome:
		return new(Welcome)
	case KindPush:
		return new(Push)
	case KindPushed:
		return new(Pushed)
	case KindBatch:
		return new(Batch)
	case KindApplied:
		return new(Applied)
	case KindBusy:
		return new(Busy)
	case KindGap:
		return new(Gap)
	case KindFenced:
		return new(Fenced)
	case KindFrozen:
		return new(Frozen)
	case KindHeartbeat:
		return new(Heartbeat)
	case KindRefused:
		return new(Refused)
	case KindJoin:
		return new(Join)
	case KindJoined:
		return new(Joined)
	case KindForward:
		return new(Forward)
	case KindForwarded:
		return new(Forwarded)
	case KindAsk:
		return new(Ask)
	case KindAnswer:
		return new(Answer)
	case KindRepair:
		return new(Repair)
	case KindReports:
		return new(Reports)
	}
	return nil
}

// since returns the version that a kind came with.
func (k Kind) since() uint16 {
	switch k {
	case KindRepair, KindReports:
		return 3
	}
	return 1
}

// AppendFrame appends kind and fields of f, without the length, as the version
// of the protocol has them. Its error has CodeFrame and names the field that is
// out of bounds, or that the version does not have.
func AppendFrame(dst []byte, version uint16, f Frame) ([]byte, error) {
	c := codec{mode: encoding, version: version, kind: f.Kind(), b: append(dst, byte(f.Kind()))}
	if version < f.Kind().since() {
		c.err = badFrame("encode frame", f.Kind().String(), fmt.Sprintf("version %d has no such frame", version), nil)
	}
	f.fields(&c)
	if n := len(c.b) - len(dst); n > MaxFrame && c.err == nil {
		c.err = badFrame("encode frame", f.Kind().String(), fmt.Sprintf("%d bytes is more than %d", n, MaxFrame), nil)
	}
	if c.err != nil {
		return dst, c.err
	}
	return c.b, nil
}

// DecodeFrame decodes what AppendFrame wrote in the same version. The frame's
// byte slices share b's array. Its error has CodeFrame and names frame and
// field, or CodeVersion for a kind that the version does not have.
func DecodeFrame(b []byte, version uint16) (Frame, error) {
	if len(b) == 0 || len(b) > MaxFrame {
		return nil, badFrame("decode frame", "length", fmt.Sprintf("%d is not 1 to %d", len(b), MaxFrame), nil)
	}
	f := newFrame(Kind(b[0]))
	if f == nil || version < f.Kind().since() {
		return nil, &crm.Error{Code: CodeVersion, Op: "decode frame", Message: fmt.Sprintf("frame kind %d is not part of version %d", b[0], version)}
	}
	c := codec{mode: decoding, version: version, kind: f.Kind(), b: b[1:]}
	f.fields(&c)
	if c.err == nil && len(c.b) > 0 {
		c.err = badFrame("decode frame", c.kind.String(), fmt.Sprintf("%d bytes left over", len(c.b)), nil)
	}
	if c.err != nil {
		return nil, c.err
	}
	return f, nil
}
