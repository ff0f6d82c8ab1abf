package crm

import (
	"slices"
	"strings"
	"testing"
)

func TestToken_CountsElementsOfASet(t *testing.T) {
	r := &Record{Stamp: Stamp{Rev: Pending, Node: 1, Seq: 7}, Cells: []Cell{
		{Field: 16, Value: TextValue("x"), Stamp: Stamp{Rev: 40}},
		{Field: 19, Value: ChoicesValue("a", "b"), Stamp: Stamp{Rev: Pending, Node: 1, Seq: 7}, Elems: []Stamp{{Rev: 50, Node: 2}, {Rev: Pending, Node: 1, Seq: 7}}},
	}}
	if got := r.TokenAt(9); got != (Token{Timeline: 9, Node: 1, Rev: 50, Seq: 7}) {
		t.Fatalf("token %v: a removal of the element a, which the screen shows, would be ignored", got)
	}
}

func TestDecide_ASeqOfAnotherNodeShowsNothing(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "x")))
	b.decide(t, 1, 2, patch(16, a, 1, txt(16, "y")))
	// A screen that another node rendered at its pending edit 9 is saved at node 1.
	op := patch(16, a, 1, txt(16, "z"))
	op.Seen.Seq = 9
	want(t, b.decide(t, 1, 3, op), Merged, "")
}

func TestDecide_RestoreLeavesTheAccountWhereItWas(t *testing.T) {
	b := newBook(t)
	a, o := rid(1), rid(2)
	b.decide(t, 1, 1, create(16, a, txt(16, "x")), create(19, o, Input{16, LinkValue(a)}))
	b.decide(t, 1, 2, Op{Kind: OpDelete, Entity: 16, Record: a, Seen: Token{Rev: 1}})
	want(t, b.decideIn(t, 2, Env{HLC: 3, Home: south}, Op{Kind: OpRestore, Entity: 16, Record: a, Seen: Token{Rev: 2}}), Accepted, "")
	if got := b.records[a].Territory; got != north {
		t.Fatalf("the account came back in territory %d, its order is in %d", got, b.records[o].Territory)
	}
}

func TestDecide_RestoreIntoATerritoryOfOthers(t *testing.T) {
	b := newBook(t)
	a, c := rid(1), rid(2)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), txt(17, "north")), create(17, c, txt(16, "Ann"), Input{17, LinkValue(a)}))
	b.decide(t, 1, 2, Op{Kind: OpDelete, Entity: 17, Record: c, Seen: Token{Rev: 1}})
	b.decide(t, 1, 3, patch(16, a, 1, txt(17, "south")))
	env := Env{HLC: 4, Home: north, Writable: func(id TerritoryID) bool { return id == north }}
	want(t, b.decideIn(t, 2, env, Op{Kind: OpRestore, Entity: 17, Record: c, Seen: Token{Rev: 2}}), Rejected, CodeTerritory)
}

func TestDecide_OwnedComesBackUnique(t *testing.T) {
	b := newBook(t)
	line := b.schema.EntityByID(20)
	line.Fields = append(line.Fields, &Field{ID: 18, Name: "key", Label: "Key", Kind: Text, Unique: true})
	if err := line.Finish(); err != nil {
		t.Fatal(err)
	}
	a, o, p := rid(1), rid(2), rid(5)
	b.decide(t, 1, 1, create(16, a, txt(16, "x")), create(19, o, Input{16, LinkValue(a)}), create(19, p, Input{16, LinkValue(a)}),
		create(20, rid(3), Input{16, LinkValue(o)}, txt(18, "K")))
	b.decide(t, 1, 2, Op{Kind: OpDelete, Entity: 19, Record: o, Seen: Token{Rev: 1}})
	want(t, b.decide(t, 1, 3, create(20, rid(4), Input{16, LinkValue(p)}, txt(18, "K"))), Accepted, "")
	want(t, b.decide(t, 1, 4, Op{Kind: OpRestore, Entity: 19, Record: o, Seen: Token{Rev: 2}}), Rejected, CodeDuplicateKey)
}

func TestDecide_WithoutItsAccountARecordHasNoRoot(t *testing.T) {
	b := newBook(t)
	a, c := rid(1), rid(2)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), txt(17, "north")), create(17, c, txt(16, "Ann"), Input{17, LinkValue(a)}))
	b.decide(t, 1, 2, patch(17, c, 1, Input{17, Value{}}))
	b.decide(t, 1, 3, patch(16, a, 1, txt(17, "south")))
	if r := b.records[c]; r.Territory != north || !r.Root.IsZero() {
		t.Fatalf("a contact of no account moved to territory %d with %s", r.Territory, r.Root)
	}
}

