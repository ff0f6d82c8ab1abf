package session_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"net"
	"path/filepath"
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

// A world is one master and one branch whose Talks are driven by the test's own
// goroutine. Its clock moves only when it is told to.
type world struct {
	t     testing.TB
	clock time.Time
	rand  *rand.ChaCha8
	fsm   *master.FSM
	srv   *session.Server
	index uint64
	seq   crm.Seq // of head office
	chain crm.ChainHash
	site  crm.RecordID
	id    auth.Identity // of the branch

	dir     string // of the branch
	config  replica.Config
	branch  *replica.Replica
	up      *replica.Talk
	down    *session.Talk
	unknown int                                               // submissions to be decided without an answer
	mangle  func(syncproto.Frame) (instead []syncproto.Frame) // of what the master sends; nil: nothing is
	refused map[crm.Code]int                                  // what the master counted
	trace   hash.Hash
	log     []string // frames by kind and direction
}

const (
	branchNode = crm.NodeID(2)
	accName    = crm.FieldID(18)
	accTags    = crm.FieldID(34)
	accTerr    = crm.FieldID(35)
)

var branchID = auth.Identity{Cluster: "c1", Role: auth.RoleReplica, Site: "lisbon", Node: uint32(branchNode)}

func newWorld(t testing.TB) *world { return newWorldOn(t, nil) }

// newWorldOn has the master's file on a disk.
func newWorldOn(t testing.TB, disk *store.Disk) *world {
	t.Helper()
	w := &world{t: t, clock: time.UnixMilli(1_700_000_000_000).UTC(), rand: rand.NewChaCha8([32]byte{1}), id: branchID, trace: sha256.New(), refused: map[crm.Code]int{}}
	var err error
	if w.fsm, err = master.OpenFSM(master.FSMConfig{Path: filepath.Join(t.TempDir(), "master.db"), Store: store.Options{NoSync: true, Disk: disk}, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.fsm.Close() })
	w.srv = session.New(session.Config{Cluster: "c1", DB: w.fsm.DB(), Head: w.fsm.Head, Changed: w.fsm.Changed,
		Leader: func() (crm.NodeID, bool) { return 1, true }, Reported: func(crm.NodeID, crm.Rev, crm.Rev, int64) {},
		Now: w.now, Jitter: func(bound time.Duration) time.Duration { return bound / 2 },
		Observe: session.Observer{Refused: func(c crm.Code) { w.refused[c]++ }}})
	w.apply(master.TimelineEntry{Timeline: 7, Cluster: "c1", Node: 1, ReceivedMillis: w.clock.UnixMilli(), Site: "hq", Sync: "m1:7300"})
	for _, req := range catalog.Requests("setup") {
		w.office(req.Ops...)
	}
	w.office(w.create(crm.EntityTerritory, crm.TerritoryCode, crm.TextValue("north"), crm.TerritoryName, crm.TextValue("North")))
	w.office(w.create(crm.EntityTerritory, crm.TerritoryCode, crm.TextValue("south"), crm.TerritoryName, crm.TextValue("South")))
	site := w.create(crm.EntitySite, crm.SiteName, crm.TextValue("lisbon"), crm.SiteTerritories, crm.ChoicesValue("north"), crm.SiteHome, crm.TextValue("north"))
	w.site = site.Record
	w.office(site)
	w.office(w.create(crm.EntityNode, crm.NodeSite, crm.TextValue("lisbon"), crm.NodeRole, crm.ChoiceValue("replica"), crm.NodeStatus, crm.ChoiceValue("active")))
	w.dir = t.TempDir()
	w.config = replica.Config{Dir: w.dir, ID: replica.ID{Cluster: "c1", Site: "lisbon", Node: branchNode}, Store: store.Options{NoSync: true}, Now: w.now, Rand: w.rand,
		Masters: func() []string { return nil }, Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("there is no line") }}
	if w.branch, err = replica.Open(w.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.branch.Close() })
	return w
}

func (w *world) now() time.Time { return w.clock }

