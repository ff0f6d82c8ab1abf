package session_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/store"
)

// A backup is the masters' file at some Rev.
type backup struct {
	path  string
	rev   crm.Rev
	index uint64
	seq   crm.Seq // of head office
	chain crm.ChainHash
}

func (w *tree) copyFile(to, from string) {
	w.t.Helper()
	b, err := os.ReadFile(from)
	w.must(err)
	w.must(os.WriteFile(to, b, 0o600))
}

func (w *tree) backup() backup {
	w.t.Helper()
	b := backup{filepath.Join(w.t.TempDir(), "backup.db"), w.fsm.Head(), w.index, w.seq, w.chain}
	w.copyFile(b.path, w.fsm.DB().Path())
	return b
}

// restore puts the masters back to the backup, in a timeline of their own. Every
// conversation ends.
func (w *tree) restore(b backup) {
	w.t.Helper()
	for _, p := range w.peers {
		p.hangUp()
	}
	w.must(w.fsm.Close())
	path := filepath.Join(w.t.TempDir(), "restored.db")
	w.copyFile(path, b.path)
	db, err := store.Open(path, store.Options{NoSync: true})
	w.must(err)
	w.must(db.Update(func(tx *store.Tx) error {
		was, err := tx.Timeline()
		if err != nil {
			return err
		}
		return tx.SetLineage(crm.Lineage{Timeline: was + 1, Forks: []crm.Fork{{Timeline: was, Rev: b.rev}}})
	}))
	w.must(db.Close())
	w.fsm, err = master.OpenFSM(master.FSMConfig{Path: path, Store: store.Options{NoSync: true}, Now: w.now})
	w.must(err)
	w.index, w.seq, w.chain = b.index, b.seq, b.chain
	w.serve()
}

// The masters were restored from a backup: each level follows them in its turn,
// with what the branches had made since, and by the records of the new timeline. A
// branch that follows them already is not taken back by a relay that does not.
func TestTree_MastersRestored(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	region, porto, lisbon, faro := w.peers["region"], w.peers["porto"], w.peers["lisbon"], w.peers["faro"]
	saved := w.backup()
	after := w.account("made in lisbon after the backup", "north")
	seq := lisbon.commit(after)
	w.settle()
	w.grant("lisbon", "north", "east") // no relay holds that, until it is undone
	w.settle()

	w.restore(saved)
	for range 20 {
		w.office(w.account("made by the restored masters", "north"))
	}
	w.must(faro.connect(nil))
	w.settle()
	there := faro.r.Status()
	if err := faro.connect(porto); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("a relay of the old timeline, alone: %v", err)
	}
	if s := faro.r.Status(); s.Timeline != there.Timeline || s.Cursor != there.Cursor || s.Timeline != 8 {
		t.Errorf("the branch was at %d of timeline %d and is at %d of %d", there.Cursor, there.Timeline, s.Cursor, s.Timeline)
	}
	w.must(region.connect(nil))
	if err := faro.connect(porto); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("a relay that does not follow yet: %v", err)
	}
	w.settle()
	w.must(porto.connect(region))
	w.settle()
	for _, p := range []*peer{lisbon, faro} {
		if err := p.connect(porto); err != nil {
			t.Fatalf("%s below a relay that follows: %v", p.id.Site, err)
		}
	}
	w.must(w.peers["oslo"].connect(nil))
	w.settle()
	w.equal()
	if o, ok, err := lisbon.r.Outcome(seq); err != nil || !ok || o.Kind != crm.Accepted {
		t.Errorf("the edit after the backup: %+v %v %v", o, ok, err)
	}
	w.must(w.fsm.DB().View(func(tx *store.Tx) error {
		if rec, err := tx.Record(after.Entity, after.Record); rec == nil || err != nil {
			t.Errorf("the masters have not got it back: %v", err)
		}
		return nil
	}))
}
