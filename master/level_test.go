package master

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// named is mutation in version 2.
func (c *writer) named(timeline uint64, ops ...crm.Op) []byte {
	c.seq++
	c.hlc++
	raw := crm.AppendMutation(nil, &crm.Mutation{Timeline: timeline, Node: c.node, Incarnation: c.inc, Seq: c.seq, Prev: c.prev, HLC: c.hlc, Actor: "ana", Intent: "test", Ops: ops})
	c.prev = crm.Chain(c.prev, raw)
	return raw
}

// Until every voter reads version 2 no edit of it may be decided: a master that
// cannot read it would go another way.
func TestFSM_TakesNamedTimelinesOnceTheyAreActive(t *testing.T) {
	b := newBench(t)
	c := first()
	raw := c.named(7, territoryOp("north"))
	for level := range uint64(levelTimelines) {
		b.must(ActivateEntry{level})
		if v := b.apply(c.push(raw)); crm.CodeOf(v.Err) != crm.CodeInvalid {
			t.Errorf("at level %d: %+v", level, v)
		}
	}
	if n := b.node(1); n.LastSeq != 0 {
		t.Errorf("a refused edit took its number: %+v", n)
	}
	b.must(ActivateEntry{levelTimelines})
	if d := b.must(c.push(raw)); d[0].Kind != crm.Accepted {
		t.Errorf("at level %d: %+v", levelTimelines, d)
	}
	b.accept(c, territoryOp("south")) // version 1 stays welcome
}

// The file tells what a Rev of an earlier timeline means, and the FSM judges by it.
func TestFSM_JudgesByTheLineage(t *testing.T) {
	b := newBench(t)
	b.must(ActivateEntry{levelTimelines})
	c := first()
	op := territoryOp("north")
	made := b.must(c.push(c.named(7, op)))[0].Rev
	fork := b.rev
	rename := func(timeline uint64, seen crm.Rev, name string) []byte {
		return c.named(timeline, crm.Op{Kind: crm.OpPatch, Entity: op.Entity, Record: op.Record, Seen: crm.Token{Rev: seen},
			Cells: []crm.Input{{Field: crm.TerritoryName, Value: crm.TextValue(name)}}})
	}
	if err := b.begin(); err != nil {
		t.Fatal(err)
	}
	if err := b.tx.SetLineage(crm.Lineage{Timeline: 9, Forks: []crm.Fork{{Timeline: 7, Rev: fork}}}); err != nil {
		t.Fatal(err)
	}
	if d := b.must(c.push(rename(7, made, "of the backup"))); d[0].Kind != crm.Accepted {
		t.Errorf("seen before the fork: %+v", d)
	}
	for name, x := range map[string]struct {
		timeline uint64
		want     crm.OutcomeKind
	}{"the earlier one": {7, crm.Merged}, "an unknown one": {8, crm.Merged}, "none": {0, crm.Merged}, "its own": {9, crm.Accepted}} {
		if d := b.must(c.push(rename(x.timeline, b.rev, name))); d[0].Kind != x.want {
			t.Errorf("%s: the current value, as seen in that timeline: %+v", name, d)
		}
	}
}

// The masters' own edits name their timeline, which every master of a new
// cluster reads.
func TestAuthor_NamesItsTimeline(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		a := newAuthor(m.Master)
		if err := a.beAdmitted(t.Context()); err != nil {
			t.Fatal(err)
		}
		var timeline uint64
		r.read(m, func(tx *store.Tx) (err error) { timeline, err = tx.Timeline(); return err })
		write := func() *crm.Mutation {
			in := &intake{answer: make(chan authored, 1), request: crm.Request{Actor: "boss", Intent: "test", Ops: []crm.Op{createAccount(newID(), "acme", "north")}}}
			b := gathered(t, a, in)
			a.decide(t.Context(), b)
			wantCode(t, (<-in.answer).err, "")
			mut, err := crm.DecodeMutation(b.sub.Mutations[0])
			if err != nil {
				t.Fatal(err)
			}
			return mut
		}
		if got := write().Timeline; got != timeline || got == 0 {
			t.Errorf("timeline %d, want %d", got, timeline)
		}
	})
}

