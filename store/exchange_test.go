package store

import (
	"errors"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// A file that cannot be opened after it was compacted, because another process reads
// it, goes on once that has ended.
func TestCompact_GoesOnAfterAnOpenThatFailed(t *testing.T) {
	for name, first := range map[string]func(*Journal) error{
		"a write": func(j *Journal) error {
			return j.Update(func(tx *JTx) error { return tx.SetMeta("x", []byte{1}) })
		},
		"mending": func(j *Journal) error { return j.Mend() },
	} {
		t.Run(name, func(t *testing.T) {
			dir := onDisk(t)
			path := filepath.Join(dir, "journal.db")
			armed := false
			var check *bolt.DB
			j, err := OpenJournal(path, Options{Disk: &Disk{Sync: func(synced string) (err error) {
				if synced == dir && armed {
					armed = false
					check, err = bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
				}
				return err
			}}})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			armed = true
			if err := j.Compact(); err == nil || check == nil {
				t.Fatalf("compacted while it was read: %v", err)
			}
			if err := errors.Join(check.Close(), first(j)); err != nil {
				t.Error(err)
			}
			if err := j.View(func(*JTx) error { return nil }); err != nil {
				t.Error(err)
			}
			if err := j.Update(func(tx *JTx) error { return tx.SetMeta("y", []byte{1}) }); err != nil {
				t.Error(err)
			}
		})
	}
}
