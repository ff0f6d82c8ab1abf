package master

import (
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// sink returns a branch that applies what a stub feed sends.
func (b *branch) sink() *branch {
	s := &branch{r: b.r, cert: b.cert, timeline: b.timeline, base: map[store.RecordKey]*crm.Record{}, whole: map[crm.TerritoryID]bool{}, sums: map[crm.TerritoryID][16]byte{}}
	s.conn = syncproto.NewConn(discard{})
	return s
}

func TestFeed_DeletedInATerritoryGrantedSince(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		r.setGrants(m, "warsaw", "north")
		b := r.branch("warsaw", "Warsaw")
		r.read(m, func(tx *store.Tx) (err error) { b.timeline, err = tx.Timeline(); return err })
		id := newID()
		r.commit(m, createAccount(id, "acme", "north"))
		r.awaitHead(m)
		sink := b.sink()
		f := newStubFeed(r, b, &syncproto.Hello{Timeline: b.timeline, NextSeq: 1})
		sink.apply(f.step(t))

		seen := crm.Token{Rev: crm.Pending - 1}
		r.commit(m, patch(entityAccount, id, accountTerritory, crm.TextValue("south")))
		r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: entityAccount, Record: id, Seen: seen})
		r.setGrants(m, "warsaw", "north", "south")
		r.awaitHead(m)
		f = newStubFeed(r, b, &syncproto.Hello{Timeline: b.timeline, NextSeq: 1, Cursor: sink.cursor})
		sink.apply(f.step(t))
		sink.equals(m, crm.Shared, territory(r, "north"), territory(r, "south"))
	})
}

func TestFeed_ATerritoryThatWasAbolishedComesBackWhole(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		r.setGrants(m, "warsaw", "north")
		b := r.branch("warsaw", "Warsaw")
		r.read(m, func(tx *store.Tx) (err error) { b.timeline, err = tx.Timeline(); return err })
		r.commit(m, createAccount(newID(), "acme", "north"))
		r.awaitHead(m)
		sink := b.sink()
		f := newStubFeed(r, b, &syncproto.Hello{Timeline: b.timeline, NextSeq: 1})
		sink.apply(f.step(t))

		north := territory(r, "north")
		var rec crm.RecordID
		r.read(m, func(tx *store.Tx) error {
			e := tx.Schema().EntityByID(crm.EntityTerritory)
			id, _, err := tx.Lookup(e, e.FieldByID(crm.TerritoryCode), crm.TextValue("north"))
			rec = id
			return err
		})
		r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: crm.EntityTerritory, Record: rec, Seen: crm.Token{Rev: crm.Pending - 1}})
		r.awaitHead(m)
		sink.apply(f.step(t))
		purge(sink, north)
		r.commit(m, crm.Op{Kind: crm.OpRestore, Entity: crm.EntityTerritory, Record: rec, Seen: crm.Token{Rev: crm.Pending - 1}})
		r.awaitHead(m)
		sink.apply(f.step(t))
		sink.equals(m, crm.Shared, north)
	})
}
