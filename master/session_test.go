package master

import (
	"testing"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/syncproto"
)

func TestSession_WelcomesAReplica(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		b.connect(r.leader())
		w := b.welcome
		if w.Incarnation != 1 || w.LastSeq != 0 || w.Timeline == 0 || !w.Leader || len(w.Masters) != 1 || w.Masters[0] != syncAddress(1) {
			t.Errorf("welcome %+v", w)
		}
		b.until(w.Head)
		b.equals(r.leader(), crm.Shared, territory(r, "north"))
		if len(b.sums) != 2 {
			t.Errorf("digests of %d territories, want 2", len(b.sums))
		}
	})
}

func TestSession_TurnsAway(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		warsaw, madrid := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid")
		stranger := r.sign(auth.Identity{Cluster: "c1", Role: auth.RoleReplica, Site: "warsaw", Node: 99})
		moved := r.sign(auth.Identity{Cluster: "c1", Role: auth.RoleReplica, Site: "madrid", Node: warsaw.cert.Identity.Node})
		tests := []struct {
			name string
			cert *auth.Node
			edit func(*syncproto.Hello)
			code crm.Code
		}{
			{"another cluster", warsaw.cert, func(h *syncproto.Hello) { h.Cluster = "c2" }, session.CodeWrongCluster},
			{"another node", warsaw.cert, func(h *syncproto.Hello) { h.Node = crm.NodeID(madrid.cert.Identity.Node) }, session.CodeWrongNode},
			{"a newer protocol", warsaw.cert, func(h *syncproto.Hello) { h.ProtoMin, h.ProtoMax = 90, 91 }, syncproto.CodeVersion},
			{"no record", stranger, func(h *syncproto.Hello) { h.Node = 99 }, crm.CodeForbidden},
			{"another site", moved, func(*syncproto.Hello) {}, crm.CodeForbidden},
		}
		for _, tt := range tests {
			b := &branch{r: r, host: warsaw.host, cert: tt.cert, next: 1}
			h := warsaw.hello()
			tt.edit(h)
			f, err := b.dial(m, h)
			if err != nil {
				t.Fatal(tt.name, err)
			}
			if got, ok := f.(*syncproto.Refused); !ok || got.Code != tt.code || got.Message == "" {
				t.Errorf("%s: answered with %s %+v, want code %s", tt.name, f.Kind(), f, tt.code)
			}
			b.hangUp()
		}
	})
}

func TestSession_EndsWhenTheNodeIsRemoved(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		b.until(b.welcome.Head)
		if err := m.RemoveNode(t.Context(), "admin", crm.NodeID(b.cert.Identity.Node)); err != nil {
			t.Fatal(err)
		}
		if got := want[*syncproto.Refused](b); got.Code != crm.CodeRemoved {
			t.Errorf("refused with %+v", got)
		}
		f, err := b.dial(m, b.hello())
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := f.(*syncproto.Refused); !ok || got.Code != crm.CodeRemoved {
			t.Errorf("answered with %s %+v", f.Kind(), f)
		}
	})
}

func TestSession_PushAndOutcomes(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		good, foreign := newID(), newID()
		first := b.mutation(createAccount(good, "Fjord AS", "north"))
		second := b.mutation(createAccount(foreign, "Tejo SA", "south"))
		b.push(1, first, second)
		if got := want[*syncproto.Pushed](b); got.Seq != 2 {
			t.Errorf("pushed %+v", got)
		}
		for b.decided < 2 {
			b.until(b.cursor + 1)
		}
		if len(b.outcomes) != 1 || b.outcomes[0].Seq != 2 || b.outcomes[0].Kind != crm.Rejected || b.outcomes[0].Code != crm.CodeTerritory {
			t.Errorf("outcomes %+v", b.outcomes)
		}

		b.push(1, first, second) // the answer may have been lost
		if got := want[*syncproto.Pushed](b); got.Seq != 2 {
			t.Errorf("repeat pushed %+v", got)
		}
		b.mutation(createAccount(newID(), "lost on the way", "north"))
		b.push(4, b.mutation(createAccount(newID(), "after a gap", "north")))
		if got := want[*syncproto.Gap](b); got.Expected != 3 {
			t.Errorf("gap %+v", got)
		}
		b.equals(m, crm.Shared, territory(r, "north"))
		if got := len(b.outcomes); got != 1 {
			t.Errorf("%d outcomes after the repeat, want 1", got)
		}
	})
}

