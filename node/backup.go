package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
)

func (n *Node) writeBackup(ctx context.Context, w io.Writer) error {
	_, err := n.master.Backup(ctx, w)
	return err
}

func (n *Node) announceBackup(ctx context.Context, trailer json.RawMessage) error {
	var b master.BackupInfo
	if err := json.Unmarshal(trailer, &b); err != nil {
		return &crm.Error{Code: crm.CodeInvalid, Op: "announce backup", Message: "this does not describe a backup: " + err.Error()}
	}
	return n.master.Announce(ctx, b)
}

// SaveBackup makes a backup file at path of what write writes: under another name
// first, synced, checked whole, and only then renamed, so that what bears the
// name is a backup. A file that is there already is not replaced.
func SaveBackup(ctx context.Context, path string, write func(io.Writer) error) (b master.BackupInfo, err error) {
	const op = "save backup"
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return b, &crm.Error{Code: crm.CodeExists, Op: op, Item: path, Message: "the file exists, and a backup replaces none; give another name", Err: err}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*")
	if err != nil {
		return b, dirError(op, path, "no file can be made there: %v", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return b, errors.Join(noRoom(op, path, err), f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return b, noRoom(op, path, err)
	}
	if b, err = master.VerifyBackup(ctx, f.Name()); err != nil {
		return b, fmt.Errorf("%s: what was written is not sound: %w", op, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return b, dirError(op, path, "%v", err)
	}
	return b, syncDir(filepath.Dir(path))
}

// VerifyBackup reads a backup file whole; see [master.VerifyBackup].
func VerifyBackup(ctx context.Context, path string) (master.BackupInfo, error) {
	return master.VerifyBackup(ctx, path)
}

// noRoom says it plainly if err is that the disk is full.
func noRoom(op, path string, err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return &crm.Error{Code: crm.CodeDiskFull, Op: op, Item: path, Message: "there is no room for the file; nothing was kept of it, and nothing was announced", Err: err}
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
