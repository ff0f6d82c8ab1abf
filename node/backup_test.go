package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

// What bears a backup's name is a backup: nothing is left of one that could not
// be written whole, and one that is there is not replaced.
func TestSaveBackup_KeepsNothingHalfDone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b.db")
	for name, c := range map[string]struct {
		write func(io.Writer) error
		want  crm.Code
	}{
		"interrupted": {func(w io.Writer) error {
			_, err := w.Write(make([]byte, 1<<16))
			return errors.Join(err, &crm.Error{Code: crm.CodeUnavailable, Message: "cut"})
		}, crm.CodeUnavailable},
		"disk full":        {func(io.Writer) error { return &os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC} }, crm.CodeDiskFull},
		"not a backup":     {func(w io.Writer) error { _, err := w.Write(make([]byte, 1<<16)); return err }, crm.CodeCorrupt},
		"nothing was sent": {func(io.Writer) error { return nil }, crm.CodeCorrupt},
	} {
		if _, err := SaveBackup(t.Context(), path, c.write); crm.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want code %s", name, err, c.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: %v is left, %v", name, left, err)
		}
	}
	if err := os.WriteFile(path, []byte("the last good one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SaveBackup(t.Context(), path, func(io.Writer) error { return nil }); crm.CodeOf(err) != crm.CodeExists {
		t.Errorf("over a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "the last good one" {
		t.Errorf("the file is %q now, %v", b, err)
	}
	if _, err := SaveBackup(t.Context(), filepath.Join(dir, "none", "b.db"), func(io.Writer) error { return nil }); crm.CodeOf(err) != crm.CodeInvalid {
		t.Errorf("in no directory: %v", err)
	}
}
