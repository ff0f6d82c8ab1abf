package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// A table is an opened bucket.
type table struct {
	*boltBucket
	name   string       // at the top of the file; else ""
	cursor *bolt.Cursor // of Get, which bbolt's would make anew each time
}

// Get returns the value of the key, nil if there is none.
func (t *table) Get(key []byte) []byte {
	k, v := t.seek(key)
	if !bytes.Equal(k, key) {
		return nil
	}
	return v
}

// has reports whether the key is there, with whatever value.
func (t *table) has(key []byte) bool {
	k, _ := t.seek(key)
	return bytes.Equal(k, key)
}

// holds reports whether the row that c puts is there already.
func (t *table) holds(c rowChange) bool {
	k, v := t.seek(c.key)
	return !c.delete && bytes.Equal(k, c.key) && bytes.Equal(v, c.value)
}

// seek returns the first key that is not below, and its value.
func (t *table) seek(key []byte) (k, v []byte) {
	if t.cursor == nil {
		t.cursor = t.Cursor()
	}
	return t.cursor.Seek(key)
}

type boltBucket = bolt.Bucket // so that Bucket is its method
