package crm

import (
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// Rev is the master's dense decision number; the first decision is 1. A
// field's version is the Rev that last set it. 0 means "never".
type Rev uint64

// Pending is the Rev of a field that a pending Mutation set and no master has
// decided yet. It is above every decided Rev.
const Pending = Rev(1<<63 - 1)

// Seq is the dense per-node number of a Mutation; the first one is 1. It never
// restarts, not even when the node gets a new incarnation.
type Seq uint64

// Incarnation counts how often the master has (re)admitted a node's disk. A
// rolled-back or cloned disk presents an old one and is fenced.
type Incarnation uint32

// NodeID numbers a node within its cluster; 0 is no node.
type NodeID uint32

// TerritoryID numbers a territory within its cluster.
type TerritoryID uint32

// Two territories exist in every cluster. Shared is held by every replica;
// HeadOffice is never granted to a replica.
const (
	Shared     TerritoryID = 1
	HeadOffice TerritoryID = 2
	// FirstTerritory is the first number given to a territory made by an admin.
	FirstTerritory TerritoryID = 16
)

// EntityID and FieldID number metadata. They are never reused.
type (
	EntityID uint16
	FieldID  uint16
)

// HLC is a hybrid logical clock reading: 48 bits of Unix milliseconds above 16
// bits of counter (Kulkarni et al., OPODIS 2014). It orders concurrent edits
// only; Rev orders everything else.
type HLC uint64

// NewHLC returns the reading at ms Unix milliseconds, counter 0.
func NewHLC(ms int64) HLC { return HLC(uint64(ms) << 16) }

// Millis returns the wall-clock part in Unix milliseconds.
func (h HLC) Millis() int64 { return int64(h >> 16) }

// Time returns the wall-clock part in UTC.
func (h HLC) Time() time.Time { return time.UnixMilli(h.Millis()).UTC() }

// Next returns the reading that follows h for an event at now Unix
// milliseconds: the greater of the clock and h plus one count.
func (h HLC) Next(now int64) HLC { return max(NewHLC(now), h+1) }

// RecordID is a UUIDv7 made by the node that creates the record. It never
// carries meaning or personal data.
type RecordID [16]byte

// NewRecordID makes a UUIDv7 (RFC 9562 §5.7) for the given instant with
// randomness from rand. It panics if rand fails: a node without randomness
// must not write.
func NewRecordID(now time.Time, rand io.Reader) RecordID {
	var id RecordID
	if _, err := io.ReadFull(rand, id[6:]); err != nil {
		panic("crm: no randomness for a record id: " + err.Error())
	}
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// IsZero reports whether the id is absent.
func (id RecordID) IsZero() bool { return id == RecordID{} }

// String returns the canonical 36-character form.
func (id RecordID) String() string {
	var b [36]byte
	hex.Encode(b[:8], id[:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:], id[10:])
	return string(b[:])
}

// ParseRecordID reads the 36-character form, in either case.
func ParseRecordID(s string) (RecordID, error) {
	var id RecordID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("%q is not a record id (36 characters: 8-4-4-4-12 hex digits)", s)
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return RecordID{}, fmt.Errorf("%q is not a record id: %w", s, err)
	}
	return id, nil
}