func TestDecide_ANoteMovesWithItsRecord(t *testing.T) {
	b := newBook(t)
	a, a2, c := rid(1), rid(2), rid(3)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), txt(17, "north")), create(16, a2, txt(16, "y"), txt(17, "south")), create(17, c, txt(16, "Ann"), Input{17, LinkValue(a)}))
	b.decide(t, 1, 5, patch(17, c, 1, txt(16, "Anna")))
	want(t, b.decide(t, 2, 3, patch(17, c, 1, txt(16, "Anne"), Input{17, LinkValue(a2)})), Merged, "")
	n := b.attention("conflict")
	if len(n) != 1 || n[0].Territory != south || n[0].Root != a2 || n[0].Value(AttentionAccount).Link() != a2 {
		t.Fatalf("the record is in territory %d, its conflict in %d", b.records[c].Territory, n[0].Territory)
	}
}

func TestDecide_ARingOfParentsIsMovedOnce(t *testing.T) {
	schema, err := NewSchema(1, append(testEntities(), &Entity{ID: 30, Name: "place", Label: "Place", Plural: "Places", Home: HomeRoot, Parent: "inside", Fields: []*Field{
		{ID: 16, Name: "inside", Label: "Inside", Kind: Link, Target: "place"}}})...)
	if err != nil {
		t.Fatal(err)
	}
	b := newBook(t)
	b.schema = schema
	p, q, top := rid(2), rid(3), rid(4)
	b.decide(t, 1, 1, create(30, p), create(30, q, Input{16, LinkValue(p)}))
	b.decide(t, 1, 2, patch(30, p, 1, Input{16, LinkValue(q)}))
	b.decideIn(t, 1, Env{HLC: 3, Home: south}, create(30, top))
	want(t, b.decideIn(t, 1, Env{HLC: 4, Home: south}, patch(30, p, 2, Input{16, LinkValue(top)})), Accepted, "")
	if b.records[p].Territory != south || b.records[q].Territory != south {
		t.Fatalf("territories %d and %d", b.records[p].Territory, b.records[q].Territory)
	}
}

func TestDecide_OnlyMastersWriteWhatTheClusterTells(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "x")))
	b.decide(t, 1, 3, patch(16, a, 1, txt(16, "y")))
	b.decide(t, 2, 2, patch(16, a, 1, txt(16, "z")))
	n := b.attention("conflict")[0]
	seen := b.rev
	for name, op := range map[string]Op{
		"forge a note":         create(EntityAttention, rid(9), Input{AttentionKind, ChoiceValue("rejected")}, Input{AttentionStatus, ChoiceValue("open")}),
		"delete a note":        {Kind: OpDelete, Entity: EntityAttention, Record: n.ID, Seen: Token{Rev: seen}},
		"change what was lost": patch(EntityAttention, n.ID, seen, txt(AttentionLost, "{}")),
		"change whose it was":  patch(EntityAttention, n.ID, seen, txt(AttentionActor, "boss")),
		"prove for another":    create(EntityPurge, rid(8), txt(PurgeSite, "oslo"), Input{PurgeNode, IntegerValue(7)}, txt(PurgeTerritory, "north"), Input{PurgeRev, IntegerValue(3)}),
		"take a proof back":    {Kind: OpDelete, Entity: EntityPurge, Record: rid(7), Seen: Token{Rev: seen}},
		"rewrite a proof":      patch(EntityPurge, rid(7), seen, Input{PurgeCount, IntegerValue(1)}),
	} {
		b.records[rid(7)] = &Record{Entity: EntityPurge, ID: rid(7), Territory: HeadOffice, Stamp: Stamp{Rev: 1}}
		d := b.decideIn(t, 2, Env{HLC: 4, Home: north, Writable: func(id TerritoryID) bool { return id == north }}, op)
		if d.Outcome.Kind != Rejected || !slices.Contains([]Code{CodeForbidden, CodeReadOnly}, d.Outcome.Code) {
			t.Errorf("%s: %v %q", name, d.Outcome.Kind, d.Outcome.Code)
		}
	}
	want(t, b.decide(t, 2, 9, patch(EntityAttention, n.ID, b.rev, Input{AttentionStatus, ChoiceValue("resolved")}, txt(AttentionResolved, "kept"))), Accepted, "")
	want(t, b.decide(t, 2, 9, create(EntityPurge, rid(10), txt(PurgeSite, "oslo"), Input{PurgeNode, IntegerValue(2)}, txt(PurgeTerritory, "north"), Input{PurgeRev, IntegerValue(3)})), Accepted, "")
}

func TestDecide_AnUnseenMoveIsKept(t *testing.T) {
	b := newBook(t)
	a, o := rid(1), rid(2)
	b.decide(t, 1, 1, create(16, a, txt(16, "x")), create(19, o, Input{16, LinkValue(a)}, Input{17, ChoiceValue("draft")}))
	b.decide(t, 2, 2, patch(19, o, 1, Input{17, ChoiceValue("open")}))
	want(t, b.decide(t, 1, 1, patch(19, o, 1, Input{17, ChoiceValue("cancelled")})), Merged, "")
	if got := b.records[o].Value(17).Str(); got != "cancelled" {
		t.Fatalf("status %q", got)
	}
	if n := b.attention("conflict"); len(n) != 1 || n[0].Value(AttentionActor).Str() != "user2" {
		t.Fatalf("the move that was overwritten left no trace: %v", n)
	}
}