// create makes a creation from field, value pairs.
func (w *world) create(e crm.EntityID, pairs ...any) crm.Op {
	op := crm.Op{Kind: crm.OpCreate, Entity: e, Record: crm.NewRecordID(w.clock, w.rand)}
	for i := 0; i < len(pairs); i += 2 {
		op.Cells = append(op.Cells, crm.Input{Field: pairs[i].(crm.FieldID), Value: pairs[i+1].(crm.Value)})
	}
	return op
}

func (w *world) account(name string) crm.Op {
	return w.create(catalog.Account, accName, crm.TextValue(name))
}

// apply logs an entry and commits.
func (w *world) apply(e master.Entry) master.Verdict {
	w.t.Helper()
	raw, err := master.EncodeEntry(e)
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	v := w.fsm.Apply(w.index, 1, raw)
	if err := w.fsm.Flush(); err != nil {
		w.t.Fatal(err)
	}
	return v
}

// office has an edit of head office decided and wants it accepted.
func (w *world) office(ops ...crm.Op) {
	w.t.Helper()
	w.seq++
	raw := crm.AppendMutation(nil, &crm.Mutation{Node: 1, Incarnation: 1, Seq: w.seq, Prev: w.chain, HLC: crm.NewHLC(w.clock.UnixMilli()), Actor: "ana", Intent: "test", Ops: ops})
	w.chain = crm.Chain(w.chain, raw)
	v := w.apply(master.PushEntry{Node: 1, Incarnation: 1, ReceivedMillis: w.clock.UnixMilli(), Mutations: [][]byte{raw}})
	if v.Err != nil || v.Results[0].Kind != crm.Accepted {
		w.t.Fatalf("head office: %+v", v)
	}
}

func (w *world) commit(ops ...crm.Op) crm.Seq {
	w.t.Helper()
	r, err := w.branch.Commit(w.t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: ops})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Seq
}

// connect shakes hands, once more if the branch has something else to say.
func (w *world) connect() error {
	w.t.Helper()
	err := w.greet()
	if replica.Again(err) {
		err = w.greet()
	}
	return err
}

func (w *world) greet() error {
	w.t.Helper()
	w.hangUp()
	h, err := w.branch.Hello()
	if err != nil {
		return err
	}
	f := w.judge(recode(w.t, h))
	up, err := w.branch.Greeted(h, recode(w.t, f), w.clock)
	if err != nil {
		return err
	}
	w.up, w.down = up, w.srv.NewTalk(h, f.(*syncproto.Welcome), w.id)
	return nil
}

// judge is what a master that leads makes of a Hello.
func (w *world) judge(h *syncproto.Hello) syncproto.Frame {
	w.t.Helper()
	if err := w.srv.Check(h, w.id); err != nil {
		return session.Refusal(err)
	}
	s, err := w.srv.StandingOf(h)
	if err != nil {
		w.t.Fatal(err)
	}
	j := s.Judge(h)
	if j.Freeze != "" {
		w.apply(master.FreezeEntry{Node: h.Node, Reason: j.Freeze})
	}
	if j.Admit != "" {
		w.admit(h.Node, j.Admit)
		if s, err = w.srv.StandingOf(h); err != nil {
			w.t.Fatal(err)
		}
		j.Answer = s.Welcome()
	}
	if welcome, ok := j.Answer.(*syncproto.Welcome); ok {
		return w.srv.Complete(h, welcome, w.id, w.clock)
	}
	return j.Answer
}

// admit gives a node's disk the next incarnation.
func (w *world) admit(n crm.NodeID, why string) {
	w.t.Helper()
	e := master.AdmitEntry{Node: n, Reason: why}
	w.rand.Read(e.Nonce[:])
	w.apply(e)
}

// decide is what the master that leads replies to a Submission.
func (w *world) decide(s session.Submission) (session.Reply, error) {
	w.t.Helper()
	v := w.apply(master.PushOf(s, w.clock.UnixMilli()))
	return master.ReplyOf(s, w.index, v.Results), v.Err
}

func (w *world) hangUp() {
	if w.up != nil {
		w.up.End()
		w.down.End()
		w.up, w.down = nil, nil
	}
}

