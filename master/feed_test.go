package master

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

func TestFeed_EachSiteGetsItsTerritories(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		warsaw, madrid := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid")
		warsaw.connect(m)
		madrid.connect(m)
		northern, southern := newID(), newID()
		r.commit(m, createAccount(northern, "Fjord AS", "north"))
		rev := r.commit(m, createAccount(southern, "Tejo SA", "south"), createNote(newID(), southern, "called"))
		warsaw.until(rev)
		madrid.until(rev)
		warsaw.equals(m, crm.Shared, territory(r, "north"))
		madrid.equals(m, crm.Shared, territory(r, "south"))

		rev = r.commit(m, patch(entityAccount, northern, accountPhone, crm.PhoneValue("+47 123 45 678")))
		warsaw.until(rev)
		warsaw.equals(m, crm.Shared, territory(r, "north"))

		rev = r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: entityAccount, Record: southern, Seen: crm.Token{Rev: crm.Pending - 1}})
		madrid.until(rev)
		madrid.equals(m, crm.Shared, territory(r, "south"))
		if got := madrid.base[store.RecordKey{Entity: entityAccount, ID: southern}]; got == nil || !got.Deleted {
			t.Errorf("the branch holds %+v, want a tombstone", got)
		}
	})
}

func TestFeed_AnAccountMovesWithItsTreeAtOneRev(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		warsaw, madrid := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid")
		id := newID()
		r.commit(m, createAccount(id, "Nomad Ltd", "north"))
		for i := range 40 {
			r.commit(m, createNote(newID(), id, fmt.Sprintf("note %d", i)))
		}
		warsaw.connect(m)
		madrid.connect(m)
		warsaw.until(m.ledger.head())
		madrid.until(m.ledger.head())

		rev := r.commit(m, patch(entityAccount, id, accountTerritory, crm.TextValue("south")))
		warsaw.until(rev)
		madrid.until(rev)
		warsaw.equals(m, crm.Shared, territory(r, "north"))
		madrid.equals(m, crm.Shared, territory(r, "south"))
		if n := countOf(warsaw, entityNote); n != 0 {
			t.Errorf("%d notes stayed behind", n)
		}
		if n := countOf(madrid, entityNote); n != 40 {
			t.Errorf("%d notes arrived, want 40", n)
		}
	})
}

func countOf(b *branch, e crm.EntityID) (n int) {
	for _, rec := range b.base {
		if rec.Entity == e {
			n++
		}
	}
	return n
}

func TestFeed_MoveBetweenTwoTerritoriesOfOneSite(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		r.setGrants(m, "warsaw", "north", "south")
		b := r.branch("warsaw", "Warsaw")
		id := newID()
		r.commit(m, createAccount(id, "Nomad Ltd", "north"), createNote(newID(), id, "hello"))
		b.connect(m)
		b.until(m.ledger.head())
		for _, to := range []string{"south", "north", "south"} {
			rev := r.commit(m, patch(entityAccount, id, accountTerritory, crm.TextValue(to)))
			b.until(rev)
			b.equals(m, crm.Shared, territory(r, "north"), territory(r, "south"))
		}
	})
}

