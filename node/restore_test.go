package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A restore that is refused changes nothing: the master runs, the directory is a
// branch's or nobody's, or the file is no backup.
func TestRestore_Refuses(t *testing.T) {
	s := DefaultSettings()
	s.Dir = filepath.Join(t.TempDir(), "n")
	if _, err := Restore(t.Context(), s, "b.db", Env{}); crm.CodeOf(err) != crm.CodeInvalid {
		t.Errorf("nobody's directory: %v", err)
	}
	id, err := Init(t.Context(), InitOptions{Settings: s, Site: "hq"}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Promote(t.Context(), s, Env{}); crm.CodeOf(err) != crm.CodeNotFound {
		t.Errorf("a master without data is promoted: %v", err)
	}
	db, err := store.Open(s.path("master.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, begin := range map[string]func() error{
		"restore": func() error { _, err := Restore(t.Context(), s, "b.db", Env{}); return err },
		"promote": func() error { _, err := Promote(t.Context(), s, Env{}); return err },
	} {
		if err := begin(); crm.CodeOf(err) != crm.CodeLocked {
			t.Errorf("%s of a master that runs: %v", name, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "b.db")
	if err := os.WriteFile(bad, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), s, bad, Env{}); crm.CodeOf(err) != crm.CodeCorrupt {
		t.Errorf("a damaged file: %v", err)
	}
	if _, err := os.Stat(s.path("master.db")); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
	if left, err := filepath.Glob(s.path("before-*")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	id.Role = auth.RoleReplica
	if err := writeIdentity(s.Dir, id); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), s, bad, Env{}); crm.CodeOf(err) != crm.CodeInvalid {
		t.Errorf("a branch's directory: %v", err)
	}
}
