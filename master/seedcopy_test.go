package master

import (
	"path/filepath"
	"testing"

	"github.com/tradepost-crm/tradepost/store"
)

// The copy for masters that join holds what customers said, so nobody else on the
// machine reads it.
func TestSeedStore_IsPrivate(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "master.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := newSeedStore(dir, db)
	defer s.drop()
	f, _, _, err := s.take()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the copy has mode %o", mode)
	}
}