func TestFeed_GrantRevokeGrantAgain(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		old, gone := newID(), newID()
		r.commit(m, createAccount(old, "Tejo SA", "south"))
		r.commit(m, createAccount(gone, "Douro SA", "south"))
		south := territory(r, "south")

		b.until(r.setGrants(m, "warsaw", "north", "south"))
		b.equals(m, crm.Shared, territory(r, "north"), south)

		b.until(r.setGrants(m, "warsaw", "north"))
		r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: entityAccount, Record: gone, Seen: crm.Token{Rev: crm.Pending - 1}})
		rev := r.commit(m, createAccount(newID(), "Minho SA", "south"))
		for b.cursor < rev {
			batch := want[*syncproto.Batch](b)
			for _, it := range batch.Items {
				if it.Entity == entityAccount {
					t.Errorf("account %s came without a grant", it.ID)
				}
			}
			b.apply(batch)
		}

		// While the grant was gone the branch kept the records: purging is its part.
		rev = r.setGrants(m, "warsaw", "north", "south")
		for b.cursor < rev {
			batch := want[*syncproto.Batch](b)
			if batch.To >= rev && !slices.Equal(batch.Whole, []crm.TerritoryID{south}) {
				t.Errorf("whole %v, want [%d]", batch.Whole, south)
			}
			for _, it := range batch.Items {
				if it.Kind == syncproto.ItemDeleted {
					t.Errorf("a tombstone came in a whole territory: %s", it.ID)
				}
			}
			b.apply(batch)
		}
		b.equals(m, crm.Shared, territory(r, "north"), south)
	})
}

func TestFeed_ReconnectGoesOnFromTheCursor(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		id := newID()
		r.commit(m, createAccount(id, "Fjord AS", "north"))
		b.connect(m)
		b.until(m.ledger.head())
		b.hangUp()

		for i := range 100 { // coalesced: one item, with one cell
			r.commit(m, patch(entityAccount, id, accountPhone, crm.PhoneValue(fmt.Sprintf("+48 22 1000%03d", i))))
		}
		b.connect(m)
		batch := want[*syncproto.Batch](b)
		if len(batch.Items) != 1 || !batch.Items[0].Partial || len(batch.Digests) != 2 {
			t.Errorf("%d items, partial %v, %d digests", len(batch.Items), batch.Items[0].Partial, len(batch.Digests))
		}
		b.apply(batch)
		b.equals(m, crm.Shared, territory(r, "north"))

		b.hangUp()
		b.timeline++ // as after a restore of the masters
		f, err := b.dial(m, b.hello())
		if err != nil {
			t.Fatal(err)
		}
		w := f.(*syncproto.Welcome)
		b.timeline, b.cursor, b.base = w.Timeline, 0, map[store.RecordKey]*crm.Record{}
		b.listen()
		b.until(w.Head)
		b.equals(m, crm.Shared, territory(r, "north"))
	})
}

func TestFeed_ResendsWhatWasAskedFor(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		id := newID()
		r.commit(m, createAccount(id, "Fjord AS", "north"))
		b.connect(m)
		b.until(m.ledger.head())
		delete(b.base, store.RecordKey{Entity: entityAccount, ID: id}) // a disk error
		h := b.hello()
		h.ProtoMax, h.Resend = 2, []crm.TerritoryID{territory(r, "north")} // from version 3 on it asks for a repair
		if _, err := b.dial(m, h); err != nil {
			t.Fatal(err)
		}
		b.listen()
		batch := want[*syncproto.Batch](b)
		if !slices.Equal(batch.Whole, h.Resend) {
			t.Errorf("whole %v, want %v", batch.Whole, h.Resend)
		}
		b.apply(batch)
		b.equals(m, crm.Shared, territory(r, "north"))
	})
}

// lazyHead is about how long a head that changes nothing for a replica waits.
const lazyHead = 200 * time.Millisecond

func TestFeed_AHeadThatChangesNothingHereComesLate(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		b.until(m.ledger.head())
		start := time.Now()
		var rev crm.Rev
		for i := range 10 {
			rev = r.commit(m, createAccount(newID(), fmt.Sprintf("south %d", i), "south"))
		}
		batches := 0
		for b.cursor < rev {
			batch := want[*syncproto.Batch](b)
			if len(batch.Items) > 0 {
				t.Errorf("items %+v", batch.Items)
			}
			batches++
			b.apply(batch)
		}
		if took := time.Since(start); batches != 1 || took < lazyHead/2 || took > 3*lazyHead {
			t.Errorf("%d batches after %v, want 1 after about %v", batches, took, lazyHead)
		}

		start = time.Now()
		b.push(1, b.mutation(createAccount(newID(), "mine", "north")))
		want[*syncproto.Pushed](b)
		for b.decided < 1 {
			b.apply(want[*syncproto.Batch](b))
		}
		if took := time.Since(start); took > lazyHead {
			t.Errorf("the own decision took %v", took)
		}
	})
}

