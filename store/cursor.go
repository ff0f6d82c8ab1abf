package store

import (
	"bytes"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// A keyRange is the keys from lo on and below hi; nil is no bound.
type keyRange struct{ lo, hi []byte }

func prefixRange(p []byte) keyRange { return keyRange{p, after(p)} }

func (r keyRange) holds(k []byte) bool {
	return bytes.Compare(k, r.lo) >= 0 && (r.hi == nil || bytes.Compare(k, r.hi) < 0)
}

// A source is keys in order: those of a bucket, or sorted rows in memory.
type source struct {
	bucket *table
	rows   []row
}

// A rowCursor walks the keys of a source inside a range, up or down. key is nil
// at the end; key and value are valid until next.
type rowCursor struct {
	keyRange
	desc       bool
	key, value []byte

	bolt *bolt.Cursor
	rows []row
	at   int
}

func newRowCursor(s source, r keyRange, desc bool) *rowCursor {
	c := &rowCursor{keyRange: r, desc: desc, rows: s.rows}
	if s.bucket != nil {
		c.bolt = s.bucket.Cursor()
	}
	if c.bolt != nil {
		c.stop(c.seek())
		return c
	}
	bound := r.lo
	if desc {
		bound = r.hi
	}
	c.at = len(c.rows)
	if bound != nil || !desc {
		c.at = sort.Search(len(c.rows), func(i int) bool { return bytes.Compare(c.rows[i].key, bound) >= 0 })
	}
	if desc {
		c.at--
	}
	c.stop(c.row())
	return c
}

func (c *rowCursor) seek() (k, v []byte) {
	if !c.desc {
		return c.bolt.Seek(c.lo)
	}
	if c.hi != nil {
		if k, _ := c.bolt.Seek(c.hi); k != nil {
			return c.bolt.Prev()
		}
	}
	return c.bolt.Last()
}

func (c *rowCursor) row() (k, v []byte) {
	if c.at < 0 || c.at >= len(c.rows) {
		return nil, nil
	}
	return c.rows[c.at].key, c.rows[c.at].value
}

func (c *rowCursor) next() {
	switch {
	case c.bolt != nil && c.desc:
		c.stop(c.bolt.Prev())
	case c.bolt != nil:
		c.stop(c.bolt.Next())
	case c.desc:
		c.at--
		c.stop(c.row())
	default:
		c.at++
		c.stop(c.row())
	}
}

// stop takes the key, or ends the walk where it leaves the range.
func (c *rowCursor) stop(k, v []byte) {
	if k == nil || !c.holds(k) {
		k, v = nil, nil
	}
	c.key, c.value = k, v
}
