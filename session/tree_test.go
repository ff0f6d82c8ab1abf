package session_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A tree is one master, relays and branches whose Talks are driven by the test's
// own goroutine.
type tree struct {
	t     *testing.T
	clock time.Time
	rand  *rand.ChaCha8
	fsm   *master.FSM
	srv   *session.Server
	index uint64
	seq   crm.Seq // of head office
	chain crm.ChainHash
	peers map[string]*peer
	sites map[string]crm.RecordID
}

// A peer is a replica that may serve others. Above is whom it talks to, nil a
// master.
type peer struct {
	w     *tree
	id    auth.Identity
	dir   string
	relay bool
	r     *replica.Replica
	above *peer
	up    *replica.Talk // nil: not connected
	down  *session.Talk
	held  bool // nothing comes down to it
}

// The nodes of a tree and what their sites hold. All but the leaves are relays.
var treeNodes = []struct {
	name  string
	relay bool
	holds []string
}{
	{"region", true, []string{"north", "south", "west"}},
	{"porto", true, []string{"north", "south"}},
	{"lisbon", false, []string{"north"}},
	{"faro", false, []string{"north", "south"}},
	{"oslo", false, []string{"east", "north"}},
}

func newTree(t *testing.T, seed byte) *tree {
	t.Helper()
	w := &tree{t: t, clock: time.UnixMilli(1_700_000_000_000).UTC(), rand: rand.NewChaCha8([32]byte{seed}), peers: map[string]*peer{}, sites: map[string]crm.RecordID{}}
	var err error
	if w.fsm, err = master.OpenFSM(master.FSMConfig{Path: filepath.Join(t.TempDir(), "master.db"), Store: store.Options{NoSync: true}, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.fsm.Close() })
	w.serve()
	w.apply(master.TimelineEntry{Timeline: 7, Cluster: "c1", Node: 1, ReceivedMillis: w.clock.UnixMilli(), Site: "hq", Sync: "m1:7400"})
	w.apply(master.ActivateEntry{Level: uint64(syncproto.MaxVersion)})
	for _, req := range catalog.Requests("setup") {
		w.office(req.Ops...)
	}
	for _, code := range []string{"north", "south", "west", "east"} {
		w.office(w.create(crm.EntityTerritory, crm.TerritoryCode, crm.TextValue(code), crm.TerritoryName, crm.TextValue(code)))
	}
	for i, n := range treeNodes {
		site := w.create(crm.EntitySite, crm.SiteName, crm.TextValue(n.name), crm.SiteTerritories, crm.ChoicesValue(n.holds...), crm.SiteHome, crm.TextValue(n.holds[0]))
		w.sites[n.name] = site.Record
		w.office(site)
		sync := ""
		if n.relay {
			sync = n.name + ":7400"
		}
		w.office(w.create(crm.EntityNode, crm.NodeSite, crm.TextValue(n.name), crm.NodeRole, crm.ChoiceValue("replica"), crm.NodeStatus, crm.ChoiceValue("active"), crm.NodeSync, crm.TextValue(sync)))
		p := &peer{w: w, relay: n.relay, dir: t.TempDir(), id: auth.Identity{Cluster: "c1", Role: auth.RoleReplica, Site: n.name, Node: uint32(i + 2)}}
		w.peers[n.name] = p
		p.open()
		t.Cleanup(func() { _ = p.r.Close() })
	}
	return w
}

func (p *peer) open() {
	p.w.t.Helper()
	c := replica.Config{Dir: p.dir, ID: replica.ID{Cluster: "c1", Site: p.id.Site, Node: crm.NodeID(p.id.Node)}, Store: store.Options{NoSync: true}, Now: p.w.now, Rand: p.w.rand,
		Masters: func() []string { return nil }, Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("there is no line") }}
	if p.relay {
		c.Relay = &replica.Relay{Listen: func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }, Address: p.id.Site + ":7400", TLS: &tls.Config{}, Link: &tls.Config{}}
	}
	var err error
	if p.r, err = replica.Open(c); err != nil {
		p.w.t.Fatal(err)
	}
}

