package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A Disk stands between the files and the disk: it sees what must become
// durable and may make it fail. Production has none. Its functions, each of
// which may be nil, are called in the goroutine of the operation, some of them
// while the file is locked: they must not use the file through this package.
// The path is that of the file concerned, in replace and compact that of the
// file whose place is taken.
//
// # Failures
//
// An error of Before is treated as one of the file system at that point: the
// transaction is rolled back whole, or the old file stays, and the file can be
// used on. A panic of any of the three passes through, the transaction has
// ended then and nothing but Close is left to do with the file.
//
// An error of Sync in a commit leaves a state that only the next reader of the
// disk knows: the commit is reported as failed, but the pages were written, so
// transactions that begin later show it, and a crash may keep or lose it. The
// same holds where the disk itself fails after the head of the file was written,
// and where the new name of an exchanged file may not be durable. Its error has
// code unsynced. No later write could be promised to last, so whoever writes next
// first makes durable what the file shows, see Mend; while that fails, writable
// transactions, Replace and Compact are refused with code unavailable. It can be
// read.
//
// # Crash images
//
// Without a Disk bbolt commits in four steps: write the changed pages, sync,
// write the head (one of the first two pages of the file: the number of the
// transaction mod 2 says which), sync. The changed pages are free in the state
// before, or lie behind the end of the file. With Sync the four have become
// write, write, one call of Sync, and the file grows by what is written rather
// than ahead of it. Who computes what a crash may leave takes the file as it was
// at the last Sync, which is durable, and adds, of what differs since,
//   - no head and any part, torn where it likes, of the other pages, or
//   - all other pages, and any part of the head.
//
// The part of a page that survives is made of whole sectors of 512 bytes. The
// head fits into one, and carries a checksum. A head without all the other pages
// is not a crash but a broken disk.
//
// Opening a file that is there, and mending one, calls Sync for it and for its
// directory: a process that was killed may have left in the cache what a loss of
// power would take.
// Create writes path.new, calls Sync for it, renames it to path and calls Sync
// for the directory; Compact does the same with path.compact, and Replace with
// the file it was given. A crash between the last two keeps either name.
type Disk struct {
	Before func(op DiskOp, path string) error // before anything of the operation is written
	Sync   func(path string) error            // makes a file's bytes, or a directory's names, durable in place of fsync
	After  func(op DiskOp, path string)       // after the operation is durable, before anybody is told
}

// A DiskOp is one kind of operation that a [Disk] sees.
type DiskOp uint8

// The operations.
const (
	DiskCommit  DiskOp = iota + 1 // of a writable transaction
	DiskCreate                    // of a file that was not there
	DiskReplace                   // by another file
	DiskCompact                   // into a new file
)

func (op DiskOp) String() string {
	if name, ok := map[DiskOp]string{DiskCommit: "commit", DiskCreate: "create", DiskReplace: "replace", DiskCompact: "compact"}[op]; ok {
		return name
	}
	return fmt.Sprintf("operation %d", uint8(op))
}

// around runs an operation between Before and After.
func (d *Disk) around(op DiskOp, path string, run func() error) error {
	if d != nil && d.Before != nil {
		if err := d.Before(op, path); err != nil {
			return err
		}
	}
	if err := run(); err != nil {
		return err
	}
	if d != nil && d.After != nil {
		d.After(op, path)
	}
	return nil
}

// syncs reports whether the Disk syncs in place of bbolt.
func (o *Options) syncs() bool { return !o.NoSync && o.Disk != nil && o.Disk.Sync != nil }

// sync makes the file or directory at path durable.
func (f *file) sync(path string) error {
	switch {
	case f.opts.NoSync:
		return nil
	case f.opts.syncs():
		return f.opts.Disk.Sync(path)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// publish renames a synced file to f.path and makes the name durable. If that
// cannot be done the new file may be there all the same, and be gone after a
// crash with all that was written to it.
func (f *file) publish(from string) error {
	if err := os.Rename(from, f.path); err != nil {
		return err
	}
	return f.doubt(func() error { return f.sync(filepath.Dir(f.path)) })
}