// A stubFeed is a feed that is read by the test instead of by a session.
type stubFeed struct {
	*session.Feed
	m *Master
}

func newStubFeed(r *rig, b *branch, h *syncproto.Hello) stubFeed {
	m := r.masters[0].Master
	h.Node = crm.NodeID(b.cert.Identity.Node)
	return stubFeed{session.NewFeed(m.server.Rosters(), b.cert.Identity.Site, h, &syncproto.Welcome{Proto: syncproto.MaxVersion, Timeline: b.timeline}), m}
}

// step reads the next batch as a session would send it.
func (f stubFeed) step(t *testing.T) (batch *syncproto.Batch) {
	t.Helper()
	err := f.m.ledger.db().View(func(tx *store.Tx) (err error) {
		batch, err = f.Next(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := syncproto.AppendFrame(nil, syncproto.MaxVersion, batch); err != nil || len(raw) > syncproto.MaxFrame {
		t.Fatalf("a batch of %d bytes: %v", len(raw), err)
	}
	f.Sent(batch)
	return batch
}

func TestFeed_CatchUpInPartsIsAnExactPrefix(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		r.setGrants(m, "warsaw", "north", "south")
		b := r.branch("warsaw", "Warsaw")
		r.read(m, func(tx *store.Tx) (err error) { b.timeline, err = tx.Timeline(); return err })
		text := strings.Repeat("long text ", 1000)
		var accounts, notes []crm.RecordID
		for i := range 18 {
			id := newID()
			r.commit(m, createAccount(id, fmt.Sprintf("account %d", i), []string{"north", "south"}[i%2]))
			accounts = append(accounts, id)
			for range 10 {
				n := newID()
				r.commit(m, createNote(n, id, text))
				notes = append(notes, n)
			}
		}
		sink := &branch{r: r, cert: b.cert, timeline: b.timeline, base: map[store.RecordKey]*crm.Record{}, whole: map[crm.TerritoryID]bool{}, sums: map[crm.TerritoryID][16]byte{}}
		sink.conn = syncproto.NewConn(discard{})
		// What happens between two parts: records sent already, and ones not sent
		// yet, are changed, deleted and moved, at one Rev each.
		seen := crm.Token{Rev: crm.Pending - 1}
		between := []func(){
			func() { r.commit(m, patch(entityNote, notes[0], noteText, crm.TextValue("changed"))) },
			func() { r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: entityNote, Record: notes[1], Seen: seen}) },
			func() { r.commit(m, patch(entityAccount, accounts[0], accountTerritory, crm.TextValue("south"))) },
			func() {
				r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: entityAccount, Record: accounts[11], Seen: seen})
			},
			func() { r.setGrants(m, "warsaw", "south") },
			func() { r.commit(m, patch(entityAccount, accounts[3], accountTerritory, crm.TextValue("east"))) },
			func() { r.commit(m, createAccount(newID(), "late", "south")) },
		}

		f := newStubFeed(r, b, &syncproto.Hello{Timeline: b.timeline, NextSeq: 1})
		parts := 0
		for {
			batch := f.step(t)
			sink.apply(batch)
			if batch.Final {
				break
			}
			if batch.Upto >= batch.To {
				t.Errorf("a part up to %d of %d", batch.Upto, batch.To)
			}
			if parts < len(between) {
				between[parts]()
				r.awaitHead(m)
			}
			if parts++; parts == 3 { // the session ends, the grant comes and goes, and another session goes on
				r.setGrants(m, "warsaw", "north")
				r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: entityNote, Record: notes[10], Seen: seen})
				r.setGrants(m, "warsaw", "north", "south")
				r.awaitHead(m)
				f = newStubFeed(r, b, &syncproto.Hello{Timeline: b.timeline, NextSeq: 1, Staged: batch.Upto})
			}
		}
		if parts < len(between) {
			t.Fatalf("only %d parts", parts)
		}
		purge(sink, territory(r, "north"))
		sink.equals(m, crm.Shared, territory(r, "south"))

		// The same as a catch-up of a branch that has a base.
		behind := sink.cursor
		for i, n := range notes {
			if i%2 == 0 && i > 0 {
				_, err := m.Commit(t.Context(), crm.Request{Actor: "boss", Ops: []crm.Op{patch(entityNote, n, noteText, crm.TextValue(fmt.Sprint(i)+text))}})
				if err != nil && crm.CodeOf(err) != crm.CodeDeleted {
					t.Fatal(err)
				}
			}
		}
		r.awaitHead(m)
		f = newStubFeed(r, b, &syncproto.Hello{Timeline: b.timeline, NextSeq: 1, Cursor: behind})
		for parts, done := 0, false; !done; parts++ {
			batch := f.step(t)
			for _, it := range batch.Items {
				if it.Kind == syncproto.ItemRecord && !it.Partial && it.Entity == entityNote {
					t.Errorf("note %s came whole", it.ID)
				}
			}
			sink.apply(batch)
			if done = batch.Final; !done {
				r.commit(m, patch(entityAccount, accounts[1], accountPhone, crm.PhoneValue(fmt.Sprintf("+351 21 000 0%d", parts))))
				r.awaitHead(m)
			}
		}
		sink.equals(m, crm.Shared, territory(r, "south"))
	})
}

