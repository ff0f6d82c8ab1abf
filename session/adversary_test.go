package session_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

var thiefID = auth.Identity{Cluster: "c1", Role: auth.RoleReplica, Site: "madrid", Node: 3}

// A thief is a replica with a valid certificate that follows no protocol. It
// holds the territory south.
type thief struct {
	*world
	down  *session.Talk
	heard []syncproto.Frame
}

// newThief lets a thief join beside an honest branch in session.
func newThief(t *testing.T) *thief {
	t.Helper()
	w := newWorld(t)
	w.office(w.create(crm.EntitySite, crm.SiteName, crm.TextValue("madrid"), crm.SiteTerritories, crm.ChoicesValue("south"), crm.SiteHome, crm.TextValue("south")))
	w.office(w.create(crm.EntityNode, crm.NodeSite, crm.TextValue("madrid"), crm.NodeRole, crm.ChoiceValue("replica"), crm.NodeStatus, crm.ChoiceValue("active")))
	w.office(w.create(catalog.Account, accName, crm.TextValue("NORTHERN"), accTerr, crm.TextValue("north")))
	w.must(w.connect())
	w.must(w.pass(time.Second))
	return &thief{world: w}
}

func (f *thief) hello() *syncproto.Hello {
	return &syncproto.Hello{ProtoMin: syncproto.MinVersion, ProtoMax: syncproto.MaxVersion, Cluster: "c1", Node: 3, NextSeq: 1, Sent: f.clock.UnixMilli()}
}

// shake is what a master that leads makes of the thief's Hello.
func (f *thief) shake(h *syncproto.Hello) syncproto.Frame {
	f.t.Helper()
	if err := f.srv.Check(h, thiefID); err != nil {
		return session.Refusal(err)
	}
	s, err := f.srv.Standing(h.Node)
	f.must(err)
	j := s.Judge(h)
	if j.Admit != "" {
		f.admit(h.Node, j.Admit)
		s, err = f.srv.Standing(h.Node)
		f.must(err)
		j.Answer = s.Welcome()
	}
	w, ok := j.Answer.(*syncproto.Welcome)
	if !ok {
		return j.Answer
	}
	if session.Goal(h, w) > f.fsm.Head() {
		return f.srv.Busy(session.NoLeader("wait"))
	}
	return f.srv.Complete(h, w, thiefID, f.clock)
}

// open begins a session with an edited Hello, which must be welcomed.
func (f *thief) open(edit func(*syncproto.Hello)) {
	f.t.Helper()
	h := f.hello()
	if edit != nil {
		edit(h)
	}
	a := f.shake(h)
	w, ok := a.(*syncproto.Welcome)
	if !ok {
		f.t.Fatalf("answered with %s %+v", a.Kind(), a)
	}
	f.down = f.srv.NewTalk(h, w, thiefID)
}

// say sends frames and has done what they call for. It returns why the session
// ended.
func (f *thief) say(frames ...syncproto.Frame) error {
	f.t.Helper()
	for _, frame := range frames {
		act, err := f.down.Hear(recode(f.t, frame))
		if err = f.follow(act, err); err != nil {
			return err
		}
	}
	for {
		act, err := f.down.Due()
		if len(act.Send) == 0 && act.Submit == nil && act.Ask == nil {
			return err
		}
		if err := f.follow(act, err); err != nil {
			return err
		}
	}
}

func (f *thief) follow(act session.Act, ended error) error {
	f.t.Helper()
	f.heard = append(f.heard, act.Send...)
	if act.Ask != nil {
		f.heard = append(f.heard, f.down.Answered(act.Ask, &syncproto.Answer{Rev: f.fsm.Head()}, nil))
	}
	if ended != nil || act.Submit == nil {
		return ended
	}
	return f.follow(f.down.Replied(f.decide(*act.Submit)))
}