func TestNewSchema_AParentLeadsSomewhere(t *testing.T) {
	_, err := NewSchema(1, &Entity{ID: 30, Name: "place", Home: HomeRoot, Parent: "inside", Fields: []*Field{{ID: 16, Name: "inside", Kind: Link}}})
	if err == nil {
		t.Fatal("a parent without a target: its records could not be placed")
	}
}

func TestDecide_ATreeMovesToItsLeaves(t *testing.T) {
	schema, err := NewSchema(1, append(testEntities(), &Entity{ID: 30, Name: "place", Label: "Place", Plural: "Places", Home: HomeRoot, Parent: "inside", Fields: []*Field{
		{ID: 16, Name: "inside", Label: "Inside", Kind: Link, Target: "place"}}})...)
	if err != nil {
		t.Fatal(err)
	}
	b := newBook(t)
	b.schema = schema
	b.decide(t, 1, 1, create(30, rid(2)), create(30, rid(3), Input{16, LinkValue(rid(2))}), create(30, rid(4), Input{16, LinkValue(rid(3))}))
	b.decideIn(t, 1, Env{HLC: 2, Home: south}, create(30, rid(5)))
	b.decide(t, 1, 3, patch(30, rid(2), 1, Input{16, LinkValue(rid(5))}))
	for _, id := range []RecordID{rid(2), rid(3), rid(4)} {
		if got := b.records[id].Territory; got != south {
			t.Errorf("%s stayed in territory %d", id, got)
		}
	}
}

// What a note holds is decided state. Of a Mutation of version 1 it must stay
// what masters of that release write; of version 2 it names the timeline.
func TestDecide_WritesWhatWasSeenInTheFormOfItsVersion(t *testing.T) {
	for timeline, want := range map[uint64]string{0: `"seen":"1204.4000"`, 35: `"seen":"z-1204-12.4000"`} {
		b := newBook(t)
		m := sampleMutation(timeline)
		d, err := Decide(b, m, Env{Rev: 2, HLC: m.HLC, Home: north, Lineage: Lineage{Timeline: timeline}})
		if err != nil || d.Outcome.Kind != Rejected {
			t.Fatalf("%+v, %v", d.Outcome, err)
		}
		if got := d.Writes[0].Value(AttentionOps).Str(); !strings.Contains(got, want) {
			t.Errorf("timeline %d: %s, want %s", timeline, got, want)
		}
	}
	b := newBook(t)
	b.decide(t, 1, 1, create(16, rid(1), txt(16, "x")))
	b.decide(t, 1, 2, Op{Kind: OpDelete, Entity: 16, Record: rid(1), Seen: Token{Rev: 1}})
	want(t, b.decide(t, 2, 3, patch(16, rid(1), 1, txt(16, "y"))), Parked, CodeDeleted)
	if got := b.attention("parked")[0].Value(AttentionOps).Str(); !strings.Contains(got, `"op":"restore","entity":"account","record":"`+rid(1).String()+`","seen":"0.0"}`) {
		t.Errorf("version 1: %s", got)
	}
}

// An edit that crosses a restore of the masters is judged by what its author saw
// of the history that is left.
func TestDecide_AnEditOfAnEarlierTimeline(t *testing.T) {
	for _, c := range []struct {
		name     string
		timeline uint64
		seen     Rev
		want     OutcomeKind
	}{
		{"SawItBeforeTheFork", 10, 1, Accepted},
		{"SawAnotherUnderTheSameRev", 10, 2, Merged},
		{"SawItInThisTimeline", 20, 2, Accepted},
		{"SawAnUnknownTimeline", 30, 2, Merged},
		{"DoesNotSay", 0, 2, Merged},
	} {
		b := newBook(t)
		a := rid(1)
		b.decide(t, 1, 1, create(16, a, txt(16, "start"), Input{18, PhoneValue("+351 21 000 000")}))
		b.decide(t, 1, 2, patch(16, a, 1, txt(16, "after the restore")))
		field := txt(16, "theirs")
		if c.seen == 1 {
			field = Input{18, PhoneValue("+351 22 000 000")} // set at Rev 1, which both timelines have
		}
		op := patch(16, a, c.seen, field)
		op.Seen.Timeline = uint32(c.timeline)
		m := &Mutation{Timeline: c.timeline, Node: 2, Incarnation: 1, Seq: 1, HLC: 3, Actor: "ann", Ops: []Op{op}}
		d, err := Decide(b, m, Env{Rev: 3, HLC: 3, Home: north, Lineage: Lineage{Timeline: 20, Forks: []Fork{{10, 1}}}})
		if err != nil || d.Outcome.Kind != c.want {
			t.Errorf("%s: %v (%s), %v, want %v", c.name, d.Outcome.Kind, d.Outcome.Message, err, c.want)
		}
	}
}
