package session_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

const (
	contactAccount = crm.FieldID(18)
	contactName    = crm.FieldID(22)
	contactPoints  = crm.FieldID(38) // a counter
)

// A branch edits offline, its disk is copied, it edits on and ships all. Then the
// copy, which cannot know what was shipped, edits and comes instead: each edit
// takes effect once, its own ones too.
func TestClone_PendingEditsTakeEffectOnce(t *testing.T) {
	for _, c := range []struct {
		pending, after, own int // edits before the copy, of the original after it, and of the copy
		again               int // edits that take effect twice
		level               uint64
	}{
		{pending: 2, after: 2, own: 1, level: 3},
		{pending: 3, after: 4, own: 0, level: 3},                                // nothing but what the masters have
		{pending: 0, after: 3, own: 2, level: 3},                                // nothing in common
		{pending: 1, after: syncproto.MaxTrail + 1, own: 1, again: 1, level: 3}, // too long ago for the masters to remember
		{pending: 2, after: 2, own: 1, again: 2, level: 2},                      // masters that do not tell
	} {
		t.Run(fmt.Sprintf("%d shared, %d and %d, level %d", c.pending, c.after, c.own, c.level), func(t *testing.T) {
			w := newWorld(t)
			w.apply(master.ActivateEntry{Level: c.level})
			w.must(w.connect())
			w.must(w.pump())
			acme := w.account("acme")
			contact := w.create(catalog.Contact, contactName, crm.TextValue("Costa"), contactAccount, crm.LinkValue(acme.Record))
			w.commit(acme, contact)
			w.must(w.pump())
			w.hangUp()
			weight, sum := int64(1), int64(0)
			add := func(n int) (of int64) {
				for range n {
					w.commit(crm.Op{Kind: crm.OpCounterAdd, Entity: catalog.Contact, Record: contact.Record, Cells: []crm.Input{{Field: contactPoints, Value: crm.IntegerValue(weight)}}})
					of += weight
					weight++
				}
				sum += of
				return of
			}
			w.openOn(w.dir) // so that the disk has met no master since it was opened
			twice := add(c.pending)
			if c.again == 0 {
				twice = 0
			}
			copied := w.copyDisk()
			add(c.after)
			w.must(w.connect())
			w.must(w.pump())
			w.equal()
			w.hangUp()

			w.openOn(copied)
			add(c.own)
			w.must(w.connect())
			w.must(w.pump())
			w.equal()
			w.must(w.fsm.DB().View(func(tx *store.Tx) error {
				rec, err := tx.Record(catalog.Contact, contact.Record)
				if err == nil && rec.Value(contactPoints).Int() != sum+twice {
					t.Errorf("the counter is %d, want %d", rec.Value(contactPoints).Int(), sum+twice)
				}
				return err
			}))
			if s, err := w.srv.Standing(branchNode); err != nil || s.State.LastSeq != crm.Seq(1+c.pending+c.after+c.own+c.again) {
				t.Errorf("the master has decided %d edits, want %d once and %d twice (%v)", s.State.LastSeq, 1+c.pending+c.after+c.own, c.again, err)
			}
		})
	}
}

// copyDisk copies the branch's files, as a clone of its disk has them.
func (w *world) copyDisk() string {
	w.t.Helper()
	to := w.t.TempDir()
	for _, name := range []string{"journal.db", "base.db"} {
		raw, err := os.ReadFile(filepath.Join(w.dir, name))
		w.must(err)
		w.must(os.WriteFile(filepath.Join(to, name), raw, 0o600))
	}
	return to
}

// openOn has the branch live on the files in dir from now on.
func (w *world) openOn(dir string) {
	w.t.Helper()
	w.must(w.branch.Close())
	c := w.config
	c.Dir = dir
	var err error
	w.branch, err = replica.Open(c)
	w.must(err)
	w.t.Cleanup(func() { _ = w.branch.Close() })
}