// recode sends a frame through the codec.
func recode[F syncproto.Frame](t testing.TB, f F) F {
	t.Helper()
	raw, err := syncproto.AppendFrame(nil, syncproto.MaxVersion, f)
	if err != nil {
		t.Fatal(err)
	}
	out, err := syncproto.DecodeFrame(raw, syncproto.MaxVersion)
	if err != nil {
		t.Fatal(err)
	}
	return out.(F)
}

func (w *world) note(direction string, f syncproto.Frame) {
	raw, err := syncproto.AppendFrame(nil, syncproto.MaxVersion, f)
	if err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprintf(w.trace, "%d %s %x\n", w.clock.UnixMilli(), direction, raw)
	w.log = append(w.log, direction+f.Kind().String())
}

// pump moves frames until nothing is due at this instant. It returns why either
// side ended the conversation.
func (w *world) pump() error {
	w.t.Helper()
	for moved := true; moved; {
		out, err := w.up.Due()
		moved = len(out) > 0
		for _, f := range out {
			if err := w.ascend(f); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		act, err := w.down.Due()
		moved = moved || len(act.Send) > 0 || act.Submit != nil
		if err := w.do(act, err); err != nil {
			return err
		}
	}
	return nil
}

// ascend carries a frame of the branch.
func (w *world) ascend(f syncproto.Frame) error {
	w.note("↑", f)
	act, err := w.down.Hear(recode(w.t, f))
	return w.do(act, err)
}

// do does what the serving Talk wants done.
func (w *world) do(act session.Act, ended error) error {
	w.t.Helper()
	for _, f := range act.Send {
		if err := w.descend(f); err != nil {
			return err
		}
	}
	if act.Ask != nil {
		if err := w.descend(w.down.Answered(act.Ask, &syncproto.Answer{Rev: w.fsm.Head()}, nil)); err != nil {
			return err
		}
	}
	if ended != nil || act.Submit == nil {
		return ended
	}
	reply, err := w.decide(*act.Submit)
	if w.unknown > 0 {
		w.unknown--
		reply, err = session.Reply{}, session.ErrUnknown
	}
	return w.do(w.down.Replied(reply, err))
}

// descend carries a frame of the master.
func (w *world) descend(f syncproto.Frame) error {
	frames := []syncproto.Frame{recode(w.t, f)}
	if w.mangle != nil {
		frames = w.mangle(frames[0])
	}
	for _, f := range frames {
		w.note("↓", f)
		if err := w.up.Hear(f); err != nil {
			return err
		}
	}
	return nil
}

// pass lets time go by, instant by instant.
func (w *world) pass(d time.Duration) error {
	w.t.Helper()
	end := w.clock.Add(d)
	for {
		if err := w.pump(); err != nil {
			return err
		}
		next := w.up.Next()
		if at := w.down.Next(); at.Before(next) {
			next = at
		}
		if !next.After(w.clock) {
			w.t.Fatalf("due at %v although everything due was done", next)
		}
		if next.After(end) {
			w.clock = end
			return nil
		}
		w.clock = next
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// equal wants the branch to be the master's equal, with an empty outbox and sound
// files. Every batch that changed something here was proven by digest.
func (w *world) equal() {
	w.t.Helper()
	s := w.branch.Status()
	if s.Cursor != w.fsm.Head() || s.Verified == 0 || len(s.Suspect) > 0 || s.Outbox.Entries != 0 || s.Decided != s.Seq {
		w.t.Errorf("the master is at %d, the branch is %+v", w.fsm.Head(), s)
	}
	found, err := w.branch.Check(w.t.Context())
	if err != nil || len(found) > 0 {
		w.t.Errorf("check: %+v %v", found, err)
	}
}

func (w *world) count(what string) (n int) {
	for _, s := range w.log {
		if s == what {
			n++
		}
	}
	return n
}

func TestTalk_OneGoroutineReachesEquality(t *testing.T) {
	w := newWorld(t)
	w.must(w.connect())
	w.must(w.pass(time.Second))
	w.equal()
	w.branch.Tidy(t.Context())

	w.hangUp()
	mine := w.commit(w.account("made offline"))
	w.office(w.create(catalog.Account, accName, crm.TextValue("made at head office"), accTerr, crm.TextValue("north")))
	w.must(w.connect())
	w.must(w.pass(time.Second))
	w.equal()
	if o, ok, err := w.branch.Outcome(mine); err != nil || !ok || o.Kind != crm.Accepted {
		t.Errorf("outcome %+v %v %v", o, ok, err)
	}
	accounts := 0
	_, err := w.branch.Read(t.Context(), crm.Demand{}, func(r *store.Reader) (err error) {
		accounts, err = r.Count(catalog.Account)
		return err
	})
	if err != nil || accounts != 2 {
		t.Errorf("%d accounts, %v", accounts, err)
	}

	rev := crm.Rev(0)
	w.up.Ask(syncproto.AskLeader, func(a *syncproto.Answer) { rev = a.Rev })
	w.must(w.pump())
	if rev != w.fsm.Head() {
		t.Errorf("the leader is said to be at %d", rev)
	}
}

// The same input makes the same frames at the same instants.
func TestTalk_IsDeterministic(t *testing.T) {
	run := func() string {
		w := newWorld(t)
		w.must(w.connect())
		w.must(w.pump())
		for i := range 5 {
			w.commit(w.account(fmt.Sprint("branch ", i)), w.account("twin"))
			w.office(w.create(catalog.Account, accName, crm.TextValue("office"), accTerr, crm.TextValue("north"), accTags, crm.ChoicesValue("b", "a")))
			w.unknown = i % 2
			w.must(w.pass(37 * time.Second))
		}
		w.equal()
		sum, err := w.fsm.Accumulator()
		w.must(err)
		return fmt.Sprintf("%x %x", w.trace.Sum(nil), sum)
	}
	if a, b := run(), run(); a != b {
		t.Errorf("two runs differ:\n%s\n%s", a, b)
	}
}

// What a master may answer to a push, and what the branch does about it: each
// edit is decided once in the end.
func TestTalk_Pushes(t *testing.T) {
	drop := func(kind syncproto.Kind, times int) func(syncproto.Frame) []syncproto.Frame {
		return func(f syncproto.Frame) []syncproto.Frame {
			if f.Kind() == kind && times > 0 {
				times--
				return nil
			}
			return []syncproto.Frame{f}
		}
	}
	instead := func(by syncproto.Frame) func(syncproto.Frame) []syncproto.Frame {
		done := false
		return func(f syncproto.Frame) []syncproto.Frame {
			if f.Kind() == syncproto.KindPushed && !done {
				done = true
				return []syncproto.Frame{by}
			}
			return []syncproto.Frame{f}
		}
	}
	for _, tt := range []struct {
		name    string
		mangle  func(syncproto.Frame) []syncproto.Frame
		unknown int
		pushes  int // frames that the branch sends
		within  time.Duration
	}{
		{"taken at once", nil, 0, 1, 0},
		{"the outcome is unknown twice", nil, 2, 1, time.Second},
		{"the answer is lost and the feed is not", drop(syncproto.KindPushed, 1), 0, 2, time.Minute},
		{"the answer comes twice", func(f syncproto.Frame) []syncproto.Frame {
			if f.Kind() == syncproto.KindPushed {
				return []syncproto.Frame{f, f}
			}
			return []syncproto.Frame{f}
		}, 0, 1, 0},
		{"a gap that is none", instead(&syncproto.Gap{Expected: 1}), 0, 2, 0},
		{"a busy master", instead(&syncproto.Busy{RetryAfterMillis: 400, Reason: "test"}), 0, 2, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.connect())
			w.must(w.pass(time.Second))
			w.mangle, w.unknown = tt.mangle, tt.unknown
			before := w.fsm.Head()
			seq := w.commit(w.account("one"))
			w.must(w.pass(tt.within))
			if n := w.count("↑push"); n != tt.pushes {
				t.Errorf("%d pushes, want %d: %v", n, tt.pushes, w.log)
			}
			if w.fsm.Head() != before+1 {
				t.Errorf("the head went from %d to %d", before, w.fsm.Head())
			}
			if _, ok, err := w.branch.Outcome(seq); !ok || err != nil {
				t.Errorf("not decided: %v", err)
			}
			w.equal()
		})
	}
}

// What ends a conversation, on which side, and with which code.
func TestTalk_Ends(t *testing.T) {
	batch := func(edit func(*syncproto.Batch)) func(syncproto.Frame) []syncproto.Frame {
		return func(f syncproto.Frame) []syncproto.Frame {
			if b, ok := f.(*syncproto.Batch); ok {
				edit(b)
			}
			return []syncproto.Frame{f}
		}
	}
	for _, tt := range []struct {
		name   string
		mangle func(syncproto.Frame) []syncproto.Frame
		code   crm.Code
	}{
		{"a batch from another rev", batch(func(b *syncproto.Batch) { b.From-- }), syncproto.CodeFrame},
		{"a batch of another timeline", batch(func(b *syncproto.Batch) { b.Timeline++ }), syncproto.CodeFrame},
		{"a frame that does not belong", func(syncproto.Frame) []syncproto.Frame { return []syncproto.Frame{&syncproto.Applied{}} }, syncproto.CodeFrame},
		{"removed", func(syncproto.Frame) []syncproto.Frame {
			return []syncproto.Frame{&syncproto.Refused{Code: crm.CodeRemoved, Message: "x"}}
		}, crm.CodeRemoved},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.connect())
			w.must(w.pass(time.Second))
			cursor := w.branch.Status().Cursor
			w.mangle = tt.mangle
			w.office(w.create(catalog.Account, accName, crm.TextValue("x"), accTerr, crm.TextValue("north")))
			if err := w.pump(); crm.CodeOf(err) != tt.code {
				t.Fatalf("ended with %v, want %s", err, tt.code)
			}
			if s := w.branch.Status(); s.Cursor != cursor {
				t.Errorf("the base went on to %d", s.Cursor)
			}
			removed := crm.CodeOf(w.branch.Ready()) == crm.CodeRemoved
			if removed != (tt.code == crm.CodeRemoved) {
				t.Errorf("ready: %v", w.branch.Ready())
			}
		})
	}
}