// serve begins to serve from the masters' file.
func (w *tree) serve() {
	w.srv = session.New(session.Config{Cluster: "c1", DB: w.fsm.DB(), Head: w.fsm.Head, Changed: w.fsm.Changed,
		Leader: func() (crm.NodeID, bool) { return 1, true }, Reported: func(crm.NodeID, crm.Rev, crm.Rev, int64) {},
		Now: w.now, Jitter: func(bound time.Duration) time.Duration { return bound / 2 }})
}

func (w *tree) now() time.Time { return w.clock }

func (w *tree) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *tree) create(e crm.EntityID, pairs ...any) crm.Op {
	op := crm.Op{Kind: crm.OpCreate, Entity: e, Record: crm.NewRecordID(w.clock, w.rand)}
	for i := 0; i < len(pairs); i += 2 {
		if v := pairs[i+1].(crm.Value); !v.IsNull() {
			op.Cells = append(op.Cells, crm.Input{Field: pairs[i].(crm.FieldID), Value: v})
		}
	}
	return op
}

func (w *tree) apply(e master.Entry) master.Verdict {
	w.t.Helper()
	raw, err := master.EncodeEntry(e)
	w.must(err)
	w.index++
	v := w.fsm.Apply(w.index, 1, raw)
	w.must(w.fsm.Flush())
	return v
}

// office has an edit of head office decided, whatever comes of it.
func (w *tree) office(ops ...crm.Op) crm.Outcome {
	w.t.Helper()
	w.seq++
	raw := crm.AppendMutation(nil, &crm.Mutation{Node: 1, Incarnation: 1, Seq: w.seq, Prev: w.chain, HLC: crm.NewHLC(w.clock.UnixMilli()), Actor: "ana", Intent: "test", Ops: ops})
	w.chain = crm.Chain(w.chain, raw)
	v := w.apply(master.PushEntry{Node: 1, Incarnation: 1, ReceivedMillis: w.clock.UnixMilli(), Mutations: [][]byte{raw}})
	w.must(v.Err)
	return v.Results[0].Outcome
}

func (w *tree) account(name, territory string) crm.Op {
	return w.create(catalog.Account, accName, crm.TextValue(name), accTerr, crm.TextValue(territory))
}

// patch makes an edit by somebody who has seen everything.
func (w *tree) patch(kind crm.OpKind, id crm.RecordID, f crm.FieldID, v crm.Value) crm.Op {
	op := crm.Op{Kind: kind, Entity: catalog.Account, Record: id, Seen: crm.Token{Rev: w.fsm.Head()}}
	if f != 0 {
		op.Cells = []crm.Input{{Field: f, Value: v}}
	}
	return op
}

func (w *tree) grant(site string, territories ...string) {
	w.t.Helper()
	w.office(crm.Op{Kind: crm.OpPatch, Entity: crm.EntitySite, Record: w.sites[site], Seen: crm.Token{Rev: w.fsm.Head()},
		Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue(territories...)}}})
}

// server returns who serves the peer's children.
func (p *peer) server() *session.Server { return p.r.Server() }

// judge has a Hello judged by who decides, through the relays on the way.
func (w *tree) judge(at *peer, h *syncproto.Hello) (syncproto.Frame, error) {
	w.t.Helper()
	if at != nil {
		if at.up == nil {
			return nil, session.NoLeader("connect")
		}
		return w.judge(at.above, h)
	}
	s, err := w.srv.Standing(h.Node)
	w.must(err)
	j := s.Judge(h)
	if j.Freeze != "" {
		w.apply(master.FreezeEntry{Node: h.Node, Reason: j.Freeze})
	}
	if j.Admit != "" {
		e := master.AdmitEntry{Node: h.Node, Reason: j.Admit}
		w.rand.Read(e.Nonce[:])
		w.apply(e)
		s, err = w.srv.Standing(h.Node)
		w.must(err)
		j.Answer = s.Welcome()
	}
	return j.Answer, nil
}

