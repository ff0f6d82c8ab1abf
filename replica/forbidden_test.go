package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

// forbidden makes an edit of a record whose territory the site then loses.
func forbidden(m *scripted, b *branch) crm.Seq {
	m.set(func() { m.busy = 1 << 20 })
	seq := b.commit(patch(catalog.Account, "secret 2", b.token("secret 2"), text(accDescription, "TYPED-in vain")))
	m.edit(crm.Op{Kind: crm.OpSetRemove, Entity: crm.EntitySite, Record: id("site lisbon"), Seen: crm.Token{Rev: m.head()},
		Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("south")}}})
	time.Sleep(10 * time.Minute) // purged and compacted; the edit waits in the outbox
	synctest.Wait()
	return seq
}

// An edit that is rejected because its territory was lost leaves no byte in the
// journal, also where the process ends after the base knows and before the journal does.
func TestForbidden_LeavesNoByteInTheJournalOverACrash(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("secret 2", text(accTerritory, "south")))
		b := start(t, m, t.TempDir())
		seq := forbidden(m, b)
		before := copyFiles(t, b.dir)
		m.set(func() { m.busy = 0 })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		b.want(b.outcome(seq), "rejected territory")
		crashed := withJournal(t, b.dir, before)
		b.stop()
		c := start(t, m, crashed)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		c.want(c.outcome(seq), "rejected territory")
		c.want(tailEntry(t, c, seq).Withheld, true)
		raw, err := os.ReadFile(filepath.Join(c.dir, "journal.db"))
		c.want(err, nil)
		c.want(bytes.Contains(raw, []byte("TYPED")), false)
		c.sound()
	})
}