func TestSession_ForeignEditsAreRefused(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		b.connect(r.leader())
		raw := crm.AppendMutation(nil, &crm.Mutation{Node: 1, Incarnation: 1, Seq: 1, Ops: []crm.Op{createAccount(newID(), "x", "north")}})
		b.push(1, raw)
		if got := want[*syncproto.Refused](b); got.Code != crm.CodeForbidden {
			t.Errorf("refused with %+v", got)
		}
	})
}

func TestSession_ForkFreezesTheNode(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		b.push(1, b.mutation(createAccount(newID(), "original", "north")))
		want[*syncproto.Pushed](b)
		b.next, b.chain = 1, crm.ChainHash{}
		b.push(1, b.mutation(createAccount(newID(), "another history", "north")))
		want[*syncproto.Frozen](b)
		f, err := b.dial(m, b.hello())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := f.(*syncproto.Frozen); !ok {
			t.Errorf("answered with %s", f.Kind())
		}
	})
}

func TestSession_DifferingChainFreezesAtTheHandshake(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		b.push(1, b.mutation(createAccount(newID(), "original", "north")))
		want[*syncproto.Pushed](b)
		b.chain[0]++
		f, err := b.dial(m, b.hello())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := f.(*syncproto.Frozen); !ok {
			t.Errorf("answered with %s", f.Kind())
		}
	})
}

func TestSession_OldDisksAreAdmittedAnewOrFenced(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		b.push(1, b.mutation(createAccount(newID(), "one", "north")), b.mutation(createAccount(newID(), "two", "north")))
		want[*syncproto.Pushed](b)
		last := b.chain
		original := b.hello()

		b.next, b.chain = 2, crm.ChainHash{1} // the disk goes back to before the second edit
		b.connect(m)
		if b.welcome.Incarnation != 2 || b.welcome.LastSeq != 2 || b.welcome.LastHash != last {
			t.Errorf("the old copy was welcomed with %+v", b.welcome)
		}
		b.hangUp()

		f, err := b.dial(m, original)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := f.(*syncproto.Fenced); !ok || got.Incarnation != 2 {
			t.Errorf("the other disk was answered with %s %+v", f.Kind(), f)
		}
	})
}

func TestSession_FencedWhilePushing(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		b.until(b.welcome.Head)
		if _, err := m.admit(t.Context(), crm.NodeID(b.cert.Identity.Node), "test"); err != nil {
			t.Fatal(err)
		}
		b.push(1, b.mutation(createAccount(newID(), "late", "north")))
		if got := want[*syncproto.Fenced](b); got.Incarnation != 2 {
			t.Errorf("fenced with %+v", got)
		}
	})
}

func TestSession_SilentReplicaIsHungUpOn(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		b.mute = true
		b.connect(r.leader())
		b.until(b.welcome.Head)
		if f := b.frame(); f != nil {
			t.Errorf("got %s", f.Kind())
		}
		if n := len(r.leader().server.Sessions()); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestSession_SecondOneReplacesTheFirst(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		b := r.branch("warsaw", "Warsaw")
		b.connect(m)
		b.until(b.welcome.Head)
		twin := &branch{r: r, host: b.host, cert: b.cert, next: 1, incarnation: 1, timeline: b.timeline, cursor: b.cursor}
		twin.connect(m)
		defer twin.hangUp()
		for f := b.frame(); f != nil; f = b.frame() {
		}
		if list := m.server.Sessions(); len(list) != 1 {
			t.Errorf("%d sessions", len(list))
		}
	})
}

// A leader with too much on its way through the log turns pushes away, and takes
// them when that is decided.
func TestPush_AnOverloadedLeaderIsBusy(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		b, m := r.branch("warsaw", "Warsaw"), r.leader()
		b.connect(m)
		raw := b.mutation(createAccount(newID(), "acme", "north"))
		m.flight.Store(maxFlight)
		b.push(1, raw)
		if busy := want[*syncproto.Busy](b); busy.RetryAfterMillis == 0 {
			t.Errorf("busy for no time: %+v", busy)
		}
		m.flight.Add(-int64(len(raw)))
		b.push(1, raw)
		if p := want[*syncproto.Pushed](b); p.Seq != 1 {
			t.Errorf("taken up to %d", p.Seq)
		}
		if got := m.flight.Load(); got != maxFlight-int64(len(raw)) {
			t.Errorf("%d bytes are still on their way", got)
		}
	})
}
