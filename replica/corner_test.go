package replica

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A screen of an old copy has not seen what the original wrote after the copy
// was made, whatever numbers the copy's edits get.
func TestRollback_OverwritesNothingSilently(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		b.commit(account("acme", text(accTerritory, "north"), text(accDescription, "first")))
		synctest.Wait()
		old := copyFiles(t, b.dir)
		b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accDescription, "by the original")))
		b.commit(account("other", text(accTerritory, "north")))
		b.commit(account("another", text(accTerritory, "north")))
		synctest.Wait()
		b.stop()

		m.cut()
		c := open(t, m, old)
		c.commit(patch(catalog.Account, "acme", c.token("acme"), crm.Input{Field: 26, Value: crm.PhoneValue("+351 21 000 00 00")}))
		seq := c.commit(patch(catalog.Account, "acme", c.token("acme"), text(accDescription, "by the copy")))
		m.heal()
		c.run(m)
		c.want(c.field("acme", accDescription), "by the copy")
		c.want(c.outcome(seq), "merged")
		c.same(m)
		c.sound()
	})
}

func TestCommit_RefusesWhatCannotBeRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		for _, req := range []crm.Request{{Actor: "clerk\xff", Intent: "test"}, {Actor: "clerk", Intent: "\xff"}} {
			req.Ops = []crm.Op{account("acme", text(accTerritory, "north"))}
			_, err := b.Commit(t.Context(), req)
			b.want(crm.CodeOf(err), crm.CodeInvalid)
		}
		b.commit(account("next", text(accTerritory, "north")))
		synctest.Wait()
		b.want(b.Status().Decided, crm.Seq(1))
		b.sound()
	})
}

func TestPurge_ASiteThatIsNoMoreHoldsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("secret", text(accTerritory, "north"), text(accDescription, "CANARY")))
		b := start(t, m, t.TempDir())
		b.want(b.field("secret", accDescription), "CANARY")
		m.edit(crm.Op{Kind: crm.OpDelete, Entity: crm.EntitySite, Record: id("site lisbon"), Seen: crm.Token{Rev: m.head()}})
		synctest.Wait()
		b.want(b.field("secret", accDescription), "-")
	})
}

func TestPull_BoundsAPartInBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		m.cut()
		synctest.Wait()
		at := b.position()
		p := &pull{r: b.Replica}
		held := 0
		for i := range 64 {
			it := syncproto.Item{Kind: syncproto.ItemRecord, Entity: catalog.Account, ID: crm.RecordID{15: byte(i)}, Body: bytes.Repeat([]byte{1}, syncproto.MaxBody)}
			err := p.take(&syncproto.Batch{Timeline: at.timeline, From: at.rev, To: at.rev + 100, Upto: at.rev + crm.Rev(i), Items: []syncproto.Item{it}})
			b.want(err, nil)
			size := 0
			for _, it := range p.part {
				size += len(it.Body)
			}
			held = max(held, size)
		}
		if held > 32<<20 {
			t.Errorf("%d MiB of a catch-up were held in memory", held>>20)
		}
		b.want(b.unstage(), nil)
	})
}
