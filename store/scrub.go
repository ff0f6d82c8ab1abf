package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// Scrub verifies a part of the file, so that damage is found before somebody
// needs the bytes. from is nil for the first part, then what the call before
// returned; next is nil when all of the file was seen. The steps of a round may
// lie as far apart as one likes, and the file may be written and exchanged
// between them: each step looks at the state of the file as it begins.
//
// budget, at least 1, bounds a step: it ends after that many entries, which hold
// a read transaction open for about a microsecond each. Of the digest of a
// territory a step does at least one bucket, for which it walks the keys of the
// territory's feed, about 50 ns a record.
//
// A round checks the structure of all pages with the size of keys and the
// checksum of values in every bucket, and then, in a base file, that each bucket
// of the digest of each territory is the sum of its records. Damage is a
// Finding, and what lies behind it is looked at all the same; but after a
// Finding in "page" the digests are left out, since such a file is replaced and
// not mended. Index rows, markers and the like have no checksum; whether they fit
// the records only Check tells. The error is that of ctx or of the file system;
// next is then where to go on.
//
// It reads through the cache of the operating system, as everybody does: a bad
// sector under a page in the cache is found once the page has left it.
func (f *file) Scrub(ctx context.Context, from []byte, budget int) (next []byte, findings []Finding, err error) {
	t, err := f.begin(false)
	if err != nil {
		return from, nil, err
	}
	defer t.Rollback()
	s := &scrub{checker: checker{ctx: ctx, t: t}, left: max(budget, 1)}
	at := parsePosition(from)
	for err == nil && s.left > 0 && at.phase != scrubDone {
		at, err = s.step(at)
	}
	if errors.Is(err, errEnough) { // of a file as bad as that the rest does not matter
		at.phase = scrubDone
	}
	findings, err = s.done(err)
	return at.append(nil), findings, err
}

// The phases of a round.
const (
	scrubEntries byte = iota + 1
	scrubTorn         // as scrubEntries, but a page is damaged: bbolt may lose its way in the file
	scrubDigests
	scrubDone
)

// A position is where a step of Scrub begins.
type position struct {
	phase byte
	path  [][]byte // scrubEntries, scrubTorn: names of nested buckets and a key; nil: the first
	sum   sumKey   // scrubDigests: the first that is not checked
}

// append appends the position as Scrub gives it out: phase:1, then size:2 name
// for each of path, or the territory:4 bucket:1 of sum.
func (p position) append(dst []byte) []byte {
	if p.phase == scrubDone {
		return nil
	}
	dst = append(dst, p.phase)
	if p.phase == scrubDigests {
		return append(dst, p.sum.bytes()...)
	}
	for _, name := range p.path {
		dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(name))), name...)
	}
	return dst
}

// parsePosition reads what append wrote; anything else is the start of a round.
func parsePosition(b []byte) position {
	start := position{phase: scrubEntries}
	switch {
	case len(b) == 6 && b[0] == scrubDigests:
		return position{phase: scrubDigests, sum: sumKey{territoryAt(b[1:]), b[5]}}
	case len(b) == 0 || b[0] != scrubEntries && b[0] != scrubTorn:
		return start
	}
	p := position{phase: b[0]}
	for b = b[1:]; len(b) >= 2; {
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n > len(b) {
			return start
		}
		p.path, b = append(p.path, b[:n]), b[n:]
	}
	return p
}

// A scrub is one step of a round.
type scrub struct {
	checker
	left int // of the budget
}

// step returns where the next one begins, which is at after an error.
func (s *scrub) step(at position) (position, error) {
	if at.phase == scrubDigests {
		return s.digests(at)
	}
	return s.entries(at)
}

// errPause ends a walk because the budget is used up.
var errPause = errors.New("pause")

// entries checks pages and entries from a position on.
func (s *scrub) entries(at position) (position, error) {
	f, w, err := s.t.walk()
	if err != nil {
		return at, err
	}
	defer f.Close()
	var top string
	var rule *rule // of top
	var key []byte
	next := at
	w.from = at.path
	w.visit = func(path [][]byte, k, v []byte) error {
		if s.left == 0 {
			next.path = clonePath(path, k)
			return errPause
		}
		s.left--
		if len(path) == 0 { // bbolt has only buckets at the top
			return s.found(bucketFormat, fmt.Sprintf("%x", k), "it is in no bucket")
		}
		if string(path[0]) != top {
			top, rule = string(path[0]), ruleOf(s.t.f.kind, path[0])
		}
		if rule == nil {
			return s.ctx.Err()
		}
		key = key[:0]
		for _, name := range path[1:] {
			key = append(key, name...)
		}
		return s.entry(rule, append(key, k...), v)
	}
	w.damaged = func(path [][]byte, keys span, err error) error {
		next.phase = scrubTorn
		return s.page(path, keys, err)
	}
	switch err := w.run(); {
	case errors.Is(err, errPause):
		return next, nil
	case err != nil:
		return at, err
	case s.t.f.kind == baseFile && next.phase == scrubEntries:
		return position{phase: scrubDigests}, nil
	}
	return position{phase: scrubDone}, nil
}

