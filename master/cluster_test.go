package master

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

func TestCluster_AFollowerServesReplicasAndForwards(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		m := r.follower()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		if b.welcome.Leader || b.welcome.Incarnation != 1 || len(b.welcome.Masters) != 3 {
			t.Errorf("welcome %+v", b.welcome)
		}
		raw := b.mutation(createAccount(newID(), "Fjord AS", "north"))
		b.push(1, raw)
		if got := want[*syncproto.Pushed](b); got.Seq != 1 {
			t.Errorf("pushed %+v", got)
		}
		for b.decided < 1 {
			b.apply(want[*syncproto.Batch](b))
		}
		b.push(1, raw)
		if got := want[*syncproto.Pushed](b); got.Seq != 1 {
			t.Errorf("repeat pushed %+v", got)
		}
		b.push(3, crm.AppendMutation(nil, &crm.Mutation{Node: crm.NodeID(b.cert.Identity.Node), Incarnation: 1, Seq: 3}))
		if got := want[*syncproto.Gap](b); got.Expected != 2 {
			t.Errorf("gap %+v", got)
		}

		if err := b.conn.Send(&syncproto.Ask{ID: 7, What: syncproto.AskLeader}); err != nil {
			t.Fatal(err)
		}
		if got := want[*syncproto.Answer](b); got.ID != 7 || got.Code != "" || got.Rev != r.leader().ledger.head() {
			t.Errorf("answer %+v, the leader is at %d", got, r.leader().ledger.head())
		}
		b.until(m.ledger.head())
		b.equals(m, crm.Shared, territory(r, "north"))

		b.next, b.chain = 1, crm.ChainHash{} // a rolled-back disk is known to the leader only
		b.connect(m)
		if b.welcome.Incarnation != 2 || b.welcome.LastSeq != 1 {
			t.Errorf("the old copy was welcomed with %+v", b.welcome)
		}
		b.push(2, crm.AppendMutation(nil, &crm.Mutation{Node: crm.NodeID(b.cert.Identity.Node), Incarnation: 2, Seq: 2, Prev: crm.ChainHash{9}}))
		want[*syncproto.Frozen](b)
	})
}

func TestCluster_AFollowerHasItsOwnEditsDecided(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		m := r.follower()
		id := newID()
		rev := r.commit(m, createAccount(id, "Fjord AS", "north"))
		// It can be read where it was written, at once.
		r.read(m, func(tx *store.Tx) error {
			rec, err := tx.Record(entityAccount, id)
			if err == nil && (rec == nil || rec.Stamp.Rev != rev || rec.Stamp.Node != m.node) {
				t.Errorf("record %+v, want rev %d of node %d", rec, rev, m.node)
			}
			return err
		})
		o, ok, err := m.Outcome(1)
		if err != nil || !ok || o.Kind != crm.Accepted {
			t.Errorf("outcome %+v %v %v", o, ok, err)
		}
		_, err = m.Commit(t.Context(), crm.Request{Actor: "boss", Ops: []crm.Op{createAccount(id, "again", "north")}})
		wantCode(t, err, crm.CodeExists)
	})
}

