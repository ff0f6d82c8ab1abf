package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// TestExpelled_ARemovedNodeTakesNoEdits: what it acknowledged could never be
// delivered. It remembers that over a restart, answers reads, keeps its outbox,
// and takes edits again if the cluster takes it back.
func TestExpelled_ARemovedNodeTakesNoEdits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		dir := t.TempDir()
		b := start(t, m, dir)
		m.cut()
		pending := b.commit(account("before", text(accTerritory, "north")))
		m.set(func() { m.down, m.answer = false, &syncproto.Refused{Code: crm.CodeRemoved, Message: "removed"} })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.refuse(crm.CodeRemoved, account("after", text(accTerritory, "north")))
		b.want(crm.CodeOf(b.Ready()), crm.CodeRemoved)
		b.want(b.field("acme", accName), "acme")
		b.want(b.outcome(pending), "pending")

		again := open(t, m, copyFiles(t, dir))
		again.refuse(crm.CodeRemoved, account("after", text(accTerritory, "north")))

		m.set(func() { m.answer = nil })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.want(b.Ready(), nil)
		b.want(b.outcome(pending), "accepted")
		b.sound()
	})
}
