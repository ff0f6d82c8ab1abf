package master

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A master that the backup does not list would be alone in a cluster that takes
// its edits from nobody.
func TestRestoration_RefusesANodeThatTheBackupDoesNotKnow(t *testing.T) {
	b := newBench(t)
	m := first()
	b.accept(m, territoryOp("north"))
	if err := b.fsm.Flush(); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(t.TempDir(), "backup")
	out, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	err = b.fsm.DB().View(func(tx *store.Tx) (err error) {
		size, err = tx.WriteTo(out)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	restore := func(n crm.NodeID) error {
		_, err := Restoration{From: from, Size: size, Dir: t.TempDir(), Node: n, Raft: "m9:7400", LogStore: "bbolt", Now: time.Now(), Rand: rand.Reader, Taken: time.Now()}.Run(t.Context())
		return err
	}
	err = restore(9)
	wantCode(t, err, crm.CodeForbidden)
	if !strings.Contains(err.Error(), "[1]") {
		t.Errorf("it does not name the masters that are known: %v", err)
	}
	if err := restore(1); err != nil {
		t.Errorf("a master that the backup lists: %v", err)
	}
}
