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
	if f.bolt == nil {
		return nil
	}
	err := f.bolt.Close()
	f.bolt = nil
	return f.failure("close", err)
}

// replace puts the verified file at newPath in place of this one.
func (f *file) replace(newPath string) error {
	if err := syncFile(newPath); err != nil {
		return f.failure("replace", err)
	}
	f.writer.Lock()
	defer f.writer.Unlock()
	return f.exchange(newPath)
}

// exchange needs f.writer held and newPath verified and synced.
func (f *file) exchange(newPath string) error {
	f.swap.Lock()
	defer f.swap.Unlock()
	if f.bolt == nil {
		return f.failure("replace", berrors.ErrDatabaseNotOpen)
	}
	if err := f.bolt.Close(); err != nil {
		return f.failure("replace", err)
	}
	f.bolt = nil
	renamed := publish(newPath, f.path)
	f.changes.restart()
	if f.swapped != nil {
		f.swapped()
	}
	db, err := f.open(f.path)
	if err == nil {
		f.bolt = db
		f.opts.Logger.Info("file replaced", "path", f.path, "bytes", fileSize(f.path))
	}
	return f.failure("replace", errors.Join(renamed, err))
}

// Compact rewrites the file without free pages and puts it in place, so that
// no freed page keeps bytes of purged records. Writers wait from the start,
// readers only while the files are exchanged.
func (f *file) Compact() error {
	f.writer.Lock()
	defer f.writer.Unlock()
	path := f.path + ".compact"
	if err := f.copyTo(path); err != nil {
		return f.failure("compact", errors.Join(err, os.Remove(path)))
	}
	return f.exchange(path)
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
	return errors.Join(err, dst.Sync(), dst.Close())
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