func TestCluster_FailoverDecidesEverythingOnce(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		author := r.follower()
		b.connect(author)
		b.until(author.ledger.head())

		// Ten clerks at a follower and a branch keep writing while the leader dies.
		var clerks sync.WaitGroup
		var mu sync.Mutex
		accepted := map[crm.RecordID]bool{}
		for clerk := range 10 {
			clerks.Go(func() {
				for i := range 20 {
					id := newID()
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
					got, err := author.Commit(ctx, crm.Request{Actor: "clerk", Ops: []crm.Op{createAccount(id, fmt.Sprintf("%d/%d", clerk, i), "north")}})
					cancel()
					if err != nil {
						t.Errorf("clerk %d: %v", clerk, err)
						return
					}
					mu.Lock()
					accepted[id] = got.Outcome.Kind == crm.Accepted
					mu.Unlock()
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		for seq := crm.Seq(1); seq <= 40; seq++ {
			b.push(seq, b.mutation(createAccount(newID(), fmt.Sprintf("pushed %d", seq), "north")))
			if seq == 20 {
				r.kill(r.leader())
			}
			time.Sleep(50 * time.Millisecond)
		}
		clerks.Wait()
		for b.decided < 40 {
			switch f := b.frame().(type) {
			case *syncproto.Batch:
				b.apply(f)
			case *syncproto.Busy:
				time.Sleep(time.Duration(f.RetryAfterMillis) * time.Millisecond)
				t.Log("busy:", f.Reason)
				b.repush()
			case *syncproto.Pushed:
			case *syncproto.Gap:
				b.repush()
			default:
				t.Fatalf("got %T %+v", f, f)
			}
		}
		b.until(author.ledger.head())
		b.equals(author, crm.Shared, territory(r, "north"))
		if len(accepted) != 200 {
			t.Errorf("%d edits were accepted, want 200", len(accepted))
		}
		for id, ok := range accepted {
			if b.base[store.RecordKey{Entity: entityAccount, ID: id}] == nil || !ok {
				t.Errorf("account %s: accepted %v, and it is not at the branch", id, ok)
			}
		}
		if n := countOf(b, entityAccount); n != 240 {
			t.Errorf("%d accounts, want 240", n)
		}
	})
}

func TestCluster_WithoutAMajority(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		m := r.follower()
		b.connect(m)
		b.until(m.ledger.head())
		time.Sleep(time.Second) // so that the admission is known here as well
		for _, other := range r.masters {
			if other != m {
				r.kill(other)
			}
		}
		r.waitFor("the last master to know that nobody leads", func() bool { return crm.CodeOf(m.Ready()) == crm.CodeNoLeader })

		_, err := m.Commit(t.Context(), crm.Request{Actor: "boss", Ops: []crm.Op{createAccount(newID(), "x", "north")}})
		wantCode(t, err, crm.CodeNoLeader)
		if _, err := m.Read(t.Context(), crm.Demand{Level: crm.Local}, func(*store.Reader) error { return nil }); err != nil {
			t.Error(err)
		}
		_, err = m.Read(t.Context(), crm.Demand{Level: crm.Leader}, func(*store.Reader) error { return nil })
		wantCode(t, err, crm.CodeNoLeader)
		peers, err := m.ListPeers(t.Context())
		if err != nil || len(peers) != 3 || !peers[0].Stale {
			t.Errorf("peers %+v, %v", peers, err)
		}

		b.push(1, b.mutation(createAccount(newID(), "x", "north")))
		if got := want[*syncproto.Busy](b); got.RetryAfterMillis == 0 {
			t.Errorf("busy %+v", got)
		}
		b.connect(m) // it still gets its feed
		b.apply(want[*syncproto.Batch](b))
		fresh := b.hello()
		fresh.Incarnation = 0 // but a new disk cannot be admitted
		f, err := b.dial(m, fresh)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := f.(*syncproto.Busy); !ok {
			t.Errorf("answered with %s", f.Kind())
		}
	})
}

func TestCluster_RestartGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, func(_ int, c *Config) { c.LogStore = "bbolt" })
		m := r.leader()
		for i := range 5 {
			r.commit(m, createAccount(newID(), fmt.Sprint(i), "north"))
		}
		r.awaitHead(m)
		before := m.Status()
		r.kill(m)
		r.start(m, 1)
		r.leader()
		r.waitFor("the restarted master to have replayed", func() bool { return m.ledger.head() >= before.Head })
		r.commit(m, createAccount(newID(), "after", "north"))
		r.awaitHead(m)
		if s := m.Status(); s.Timeline != before.Timeline || s.Seq != before.Seq+1 || s.Head != before.Head+1 {
			t.Errorf("status %+v, before %+v", s, before)
		}
		// What was begun is not begun again.
		if err := m.Bootstrap(t.Context(), Initial{Catalogue: testCatalogue()}); err != nil {
			t.Error(err)
		}
		if found, err := m.Check(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("check found %v, %v", found, err)
		}
	})
}

func TestCluster_AMasterAnnouncesItsNewAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		http := ""
		r := newRig(t, 1, func(_ int, c *Config) { c.LogStore, c.HTTPAddress = "bbolt", http })
		m := r.leader()
		r.kill(m)
		http = "m1:8080"
		r.start(m, 1)
		r.waitFor("the record to follow", func() bool {
			n, ok := m.facts(1)
			return ok && n.HTTP == http
		})
		head := m.ledger.head()
		time.Sleep(time.Minute)
		if now := m.ledger.head(); now != head {
			t.Errorf("the head went from %d to %d while nothing happened", head, now)
		}
	})
}

func TestCluster_TransferLeader(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		m, to := r.leader(), r.follower()
		wantCode(t, to.TransferLeader(t.Context(), ""), crm.CodeNoLeader)
		if err := m.TransferLeader(t.Context(), string(serverID(to.node))); err != nil {
			t.Fatal(err)
		}
		r.waitFor("the lead to move", func() bool { return to.Leading() })
		r.commit(m, createAccount(newID(), "by the old leader", "north"))
	})
}