// edit is a Mutation of the thief.
func (f *thief) edit(seq crm.Seq, prev crm.ChainHash, change func(*crm.Mutation)) []byte {
	m := &crm.Mutation{Node: 3, Incarnation: 1, Seq: seq, Prev: prev, HLC: crm.NewHLC(f.clock.UnixMilli()), Actor: "eve", Intent: "test",
		Ops: []crm.Op{f.create(catalog.Account, accName, crm.TextValue("theirs"), accTerr, crm.TextValue("south"))}}
	if change != nil {
		change(m)
	}
	return crm.AppendMutation(nil, m)
}

func push(first crm.Seq, raw ...[]byte) *syncproto.Push {
	return &syncproto.Push{First: first, Mutations: raw}
}

// leaks reports whether the thief was sent the northern account.
func (f *thief) leaks() bool {
	return slices.ContainsFunc(f.heard, func(h syncproto.Frame) bool {
		b, ok := h.(*syncproto.Batch)
		return ok && slices.ContainsFunc(b.Items, func(it syncproto.Item) bool {
			rec, err := crm.DecodeRecord(it.Entity, it.ID, it.Body)
			return err == nil && rec.Territory == f.north()
		})
	})
}

// north is the number of the territory that the thief was not granted.
func (f *thief) north() (id crm.TerritoryID) {
	f.t.Helper()
	f.must(f.fsm.DB().View(func(tx *store.Tx) (err error) {
		id, _, err = tx.TerritoryByCode("north")
		return err
	}))
	return id
}

// accounts counts those of a territory at the master.
func (f *thief) accounts(in crm.TerritoryID) (n int) {
	f.t.Helper()
	f.must(f.fsm.DB().View(func(tx *store.Tx) error {
		for rec, err := range tx.Scan(catalog.Account) {
			if err != nil {
				return err
			}
			if rec.Territory == in {
				n++
			}
		}
		return nil
	}))
	return n
}

func (f *thief) got(k syncproto.Kind) bool {
	return slices.ContainsFunc(f.heard, func(h syncproto.Frame) bool { return h.Kind() == k })
}

