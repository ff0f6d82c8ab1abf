package session

import (
	"encoding/binary"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Names of the store's blobs that say which tombstones and markers are there.
const (
	MetaTrimmed  = "trimmed"  // below this Rev they are gone: 8 bytes, big-endian
	metaComplete = "complete" // of a relay, see Complete: territory:4 rev:8 each, big-endian
)

// TrimmedIn reads MetaTrimmed; 0 if nothing was ever trimmed.
func TrimmedIn(tx *store.Tx) (crm.Rev, error) {
	b, err := tx.Meta(MetaTrimmed)
	if err != nil || len(b) != 8 {
		return 0, err
	}
	return crm.Rev(binary.BigEndian.Uint64(b)), nil
}

// Trim drops tombstones and markers of Rev or below, once, and returns how many.
func Trim(tx *store.Tx, rev crm.Rev) (int, error) {
	was, err := TrimmedIn(tx)
	if err != nil || rev <= was {
		return 0, err
	}
	if err := tx.SetMeta(MetaTrimmed, binary.BigEndian.AppendUint64(nil, uint64(rev))); err != nil {
		return 0, err
	}
	return tx.TrimBelow(rev)
}

// Complete notes that territories came whole at rev, without the tombstones and
// markers up to there: a store that was filled by a feed lacks them.
func Complete(tx *store.Tx, territories []crm.TerritoryID, rev crm.Rev) error {
	complete, err := completeIn(tx)
	if err != nil || len(territories) == 0 {
		return err
	}
	for _, t := range territories {
		complete[t] = rev
	}
	var b []byte
	for _, t := range sortedKeys(complete) {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, uint32(t)), uint64(complete[t]))
	}
	return tx.SetMeta(metaComplete, b)
}

func completeIn(tx *store.Tx) (map[crm.TerritoryID]crm.Rev, error) {
	b, err := tx.Meta(metaComplete)
	out := map[crm.TerritoryID]crm.Rev{}
	for ; len(b) >= 12; b = b[12:] {
		out[crm.TerritoryID(binary.BigEndian.Uint32(b))] = crm.Rev(binary.BigEndian.Uint64(b[4:]))
	}
	return out, err
}

// A kept says which tombstones and markers a store holds.
type kept struct {
	trimmed  crm.Rev
	complete map[crm.TerritoryID]crm.Rev
}

func keptIn(tx *store.Tx) (k kept, err error) {
	if k.trimmed, err = TrimmedIn(tx); err != nil {
		return k, err
	}
	k.complete, err = completeIn(tx)
	return k, err
}

// above is the Rev above which all of the territory's are there: a replica below
// needs the territory whole.
func (k kept) above(t crm.TerritoryID) crm.Rev { return max(k.trimmed, k.complete[t]) }
