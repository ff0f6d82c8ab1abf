package replica

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// A branch that dies between its first word with restored masters and the batch
// that takes its base over shows what it showed, takes edits, and goes over in its
// next life. Nothing of the branch is lost.
func TestTimeline_CrashWhileTheBaseMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("before", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		backup := filepath.Join(t.TempDir(), "backup.db")
		raw, err := os.ReadFile(m.db.Path())
		b.want(err, nil)
		b.want(os.WriteFile(backup, raw, 0o600), nil)
		state, fork := *m.states[replicaN], m.head()
		b.commit(account("after", text(accTerritory, "north")))
		m.edit(account("lost", text(accTerritory, "north")))
		synctest.Wait()
		m.cut()
		synctest.Wait()
		b.want(m.db.Replace(backup), nil)
		b.want(m.db.Update(func(tx *store.Tx) error {
			return tx.SetLineage(crm.Lineage{Timeline: 2, Forks: []crm.Fork{{Timeline: 1, Rev: fork}}})
		}), nil)
		m.set(func() { m.states[replicaN], m.timeline, m.down, m.proto, m.holdFeed = &state, 2, false, 2, true })
		time.Sleep(time.Minute) // the next session comes after a random time
		synctest.Wait()
		m.set(func() { m.down = true })
		shows := func(b *branch) {
			t.Helper()
			b.want(b.Status().Moving, true)
			b.want(b.field("after", accName), "after")
			b.want(b.field("lost", accName), "lost")
		}
		shows(b)
		dir := copyFiles(t, b.dir)
		b.stop()

		c := open(t, m, dir)
		shows(c)
		seq := c.commit(patch(catalog.Account, "after", c.token("after"), text(accDescription, "made while it moved")))
		m.set(func() { m.down, m.holdFeed = false, false })
		c.run(m)
		c.want(c.Status().Moving, false)
		c.want(c.Status().Timeline, uint64(2))
		c.want(c.outcome(seq), "accepted")
		c.want(c.field("after", accDescription), "made while it moved")
		c.want(c.field("lost", accName), "-")
		list, err := os.ReadFile(LostPath(c.dir, 1))
		c.want(err, nil)
		var loss Loss
		c.want(json.Unmarshal(list, &loss), nil)
		c.want(loss.Record, id("lost").String())
		c.same(m)
		c.sound()
	})
}

// A base that went over to restored masters shows this node's edits all along, also
// where the disk does not confirm that it went over.
func TestTimeline_ShowsItsEditsOnADiskThatDoesNotConfirm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("before", text(accTerritory, "north")))
		disk := &unsure{file: "base.db"}
		b := start(t, m, t.TempDir(), disk.disk)
		saved := b.backup(m)
		b.commit(account("after", text(accTerritory, "north")))
		synctest.Wait()
		m.cut()
		synctest.Wait()
		b.restore(m, saved, 2)
		m.set(func() { m.down, m.holdFeed, m.busy = false, true, 1<<20 })
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want(b.Status().Moving, true)
		disk.sick.Store(true)
		m.set(func() { m.holdFeed = false })
		synctest.Wait()
		b.want(b.Status().Connected, false)
		b.want(b.field("after", accName), "after")
		disk.sick.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		b.want(b.field("after", accName), "after")
		b.want(b.Status().Moving, false)
		m.set(func() { m.busy = 0 })
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		b.want(b.field("after", accName), "after")
		b.same(m)
		b.sound()
	})
}