// A batch whose digest differs is not kept, and the territory comes whole.
func TestTalk_ADifferingDigestIsNotKept(t *testing.T) {
	w := newWorld(t)
	w.must(w.connect())
	w.must(w.pass(time.Second))
	w.mangle = func(f syncproto.Frame) []syncproto.Frame {
		if b, ok := f.(*syncproto.Batch); ok && len(b.Digests) > 0 {
			b.Digests[0].Sum[0] ^= 1
		}
		return []syncproto.Frame{f}
	}
	w.office(w.create(catalog.Account, accName, crm.TextValue("x"), accTerr, crm.TextValue("north")))
	if err := w.pump(); err == nil {
		t.Fatal("the batch was taken")
	}
	suspect := w.branch.Status().Suspect
	w.mangle = nil
	h, err := w.branch.Hello()
	w.must(err)
	if len(suspect) != 1 || len(h.Resend) != 1 || h.Resend[0] != suspect[0] {
		t.Errorf("suspect %v, resend %v", suspect, h.Resend)
	}
	w.must(w.connect())
	w.must(w.pass(time.Second))
	w.equal()
}

// The serving Talk's own answers to a branch that does not follow the protocol.
func TestTalk_RefusesPushes(t *testing.T) {
	edit := func(w *world, node crm.NodeID, seq crm.Seq, prev crm.ChainHash) []byte {
		return crm.AppendMutation(nil, &crm.Mutation{Node: node, Incarnation: 1, Seq: seq, Prev: prev, HLC: 1, Actor: "x", Intent: "x", Ops: []crm.Op{w.account("x")}})
	}
	for _, tt := range []struct {
		name string
		push func(w *world) *syncproto.Push
		want syncproto.Kind
		over bool
	}{
		{"after a gap", func(w *world) *syncproto.Push {
			return &syncproto.Push{First: 5, Mutations: [][]byte{edit(w, branchNode, 5, crm.ChainHash{})}}
		}, syncproto.KindGap, false},
		{"of another node", func(w *world) *syncproto.Push {
			return &syncproto.Push{First: 1, Mutations: [][]byte{edit(w, 1, 1, crm.ChainHash{})}}
		}, syncproto.KindRefused, true},
		{"of another history", func(w *world) *syncproto.Push {
			return &syncproto.Push{First: 1, Mutations: [][]byte{edit(w, branchNode, 1, crm.ChainHash{9})}}
		}, syncproto.KindFrozen, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.connect())
			w.must(w.pass(time.Second))
			var got syncproto.Frame
			w.mangle = func(f syncproto.Frame) []syncproto.Frame { got = f; return nil }
			err := w.ascend(tt.push(w))
			if got == nil || got.Kind() != tt.want || (err != nil) != tt.over {
				t.Errorf("answered with %+v, %v", got, err)
			}
		})
	}
}

