package store

import (
	"errors"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
)

// A rule says what the entries of a bucket look like, each by itself.
type rule struct {
	bucket bucket
	size   int  // of the key, names of nested buckets included; 0: any
	sealed bool // the value carries a checksum
	body   func(k, body []byte) error
}

// rules lists those of each kind of file. What stands in the index buckets only
// the records can tell.
var rules = map[kind][]rule{
	baseFile: {
		{bucketState, 0, true, ofSize(8)},
		{bucketMeta, 0, true, anyBody},
		{bucketLive, keySize, true, isDeleted(false)},
		{bucketDead, keySize, true, isDeleted(true)},
		{bucketFeed, feedKeySize, false, empty},
		{bucketGone, feedKeySize, false, empty},
		{bucketLeft, feedKeySize, false, empty},
		{bucketRoots, idSize + keySize, false, empty},
		{bucketBuried, idSize + 2 + keySize, false, empty},
		{bucketWords, 0, false, ofSize(1)},
		{bucketDigest, 5, false, ofSize(bucketSize)},
		{bucketCount, 2, false, ofSize(8)},
		{bucketRefused, idSize, true, ofSize(idSize)},
		{bucketNode, 4, true, func(_, v []byte) error { _, err := decodeNodeState(0, v); return err }},
		{bucketOutcome, 12, true, func(_, v []byte) error { _, err := decodeOutcome(v); return err }},
		{bucketStage, 0, true, anyBody},
	},
	journalFile: {
		{bucketSelf, 0, true, anyBody},
		{bucketMeta, 0, true, anyBody},
		{bucketOutbox, 8, true, pending},
		{bucketTail, 8, true, func(_, v []byte) error { _, err := decodeEntry(0, v); return err }},
		{bucketOverlay, keySize, true, aRecord},
		{bucketRoots, idSize + keySize, false, empty},
		{bucketBuried, idSize + 2 + keySize, false, empty},
		{bucketWords, 0, false, ofSize(1)},
		{bucketTouch, keySize + 8, false, empty},
		{bucketTouched, 8 + keySize, false, empty},
		{bucketSeries, 0, true, ofSize(8)},
	},
}

// ruleOf returns the rule for a bucket at the top of the file, nil if there is none.
func ruleOf(k kind, top []byte) *rule {
	for i, r := range rules[k] {
		if string(r.bucket.top()) == string(top) {
			return &rules[k][i]
		}
	}
	return nil
}

// check returns what is wrong with an entry. The key begins with the names of
// the nested buckets around it.
func (r *rule) check(k, v []byte) error {
	if r.size != 0 && len(k) != r.size {
		return fmt.Errorf("the key has %d bytes, not %d", len(k), r.size)
	}
	if r.sealed {
		body, err := unseal(k, v)
		if err != nil {
			return err
		}
		v = body
	}
	return r.body(k, v)
}

func pending(_, v []byte) error {
	e, err := decodeEntry(0, v)
	if err == nil && e.Withheld && e.Rev == 0 {
		err = errors.New("the mutation is missing, and nobody else has it")
	}
	return err
}

func aRecord(k, v []byte) error {
	at := recordKeyAt(k)
	_, err := crm.DecodeRecord(at.Entity, at.ID, v)
	return err
}

func anyBody(_, _ []byte) error { return nil }

func ofSize(n int) func(k, v []byte) error {
	return func(_, v []byte) error {
		if len(v) != n {
			return errShort
		}
		return nil
	}
}

var empty = ofSize(0)

func isDeleted(deleted bool) func(k, v []byte) error {
	return func(_, v []byte) error {
		if crm.EncodedDeleted(v) != deleted {
			return fmt.Errorf("deleted is %v", !deleted)
		}
		return nil
	}
}
