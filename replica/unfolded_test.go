package replica

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// What the masters changed while the journal could not be written is shown with
// pending edits as soon as it can.
func TestUnfolded_IsMadeUpFor(t *testing.T) {
	for name, next := range map[string]func(*branch, *scripted){
		"by the next batch": func(_ *branch, m *scripted) { m.edit(account("other", text(accTerritory, "north"))) },
		"by a round of the scrub": func(b *branch, _ *scripted) {
			for from, round := []byte(nil), true; round; round = from != nil {
				var err error
				from, _, err = b.ScrubJournal(b.t.Context(), from, 1<<20)
				b.want(err, nil)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newScripted(t)
				m.edit(account("acme", text(accTerritory, "north"), text(accDescription, "old")))
				var fail atomic.Bool
				dir := t.TempDir()
				path := filepath.Join(dir, "journal.db")
				b := start(t, m, dir, func(c *Config) {
					c.Store.Disk = &store.Disk{Before: func(op store.DiskOp, p string) error {
						if p == path && op == store.DiskCommit && fail.Load() {
							return &crm.Error{Code: crm.CodeCorrupt, Op: "commit", Item: path, Message: "a page was read wrongly, once"}
						}
						return nil
					}}
				})
				m.set(func() { m.busy = 1 << 20 })
				b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accName, "mine")))
				fail.Store(true)
				m.edit(patch(catalog.Account, "acme", crm.Token{Rev: m.head()}, text(accDescription, "new")))
				synctest.Wait()
				b.want(b.Status().Cursor, m.head())
				fail.Store(false)
				next(b, m)
				synctest.Wait()
				b.want(b.field("acme", accDescription), "new")
				b.want(b.field("acme", accName), "mine")
				b.sound()
			})
		})
	}
}
