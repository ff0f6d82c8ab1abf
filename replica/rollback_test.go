package replica

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// withJournal returns the files of one directory with the journal of another.
func withJournal(t *testing.T, dir, journal string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(journal, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	out := copyFiles(t, dir)
	if err := os.WriteFile(filepath.Join(out, "journal.db"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// A node whose journal is older than its base takes no edit before a master has
// told it where its chain ends, however often it is started.
func TestRollback_TakesNothingUnchainedAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		old := copyFiles(t, b.dir)
		b.commit(account("one", text(accTerritory, "north")))
		synctest.Wait()
		dir := withJournal(t, b.dir, old)
		b.stop()
		m.cut()
		for range 2 {
			c := open(t, m, dir)
			c.refuse(crm.CodeUnavailable, account("unchained", text(accTerritory, "north")))
			b.want(c.Close(), nil)
		}
		m.heal()
		c := start(t, m, dir)
		time.Sleep(time.Minute)
		synctest.Wait()
		seq := c.commit(account("chained", text(accTerritory, "north")))
		synctest.Wait()
		c.want(c.outcome(seq), "accepted")
		c.same(m)
		c.sound()
	})
}

// A renumbering that the disk does not confirm is seen. It counts once, and the
// node goes on when the disk works.
func TestRollback_RenumbersOnceOnADiskThatDoesNotConfirm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		old := putBack(t, m)
		m.cut()
		disk := &unsure{file: "journal.db"}
		c := open(t, m, old, disk.disk)
		seq := c.commit(account("new", text(accTerritory, "north")))
		m.heal()
		disk.sick.Store(true)
		c.run(m)
		time.Sleep(time.Minute)
		synctest.Wait()
		disk.sick.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		c.want(c.outcome(seq), "accepted")
		c.want(m.states[replicaN].LastSeq, crm.Seq(5))
		c.want(c.field("new", accName), "new")
		c.same(m)
		c.sound()
	})
}

// putBack returns a directory as of one edit of a node that has had three more decided
// since, and has ended: what an old backup of its disk brings back.
func putBack(t *testing.T, m *scripted) (dir string) {
	t.Helper()
	b := start(t, m, t.TempDir())
	b.commit(account("one", text(accTerritory, "north")))
	synctest.Wait()
	dir = copyFiles(t, b.dir)
	for _, name := range []string{"two", "three", "four"} {
		b.commit(account(name, text(accTerritory, "north")))
	}
	synctest.Wait()
	b.stop()
	return dir
}
