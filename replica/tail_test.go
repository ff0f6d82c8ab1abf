package replica

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// An edit that restored masters lack comes back to them, also where they have a
// backup of their new timeline above the Rev at which it was decided in the old
// one, and this node has no base to tell the two apart.
func TestTail_KeepsWhatRestoredMastersLack(t *testing.T) {
	for name, c := range map[string]struct {
		version  uint16
		loseBase bool
	}{
		"the base is lost":  {2, true},
		"no common lineage": {1, false},
		"the base moves":    {2, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newScripted(t)
				m.proto = c.version
				b := start(t, m, t.TempDir())
				b.commit(account("before", text(accTerritory, "north")))
				synctest.Wait()
				saved := b.backup(m)
				lost := b.commit(account("after", text(accTerritory, "north")))
				synctest.Wait()
				b.want(b.outcome(lost), "accepted")
				m.cut()
				synctest.Wait()
				b.stop()
				b.restore(m, saved, c.version)
				for _, name := range []string{"x", "y", "z"} {
					m.edit(account(name, text(accTerritory, "north")))
				}
				m.set(func() { m.backup, m.down = m.head(), false })
				dir := copyFiles(t, b.dir)
				if c.loseBase {
					b.want(os.Remove(filepath.Join(dir, "base.db")), nil)
				}
				d := start(t, m, dir)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				d.want(d.field("after", accName), "after")
				d.want(d.Status().Outbox.Entries, 0)
				d.same(m)
				d.sound()
			})
		})
	}
}
