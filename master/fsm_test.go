package master

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// A bench is an fsm on a file, fed by hand with the entries of a log.
type bench struct {
	*fsm
	t     *testing.T
	path  string
	index uint64
	fatal []error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "master.db")}
	b.open()
	t.Cleanup(func() {
		if err := errors.Join(b.fsm.close(), b.data.Close()); err != nil {
			t.Error(err)
		}
	})
	b.must(TimelineEntry{Timeline: 7, Cluster: "c1", Node: 1, ReceivedMillis: 1000, Site: "hq"})
	return b
}

func (b *bench) open() {
	b.t.Helper()
	data, err := store.Open(b.path, store.Options{NoSync: true})
	if err != nil {
		b.t.Fatal(err)
	}
	fatal := func(err error) { b.fatal = append(b.fatal, err) }
	watch := &watchdog{after: time.Minute, fatal: fatal}
	if b.fsm, err = newFSM(ledgerConfig{}.withDefaults(), data, watch, fatal); err != nil {
		b.t.Fatal(err)
	}
}

// crash loses what is not committed and opens the file again.
func (b *bench) crash() {
	b.t.Helper()
	if b.tx != nil {
		if err := b.tx.Rollback(); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.data.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

func (b *bench) apply(e Entry) Verdict {
	b.t.Helper()
	b.index++
	return b.applyAt(b.index, mustEncode(b.t, e))
}

func (b *bench) applyAt(index uint64, data []byte) Verdict {
	return b.Apply(&raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}).(Verdict)
}

// must applies an entry that is not refused.
func (b *bench) must(e Entry) []Decided {
	b.t.Helper()
	v := b.apply(e)
	if v.Err != nil {
		b.t.Fatal(v.Err)
	}
	return v.Results
}

func (b *bench) accept(c *writer, ops ...crm.Op) Decided {
	b.t.Helper()
	d := b.must(c.push(c.mutation(ops...)))[0]
	if d.Kind != crm.Accepted {
		b.t.Fatalf("not accepted: %+v", d)
	}
	return d
}

func (b *bench) sum() Accumulator {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin(); err != nil {
		b.t.Fatal(err)
	}
	sum, err := accumulate(b.tx, b.rev)
	if err != nil {
		b.t.Fatal(err)
	}
	return sum
}

func (b *bench) node(n crm.NodeID) store.NodeState {
	b.t.Helper()
	if err := b.begin(); err != nil {
		b.t.Fatal(err)
	}
	s, _, err := b.tx.Node(n)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func TestFSM_TakesEachMutationOnce(t *testing.T) {
	b := newBench(t)
	c := first()
	raw := make([][]byte, 6)
	for i := range raw {
		raw[i] = c.mutation(territoryOp(fmt.Sprint("t", i)))
	}
	d := b.must(c.push(raw[:3]...))
	if len(d) != 3 || d[2].Rev != 4 || d[2].Seq != 3 {
		t.Fatalf("three mutations after the timeline: %+v", d)
	}
	before := b.sum()
	if d = b.must(c.push(raw[:3]...)); len(d) != 3 || !d[0].Duplicate || !d[2].Duplicate || d[1].Kind != crm.Accepted {
		t.Errorf("repeated: %+v", d)
	}
	if d = b.must(c.push(raw[4], raw[5])); len(d) != 1 || d[0].Gap != 4 {
		t.Errorf("after a gap: %+v", d)
	}
	if b.sum() != before {
		t.Error("repeats or gaps changed the state")
	}
	if d = b.must(c.push(raw[2], raw[3], raw[5])); len(d) != 3 || !d[0].Duplicate || d[1].Rev != 5 || d[2].Gap != 5 {
		t.Errorf("repeated, new and after a gap: %+v", d)
	}
}

func TestFSM_TellsARepeatedRejection(t *testing.T) {
	b := newBench(t)
	c := first()
	raw := c.mutation(crm.Op{Kind: crm.OpPatch, Entity: crm.EntitySite, Record: crm.RecordID{1}})
	d := b.must(c.push(raw))[0]
	again := b.must(c.push(raw))[0]
	if d.Kind != crm.Rejected || d.Code != crm.CodeNotFound || !again.Duplicate || again.Outcome != d.Outcome {
		t.Errorf("first %+v, then %+v", d, again)
	}
}

func TestFSM_FreezesAForkedNode(t *testing.T) {
	for name, forked := range map[string]func(c *writer) []byte{
		"at the last seq": func(c *writer) []byte {
			c.seq--
			return c.mutation(territoryOp("other"))
		},
		"at an older seq": func(c *writer) []byte {
			c.seq = 1
			return c.mutation(territoryOp("other"))
		},
		"behind another history": func(c *writer) []byte {
			c.prev = crm.ChainHash{1}
			return c.mutation(territoryOp("other"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c := first()
			for i := range 4 {
				b.accept(c, territoryOp(fmt.Sprint("t", i)))
			}
			clone, rev := *c, b.rev
			if d := b.must(c.push(forked(&clone))); !d[0].Fork {
				t.Fatalf("forked: %+v", d)
			}
			next := c.mutation(territoryOp("next"))
			if d := b.must(c.push(next)); !d[0].Fork || b.rev != rev {
				t.Errorf("while frozen: %+v", d)
			}
			if b.node(1).Frozen == "" {
				t.Error("the node is not frozen")
			}
			b.must(FreezeEntry{Node: 1})
			if d := b.must(c.push(next)); d[0].Kind != crm.Accepted {
				t.Errorf("after the thaw: %+v", d)
			}
		})
	}
}

// replica makes node 2, a replica of a site that holds the territory north.
func replica(b *bench, c *writer) *writer {
	b.t.Helper()
	b.accept(c, territoryOp("north"))
	b.accept(c, createOp(crm.EntitySite, map[crm.FieldID]crm.Value{crm.SiteName: crm.TextValue("oslo"),
		crm.SiteTerritories: crm.ChoicesValue("north"), crm.SiteHome: crm.TextValue("north")}))
	b.accept(c, replicaOp("oslo"))
	d := b.must(AdmitEntry{Node: 2, Nonce: [16]byte{1}, Reason: "bootstrap"})
	if d[0].Admitted != 1 {
		b.t.Fatalf("admitted: %+v", d)
	}
	return &writer{node: 2, inc: 1}
}

func purgeOp() crm.Op {
	return createOp(crm.EntityPurge, map[crm.FieldID]crm.Value{crm.PurgeSite: crm.TextValue("oslo"), crm.PurgeNode: crm.IntegerValue(2),
		crm.PurgeTerritory: crm.TextValue("north"), crm.PurgeRev: crm.IntegerValue(1)})
}

func TestFSM_FencesAnOldIncarnation(t *testing.T) {
	b := newBench(t)
	c := replica(b, first())
	b.accept(c, purgeOp())
	again := b.must(AdmitEntry{Node: 2, Nonce: [16]byte{1}})
	if again[0].Admitted != 1 || !again[0].Duplicate {
		t.Errorf("an admit repeated: %+v", again)
	}
	if d := b.must(AdmitEntry{Node: 2, Nonce: [16]byte{2}, Reason: "rolled back"}); d[0].Admitted != 2 || d[0].Seq != 1 {
		t.Errorf("admitted again: %+v", d)
	}
	raw := c.mutation(purgeOp())
	if d := b.must(c.push(raw)); d[0].Fenced != 2 {
		t.Errorf("by the old incarnation: %+v", d)
	}
	c.inc = 2
	if d := b.must(c.push(raw)); d[0].Kind != crm.Accepted {
		t.Errorf("by the new incarnation: %+v", d)
	}
}

func TestFSM_RefusesStrangers(t *testing.T) {
	b := newBench(t)
	m := first()
	c := replica(b, m)
	foreign := first()
	for name, x := range map[string]struct {
		entry Entry
		code  crm.Code
	}{
		"a node never admitted":   {PushEntry{Node: 9, Incarnation: 1, Mutations: [][]byte{{1}}}, crm.CodeForbidden},
		"admission of no node":    {AdmitEntry{Node: 9}, crm.CodeForbidden},
		"freezing no node":        {FreezeEntry{Node: 9, Reason: "x"}, crm.CodeNotFound},
		"damaged bytes":           {c.push([]byte{1, 2, 3}), crm.CodeInvalid},
		"another node's mutation": {c.push(foreign.mutation(purgeOp())), crm.CodeInvalid},
		"a second timeline":       {TimelineEntry{Timeline: 8, Cluster: "c2", Node: 1, Site: "hq"}, crm.CodeExists},
	} {
		if v := b.apply(x.entry); crm.CodeOf(v.Err) != x.code {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if d := b.must(TimelineEntry{Timeline: 7}); !d[0].Duplicate || d[0].Rev != 1 {
		t.Errorf("the same timeline: %+v", d)
	}
	if len(b.fatal) > 0 {
		t.Error(b.fatal)
	}
}

func TestFSM_RefusesANodeThatWasRemoved(t *testing.T) {
	b := newBench(t)
	m := first()
	b.accept(m, territoryOp("north"))
	op := replicaOp("oslo")
	b.accept(m, op)
	b.must(AdmitEntry{Node: 2, Nonce: [16]byte{1}})
	c := &writer{node: 2, inc: 1}
	b.accept(c, purgeOp())
	b.accept(m, crm.Op{Kind: crm.OpPatch, Entity: crm.EntityNode, Record: op.Record, Seen: crm.Token{Rev: b.rev},
		Cells: []crm.Input{{Field: crm.NodeStatus, Value: crm.ChoiceValue("removed")}}})
	if v := b.apply(c.push(c.mutation(purgeOp()))); crm.CodeOf(v.Err) != crm.CodeForbidden {
		t.Errorf("push: %+v", v)
	}
	if v := b.apply(AdmitEntry{Node: 2, Nonce: [16]byte{2}}); crm.CodeOf(v.Err) != crm.CodeForbidden {
		t.Errorf("admit: %+v", v)
	}
}

func TestFSM_GivesANodeItsSitesRights(t *testing.T) {
	b := newBench(t)
	m := first()
	c := replica(b, m)
	if d := b.must(c.push(c.mutation(territoryOp("mine"))))[0]; d.Code != crm.CodeForbidden {
		t.Errorf("a replica made a territory: %+v", d)
	}
	who, err := b.member(2)
	if err != nil {
		t.Fatal(err)
	}
	north := crm.FirstTerritory
	for territory, want := range map[crm.TerritoryID]bool{crm.Shared: true, crm.HeadOffice: false, north: true, north + 1: false} {
		if got := who.writable(territory); got != want {
			t.Errorf("territory %d writable: %v", territory, got)
		}
	}
	master, err := b.member(1)
	if err != nil {
		t.Fatal(err)
	}
	if who.home != north || who.master || master.home != crm.HeadOffice || !master.master || master.writable != nil {
		t.Errorf("replica %+v, master %+v", who, master)
	}
}

func TestEffectiveHLC(t *testing.T) {
	at := func(ms int64, count crm.HLC) crm.HLC { return crm.NewHLC(ms) + count }
	for _, x := range []struct {
		name             string
		hlc              crm.HLC
		offset, received int64
		last, want       crm.HLC
	}{
		{"a good clock", at(1000, 7), 0, 1200, 0, at(1000, 7)},
		{"an offset within its error", at(1000, 0), 499, 1200, 0, at(1000, 0)},
		{"a slow clock is corrected", at(1000, 7), 5000, 6200, 0, at(6000, 7)},
		{"a fast clock is corrected", at(9000, 0), -5000, 6200, 0, at(4000, 0)},
		{"the future is clamped", at(9000, 0), 0, 1200, 0, at(1200, 0)},
		{"corrected into the future, clamped", at(1000, 0), 5000, 1200, 0, at(1200, 0)},
		{"a node's times rise", at(1000, 0), 0, 1200, at(1500, 3), at(1500, 4)},
		{"even at the clamp", at(9000, 0), 0, 1200, at(1200, 0), at(1200, 1)},
		{"before the epoch", at(1000, 0), -5000, 1200, 0, at(0, 0) + 1},
		{"the largest reading", 1<<64 - 1, 0, 1200, 0, at(1200, 0)},
		{"the largest offset", at(1000, 0), 1<<63 - 1, 1200, 0, at(1200, 0)},
		{"the smallest offset", at(1000, 0), -1 << 63, 1200, 5, 6},
	} {
		if got := effectiveHLC(x.hlc, x.offset, x.received, x.last); got != x.want {
			t.Errorf("%s: %d ms + %d, want %d ms + %d", x.name, got.Millis(), got&0xffff, x.want.Millis(), x.want&0xffff)
		}
	}
}

func TestFSM_StampsTheEffectiveTime(t *testing.T) {
	b := newBench(t)
	c := first()
	op := territoryOp("north")
	c.hlc = crm.NewHLC(50_000)
	raw := c.mutation(op)
	b.must(PushEntry{Node: 1, Incarnation: 1, ReceivedMillis: 40_000, OffsetMillis: -20_000, Mutations: [][]byte{raw}})
	r, err := b.tx.Record(op.Entity, op.Record)
	if err != nil {
		t.Fatal(err)
	}
	if r.Stamp.HLC.Millis() != 30_000 || b.node(1).LastHLC != r.Stamp.HLC {
		t.Errorf("stamped %d ms, the node is at %d ms", r.Stamp.HLC.Millis(), b.node(1).LastHLC.Millis())
	}
}

func TestFSM_KeepsAMutationWhoseDecisionPanics(t *testing.T) {
	b := newBench(t)
	var told []crm.Seq
	b.cfg.Observe.Panicked = func(_ crm.NodeID, seq crm.Seq, _ any) { told = append(told, seq) }
	b.decide = func(v crm.View, m *crm.Mutation, env crm.Env) (crm.Decision, error) {
		if m.Seq == 2 {
			panic("a bug")
		}
		return crm.Decide(v, m, env)
	}
	c := first()
	poison := territoryOp("poison")
	raw := [][]byte{c.mutation(territoryOp("a")), c.mutation(poison), c.mutation(territoryOp("b"))}
	d := b.must(c.push(raw...))
	if d[0].Kind != crm.Accepted || d[1].Kind != crm.Rejected || d[1].Code != crm.CodeInternal || d[1].Rev != 3 || d[2].Kind != crm.Accepted {
		t.Fatalf("%+v", d)
	}
	kept, err := b.tx.Meta(quarantineName(1, 2))
	if err != nil || string(kept) != string(raw[1]) || len(told) != 1 {
		t.Errorf("kept %x, told %v, %v", kept, told, err)
	}
	note, known, err := b.tx.Refused(poison.Record)
	if err != nil || !known {
		t.Fatal("the record's creation does not count as refused", err)
	}
	r, err := b.tx.Record(crm.EntityAttention, note)
	if err != nil || r == nil || r.Value(crm.AttentionCode).Str() != "internal" {
		t.Errorf("attention record %+v, %v", r, err)
	}
	if again := b.must(c.push(raw...)); again[1].Outcome != d[1].Outcome || !again[1].Duplicate {
		t.Errorf("repeated: %+v", again[1])
	}
}

// crmEntity is a small entity of users.
func crmEntity(target string) *crm.Entity {
	return &crm.Entity{ID: 100, Name: "note", Label: "Note", Plural: "Notes", Home: crm.HomeShared, Title: []string{"text"}, Fields: []*crm.Field{
		{ID: 16, Name: "text", Label: "Text", Kind: crm.Text},
		{ID: 17, Name: "about", Label: "About", Kind: crm.Link, Target: target},
	}}
}

func TestFSM_RejectsMetadataThatIsNoSchema(t *testing.T) {
	b := newBench(t)
	c := first()
	raw := [][]byte{c.mutation(territoryOp("a")), c.mutation(crm.MetadataOps(crmEntity("nothing"))...), c.mutation(territoryOp("b")),
		c.mutation(crm.MetadataOps(crmEntity("site"))...)}
	d := b.must(c.push(raw...))
	if len(d) != 4 || d[1].Kind != crm.Rejected || d[1].Code != crm.CodeInvalid || d[2].Kind != crm.Accepted || d[3].Kind != crm.Accepted {
		t.Fatalf("%+v", d)
	}
	if b.tx.Schema().Entity("note") == nil {
		t.Error("the corrected metadata is not in force")
	}
	if err := b.close(); err != nil || len(b.fatal) > 0 {
		t.Fatal(err, b.fatal)
	}
}

// TestFSM_ReplaysAnEntryWhole: a crash before the commit leaves nothing of an
// entry, metadata among it, and the replay makes the same state.
func TestFSM_ReplaysAnEntryWhole(t *testing.T) {
	crashed, whole := newBench(t), newBench(t)
	if err := crashed.commit(); err != nil {
		t.Fatal(err)
	}
	c := first()
	raw := [][]byte{c.mutation(territoryOp("a")), c.mutation(crm.MetadataOps(crmEntity("site"))...), c.mutation(territoryOp("b"))}
	e := c.push(raw...)
	for i, d := range whole.must(e) {
		if d.Kind != crm.Accepted {
			t.Fatalf("mutation %d: %+v", i, d)
		}
	}
	crashed.must(e)
	crashed.crash()
	if crashed.rev != 1 || crashed.at.index != 1 {
		t.Fatalf("the crash left rev %d, raft index %d of an entry that was not committed", crashed.rev, crashed.at.index)
	}
	crashed.index--
	for i, d := range crashed.must(e) {
		if d.Duplicate || d.Kind != crm.Accepted {
			t.Errorf("replayed mutation %d: %+v", i, d)
		}
	}
	if crashed.sum() != whole.sum() {
		t.Error("the replay made another state")
	}
}

func TestFSM_SkipsWhatIsInTheFile(t *testing.T) {
	b := newBench(t)
	c := first()
	e := mustEncode(t, c.push(c.mutation(territoryOp("a"))))
	b.index++
	b.applyAt(b.index, e)
	conf := raft.Configuration{Servers: []raft.Server{{ID: "node-1", Address: "m1:7400"}}}
	b.index++
	b.Apply(&raft.Log{Index: b.index, Term: 3, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)})
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	want := b.sum()
	b.crash()
	if v := b.applyAt(2, e); v.Results != nil || v.Err != nil || b.sum() != want {
		t.Errorf("an entry in the file was applied again: %+v", v)
	}
	p := b.published()
	if p.at != (position{3, 3}) || p.servers.index != 3 || len(p.servers.Servers) != 1 || p.rev != 2 {
		t.Errorf("after reopening: %+v", p)
	}
}

func TestFSM_CommitsAFullTransaction(t *testing.T) {
	b := newBench(t)
	c := first()
	changed := b.published().changed
	raw := c.mutation(territoryOp("a"))
	var many [][]byte
	for range maxPending { // repeats count as well: they cost a lookup each
		many = append(many, raw)
	}
	b.must(c.push(many[:maxPending/4]...))
	select {
	case <-changed:
		t.Error("committed early")
	default:
	}
	for range 3 {
		b.must(c.push(many[:maxPending/4]...))
	}
	<-changed
	if b.published().rev != 2 {
		t.Errorf("published %+v", b.published())
	}
}

func TestFSM_KeepsReportsTrimsAndLevels(t *testing.T) {
	b := newBench(t)
	b.must(ReportsEntry{Reports: []NodeReport{{1, 5, 4, 9000}, {77, 1, 1, 1}}})
	b.must(ReportsEntry{Reports: []NodeReport{{1, 3, 2, 8000}}})
	if n := b.node(1); n.Cursor != 3 || n.LowBase != 2 || n.SeenMillis != 9000 {
		t.Errorf("reported: %+v", n)
	}
	for _, e := range []Entry{TrimEntry{3}, TrimEntry{2}, ActivateEntry{2}, ActivateEntry{1}} {
		b.must(e)
	}
	for name, want := range map[string]byte{session.MetaTrimmed: 3, session.MetaLevel: 2} {
		if v, err := b.tx.Meta(name); err != nil || len(v) != 8 || v[7] != want {
			t.Errorf("%s is %x, %v", name, v, err)
		}
	}
}

func TestFSM_HaltsAtADamagedEntry(t *testing.T) {
	b := newBench(t)
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	bad := mustEncode(t, TrimEntry{5})
	bad[1] ^= 1
	if v := b.applyAt(2, bad); !errors.Is(v.Err, errHalted) {
		t.Errorf("a damaged entry: %+v", v)
	}
	if v := b.applyAt(3, mustEncode(t, TrimEntry{5})); !errors.Is(v.Err, errHalted) {
		t.Errorf("an entry after it: %+v", v)
	}
	if len(b.fatal) != 1 || !strings.Contains(b.fatal[0].Error(), "entry 2") {
		t.Errorf("failures: %v", b.fatal)
	}
}
