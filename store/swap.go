package store

import (
	"errors"
	"os"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Close waits for open transactions and closes the file. Later calls do nothing.
func (f *file) Close() error {
	f.writer.Lock()
	defer f.writer.Unlock()
	f.swap.Lock()
	defer f.swap.Unlock()
	f.broken = nil
	f.inDoubt.Store(false)
	if f.bolt == nil {
		return nil
	}
	err := f.bolt.Close()
	f.bolt = nil
	return f.failure("close", err)
}

// replace puts the verified file at newPath in place of this one.
func (f *file) replace(newPath string) error {
	return f.failure("replace", f.opts.Disk.around(DiskReplace, f.path, func() error {
		if err := f.sync(newPath); err != nil {
			return err
		}
		f.writer.Lock()
		defer f.writer.Unlock()
		if err := f.sound("replace"); err != nil {
			return err
		}
		return f.exchange(newPath)
	}))
}

// exchange needs f.writer held and newPath verified and synced.
func (f *file) exchange(newPath string) error {
	f.swap.Lock()
	defer f.swap.Unlock()
	if f.bolt == nil {
		return berrors.ErrDatabaseNotOpen
	}
	if err := f.bolt.Close(); err != nil {
		return err
	}
	f.bolt = nil
	renamed := f.publish(newPath)
	f.changes.restart()
	if f.swapped != nil {
		f.swapped()
	}
	db, err := f.open(f.path)
	if err != nil {
		return errors.Join(renamed, f.unsynced(err)) // mend opens it
	}
	f.bolt = db
	f.opts.Logger.Info("file replaced", "path", f.path, "bytes", fileSize(f.path))
	return renamed
}

// Compact rewrites the file without free pages and puts it in place, so that
// no freed page keeps bytes of purged records. Writers wait from the start,
// readers only while the files are exchanged.
func (f *file) Compact() error {
	f.writer.Lock()
	defer f.writer.Unlock()
	if err := f.sound("compact"); err != nil {
		return err
	}
	return f.failure("compact", f.opts.Disk.around(DiskCompact, f.path, func() error {
		path := f.path + ".compact"
		if err := f.copyTo(path); err != nil {
			return errors.Join(err, os.Remove(path))
		}
		return f.exchange(path)
	}))
}

func (f *file) copyTo(path string) error {
	f.swap.RLock()
	defer f.swap.RUnlock()
	if f.bolt == nil {
		return berrors.ErrDatabaseNotOpen
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	o := f.options(false)
	o.NoSync = true
	dst, err := bolt.Open(path, 0o600, o)
	if err != nil {
		return err
	}
	const txBytes = 16 << 20
	err = f.guard(func() error { return bolt.Compact(dst, f.bolt, txBytes) })
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	return f.sync(path)
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
