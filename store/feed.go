package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"

	"github.com/tradepost-crm/tradepost/crm"
)

// A FeedEntry says that a record of the territory last changed at Rev: read it
// with [Tx.Record], it may be a tombstone. If Left is set, the record left the
// territory at Rev instead; it may live in another one, also one that the
// reader of the feed holds, or be back in this one at a higher Rev.
type FeedEntry struct {
	Rev    crm.Rev
	Entity crm.EntityID
	ID     crm.RecordID
	Left   bool
}

// Feed yields what happened in the territory after the Rev, that Rev excluded,
// in order of Rev, then entity, then id. Live records and tombstones are there
// once, at their latest Rev. The transaction must not be written meanwhile.
func (tx *Tx) Feed(t crm.TerritoryID, since crm.Rev) iter.Seq2[FeedEntry, error] {
	return func(yield func(FeedEntry, error) bool) {
		var lists [3]*rowCursor
		for i, s := range feedSpaces {
			lists[i] = newRowCursor(source{bucket: tx.rows.bucket(s, 0, 0)}, keyRange{lo: feedPosition(t, since+1), hi: after(appendTerritory(nil, t))}, false)
		}
		for {
			at := first(lists[:])
			if at < 0 {
				return
			}
			key := lists[at].key
			if len(key) != feedKeySize {
				yield(FeedEntry{}, tx.f.corrupt("feed", errors.New("bad key")))
				return
			}
			k := recordKeyAt(key)
			if !yield(FeedEntry{crm.Rev(binary.BigEndian.Uint64(key[4:])), k.Entity, k.ID, at == 2}, nil) {
				return
			}
			lists[at].next()
		}
	}
}

// first returns which cursor has the lowest key, -1 if all have ended.
func first(lists []*rowCursor) int {
	at := -1
	for i, c := range lists {
		if c.key != nil && (at < 0 || bytes.Compare(c.key, lists[at].key) < 0) {
			at = i
		}
	}
	return at
}

// TrimBelow drops tombstones and markers of Rev or below and returns how many.
// Who has a Cursor of Rev or more does not miss them.
func (tx *Tx) TrimBelow(rev crm.Rev) (int, error) {
	n := 0
	for _, s := range []space{spaceGone, spaceLeft} {
		for t := range tx.territoriesIn(s) {
			keys, err := tx.feedKeys(s, keyRange{appendTerritory(nil, t), after(feedPosition(t, rev))})
			if err != nil {
				return n, err
			}
			for _, key := range keys {
				if err := tx.dropRow(s, key); err != nil {
					return n, err
				}
				n++
			}
		}
	}
	return n, nil
}

// territoriesIn yields the territories that have rows in the buckets, in order.
// The buckets may be written meanwhile.
func (tx *Tx) territoriesIn(spaces ...space) iter.Seq[crm.TerritoryID] {
	return func(yield func(crm.TerritoryID) bool) {
		for at := []byte{0}; at != nil; {
			var least []byte
			for _, s := range spaces {
				k, _ := tx.rows.bucket(s, 0, 0).Cursor().Seek(at)
				if k != nil && (least == nil || bytes.Compare(k, least) < 0) {
					least = k
				}
			}
			if len(least) < 4 {
				return
			}
			next := after(least[:4])
			if !yield(crm.TerritoryID(binary.BigEndian.Uint32(least))) {
				return
			}
			at = next
		}
	}
}