// greet answers a Hello as session.Server does.
func (w *tree) greet(above *peer, h *syncproto.Hello, id auth.Identity) syncproto.Frame {
	w.t.Helper()
	srv, head := w.srv, w.fsm.Head()
	if above != nil {
		srv, head = above.server(), above.r.Status().Cursor
	}
	if f := srv.Turn(h, id); f != nil {
		return f
	}
	f, err := w.judge(above, h)
	if err != nil {
		if f, err = srv.JudgeAlone(h); err != nil {
			return srv.Busy(err)
		}
	}
	welcome, ok := f.(*syncproto.Welcome)
	if !ok {
		return f
	}
	if head < srv.Goal(h, welcome) {
		return srv.Busy(errors.New("behind"))
	}
	return srv.Complete(h, welcome, id, w.clock)
}

// connect has the peer talk to another one, nil a master.
func (p *peer) connect(above *peer) error {
	p.w.t.Helper()
	err := p.tryConnect(above)
	if replica.Again(err) {
		err = p.tryConnect(above)
	}
	return err
}

func (p *peer) tryConnect(above *peer) error {
	p.w.t.Helper()
	p.hangUp()
	h, err := p.r.Hello()
	if err != nil {
		return err
	}
	f := p.w.greet(above, recode(p.w.t, h), p.id)
	if p.up, err = p.r.Greeted(h, recode(p.w.t, f), p.w.clock); err != nil {
		return err
	}
	srv := p.w.srv
	if above != nil {
		srv = above.server()
	}
	p.above, p.down = above, srv.NewTalk(h, f.(*syncproto.Welcome), p.id)
	return nil
}

func (p *peer) hangUp() {
	if p.up != nil {
		p.up.End()
		if p.down != nil {
			p.down.End()
		}
		p.up, p.down = nil, nil
	}
}

// submit has Mutations decided, through the relays on the way.
func (w *tree) submit(at *peer, s session.Submission) (session.Reply, error) {
	w.t.Helper()
	if at != nil {
		if at.up == nil {
			return session.Reply{}, session.NoLeader("submit")
		}
		return w.submit(at.above, at.r.OnBehalf(s))
	}
	v := w.apply(master.PushOf(s, w.clock.UnixMilli()))
	return master.ReplyOf(s, w.index, v.Results), v.Err
}

// pump moves the peer's frames until nothing is due. It returns why either side
// ended the conversation, which is over then.
func (p *peer) pump() (moved bool, err error) {
	for p.up != nil {
		out, err := p.up.Due()
		n := len(out)
		for _, f := range out {
			act, err := p.down.Hear(recode(p.w.t, f))
			if err := p.do(act, err); err != nil {
				p.hangUp()
				return true, err
			}
		}
		if err == nil && !p.held {
			var act session.Act
			act, err = p.down.Due()
			n += len(act.Send)
			err = p.do(act, err)
		}
		if err != nil {
			p.hangUp()
			return true, err
		}
		if n == 0 {
			return moved, nil
		}
		moved = true
	}
	return moved, nil
}

// do does what the serving Talk wants done.
func (p *peer) do(act session.Act, ended error) error {
	p.w.t.Helper()
	for _, f := range act.Send {
		if err := p.up.Hear(recode(p.w.t, f)); err != nil {
			return err
		}
	}
	if ended != nil || act.Submit == nil {
		return ended
	}
	return p.do(p.down.Replied(p.w.submit(p.above, *act.Submit)))
}