func clonePath(path [][]byte, key []byte) [][]byte {
	var out [][]byte
	for _, name := range append(slices.Clip(path), key) {
		out = append(out, bytes.Clone(name))
	}
	return out
}

func (s *scrub) entry(r *rule, k, v []byte) error {
	err := r.check(k, v)
	if err == nil {
		return s.ctx.Err()
	}
	if len(k) == keySize && r.size == keySize {
		return s.foundIn(0, r.bucket, recordKeyAt(k), "%v", err)
	}
	return s.found(r.bucket, fmt.Sprintf("%x", k), "%v", err)
}

// page reports a part of the tree that cannot be walked.
func (s *scrub) page(path [][]byte, keys span, err error) error {
	item := fmt.Sprintf("from key %x", keys.lo)
	for i := len(path) - 1; i > 0; i-- {
		item = fmt.Sprintf("%x %s", path[i], item)
	}
	if len(path) > 0 {
		item = string(path[0]) + " " + item
	}
	return s.report(Finding{Bucket: "page", Item: item, Detail: err.Error()})
}

// digests checks some of the digest of the first territory from a position on.
func (s *scrub) digests(at position) (position, error) {
	next := position{phase: scrubDone}
	err := s.t.f.guard(func() error {
		tx := &Tx{transaction: s.t, rows: rowTable{t: s.t}} // without a schema, which may be damaged
		t, ok := tx.firstTerritory(at.sum.territory)
		if !ok {
			return nil
		}
		from := 0
		if t == at.sum.territory {
			from = int(at.sum.bucket)
		}
		to := min(from+max(1, s.left/int(tx.perBucket(t)+1)), DigestBuckets)
		next = behind(t, to)
		return s.sums(tx, t, from, to)
	})
	if crm.CodeOf(err) == crm.CodeCorrupt {
		err = s.report(Finding{Bucket: "page", Item: fmt.Sprintf("digest of territory %d", at.sum.territory), Detail: err.Error()})
	}
	if err != nil {
		return at, err
	}
	return next, nil
}

// behind returns the position behind the buckets of t below to.
func behind(t crm.TerritoryID, to int) position {
	switch {
	case to < DigestBuckets:
		return position{phase: scrubDigests, sum: sumKey{t, byte(to)}}
	case t < math.MaxUint32:
		return position{phase: scrubDigests, sum: sumKey{t + 1, 0}}
	}
	return position{phase: scrubDone}
}

// firstTerritory returns the first territory not below t that has live records
// or a digest.
func (tx *Tx) firstTerritory(t crm.TerritoryID) (crm.TerritoryID, bool) {
	var first []byte
	for _, b := range []bucket{bucketFeed, bucketDigest} {
		k, _ := tx.top(b).seek(appendTerritory(nil, t))
		if len(k) >= 4 && (first == nil || bytes.Compare(k[:4], first) < 0) {
			first = k[:4]
		}
	}
	if first == nil {
		return 0, false
	}
	return territoryAt(first), true
}

// perBucket returns about how many records are in each bucket of the territory.
func (tx *Tx) perBucket(t crm.TerritoryID) uint64 {
	n := uint64(0)
	for b := range DigestBuckets {
		if sum, err := tx.storedSum(sumKey{t, byte(b)}); err == nil {
			n += sum.Count
		}
	}
	return n / DigestBuckets
}

// sums compares the buckets of t from one up to another, which is excluded, with
// the records that the feed leads to.
func (s *scrub) sums(tx *Tx, t crm.TerritoryID, from, to int) error {
	var sums [DigestBuckets]Bucket
	walked := 0
	for k, err := range tx.feedRecords(t) {
		if err != nil {
			return err
		}
		if walked++; walked%1024 == 0 && s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		b := int(k.digestBucket())
		if b < from || b >= to {
			continue
		}
		s.left--
		v := tx.liveValue(k)
		if len(v) < sealSize {
			if err := s.foundIn(t, bucketFeed, k, "there is no such live record"); err != nil {
				return err
			}
			continue
		}
		sums[b].add(recordHash(k, v[sealSize:]))
	}
	s.left -= 1 + walked/16
	for b := from; b < to; b++ {
		at := sumKey{t, byte(b)}
		if stored, err := tx.storedSum(at); err != nil || sums[b] != stored {
			if err := s.notItsSum(at); err != nil {
				return err
			}
		}
	}
	return s.ctx.Err()
}
