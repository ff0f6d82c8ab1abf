package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode"
	"unicode/utf8"
)

// Longest texts of a Meta, in bytes. An announcement with all of them at their
// limit is 492 bytes; memberlist allows 512.
const (
	MaxRole    = 32
	MaxSite    = 64
	MaxAddress = 128
)

// maxAnnouncement is memberlist's limit for a node's metadata, in bytes.
const maxAnnouncement = 512

// Meta is what a node tells about itself: nothing personal, nothing secret.
// Texts are UTF-8 without control characters.
type Meta struct {
	Node uint32 // id in the cluster
	Role string // for example "master" or "replica"; at most MaxRole bytes
	Site string // at most MaxSite bytes
	Sync string // address of the sync port; at most MaxAddress bytes
	HTTP string // address or URL of the HTTP port; at most MaxAddress bytes
}

func (m Meta) validate() error {
	return announcement{Meta: m}.validate()
}

// An announcement is the metadata of a memberlist node:
//
//	│ version <1b> │ flags <1b> │ node <uvarint> │
//	│ len <1b> role │ len <1b> site │ len <1b> sync │ len <1b> http │ len <1b> gossip │
//
// Version is 1. Flag bit 0 says that the node is leaving; the other bits are 0.
// A node may announce a newer version only when every node understands it.
type announcement struct {
	Meta
	Gossip  string // address of the gossip port, at most MaxAddress bytes
	Leaving bool
}

const (
	announcementVersion = 1
	flagLeaving         = 1 << 0
)

var errAnnouncement = errors.New("malformed announcement")

func (a announcement) validate() error {
	for _, t := range a.texts() {
		if err := validText(*t.text, t.limit); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

// append encodes a, which must be valid.
func (a announcement) append(b []byte) []byte {
	var flags byte
	if a.Leaving {
		flags |= flagLeaving
	}
	b = append(b, announcementVersion, flags)
	b = binary.AppendUvarint(b, uint64(a.Node))
	for _, t := range a.texts() {
		b = append(b, byte(len(*t.text)))
		b = append(b, *t.text...)
	}
	return b
}

// parseAnnouncement decodes b strictly: equal announcements have equal bytes,
// and whatever is not an announcement is an error. It keeps nothing of b.
func parseAnnouncement(b []byte) (announcement, error) {
	var a announcement
	if len(b) < 3 || len(b) > maxAnnouncement {
		return a, fmt.Errorf("%w: %d bytes", errAnnouncement, len(b))
	}
	if b[0] != announcementVersion || b[1]&^flagLeaving != 0 {
		return a, fmt.Errorf("%w: version %d, flags %#x", errAnnouncement, b[0], b[1])
	}
	a.Leaving = b[1]&flagLeaving != 0

	node, n := binary.Uvarint(b[2:])
	if n <= 0 || node > math.MaxUint32 || n != len(binary.AppendUvarint(nil, node)) {
		return a, fmt.Errorf("%w: node id", errAnnouncement)
	}
	a.Node = uint32(node)

	b = b[2+n:]
	for _, t := range a.texts() {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return a, fmt.Errorf("%w: %s is cut short", errAnnouncement, t.name)
		}
		end := 1 + int(b[0])
		*t.text, b = string(b[1:end]), b[end:]
	}
	if len(b) != 0 {
		return a, fmt.Errorf("%w: %d bytes left over", errAnnouncement, len(b))
	}
	if err := a.validate(); err != nil {
		return a, fmt.Errorf("%w: %w", errAnnouncement, err)
	}
	return a, nil
}

// A text is one string of an announcement with its limit in bytes.
type text struct {
	name  string
	text  *string
	limit int
}

// texts lists the strings of a in wire order.
func (a *announcement) texts() []text {
	return []text{
		{"role", &a.Role, MaxRole},
		{"site", &a.Site, MaxSite},
		{"sync", &a.Sync, MaxAddress},
		{"http", &a.HTTP, MaxAddress},
		{"gossip", &a.Gossip, MaxAddress},
	}
}

func validText(s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%d bytes, at most %d allowed", len(s), limit)
	}
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return errors.New("control character")
		}
	}
	return nil
}