// settle lets time pass until nobody has anything to say. Ends of conversations
// fail the test, but for those that a relay ends itself: it is asked once more.
func (w *tree) settle() {
	w.t.Helper()
	for range 200 {
		moved := false
		for _, n := range treeNodes {
			m, err := w.peers[n.name].pump()
			moved = moved || m
			if err != nil && crm.CodeOf(err) != crm.CodeStale && crm.CodeOf(err) != session.CodeNotServed {
				w.t.Fatalf("%s: %v", n.name, err)
			}
			if crm.CodeOf(err) == crm.CodeStale {
				_ = w.peers[n.name].connect(w.peers[n.name].above) // it may have nothing to offer
			}
		}
		w.clock = w.clock.Add(100 * time.Millisecond)
		if !moved && w.clock.UnixMilli()%1000 == 0 {
			return
		}
	}
}

// equal wants every peer to be the master's equal, with an empty outbox and sound
// files.
func (w *tree) equal() {
	w.t.Helper()
	for _, n := range treeNodes {
		p := w.peers[n.name]
		s := p.r.Status()
		if s.Cursor != w.fsm.Head() || s.Verified == 0 || len(s.Suspect) > 0 || s.Outbox.Entries != 0 || s.Decided != s.Seq {
			w.t.Errorf("the master is at %d, %s is %+v", w.fsm.Head(), n.name, s)
		}
		found, err := p.r.Check(w.t.Context())
		if err != nil || len(found) > 0 {
			w.t.Errorf("check of %s: %+v %v", n.name, found, err)
		}
		w.sameRecords(p)
	}
}

// sameRecords compares a peer's records with the master's, read anew on both.
func (w *tree) sameRecords(p *peer) {
	w.t.Helper()
	read := func(scan func(func(*crm.Record))) map[crm.TerritoryID]map[crm.RecordID]string {
		out := map[crm.TerritoryID]map[crm.RecordID]string{}
		scan(func(r *crm.Record) {
			if out[r.Territory] == nil {
				out[r.Territory] = map[crm.RecordID]string{}
			}
			out[r.Territory][r.ID] = string(crm.AppendRecord(nil, r))
		})
		return out
	}
	var all []*crm.Entity
	want := read(func(keep func(*crm.Record)) {
		w.must(w.fsm.DB().View(func(tx *store.Tx) error {
			all = tx.Schema().Entities
			for _, e := range all {
				for r, err := range tx.Scan(e.ID) {
					if err != nil {
						return err
					}
					keep(r)
				}
			}
			return nil
		}))
	})
	got := read(func(keep func(*crm.Record)) {
		_, err := p.r.Read(w.t.Context(), crm.Demand{}, func(r *store.Reader) error {
			for _, e := range all {
				for rec, err := range r.Scan(e) {
					if err != nil {
						return err
					}
					keep(rec)
				}
			}
			return nil
		})
		w.must(err)
	})
	for t, records := range got {
		if len(records) != len(want[t]) {
			w.t.Errorf("%s holds %d records of territory %d, the master %d", p.id.Site, len(records), t, len(want[t]))
		}
		for id, body := range records {
			if body != want[t][id] {
				w.t.Errorf("%s: record %s of territory %d is not the master's", p.id.Site, id, t)
			}
		}
	}
}

func (p *peer) commit(ops ...crm.Op) crm.Seq {
	p.w.t.Helper()
	r, err := p.r.Commit(p.w.t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: ops})
	p.w.must(err)
	return r.Seq
}

// chained connects region to the master, porto to region, lisbon and faro to
// porto, and oslo, which no relay may serve, to the master.
func (w *tree) chained() {
	w.t.Helper()
	above := map[string]*peer{"porto": w.peers["region"], "lisbon": w.peers["porto"], "faro": w.peers["porto"]}
	for _, p := range w.peers {
		p.hangUp()
	}
	for _, n := range treeNodes {
		w.must(w.peers[n.name].connect(above[n.name]))
		w.settle()
	}
}

