package replica

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
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

// An edit is kept from its decision on, however long the branch was offline with
// it: masters that are restored from a backup of just before ask for it.
func TestTail_CountsFromTheDecision(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.proto = 2
		b := start(t, m, t.TempDir())
		m.cut()
		synctest.Wait()
		seq := b.commit(account("offline", text(accTerritory, "north")))
		saved := b.backup(m)
		reconnect := func(after time.Duration) {
			time.Sleep(after)
			m.heal()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
		}
		reconnect(15 * 24 * time.Hour)
		b.want(b.outcome(seq), "accepted")
		m.cut()
		reconnect(time.Minute)
		b.want(tailEntry(t, b, seq).Seq, seq)
		m.cut()
		synctest.Wait()
		b.restore(m, saved, 2)
		reconnect(0)
		b.want(b.outcome(seq), "accepted")
		b.want(b.field("offline", accName), "offline")
		b.same(m)
		b.sound()
	})
}

func TestMarked_OldIsWhatWasDecidedLongAgo(t *testing.T) {
	const day, keep = 100, 1600
	var marks []settled
	var old crm.Seq
	for d := range int64(40) { // an edit a day is decided
		marks, old = marked(marks, d*day, keep, crm.Seq(d+1), crm.Seq(d+1))
		if want := crm.Seq(max(0, d-15)); old != want || len(marks) > maxSettled+1 {
			t.Fatalf("day %d: up to %d is old, want %d; %d marks", d, old, want, len(marks))
		}
	}
	// The masters lack what came after day 29. It is decided again on day 40.
	marks, _ = marked(marks, 40*day, keep, 30, 30)
	marks, _ = marked(marks, 41*day, keep, 41, 41)
	if _, old = marked(marks, 56*day, keep, 41, 41); old != 30 {
		t.Errorf("what was lost and came again counts from its first decision: %d is old", old)
	}
	if _, old = marked(marks, 57*day, keep, 41, 41); old != 41 {
		t.Errorf("it does not grow old: %d", old)
	}
}