// A head that changes nothing for the branch is told late, and once.
func TestTalk_TellsALazyHead(t *testing.T) {
	w := newWorld(t)
	w.must(w.connect())
	w.must(w.pass(time.Second))
	before := w.count("↓batch")
	for range 10 {
		w.office(w.create(catalog.Account, accName, crm.TextValue("elsewhere"), accTerr, crm.TextValue("south")))
		w.must(w.pass(10 * time.Millisecond))
	}
	if n := w.count("↓batch") - before; n != 0 {
		t.Errorf("%d batches at once", n)
	}
	w.must(w.pass(110 * time.Millisecond))
	if n := w.count("↓batch") - before; n != 1 {
		t.Errorf("%d batches, want 1", n)
	}
	if s := w.branch.Status(); s.Cursor != w.fsm.Head() {
		t.Errorf("the branch is at %d, the master at %d", s.Cursor, w.fsm.Head())
	}
}

// A territory that is taken away is purged and proven, by the same goroutine.
func TestTalk_TidiesALostTerritory(t *testing.T) {
	w := newWorld(t)
	w.office(w.create(catalog.Account, accName, crm.TextValue("x"), accTerr, crm.TextValue("north")))
	w.must(w.connect())
	w.must(w.pump())
	for again := time.Duration(0); again == 0; {
		var err error
		again, err = w.branch.Tidy(t.Context())
		w.must(err)
	}
	w.office(crm.Op{Kind: crm.OpPatch, Entity: crm.EntitySite, Record: w.site, Seen: crm.Token{Rev: w.fsm.Head()},
		Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("south")}}})
	w.must(w.pass(time.Second))
	again, err := w.branch.Tidy(t.Context())
	if again != 0 || err != nil {
		t.Fatalf("tidied: again in %v, %v", again, err)
	}
	if again, err = w.branch.Tidy(t.Context()); again >= 0 || err != nil {
		t.Errorf("nothing is left to tidy: again in %v, %v", again, err)
	}
	w.must(w.pass(time.Second))
	w.equal()
	proofs := 0
	w.must(w.fsm.DB().View(func(tx *store.Tx) error {
		for _, err := range tx.Scan(crm.EntityPurge) {
			if err != nil {
				return err
			}
			proofs++
		}
		return nil
	}))
	if proofs != 1 {
		t.Errorf("%d proofs at head office", proofs)
	}
}

