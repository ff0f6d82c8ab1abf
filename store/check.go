package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Finding is one thing that Check found wrong.
type Finding struct {
	Bucket string // where: a bucket of docs/format.md, or "page"
	Item   string // what: a record, key or territory
	Detail string // what is wrong with it
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
	c.findings = append(c.findings, Finding{string(b.top()), item, fmt.Sprintf(format, args...)})
	if len(c.findings) >= maxFindings {
		return errEnough
	}
	return c.ctx.Err()
}

// done turns the end of a check into its result: damage that stopped it is a
// finding, the end of ctx an error.
func (c *checker) done(err error) ([]Finding, error) {
	if crm.CodeOf(err) == crm.CodeCorrupt {
		c.findings = append(c.findings, Finding{"page", c.t.f.path, err.Error()})
		err = nil
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return c.findings, err
}

// pages checks the structure of the file as the transaction began.
func (c *checker) pages() error {
	f, err := os.Open(c.t.f.path)
	if err != nil {
		return c.t.f.failure("check", err)
	}
	defer f.Close()
	size := c.t.bolt.DB().Info().PageSize
	m := meta{pageSize: uint32(size), root: uint64(c.t.bolt.Cursor().Bucket().Root()), pages: uint64(c.t.bolt.Size()) / uint64(size)}
	if err := checkPages(f, m); err != nil {
		return c.t.f.corrupt("page", err)
	}
	return nil
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

// seals checks the checksum of all values of a bucket, and what decode says of
// their content.
func (c *checker) seals(b bucket, size int, decode func(k, body []byte) error) error {
	return c.each(b, size, func(k, v []byte) error {
		body, err := unseal(k, v)
		if err == nil {
			err = decode(k, body)
		}
		if err != nil {
			return c.found(b, fmt.Sprintf("%x", k), "%v", err)
		}
		return nil
	})
}

func (c *checker) has(b bucket, key []byte) bool {
	return c.t.top(b).has(key)
}

func anyBody(_, _ []byte) error { return nil }

// rows compares the rows in the file with those of the records: each wanted row
// is there, and as many are there as are wanted.
func (c *checker) rows(t *rowTable, s *crm.Schema, records func(func(*crm.Record) error) error) error {
	wanted := 0
	err := records(func(r *crm.Record) error {
		for _, row := range rowsOf(s.EntityByID(r.Entity), r) {
			wanted++
			if !t.has(r.Entity, row) {
				if err := c.found(row.space.bucket(), RecordKey{r.Entity, r.ID}.String(), "row %x of index %d is missing", row.key, row.index); err != nil {
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