func TestTree_ThreeDeep(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	w.equal()
	lisbon, faro := w.peers["lisbon"], w.peers["faro"]
	made := w.account("made in lisbon", "north")
	seq := lisbon.commit(made)
	w.settle()
	w.equal()
	if o, ok, err := lisbon.r.Outcome(seq); err != nil || !ok || o.Kind != crm.Accepted {
		t.Errorf("lisbon's edit: %+v %v %v", o, ok, err)
	}

	// A rejection comes back to its author through the relays.
	w.office(w.patch(crm.OpDelete, made.Record, 0, crm.Value{}))
	lost := faro.commit(crm.Op{Kind: crm.OpPatch, Entity: catalog.Account, Record: made.Record, Cells: []crm.Input{{Field: accName, Value: crm.TextValue("too late")}}})
	w.settle()
	w.equal()
	if o, ok, err := faro.r.Outcome(lost); err != nil || !ok || o.Kind == crm.Accepted {
		t.Errorf("faro's edit of a deleted record: %+v %v %v", o, ok, err)
	}
}

// A branch whose relay has not heard yet what the leader decided of its edits: the
// Welcome says what is taken, the feed what is decided, and nothing is made twice.
func TestTree_TakenIsNotDecided(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	region, lisbon := w.peers["region"], w.peers["lisbon"]
	account := w.account("a", "north")
	w.office(account)
	w.settle()
	region.held = true
	first := lisbon.commit(w.patch(crm.OpSetAdd, account.Record, accTags, crm.ChoicesValue("vip")))
	w.settle()
	w.must(lisbon.connect(w.peers["porto"]))
	w.settle()
	if s := lisbon.r.Status(); s.Decided >= first || s.Outbox.Entries != 1 {
		t.Errorf("before the relay is told: %+v", s)
	}
	before := w.fsm.Head()
	last := lisbon.commit(w.patch(crm.OpPatch, account.Record, accName, crm.TextValue("b")))
	w.settle()
	if w.fsm.Head() != before+1 {
		t.Errorf("the head went from %d to %d for one edit", before, w.fsm.Head())
	}
	region.held = false
	w.settle()
	w.equal()
	for seq := first; seq <= last; seq++ {
		if o, ok, err := lisbon.r.Outcome(seq); err != nil || !ok || o.Kind != crm.Accepted {
			t.Errorf("edit %d: %+v %v %v", seq, o, ok, err)
		}
	}
}

// Whom a relay turns away, and how.
func TestTree_TurnsAway(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	region, porto, lisbon, faro, oslo := w.peers["region"], w.peers["porto"], w.peers["lisbon"], w.peers["faro"], w.peers["oslo"]

	if err := oslo.connect(porto); crm.CodeOf(err) != session.CodeNotServed {
		t.Errorf("a site with a territory that the relay lacks: %v", err)
	}
	if err := region.connect(porto); crm.CodeOf(err) != session.CodeNotServed {
		t.Errorf("a relay below itself: %v", err)
	}
	w.must(region.connect(nil))
	w.must(oslo.connect(nil))

	porto.held = true
	w.must(faro.connect(nil))
	w.office(w.account("x", "south"))
	w.settle()
	ahead := faro.r.Status().Cursor
	if err := faro.connect(porto); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("a relay behind the branch: %v", err)
	}
	if s := faro.r.Status(); s.Cursor != ahead {
		t.Errorf("the branch went back from %d to %d", ahead, s.Cursor)
	}
	porto.held = false
	w.settle()
	w.must(faro.connect(porto))

	// A grant that the relay does not share ends the session in good time.
	w.grant("lisbon", "north", "east")
	w.settle()
	if lisbon.up != nil {
		t.Error("the relay serves a site of which it lacks a territory")
	}
	w.must(lisbon.connect(nil))
	w.settle()
	w.equal()
}