// A person's edit through a master clamps a token of another node and timeline
// as a branch does.
func TestAuthor_ATokenOfAnotherTimelineVouchesForNothing(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		var timeline uint64
		r.read(m, func(tx *store.Tx) (err error) { timeline, err = tx.Timeline(); return err })
		id := newID()
		rev := r.commit(m, createAccount(id, "Fjord AS", "north"))
		rename := func(seen crm.Token, name string) crm.OutcomeKind {
			op := patch(entityAccount, id, 16, crm.TextValue(name))
			op.Seen = seen
			got, err := m.Commit(t.Context(), crm.Request{Actor: "boss", Intent: "test", Ops: []crm.Op{op}})
			wantCode(t, err, "")
			return got.Outcome.Kind
		}
		if got := rename(crm.Token{Timeline: uint32(timeline), Rev: rev}, "Fjord Nord"); got != crm.Accepted {
			t.Errorf("of this timeline: %v", got)
		}
		if got := rename(crm.Token{Timeline: uint32(timeline) + 2, Rev: rev + 100}, "Fjord Sør"); got != crm.Merged {
			t.Errorf("of another timeline: %v", got)
		}
		if got := rename(crm.Token{Timeline: uint32(timeline), Node: 9, Rev: rev, Seq: 1 << 40}, "Fjord Vest"); got != crm.Merged {
			t.Errorf("of another node: %v", got)
		}
	})
}

// A master that does not know what the others have activated would decide
// otherwise: it halts, and does not open the file again.
func TestFSM_HaltsAtALevelItDoesNotKnow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.db")
	open := func(level uint16) (*FSM, error) {
		return OpenFSM(FSMConfig{Path: path, Store: store.Options{NoSync: true}, Level: level})
	}
	f, err := open(2)
	if err != nil {
		t.Fatal(err)
	}
	if v := f.Apply(1, 1, mustEncode(t, ActivateEntry{2})); v.Err != nil {
		t.Errorf("its own level: %v", v.Err)
	}
	if v := f.Apply(2, 1, mustEncode(t, ActivateEntry{3})); !errors.Is(v.Err, errHalted) {
		t.Errorf("a level above its own: %+v", v)
	}
	if err := f.data.Close(); err != nil {
		t.Fatal(err)
	}
	for _, level := range []uint16{3, 1} {
		f, err := open(level)
		if err == nil {
			f.Apply(2, 1, mustEncode(t, ActivateEntry{3}))
			err = f.Close()
		}
		if want := map[uint16]crm.Code{3: "", 1: syncproto.CodeVersion}[level]; crm.CodeOf(err) != want {
			t.Errorf("open as %d: %v, want code %q", level, err, want)
		}
	}
}

// The leader activates a level when the last master knows it, and not while one
// is away that may not.
func TestLevel_WaitsForEveryMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		speaks := map[int]uint16{1: 1, 2: 1, 3: 1}
		r := newRig(t, 3, func(n int, c *Config) { c.LogStore, c.Protocol = "bbolt", speaks[n] })
		again := func(n int, version uint16) {
			m := r.masters[n-1]
			if !m.dead {
				r.kill(m)
			}
			speaks[n] = version
			r.start(m, n)
			r.leader()
			time.Sleep(10 * time.Second)
		}
		want := func(when string, level uint16) {
			t.Helper()
			time.Sleep(10 * time.Second)
			if got := r.leader().Status().Level; got != level {
				t.Errorf("%s: level %d, want %d", when, got, level)
			}
		}
		want("founded by the first release", 1)
		again(1, 3)
		again(2, 3)
		want("one is of the first release", 1)
		r.kill(r.masters[2])
		want("one is away", 1)
		again(3, 2)
		want("the last is of the second release", 2)
		again(3, 3)
		want("all are of the third", 3)
	})
}
