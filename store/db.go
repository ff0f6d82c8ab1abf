package store

import (
	"os"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
)

// A DB is an open base file. Its methods may be called by any goroutine.
type DB struct {
	*file
	schemas schemaCache
	digests digestCache
}

// Open opens the base file at path and creates it if there is none. Errors are
// of code locked (another process has it), format (not a base file, or of a
// newer version), corrupt (damaged or cut off), disk_full, forbidden or
// not_found (no such directory), and name the file and the remedy. Rows that
// another version of the program wrote are rebuilt, unless the file is opened
// for reading only: lists and searches may then miss records.
func Open(path string, o Options) (*DB, error) {
	f, err := openFile(path, baseFile, o)
	if err != nil {
		return nil, err
	}
	db := &DB{file: f}
	f.swapped = db.forget
	if !o.ReadOnly {
		if err := db.complete(db.upgradeRows); err != nil {
			return nil, err
		}
	}
	return db, nil
}

// View runs fn in a read transaction.
func (db *DB) View(fn func(*Tx) error) error {
	tx, err := db.Begin(false)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return db.guard(func() error { return fn(tx) })
}

// Update runs fn in a writable transaction and commits it if fn returns nil.
// When Update returns nil the writes are durable.
func (db *DB) Update(fn func(*Tx) error) error {
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return db.guard(func() error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// Begin starts a transaction that the caller ends with Commit or Rollback. A
// writable one waits for the writable one before it.
func (db *DB) Begin(writable bool) (*Tx, error) {
	t, err := db.begin(writable)
	if err != nil {
		return nil, err
	}
	tx := &Tx{transaction: t, db: db}
	tx.reader = Reader{base: tx}
	if err := db.guard(tx.loadSchema); err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	return tx, nil
}

// Replace puts the file at newPath, which must be a closed file of the same
// kind on the same volume, in place of this one. It waits for open
// transactions and holds new ones back meanwhile. A crash leaves the old file
// or the new one. If newPath is not usable the old file stays. Rows that
// another version of the program wrote are rebuilt first.
func (db *DB) Replace(newPath string) error {
	if _, err := os.Stat(newPath); err != nil {
		return db.failure("replace", err)
	}
	o := db.opts
	o.OnCommit = nil
	next, err := Open(newPath, o)
	if err != nil {
		return err
	}
	if err := next.Close(); err != nil {
		return err
	}
	return db.replace(newPath)
}

// forget drops what was cached of the file that was replaced. Transaction
// numbers start anew in another file.
func (db *DB) forget() {
	db.schemas.forget()
	db.digests.forget()
}

// A schemaCache keeps the schema of the newest committed generation.
type schemaCache struct {
	mu         sync.Mutex // protects the rest
	generation uint64
	schema     *crm.Schema
}

func (c *schemaCache) get(generation uint64) *crm.Schema {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation {
		return c.schema
	}
	return nil
}

func (c *schemaCache) put(generation uint64, s *crm.Schema) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.schema == nil || generation >= c.generation {
		c.generation, c.schema = generation, s
	}
}

func (c *schemaCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation, c.schema = 0, nil
}