// A relay that is being filled says so: half of its records do not tell whom it may
// serve.
func TestTree_ARelayThatIsEmpty(t *testing.T) {
	w := newTree(t, 1)
	region, lisbon := w.peers["region"], w.peers["lisbon"]
	region.held = true
	w.must(region.connect(nil))
	w.settle()
	if s := region.r.Status(); !s.Connected || s.Relay.Trouble == "" {
		t.Errorf("a relay without data: %+v", s.Relay)
	}
	if err := lisbon.connect(region); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("below it: %v", err)
	}
	region.held = false
	w.settle()
	if s := region.r.Status(); s.Relay.Trouble != "" {
		t.Errorf("once it is filled: %+v", s.Relay)
	}
	w.must(lisbon.connect(region))
}

// When a server ends all sessions, the Talks that were begun before say so at once
// and not before; those begun after go on.
func TestTree_EndedTalks(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	faro, why := w.peers["faro"], errors.New("the base begins anew")
	before := faro.down
	if next := before.Next(); !next.After(w.clock) {
		t.Errorf("something is due %v before anything ended", next.Sub(w.clock))
	}
	w.peers["porto"].server().EndAll(why)
	if next := before.Next(); next.After(w.clock) {
		t.Errorf("the end is due in %v", next.Sub(w.clock))
	}
	if act, err := before.Due(); !errors.Is(err, why) || len(act.Send) > 0 {
		t.Errorf("ended Talk: %v, with %d frames to send", err, len(act.Send))
	}
	w.must(faro.connect(w.peers["porto"]))
	if _, err := faro.down.Due(); err != nil {
		t.Errorf("a Talk begun after: %v", err)
	}
}

// A branch that is below the Rev at which a relay was filled hears of everything
// that was deleted and that left meanwhile.
func TestTree_ARelayLacksWhatWasBeforeIt(t *testing.T) {
	w := newTree(t, 1)
	w.must(w.peers["lisbon"].connect(nil))
	w.must(w.peers["faro"].connect(nil))
	gone, left, stays := w.account("deleted", "north"), w.account("moves", "north"), w.account("stays", "north")
	for _, op := range []crm.Op{gone, left, stays} {
		w.office(op)
	}
	w.settle()
	for _, name := range []string{"lisbon", "faro"} {
		w.peers[name].hangUp()
	}
	w.office(w.patch(crm.OpDelete, gone.Record, 0, crm.Value{}))
	w.office(w.patch(crm.OpPatch, left.Record, accTerr, crm.TextValue("south")))
	w.chained()
	w.equal()
}

// A record that came and went while the relay was behind was never in the relay,
// and yet a branch below may have it.
func TestTree_ARelayMissedARecord(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	porto, lisbon := w.peers["porto"], w.peers["lisbon"]
	w.must(lisbon.connect(nil))
	porto.held = true
	moves := w.account("moves", "north")
	w.office(moves)
	w.settle()
	lisbon.hangUp()
	w.office(w.patch(crm.OpPatch, moves.Record, accTerr, crm.TextValue("south")))
	porto.held = false
	w.settle()
	w.must(lisbon.connect(porto))
	w.must(w.peers["faro"].connect(porto))
	w.settle()
	w.equal()
}

// A relay that comes to serve a node is told what became of all its edits, not
// only of those since.
func TestTree_ARelayHearsOfEarlierOutcomes(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	region, oslo := w.peers["region"], w.peers["oslo"]
	account := w.account("a", "east")
	w.office(account)
	w.settle()
	oslo.held = true
	w.office(w.patch(crm.OpDelete, account.Record, 0, crm.Value{}))
	lost := oslo.commit(crm.Op{Kind: crm.OpPatch, Entity: catalog.Account, Record: account.Record, Cells: []crm.Input{{Field: accName, Value: crm.TextValue("too late")}}})
	w.settle()
	oslo.hangUp()
	oslo.held = false
	w.office(w.account("later", "north"))
	w.settle()
	region.hangUp()
	w.grant("region", "north", "south", "west", "east")
	w.must(region.connect(nil))
	w.settle()
	w.must(oslo.connect(region))
	w.settle()
	w.equal()
	if o, ok, err := oslo.r.Outcome(lost); err != nil || !ok || o.Kind == crm.Accepted {
		t.Errorf("oslo's edit of a deleted record: %+v %v %v", o, ok, err)
	}
}

