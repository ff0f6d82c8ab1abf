package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	bolterr "go.etcd.io/bbolt/errors"

	"github.com/tradepost-crm/tradepost/crm"
)

// remedy says what to do about a damaged file.
func (k kind) remedy() string {
	if k == journalFile {
		return "do not delete it: it holds edits that exist nowhere else; restore the directory from a backup, or ask for help with `tradepost check`"
	}
	return "on a replica stop the node and delete the file: it will be rebuilt from the masters; on a master remove it with `tradepost operator raft remove-peer` at another one and join anew in a new directory; restore a backup only if no majority of the masters is left (docs/restore.md)"
}

// failure wraps an error of bbolt or the file system for the person who runs
// the node. It leaves a *crm.Error as it is.
func (f *file) failure(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*crm.Error](err); ok {
		return err
	}
	e := &crm.Error{Code: crm.CodeInternal, Op: op, Item: f.path, Message: "the file cannot be used", Err: err}
	switch {
	case isFull(err):
		e.Code, e.Message = crm.CodeDiskFull, fmt.Sprintf("free space on the volume of %s; nothing was acknowledged", filepath.Dir(f.path))
	case errors.Is(err, bolterr.ErrTimeout):
		e.Code, e.Message = crm.CodeLocked, "another process has the file open; stop it first"
	case errors.Is(err, bolterr.ErrDatabaseNotOpen):
		e.Code, e.Message = crm.CodeUnavailable, "the file is closed"
	case errors.Is(err, bolterr.ErrTxNotWritable), errors.Is(err, bolterr.ErrDatabaseReadOnly):
		e.Message = "written to in a read-only transaction"
	case errors.Is(err, os.ErrPermission):
		e.Code, e.Message = crm.CodeForbidden, "this user may not use the file; run the node as the user that owns its directory"
	case errors.Is(err, os.ErrNotExist):
		e.Code, e.Message = crm.CodeNotFound, "the directory does not exist; create it"
	}
	return e
}

// isFull reports whether err means that the file could not grow.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) ||
		errors.Is(err, bolterr.ErrMaxSizeReached)
}

// corrupt is the error for stored bytes that cannot be right.
func (f *file) corrupt(what string, err error) error {
	return &crm.Error{Code: crm.CodeCorrupt, Op: "read " + what, Item: f.path, Message: "the file is damaged; " + f.kind.remedy(), Err: err}
}

// A Damage is in the chain of the error about a live record or tombstone of the
// base whose bytes cannot be right. The rest of the file may be sound.
type Damage struct {
	Record RecordKey
	Err    error // what is wrong
}

// damaged is the error about the bytes of a record of the base.
func (f *file) damaged(k RecordKey, err error) error { return f.corrupt(k.String(), &Damage{k, err}) }

// Error says what is wrong.
func (d *Damage) Error() string { return d.Err.Error() }

// Unwrap returns what is wrong.
func (d *Damage) Unwrap() error { return d.Err }