// Each side asks, answers, and gives up a silent other one.
func TestTalk_Heartbeats(t *testing.T) {
	w := newWorld(t)
	w.must(w.connect())
	w.must(w.pass(65 * time.Second))
	if up, down := w.count("↑heartbeat"), w.count("↓heartbeat"); up != 6+3 || down != 6+3 {
		t.Errorf("%d heartbeats up and %d down; six questions of the branch, three of the master, and the answers", up, down)
	}
	if s := w.branch.Status(); s.AsOf.Before(w.clock.Add(-11 * time.Second)) {
		t.Errorf("as of %v, now %v", s.AsOf, w.clock)
	}
	w.mangle = func(syncproto.Frame) []syncproto.Frame { return nil }
	begun := w.clock
	if err := w.pass(time.Minute); err == nil || w.clock.Sub(begun) > 31*time.Second {
		t.Errorf("after %v: %v", w.clock.Sub(begun), err)
	}
	for at := begun; ; at = w.down.Next() {
		w.clock = at
		act, err := w.down.Due()
		if err != nil {
			if at.Sub(begun) < 80*time.Second || len(act.Send) > 0 {
				t.Errorf("the master gave up after %v, %v", at.Sub(begun), err)
			}
			return
		}
		if at.Sub(begun) > 5*time.Minute {
			t.Fatal("the master does not give up")
		}
	}
}