// A relay that was not told of the nodes below while it applied what they made
// is filled anew, and serves nobody before.
func TestTree_ARelayThatWasNotOne(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	porto, lisbon := w.peers["porto"], w.peers["lisbon"]
	w.must(porto.r.Close())
	porto.hangUp()
	lisbon.hangUp()
	porto.relay = false
	porto.open()
	w.must(lisbon.connect(nil))
	lisbon.commit(w.account("x", "north"))
	w.must(porto.connect(nil))
	w.settle()
	w.must(porto.r.Close())
	porto.hangUp()
	porto.relay = true
	porto.open()
	w.must(porto.connect(nil))
	if err := lisbon.connect(porto); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("served by a relay that knows nothing of it: %v", err)
	}
	w.office(w.account("y", "north"))
	if _, err := porto.pump(); err == nil {
		t.Fatal("the relay went on with what it was never told")
	}
	w.must(porto.connect(nil))
	w.settle()
	w.must(lisbon.connect(porto))
	w.must(w.peers["faro"].connect(porto))
	w.settle()
	w.equal()
}

// Many outcomes come in parts, and none is lost.
func TestTree_ManyOutcomes(t *testing.T) {
	w := newTree(t, 1)
	faro := w.peers["faro"]
	w.must(faro.connect(nil))
	a := w.account("a", "north")
	w.office(a)
	w.settle()
	faro.hangUp()
	w.office(w.patch(crm.OpDelete, a.Record, 0, crm.Value{}))
	const edits = 3000
	var first crm.Seq
	for i := range edits {
		seq := faro.commit(crm.Op{Kind: crm.OpPatch, Entity: catalog.Account, Record: a.Record, Cells: []crm.Input{{Field: accName, Value: crm.TextValue(fmt.Sprint("too late ", i))}}})
		if first == 0 {
			first = seq
		}
	}
	w.must(faro.connect(nil))
	faro.held = true
	w.settle()
	faro.hangUp()
	faro.held = false
	w.chained()
	w.equal()
	for seq := first; seq < first+edits; seq++ {
		if o, ok, err := faro.r.Outcome(seq); err != nil || !ok || o.Kind == crm.Accepted {
			t.Fatalf("edit %d: %+v %v %v", seq, o, ok, err)
		}
	}
}

// trim has the master drop what nobody needs, as its leader would.
func (w *tree) trim() {
	w.t.Helper()
	low := w.fsm.Head()
	for _, p := range w.peers {
		h, err := p.r.Hello()
		w.must(err)
		if low = min(low, h.Cursor); h.LowBase > 0 {
			low = min(low, h.LowBase)
		}
	}
	if low > 0 {
		w.apply(master.TrimEntry{Rev: low})
	}
}

// What nobody needs any more is dropped on every level; a new disk is filled by
// the relay all the same.
func TestTree_TrimsOnEveryLevel(t *testing.T) {
	w := newTree(t, 1)
	w.chained()
	gone := w.account("gone", "north")
	w.office(gone)
	w.office(w.patch(crm.OpDelete, gone.Record, 0, crm.Value{}))
	w.settle()
	tombstone := func(p *peer) (there bool) {
		_, err := p.r.Read(t.Context(), crm.Demand{}, func(r *store.Reader) error {
			rec, err := r.Record(catalog.Account, gone.Record)
			there = rec != nil
			return err
		})
		w.must(err)
		return there
	}
	for _, kept := range []bool{true, false} {
		for _, n := range treeNodes {
			if got := tombstone(w.peers[n.name]); got != kept {
				t.Errorf("%s has the tombstone: %v, want %v", n.name, got, kept)
			}
		}
		w.trim()
		w.office(w.account("after", "north"))
		w.settle()
	}
	w.equal()
	lisbon := w.peers["lisbon"]
	w.must(lisbon.r.Close())
	lisbon.hangUp()
	lisbon.dir = t.TempDir() // a new disk
	lisbon.open()
	w.must(lisbon.connect(w.peers["porto"]))
	w.settle()
	w.equal()
}

