package master

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// reported waits until the leader has logged that the node is at the Cursor.
func (r *rig) reported(n crm.NodeID, cursor, lowBase crm.Rev) {
	r.t.Helper()
	var st store.NodeState
	start := time.Now()
	r.waitFor("a report to be logged", func() bool {
		r.read(r.leader(), func(tx *store.Tx) (err error) {
			st, _, err = tx.Node(n)
			return err
		})
		return st.Cursor == cursor && st.LowBase == lowBase
	})
	if took := time.Since(start); took > 3*reportEvery {
		r.t.Errorf("a report took %v", took)
	}
}

// What a follower's replicas say reaches the leader without their coming again.
func TestReports_OfAFollower(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		b.connect(r.follower())
		rev := r.commit(r.leader(), createAccount(newID(), "Fjord AS", "north"))
		b.until(rev)
		node := crm.NodeID(b.cert.Identity.Node)
		if err := b.conn.Send(&syncproto.Applied{Cursor: rev, LowBase: 3}); err != nil {
			t.Fatal(err)
		}
		r.reported(node, rev, 3)
		if err := b.conn.Send(&syncproto.Applied{Cursor: rev}); err != nil {
			t.Fatal(err)
		}
		r.reported(node, rev, 0)
	})
}

// A follower or relay whose clock is fast must not hide what is told later by
// clocks that are right, neither before it is logged nor after.
func TestReports_OfAFastClock(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		node := crm.NodeID(b.cert.Identity.Node)
		b.hangUp()
		now := time.Now().UnixMilli()
		m.heard(node, 10, 5, now+3_600_000)
		m.heard(node, 11, 6, now)
		list := m.reports.take(0)
		if want := (NodeReport{node, 11, 6, now}); len(list) != 1 || list[0] != want {
			t.Errorf("pending %+v", list)
		}
		for _, report := range []NodeReport{{node, 10, 5, now + 3_600_000}, {node, 11, 7, now}} {
			if err := m.report(t.Context(), []NodeReport{report}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // what is logged is committed
			r.reported(node, report.Cursor, report.LowBase)
		}
	})
}

// A report that came by a longer way does not hide a newer one, neither before it
// is logged nor after.
func TestReports_TheNewestCounts(t *testing.T) {
	var list reports
	list.note(7, 10, 5, 2000)
	list.note(7, 10, 0, 1000)
	if got := list.take(0); len(got) != 1 || got[0].LowBase != 5 {
		t.Errorf("pending %+v", got)
	}
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		node, now := crm.NodeID(b.cert.Identity.Node), time.Now().UnixMilli()
		b.hangUp()
		for _, report := range []NodeReport{{node, 10, 5, now + 1000}, {node, 10, 0, now + 900}} {
			if err := m.report(t.Context(), []NodeReport{report}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // what is logged is committed
			r.reported(node, 10, 5)
		}
	})
}

// link opens a link as a relay does.
func (r *rig) link(cert *auth.Node, m *rigMaster) *session.Link {
	r.t.Helper()
	host := r.net.Host("Warsaw", "relay")
	k := &session.Link{Name: "m", Logger: m.log, Dial: func(ctx context.Context) (*syncproto.Conn, error) {
		raw, err := host.Dial(ctx, m.cfg.SyncAddress)
		if err != nil {
			return nil, err
		}
		c := tls.Client(raw, auth.ClientTLS(cert, r.ca.Cert, time.Now, auth.ExpectMaster, auth.ALPNLink))
		return syncproto.NewConn(c), c.HandshakeContext(ctx)
	}}
	r.t.Cleanup(k.Close)
	return k
}