// purge drops what a replica drops itself when a grant is gone.
func purge(b *branch, t crm.TerritoryID) {
	for k, rec := range b.base {
		if rec.Territory == t {
			delete(b.base, k)
		}
	}
}

// awaitHead waits until what was decided is committed.
func (r *rig) awaitHead(m *rigMaster) {
	r.t.Helper()
	if err := m.ledger.waitRev(r.t.Context(), m.ledger.evaluated()); err != nil {
		r.t.Fatal(err)
	}
}

type discard struct{}

func (discard) Read([]byte) (int, error)    { select {} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestFeed_OneRevLargerThanAPart(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("madrid", "Madrid")
		id := newID()
		r.commit(m, createAccount(id, "Huge plc", "north"))
		for range 50 {
			r.commit(m, createNote(newID(), id, strings.Repeat("long text ", 1500)))
		}
		b.connect(m)
		b.until(m.ledger.head())
		rev := r.commit(m, patch(entityAccount, id, accountTerritory, crm.TextValue("south")))
		parts := 0
		for b.cursor < rev {
			batch := want[*syncproto.Batch](b)
			parts++
			b.apply(batch)
		}
		if parts < 3 {
			t.Errorf("%d parts", parts)
		}
		b.equals(m, crm.Shared, territory(r, "south"))
	})
}

func TestFeed_SlowReplicaMissesNothingAndHoldsNobodyUp(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		slow, fast := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid")
		if _, err := slow.dial(m, slow.hello()); err != nil { // and then reads nothing
			t.Fatal(err)
		}
		slow.timeline = m.Status().Timeline
		fast.connect(m)
		id := newID()
		r.commit(m, createAccount(id, "Fjord AS", "north"))
		for range 200 {
			r.commit(m, createNote(newID(), id, randomText(12<<10)))
		}
		rev := r.commit(m, createAccount(newID(), "Tejo SA", "south"))
		fast.until(rev)
		fast.equals(m, crm.Shared, territory(r, "south"))
		if s := m.server.Sessions()[0]; s.Node != crm.NodeID(slow.cert.Identity.Node) || !s.Sending {
			t.Error("the slow session is not waiting for its replica")
		}
		slow.listen()
		slow.until(rev)
		slow.equals(m, crm.Shared, territory(r, "north"))
	})
}

func randomText(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}