// Whatever is edited, moved, deleted, granted and trimmed, and whoever serves
// whom meanwhile, no batch is ever found to differ, and all end up equal.
func TestTree_AnyOrder(t *testing.T) {
	for seed := range byte(6) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { anyOrder(t, seed) })
	}
}

func anyOrder(t *testing.T, seed byte) {
	w := newTree(t, 100+seed)
	rng := rand.New(w.rand)
	territories := []string{"north", "south", "west", "east"}
	var ids []crm.RecordID
	names := make([]string, len(treeNodes))
	for i, n := range treeNodes {
		names[i] = n.name
	}
	any := func() *peer { return w.peers[names[rng.IntN(len(names))]] }
	for step := range 400 {
		w.clock = w.clock.Add(time.Duration(rng.IntN(50)) * time.Millisecond)
		switch k := rng.IntN(20); {
		case k < 3:
			op := w.account(fmt.Sprint("account ", step), territories[rng.IntN(4)])
			ids = append(ids, op.Record)
			w.office(op)
		case k < 8 && len(ids) > 0:
			id := ids[rng.IntN(len(ids))]
			w.office([]crm.Op{w.patch(crm.OpPatch, id, accTerr, crm.TextValue(territories[rng.IntN(4)])), w.patch(crm.OpPatch, id, accName, crm.TextValue(fmt.Sprint("name ", step))),
				w.patch(crm.OpDelete, id, 0, crm.Value{}), w.patch(crm.OpRestore, id, 0, crm.Value{})}[rng.IntN(4)])
		case k < 10 && len(ids) > 0:
			// The branch may not hold the record: then it takes no edit.
			_, _ = any().r.Commit(t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: []crm.Op{{Kind: crm.OpPatch, Entity: catalog.Account, Record: ids[rng.IntN(len(ids))],
				Cells: []crm.Input{{Field: accName, Value: crm.TextValue(fmt.Sprint("branch ", step))}}}}})
		case k < 11:
			p := any()
			hold := slices.Clone(territories[:1+rng.IntN(3)])
			if p.id.Site != "region" {
				w.grant(p.id.Site, hold...)
			}
		case k < 12:
			w.trim()
		case k < 14:
			any().hangUp()
		case k < 17:
			above := []*peer{nil, w.peers["region"], w.peers["porto"]}[rng.IntN(3)]
			p := any()
			if above == p {
				break
			}
			switch err := p.connect(above); crm.CodeOf(err) {
			case "", session.CodeNotServed, crm.CodeUnavailable:
			default:
				t.Fatalf("%s to %v: %v", p.id.Site, above, err)
			}
		default:
			p := any()
			if _, err := p.pump(); err != nil && crm.CodeOf(err) != crm.CodeStale && crm.CodeOf(err) != session.CodeNotServed {
				t.Fatalf("step %d, %s: %v", step, p.id.Site, err)
			}
		}
	}
	for _, n := range treeNodes {
		w.grant(n.name, n.holds...)
	}
	w.chained()
	w.settle()
	for again := 0; again < 20; again++ { // purges are proven, by edits
		for _, p := range w.peers {
			_, err := p.r.Tidy(t.Context())
			w.must(err)
		}
		w.clock = w.clock.Add(time.Minute)
		w.chained()
		w.settle()
	}
	w.equal()
}
