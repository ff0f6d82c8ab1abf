package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Finding is one thing that Check or Scrub found wrong.
type Finding struct {
	Bucket string // where: a bucket of docs/format.md, or "page"
	Item   string // what: a record, key or territory
	Detail string // what is wrong with it

	Record       RecordKey       // that it is about; zero: none, or several
	Territory    crm.TerritoryID // whose bucket DigestBucket it lies in, so that Tx.DropBucket and putting that bucket's records mends it; 0: none, or not known
	DigestBucket byte
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Bucket, f.Item, f.Detail) }

// maxFindings bounds what a check reports; a file as bad as that is replaced,
// not repaired.
const maxFindings = 1000

var errEnough = errors.New("enough")

// A checker collects findings about one transaction.
type checker struct {
	ctx      context.Context
	t        *transaction
	findings []Finding
}

func (c *checker) found(b bucket, item, format string, args ...any) error {
	return c.report(Finding{Bucket: string(b.top()), Item: item, Detail: fmt.Sprintf(format, args...)})
}

// foundIn reports what is wrong with a live record of the territory.
func (c *checker) foundIn(t crm.TerritoryID, b bucket, k RecordKey, format string, args ...any) error {
	return c.report(Finding{string(b.top()), k.String(), fmt.Sprintf(format, args...), k, t, k.digestBucket()})
}

func (c *checker) report(f Finding) error {
	c.findings = append(c.findings, f)
	if len(c.findings) >= maxFindings {
		return errEnough
	}
	return c.ctx.Err()
}

// done turns the end of a check into its result: damage that stopped it is a
// finding, the end of ctx an error.
func (c *checker) done(err error) ([]Finding, error) {
	if crm.CodeOf(err) == crm.CodeCorrupt {
		c.findings = append(c.findings, Finding{Bucket: "page", Item: c.t.f.path, Detail: err.Error()})
		err = nil
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err == nil && c.t.f.kind == baseFile {
		err = c.locate()
	}
	return c.findings, err
}

// locate completes what is known of live records that cannot be read: their feed
// rows tell where they belong. It reads all feed rows once if there is any.
func (c *checker) locate() error {
	lost := map[RecordKey][]*Finding{}
	for i := range c.findings {
		if f := &c.findings[i]; f.Bucket == string(bucketLive.top()) && f.Territory == 0 && f.Record != (RecordKey{}) {
			lost[f.Record] = append(lost[f.Record], f)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	file, w, err := c.t.walk()
	if err != nil {
		return err
	}
	defer file.Close()
	w.from = [][]byte{bucketFeed.top()}
	w.damaged = func([][]byte, span, error) error { return nil } // it is a finding of its own
	w.visit = func(path [][]byte, key, _ []byte) error {
		if string(path[0]) != string(w.from[0]) {
			return errEnough
		}
		if len(key) == feedKeySize {
			k := recordKeyAt(key)
			for _, f := range lost[k] {
				f.Territory, f.DigestBucket = territoryAt(key), k.digestBucket()
			}
		}
		return c.ctx.Err()
	}
	if err := w.run(); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// checkPages checks the structure of the file as the transaction began.
func (t *transaction) checkPages() error {
	f, w, err := t.walk()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.run(); err != nil {
		return t.f.corrupt("page", err)
	}
	return nil
}

// walk returns a walk over the file as the transaction began, which its caller
// closes.
func (t *transaction) walk() (*os.File, *pageWalk, error) {
	f, err := os.Open(t.f.path)
	if err != nil {
		return nil, nil, t.f.failure("check", err)
	}
	size := t.bolt.DB().Info().PageSize
	m := meta{pageSize: uint32(size), root: uint64(t.bolt.Cursor().Bucket().Root()), pages: uint64(t.bolt.Size()) / uint64(size)}
	return f, newPageWalk(f, m), nil
}

// each calls fn for all keys of a bucket at the top of the file, and reports
// keys that have not the size, if size is not 0.
func (c *checker) each(b bucket, size int, fn func(k, v []byte) error) error {
	cur := c.t.top(b).Cursor()
	for k, v := cur.First(); k != nil; k, v = cur.Next() {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if size != 0 && len(k) != size {
			if err := c.found(b, fmt.Sprintf("%x", k), "the key has %d bytes, not %d", len(k), size); err != nil {
				return err
			}
			continue
		}
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}

// values checks the entries of buckets against their rules.
func (c *checker) values(buckets ...bucket) error {
	var all error
	for _, b := range buckets {
		r := ruleOf(c.t.f.kind, b.top())
		all = errors.Join(all, c.each(b, r.size, func(k, v []byte) error {
			if err := r.check(k, v); err != nil {
				return c.found(b, fmt.Sprintf("%x", k), "%v", err)
			}
			return nil
		}))
	}
	return all
}

func (c *checker) has(b bucket, key []byte) bool {
	return c.t.top(b).has(key)
}

// rows compares the rows in the file with those of the records: each wanted row
// is there, and as many are there as are wanted.
func (c *checker) rows(t *rowTable, s *crm.Schema, records func(func(*crm.Record) error) error) error {
	wanted := 0
	err := records(func(r *crm.Record) error {
		for _, row := range rowsOf(s.EntityByID(r.Entity), r) {
			wanted++
			if !t.has(r.Entity, row) {
				if err := c.missing(r, row); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	there, err := c.countRows()
	if err == nil && there != wanted {
		err = c.found(bucketIndex, "all rows", "%d rows, but the records ask for %d", there, wanted)
	}
	return err
}

func (c *checker) missing(r *crm.Record, row row) error {
	t := r.Territory
	if r.Deleted || c.t.f.kind != baseFile {
		t = 0
	}
	return c.foundIn(t, row.space.bucket(), RecordKey{r.Entity, r.ID}, "row %x of index %d is missing", row.key, row.index)
}

func (c *checker) countRows() (int, error) {
	n := 0
	count := func(_, _ []byte) error { n++; return c.ctx.Err() }
	for _, b := range []bucket{bucketRoots, bucketBuried, bucketWords} {
		if err := c.t.top(b).ForEach(count); err != nil {
			return n, err
		}
	}
	indexes := c.t.top(bucketIndex)
	err := indexes.ForEachBucket(func(k []byte) error { return indexes.Bucket(k).ForEach(count) })
	return n, err
}

// has reports whether the row is in the file with its value.
func (t *rowTable) has(e crm.EntityID, r row) bool {
	b := t.bucket(r.space, e, r.index)
	if b == nil {
		return false
	}
	k, v := b.Cursor().Seek(r.key)
	return bytes.Equal(k, r.key) && bytes.Equal(v, r.value)
}
