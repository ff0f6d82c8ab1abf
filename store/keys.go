package store

import (
	"encoding/binary"

	"github.com/tradepost-crm/tradepost/crm"
)

// formatVersion numbers the layout below, of both files. History: 1, the first.
const formatVersion = 1

// kind names what a file is.
type kind string

const (
	baseFile    kind = "base"
	journalFile kind = "journal"
)

// A bucket declares one bbolt bucket: its name and what its keys and values
// are, drawn as name:size-in-bytes, integers big-endian where not said
// otherwise. "live/entity:2" is a bucket per entity inside the bucket live. A
// crc is CRC-32C of the key and the bytes that follow the crc.
type bucket struct {
	name  string
	key   string
	value string
}

// The buckets. Renaming one or changing a layout is a new formatVersion.
var (
	bucketFormat  = bucket{"tradepost", `"kind" | "format"`, `"base" or "journal" | version:4`}
	bucketState   = bucket{"state", `"rev" "timeline" "schema" "layout" "next/"entity:2`, "crc:4 number:8"}
	bucketMeta    = bucket{"meta", "name", "crc:4 blob"}
	bucketLive    = bucket{"live/entity:2", "id:16", "crc:4 record (crc over entity:2 id:16 record)"}
	bucketDead    = bucket{"dead", "entity:2 id:16", "crc:4 record"}
	bucketFeed    = bucket{"feed", "territory:4 rev:8 entity:2 id:16", "empty; one for each live record"}
	bucketGone    = bucket{"gone", "territory:4 rev:8 entity:2 id:16", "empty; one for each tombstone"}
	bucketLeft    = bucket{"left", "territory:4 rev:8 entity:2 id:16", "empty; the record left the territory at rev"}
	bucketIndex   = bucket{"index/entity:2 index:2", "crm.AppendKey of each field, id:16", "empty"}
	bucketRoots   = bucket{"roots", "root:16 entity:2 id:16", "empty"}
	bucketBuried  = bucket{"buried", "parent:16 field:2 entity:2 id:16", "empty; the tombstone's link field holds parent"}
	bucketWords   = bucket{"words", "word 0x00 entity:2 id:16", "1 if the word is in a title field, else 0: 1 byte"}
	bucketDigest  = bucket{"digest", "territory:4 bucket:1", "sum:32 count:8, both little-endian"}
	bucketCount   = bucket{"count", "entity:2", "live records:8"}
	bucketRefused = bucket{"refused", "id:16", "crc:4 attention:16"}
	bucketNode    = bucket{"node", "node:4", "crc:4 incarnation:4 last_seq:8 last_hash:16 last_hlc:8 cursor:8 low_base:8 seen_ms:8 frozen"}
	bucketOutcome = bucket{"outcome", "node:4 seq:8", "crc:4 outcome"}
	bucketStage   = bucket{"stage", "any", "crc:4 item"}

	bucketSelf    = bucket{"state", `"highest" "layout" | "depth" | "identity"`, "crc:4 number:8 | crc:4 entries:8 bytes:8 | crc:4 node:4 incarnation:4 next_seq:8 chain:16 hlc:8 timeline:8 cluster_size:2 cluster site"}
	bucketOutbox  = bucket{"outbox", "seq:8", "crc:4 at_ms:8 chain:16 rev:8 mutation"}
	bucketTail    = bucket{"tail", "seq:8", "crc:4 at_ms:8 chain:16 rev:8 mutation; nothing after rev: the mutation is withheld"}
	bucketOverlay = bucket{"overlay", "entity:2 id:16", "crc:4 record"}
	bucketTouch   = bucket{"touch", "entity:2 id:16 seq:8", "empty"}
	bucketTouched = bucket{"touched", "seq:8 entity:2 id:16", "empty"}
	bucketSeries  = bucket{"series", "name", "crc:4 number:8"}
)

// layout lists the buckets of each kind of file, in the order of docs/format.md.
var layout = map[kind][]bucket{
	baseFile: {bucketFormat, bucketState, bucketMeta, bucketLive, bucketDead, bucketFeed, bucketGone, bucketLeft, bucketIndex, bucketRoots,
		bucketBuried, bucketWords, bucketDigest, bucketCount, bucketRefused, bucketNode, bucketOutcome, bucketStage},
	journalFile: {bucketFormat, bucketSelf, bucketMeta, bucketOutbox, bucketTail, bucketOverlay, bucketIndex, bucketRoots, bucketBuried, bucketWords,
		bucketTouch, bucketTouched, bucketSeries},
}

// top returns the name of the bucket at the top of the file.
func (b bucket) top() []byte {
	for i := range len(b.name) {
		if b.name[i] == '/' {
			return []byte(b.name[:i])
		}
	}
	return []byte(b.name)
}

// A RecordKey names a record.
type RecordKey struct {
	Entity crm.EntityID
	ID     crm.RecordID
}

const (
	idSize  = 16
	keySize = 2 + idSize // entity:2 id:16
)

func appendRecordKey(dst []byte, k RecordKey) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(k.Entity)), k.ID[:]...)
}

func (k RecordKey) bytes() []byte { return appendRecordKey(make([]byte, 0, keySize), k) }

// recordKeyAt reads entity:2 id:16 from the end of a key.
func recordKeyAt(b []byte) RecordKey {
	b = b[len(b)-keySize:]
	return RecordKey{crm.EntityID(binary.BigEndian.Uint16(b)), crm.RecordID(b[2:])}
}

// idAt reads the id at the end of a key.
func idAt(b []byte) crm.RecordID { return crm.RecordID(b[len(b)-idSize:]) }

func entityKey(e crm.EntityID) []byte { return binary.BigEndian.AppendUint16(nil, uint16(e)) }

func indexKey(e crm.EntityID, index uint16) []byte {
	return binary.BigEndian.AppendUint16(entityKey(e), index)
}

// feedKeySize is the size of a key of feed, gone and left.
const feedKeySize = 4 + 8 + keySize

func appendTerritory(dst []byte, t crm.TerritoryID) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(t))
}

// territoryAt reads territory:4 from the start of a key.
func territoryAt(b []byte) crm.TerritoryID { return crm.TerritoryID(binary.BigEndian.Uint32(b)) }

func feedPosition(t crm.TerritoryID, rev crm.Rev) []byte {
	return binary.BigEndian.AppendUint64(appendTerritory(make([]byte, 0, feedKeySize), t), uint64(rev))
}

func feedKey(t crm.TerritoryID, rev crm.Rev, k RecordKey) []byte {
	return appendFeedKey(make([]byte, 0, feedKeySize), t, rev, k)
}

func appendFeedKey(dst []byte, t crm.TerritoryID, rev crm.Rev, k RecordKey) []byte {
	return appendRecordKey(binary.BigEndian.AppendUint64(appendTerritory(dst, t), uint64(rev)), k)
}

func seqKey(s crm.Seq) []byte { return binary.BigEndian.AppendUint64(nil, uint64(s)) }

func nodeKey(n crm.NodeID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func outcomeKey(n crm.NodeID, s crm.Seq) []byte {
	return binary.BigEndian.AppendUint64(nodeKey(n), uint64(s))
}

// after returns the least key above all keys that begin with prefix, nil if
// there is none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			out := append([]byte(nil), prefix[:i+1]...)
			out[i]++
			return out
		}
	}
	return nil
}
