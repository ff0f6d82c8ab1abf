package store

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/tradepost-crm/tradepost/crm"
)

// errDoubt is why a file is refused after a Disk panicked.
var errDoubt = errors.New("it was not synced to the end")

// doubt runs the last sync of an operation whose effect can be seen already.
// Unless it succeeds the file takes no more writes until it is mended.
func (f *file) doubt(sync func() error) error {
	f.broken = errDoubt
	if f.broken = sync(); f.broken == nil {
		return nil
	}
	return f.unsynced(f.broken)
}

// unsynced makes known that the file shows what may not last.
func (f *file) unsynced(cause error) error {
	f.broken = cause
	f.inDoubt.Store(true)
	f.opts.Logger.Error("ALARM: the disk did not confirm a write; the file takes no more until it does", "file", f.path, "error", cause)
	if f.opts.OnDoubt != nil {
		f.opts.OnDoubt(cause)
	}
	return &crm.Error{Code: crm.CodeUnsynced, Op: "commit", Item: f.path, Err: cause,
		Message: "the disk did not confirm the write, which may or may not last; look whether it is there before making it again, and see to the disk"}
}

// sound mends the file if it takes no writes, and returns why that fails. It
// needs f.writer held, and no transaction of the caller's open.
func (f *file) sound(op string) error {
	if f.broken == nil {
		return nil
	}
	err := f.mend()
	if err == nil || crm.CodeOf(err) == crm.CodeCorrupt {
		return err
	}
	return &crm.Error{Code: crm.CodeUnavailable, Op: op, Item: f.path, Err: errors.Join(f.broken, err),
		Message: "an earlier write may not have reached the disk, so none is taken until it has; see to the disk, the node goes on by itself when it works"}
}

// Mend makes durable what the file shows, if a sync that failed has left that in
// doubt; else it returns at once. Whoever writes does it first. It is for those
// who only read and tell others what they found. It waits for open transactions,
// so the caller must have none.
func (f *file) Mend() error {
	if !f.inDoubt.Load() {
		return nil
	}
	f.writer.Lock()
	defer f.writer.Unlock()
	return f.sound("mend")
}

// mend needs f.writer held; without bolt, an earlier try, or an exchange, got no
// further. The file is opened anew because bbolt, when a commit fails, counts as
// free what readers of the state before may still see.
func (f *file) mend() error {
	if errors.Is(f.broken, errDoubt) {
		return f.broken
	}
	f.swap.Lock()
	defer f.swap.Unlock()
	if f.bolt != nil {
		if err := f.settle(); err != nil {
			return err
		}
		if err := f.bolt.Close(); err != nil {
			return err
		}
		f.bolt = nil
	} else if err := f.sync(filepath.Dir(f.path)); err != nil {
		return err
	}
	if err := f.verify(f.path); err != nil {
		return err
	}
	db, err := f.open(f.path)
	if err != nil {
		return err
	}
	f.bolt, f.broken = db, nil
	f.inDoubt.Store(false)
	f.opts.Logger.Warn("what the disk had not confirmed is durable now; the file takes writes again", "file", f.path)
	if f.opts.OnDoubt != nil {
		f.opts.OnDoubt(nil)
	}
	return nil
}

// rewriteHeads writes both heads of an open file once more. After an fsync that
// failed, systems count the pages as written, and the next fsync succeeds without
// them (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
// The pages that a head leads to were synced before it was written.
func (f *file) rewriteHeads() error {
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	heads := make([]byte, 2*f.bolt.Info().PageSize)
	_, err = file.ReadAt(heads, 0)
	if err == nil {
		_, err = file.WriteAt(heads, 0)
	}
	return errors.Join(err, file.Close())
}