func TestRead_Levels(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		leader, m := r.leader(), r.follower()
		id := newID()
		rev := r.commit(leader, createAccount(id, "Fjord AS", "north"))
		show := func(d crm.Demand) crm.Freshness {
			t.Helper()
			f, err := m.Read(t.Context(), d, func(rd *store.Reader) error {
				rec, err := rd.Record(entityAccount, id)
				if rec == nil {
					t.Errorf("%s does not show the record", d.Level)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		f := show(crm.Demand{Level: crm.Leader})
		if f.Rev < rev || !f.Connected || time.Since(f.AsOf) > time.Second || f.Node != m.node {
			t.Errorf("freshness %+v", f)
		}
		id = newID()
		rev = r.commit(leader, createAccount(id, "next", "north"))
		show(crm.Demand{Level: crm.Session, Session: crm.Mark{Timeline: f.Timeline, Rev: rev}})
		id = newID()
		r.commit(leader, createAccount(id, "own", "north"))
		show(crm.Demand{Level: crm.Bounded, MaxStale: time.Millisecond})

		_, err := m.Read(t.Context(), crm.Demand{Level: crm.Session, Session: crm.Mark{Timeline: f.Timeline, Rev: rev + 1000}}, func(*store.Reader) error { return nil })
		wantCode(t, err, crm.CodeStale)
		_, err = m.Read(t.Context(), crm.Demand{Level: crm.Session, Session: crm.Mark{Timeline: f.Timeline + 1}}, func(*store.Reader) error { return nil })
		wantCode(t, err, crm.CodeStale)
		_, err = m.Read(t.Context(), crm.Demand{Level: "guess"}, func(*store.Reader) error { return nil })
		wantCode(t, err, crm.CodeInvalid)
	})
}

func TestReports_AndTrim(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b, other := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid")
		b.connect(m)
		other.connect(m)
		id := newID()
		r.commit(m, createAccount(id, "Fjord AS", "north"))
		deleted := r.commit(m, crm.Op{Kind: crm.OpDelete, Entity: entityAccount, Record: id, Seen: crm.Token{Rev: crm.Pending - 1}})
		b.until(deleted)
		other.until(deleted)
		tombstone := func() (there bool) {
			r.read(m, func(tx *store.Tx) error {
				rec, err := tx.Record(entityAccount, id)
				there = rec != nil
				return err
			})
			return there
		}
		keep := b.conn.Send(&syncproto.Applied{Cursor: b.cursor, LowBase: 1}) // an op of its outbox refers to rev 1
		time.Sleep(2 * reportEvery)
		if err := m.trim(t.Context()); err != nil || keep != nil {
			t.Fatal(err, keep)
		}
		time.Sleep(time.Second) // what is decided is in the file by then
		if !tombstone() {
			t.Error("a tombstone was dropped that an edit may refer to")
		}
		if err := b.conn.Send(&syncproto.Applied{Cursor: b.cursor}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * reportEvery)
		if err := m.trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.waitFor("the tombstone to be dropped", func() bool { return !tombstone() })

		list, err := m.Members(t.Context())
		if err != nil || len(list) != 3 {
			t.Fatalf("%d members, %v", len(list), err)
		}
		if w := list[1]; !w.Session || w.Cursor != b.cursor || w.Site != "warsaw" || w.RTT < 5*time.Millisecond || w.Seen.IsZero() || list[0].Raft != "voter" || !list[0].Leader {
			t.Errorf("members %+v", list)
		}

		// A replica from before the trim cannot know of the deletion by itself.
		b.hangUp()
		b.cursor = deleted - 1
		b.connect(m)
		batch := want[*syncproto.Batch](b)
		if len(batch.Whole) != 2 {
			t.Errorf("whole %v, want both territories", batch.Whole)
		}
	})
}

func TestSubscribe_TellsOfDecisions(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		r.awaitHead(m)
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		changes := m.Subscribe(ctx)
		id := newID()
		rev := r.commit(m, createAccount(id, "Fjord AS", "north"))
		if got, want := <-changes, (crm.Change{Entity: entityAccount, Record: id, Rev: rev}); got != want {
			t.Errorf("change %+v, want %+v", got, want)
		}
		cancel()
		for range changes {
		}
		slow := m.Subscribe(t.Context())
		for range store.MaxUnread/100 + 1 {
			var ops []crm.Op
			for range 100 {
				ops = append(ops, createAccount(newID(), "one of many", "north"))
			}
			r.commit(m, ops...)
		}
		n := 0
		for range slow {
			n++
		}
		if n > store.MaxUnread {
			t.Errorf("%d changes waited", n)
		}
	})
}
