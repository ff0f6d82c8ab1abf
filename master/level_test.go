package master

import (
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
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