// What a replica with a valid certificate may say that is not so, what it is
// told, and what is counted. It is never sent what it was not granted, and the
// honest branch beside it goes on.
func TestAdversary_Replica(t *testing.T) {
	open := func(edit func(*syncproto.Hello)) func(*thief) error {
		return func(f *thief) error { f.open(edit); return f.say() }
	}
	says := func(frames func(*thief) []syncproto.Frame) func(*thief) error {
		return func(f *thief) error { f.open(nil); return f.say(frames(f)...) }
	}
	says1 := func(frame func(*thief) syncproto.Frame) func(*thief) error {
		return says(func(f *thief) []syncproto.Frame { return []syncproto.Frame{frame(f)} })
	}
	greets := func(edit func(*thief, *syncproto.Hello)) func(*thief) error {
		return func(f *thief) error {
			h := f.hello()
			edit(f, h)
			f.heard = append(f.heard, f.shake(h))
			return nil
		}
	}
	for _, tt := range []struct {
		name    string
		act     func(*thief) error
		want    syncproto.Kind // among what it is told; 0: anything
		counted crm.Code       // and ended with it; "": the session goes on
	}{
		{"a Hello in another node's name", greets(func(f *thief, h *syncproto.Hello) { h.Node = branchNode }), syncproto.KindRefused, ""},
		{"a Hello of another cluster", greets(func(f *thief, h *syncproto.Hello) { h.Cluster = "c2" }), syncproto.KindRefused, ""},
		{"a Hello of no version that is", greets(func(f *thief, h *syncproto.Hello) { h.ProtoMin, h.ProtoMax = 999, 1000 }), syncproto.KindRefused, ""},
		{"a stale incarnation", greets(func(f *thief, h *syncproto.Hello) {
			f.admit(3, "one")
			f.admit(3, "two")
			h.Incarnation = 1
		}), syncproto.KindFenced, ""},
		{"an incarnation to come", greets(func(f *thief, h *syncproto.Hello) { h.Incarnation = 1 << 30 }), syncproto.KindWelcome, ""},
		{"a Cursor above the head", greets(func(f *thief, h *syncproto.Hello) { h.Timeline, h.Cursor = 7, crm.Pending-1 }), syncproto.KindBusy, ""},
		{"a stage above the head", greets(func(f *thief, h *syncproto.Hello) { h.Timeline, h.Cursor, h.Staged = 7, 1, crm.Pending-1 }), syncproto.KindBusy, ""},
		{"a Cursor of a foreign timeline", open(func(h *syncproto.Hello) { h.Timeline, h.Cursor, h.Staged = 99, crm.Pending-1, crm.Pending-1 }), syncproto.KindBatch, ""},
		{"resend of a territory that is not granted", open(func(h *syncproto.Hello) { h.Timeline, h.Resend = 7, []crm.TerritoryID{0, 1, 2, 3, 4, 1 << 31} }), syncproto.KindBatch, ""},
		{"the highest number to come", open(func(h *syncproto.Hello) { h.NextSeq = ^crm.Seq(0) }), syncproto.KindBatch, ""},

		{"an edit of another node", says1(func(f *thief) syncproto.Frame {
			return push(1, f.edit(1, crm.ChainHash{}, func(m *crm.Mutation) { m.Node = branchNode }))
		}), syncproto.KindRefused, crm.CodeForbidden},
		{"a number that is not the push's", says1(func(f *thief) syncproto.Frame { return push(1, f.edit(2, crm.ChainHash{}, nil)) }), syncproto.KindRefused, crm.CodeForbidden},
		{"a gap", says1(func(f *thief) syncproto.Frame { return push(9, f.edit(9, crm.ChainHash{}, nil)) }), syncproto.KindGap, ""},
		{"a fork", says(func(f *thief) []syncproto.Frame {
			return []syncproto.Frame{push(1, f.edit(1, crm.ChainHash{}, nil)), push(1, f.edit(1, crm.ChainHash{}, func(m *crm.Mutation) { m.Actor = "mallory" }))}
		}), syncproto.KindFrozen, crm.CodeFrozen},
		{"another history", says1(func(f *thief) syncproto.Frame { return push(1, f.edit(1, crm.ChainHash{7}, nil)) }), syncproto.KindFrozen, crm.CodeFrozen},
		{"bytes that are no edit", says1(func(f *thief) syncproto.Frame { return push(1, make([]byte, 64)) }), syncproto.KindRefused, syncproto.CodeFrame},
		{"a replay", says(func(f *thief) []syncproto.Frame {
			p := push(1, f.edit(1, crm.ChainHash{}, nil))
			return slices.Repeat([]syncproto.Frame{p}, 50)
		}), syncproto.KindPushed, ""},
		{"an edit of a record that is not granted", says1(func(f *thief) syncproto.Frame {
			return push(1, f.edit(1, crm.ChainHash{}, func(m *crm.Mutation) {
				m.Ops[0].Cells[1].Value = crm.TextValue("north")
			}))
		}), syncproto.KindPushed, ""},
		{"an author who saw what is not decided", says1(func(f *thief) syncproto.Frame {
			return push(1, f.edit(1, crm.ChainHash{}, func(m *crm.Mutation) { m.Ops[0].Seen = crm.Token{Rev: crm.Pending, Seq: 1 << 60} }))
		}), syncproto.KindPushed, ""},
		{"an edit from the end of time", says1(func(f *thief) syncproto.Frame {
			return push(1, f.edit(1, crm.ChainHash{}, func(m *crm.Mutation) { m.HLC = ^crm.HLC(0) }))
		}), syncproto.KindPushed, ""},

		{"a second Hello", says1(func(f *thief) syncproto.Frame { return f.hello() }), syncproto.KindRefused, syncproto.CodeFrame},
		{"a Batch", says1(func(*thief) syncproto.Frame { return &syncproto.Batch{To: 1, Final: true} }), syncproto.KindRefused, syncproto.CodeFrame},
		{"reports of other nodes", says1(func(*thief) syncproto.Frame {
			return &syncproto.Reports{Reports: []syncproto.Report{{Node: branchNode, Cursor: 1 << 50}}}
		}), syncproto.KindRefused, syncproto.CodeFrame},
		{"forwarded edits of another node", says1(func(f *thief) syncproto.Frame {
			return &syncproto.Forward{Node: branchNode, Incarnation: 1, Mutations: [][]byte{f.edit(1, crm.ChainHash{}, nil)}}
		}), syncproto.KindRefused, syncproto.CodeFrame},
		{"a Join", says1(func(*thief) syncproto.Frame { return &syncproto.Join{TokenID: "x", CSR: []byte{1}, Role: "master"} }), syncproto.KindRefused, syncproto.CodeFrame},
		{"a repair of a territory that is not granted", says1(func(f *thief) syncproto.Frame {
			return &syncproto.Repair{Number: 1, Wants: []syncproto.Want{{Territory: f.north(), Buckets: syncproto.AllBuckets()}, {Territory: 1 << 31}}}
		}), syncproto.KindBatch, ""},
		{"a repair from a Cursor to come", says1(func(*thief) syncproto.Frame {
			return &syncproto.Repair{Number: 1, Cursor: crm.Pending - 1, Wants: []syncproto.Want{{Territory: 1}}}
		}), syncproto.KindRefused, syncproto.CodeFrame},
		{"a flood of repairs", says(func(*thief) []syncproto.Frame {
			return slices.Repeat([]syncproto.Frame{&syncproto.Repair{Number: 1, Wants: []syncproto.Want{{Territory: 1}}}}, 1000)
		}), syncproto.KindBatch, ""},
		{"it applied what was not sent", says1(func(*thief) syncproto.Frame {
			return &syncproto.Applied{Cursor: crm.Pending - 1, LowBase: crm.Pending - 1}
		}), 0, ""},
		{"a flood of questions", says(func(*thief) []syncproto.Frame {
			return slices.Repeat([]syncproto.Frame{&syncproto.Heartbeat{T1: 1}}, 10_000)
		}), syncproto.KindHeartbeat, ""},
		{"answers to what was not asked", says(func(*thief) []syncproto.Frame {
			return slices.Repeat([]syncproto.Frame{&syncproto.Heartbeat{Reply: true, ID: 99, T1: 1 << 47, T2: 0, T3: 1 << 47}}, 100)
		}), 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newThief(t)
			err := tt.act(f)
			if (err != nil) != (tt.counted != "") {
				t.Errorf("ended with %v", err)
			}
			if tt.want != 0 && !f.got(tt.want) {
				t.Errorf("was told %v, want %s", kinds(f.heard), tt.want)
			}
			if n := f.refused[tt.counted]; tt.counted != "" && n != 1 || len(f.refused) > 1 {
				t.Errorf("counted %v, want %q", f.refused, tt.counted)
			}
			if n := len(f.heard); n > 300 {
				t.Errorf("was told %d frames", n)
			}
			if f.leaks() {
				t.Error("the northern account came south")
			}
			if f.down != nil {
				f.down.End()
			}
			f.commit(f.account("the honest branch goes on"))
			f.must(f.pass(time.Second))
			f.equal()
			if s, err := f.srv.Standing(branchNode); err != nil || s.State.Frozen != "" || s.State.Incarnation != 1 || s.State.LastSeq != 1 {
				t.Errorf("the honest branch stands at %+v, %v", s.State, err)
			}
			if n := f.accounts(f.north()); n != 2 {
				t.Errorf("the north has %d accounts, want the two that are its own", n)
			}
		})
	}
}

// Pushes that come while one is on its way upstream are bounded.
func TestAdversary_PushesThatWaitAreBounded(t *testing.T) {
	f := newThief(t)
	f.open(nil)
	busy := 0
	for seq := range crm.Seq(100) {
		act, err := f.down.Hear(push(seq+1, f.edit(seq+1, crm.ChainHash{}, nil)))
		f.must(err)
		for _, a := range act.Send {
			if a.Kind() == syncproto.KindBusy {
				busy++
			}
		}
	}
	if busy != 95 {
		t.Errorf("%d of 100 pushes were turned away, want all but the one under way and the four that wait", busy)
	}
}

func kinds(frames []syncproto.Frame) (out []string) {
	for _, f := range frames {
		out = append(out, f.Kind().String())
	}
	return out
}