// A relay speaks for the nodes whose territories its site holds, and only while
// the records say that it is one.
func TestRelay_SpeaksForThoseItMayServe(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		relay, madrid := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid")
		m := r.follower()
		self, other := crm.NodeID(relay.cert.Identity.Node), crm.NodeID(madrid.cert.Identity.Node)
		k := r.link(relay.cert, m)
		ask := func(what string, welcomed bool) {
			t.Helper()
			h := madrid.hello()
			f, err := k.Greet(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			_, ok := f.(*syncproto.Welcome)
			if ok != welcomed {
				t.Errorf("%s: greeted with %+v", what, f)
			}
			if w, ok := f.(*syncproto.Welcome); ok {
				madrid.incarnation, madrid.timeline = w.Incarnation, w.Timeline
			}
		}
		ask("no relay", false)
		rev := r.announce(self, "warsaw:7400")
		r.awaitRev(m, rev)
		ask("a relay without the territory", false)
		rev = r.setGrants(r.leader(), "warsaw", "north", "south")
		r.awaitRev(m, rev)
		ask("a relay with the territory", true)

		sub := session.Submission{Node: other, Incarnation: madrid.incarnation, First: 1, Mutations: [][]byte{madrid.mutation(createAccount(newID(), "Sierra", "south"))}}
		if reply, err := k.Submit(t.Context(), sub); err != nil || reply.Last != 1 {
			t.Errorf("an edit of madrid: %+v, %v", reply, err)
		}
		if a, err := k.Ask(t.Context(), syncproto.AskLeader); err != nil || a.Code != "" || a.Rev < rev {
			t.Errorf("the leader: %+v, %v", a, err)
		}
		report := func(at crm.Rev) {
			t.Helper()
			if err := k.Report(t.Context(), []syncproto.Report{{Node: other, Cursor: at, SeenMillis: time.Now().UnixMilli()}}); err != nil {
				t.Fatal(err)
			}
		}
		report(rev)
		r.reported(other, rev, 0)

		rev = r.setGrants(r.leader(), "warsaw", "north")
		r.awaitRev(m, rev)
		sub.First, sub.Mutations = 2, [][]byte{madrid.mutation(createAccount(newID(), "Forged", "south"))}
		_, err := k.Submit(t.Context(), sub)
		wantCode(t, err, crm.CodeForbidden)
		report(rev)
		time.Sleep(3 * reportEvery)
		r.read(r.leader(), func(tx *store.Tx) error {
			st, _, err := tx.Node(other)
			if st.Cursor == rev || st.LastSeq != 1 {
				t.Errorf("what a stranger said of madrid was taken: %+v", st)
			}
			return err
		})
	})
}

// A master that joined as a relay follows, serves replicas and never votes, until
// somebody says that it shall.
func TestRelay_FollowsAndServes(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		joined, cert, err := r.join(r.token("hq", auth.RoleMaster), auth.RoleRelay, func(j *syncproto.Join) {
			j.Sync, j.Raft = syncAddress(4), raftAddress(4)
		})
		if err != nil || cert.Identity.Role != auth.RoleMaster {
			t.Fatalf("joined as %+v: %v", cert, err)
		}
		relay := r.start(&rigMaster{cert: cert, dir: t.TempDir()}, 4)
		suffrage := func() string {
			peers, err := r.leader().ListPeers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range peers {
				if p.ID == string(serverID(joined.Node)) {
					return p.Suffrage
				}
			}
			return ""
		}
		r.waitFor("the relay to follow", func() bool {
			return relay.ledger.head() > 0 && relay.ledger.head() == r.leader().ledger.head() && suffrage() == "nonvoter"
		})
		time.Sleep(2 * time.Minute)
		if s := suffrage(); s != "nonvoter" {
			t.Errorf("the relay became a %s by itself", s)
		}

		b := r.branch("warsaw", "Warsaw")
		b.connect(relay)
		b.push(1, b.mutation(createAccount(newID(), "Made below the relay", "north")))
		want[*syncproto.Pushed](b)
		rev := r.commit(r.leader(), createAccount(newID(), "Made above it", "north"))
		b.until(rev)
		b.equals(relay, crm.Shared, territory(r, "north"))
		if err := b.conn.Send(&syncproto.Applied{Cursor: rev}); err != nil {
			t.Fatal(err)
		}
		r.reported(crm.NodeID(b.cert.Identity.Node), rev, 0)

		if _, err := r.leader().removable(joined.Node); err != nil {
			t.Errorf("a relay cannot be removed: %v", err)
		}
		facts, _ := r.leader().facts(joined.Node)
		r.commit(r.leader(), patch(crm.EntityNode, facts.Record, crm.NodeSuffrage, crm.ChoiceValue("voter")))
		r.waitFor("the relay to vote", func() bool { return suffrage() == "voter" })
	})
}

// The last master that votes cannot be removed, however many follow.
func TestRelay_IsNoReplacementForAVoter(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		_, cert, err := r.join(r.token("hq", auth.RoleMaster), auth.RoleRelay, func(j *syncproto.Join) {
			j.Sync, j.Raft = syncAddress(2), raftAddress(2)
		})
		if err != nil {
			t.Fatal(err)
		}
		relay := r.start(&rigMaster{cert: cert, dir: t.TempDir()}, 2)
		r.waitFor("the relay to follow", func() bool { return relay.ledger.head() > 0 })
		_, err = m.removable(1)
		wantCode(t, err, crm.CodeForbidden)
	})
}

// announce makes a node's record say where it serves others.
func (r *rig) announce(n crm.NodeID, addr string) crm.Rev {
	r.t.Helper()
	m := r.leader()
	facts, ok := m.facts(n)
	if !ok {
		r.t.Fatalf("node %d is not known", n)
	}
	return r.commit(m, patch(crm.EntityNode, facts.Record, crm.NodeSync, crm.TextValue(addr)))
}

func (r *rig) awaitRev(m *rigMaster, rev crm.Rev) {
	r.t.Helper()
	r.waitFor("a master to catch up", func() bool { return m.ledger.head() >= rev })
}

// A node says in its own record where it is reached, and nothing else, from the
// level on at which every master lets it.
func TestFSM_ANodeAnnouncesItself(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b, other := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid")
		b.connect(m)
		facts, _ := m.facts(crm.NodeID(b.cert.Identity.Node))
		foreign, _ := m.facts(crm.NodeID(other.cert.Identity.Node))
		for i, c := range []struct {
			op   crm.Op
			want crm.OutcomeKind
		}{
			{patch(crm.EntityNode, facts.Record, crm.NodeSync, crm.TextValue("warsaw:7400")), crm.Accepted},
			{patch(crm.EntityNode, foreign.Record, crm.NodeSync, crm.TextValue("warsaw:7400")), crm.Rejected},
			{patch(crm.EntityNode, facts.Record, crm.NodeRole, crm.ChoiceValue("master")), crm.Rejected},
			{patch(crm.EntityNode, facts.Record, crm.NodeStatus, crm.ChoiceValue("active")), crm.Rejected},
			{crm.Op{Kind: crm.OpDelete, Entity: crm.EntityNode, Record: facts.Record, Seen: crm.Token{Rev: crm.Pending - 1}}, crm.Rejected},
		} {
			b.push(crm.Seq(i+1), b.mutation(c.op))
			for b.decided < crm.Seq(i+1) {
				if batch, ok := b.frame().(*syncproto.Batch); ok {
					b.apply(batch)
				}
			}
			got := crm.Accepted
			for _, o := range b.outcomes {
				if o.Seq == crm.Seq(i+1) {
					got = o.Kind
				}
			}
			if got != c.want {
				t.Errorf("op %d: %s, want %s", i, got, c.want)
			}
		}
	})
}

// A follower says how old its head is, and more so when it is cut off: a branch that
// it serves must not take it for the leader's.
func TestAge_OfAFollower(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		b.connect(r.leader())
		b.hangUp()
		greeted := func(m *rigMaster) time.Duration {
			t.Helper()
			f, err := b.dial(m, b.hello())
			if err != nil {
				t.Fatal(err)
			}
			w, ok := f.(*syncproto.Welcome)
			if !ok {
				t.Fatalf("greeted with %+v", f)
			}
			b.conn.Close()
			time.Sleep(10 * time.Second) // who comes too often is sent away
			return time.Duration(w.AgeMillis) * time.Millisecond
		}
		if age := greeted(r.leader()); age != 0 {
			t.Errorf("the leader's age is %v", age)
		}
		f := r.follower()
		if age := greeted(f); age <= 0 || age > 2*lagEvery {
			t.Errorf("a follower's age is %v", age)
		}
		cut := time.Now()
		for _, m := range r.masters {
			if m != f {
				if err := r.net.Cut(rigCities[int(m.node)%3], rigCities[int(f.node)%3]); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Minute)
		if age, want := greeted(f), time.Since(cut)-20*time.Second; age < want {
			t.Errorf("the age of a follower that was cut off is %v, want at least %v", age, want)
		}
	})
}
