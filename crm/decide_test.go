package crm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// A book is a View over maps: the model that decisions are tested against.
type book struct {
	schema  *Schema
	records map[RecordID]*Record
	refused map[RecordID]RecordID
	rev     Rev
	last    map[NodeID]Seq
}

func testEntities() []*Entity {
	return []*Entity{
		{ID: 16, Name: "account", Label: "Account", Plural: "Accounts", Home: HomeRoot, Title: []string{"name"}, Fields: []*Field{
			{ID: 16, Name: "name", Label: "Name", Kind: Text, Required: true}, {ID: 17, Name: "territory", Label: "Territory", Kind: Text},
			{ID: 18, Name: "phone", Label: "Phone", Kind: Phone}, {ID: 19, Name: "tags", Label: "Tags", Kind: Choices},
			{ID: 20, Name: "points", Label: "Points", Kind: Integer, Policy: Counter}, {ID: 21, Name: "legal_name", Label: "Legal name", Kind: Text, Policy: Review},
			{ID: 22, Name: "code", Label: "Code", Kind: Text, Unique: true}, {ID: 23, Name: "rating", Label: "Rating", Kind: Choice, Default: "warm", Options: []Option{{Value: "warm"}, {Value: "hot"}}},
			{ID: 24, Name: "main_contact", Label: "Main contact", Kind: Link, Target: "contact"}}},
		{ID: 17, Name: "contact", Label: "Contact", Plural: "Contacts", Home: HomeRoot, Parent: "account", Delete: EditWins, Title: []string{"name"}, Fields: []*Field{
			{ID: 16, Name: "name", Label: "Name", Kind: Text, Required: true}, {ID: 17, Name: "account", Label: "Account", Kind: Link, Target: "account"}}},
		{ID: 19, Name: "order", Label: "Order", Plural: "Orders", Home: HomeRoot, Parent: "account", Title: []string{"status"}, Fields: []*Field{
			{ID: 16, Name: "account", Label: "Account", Kind: Link, Target: "account", Required: true},
			{ID: 17, Name: "status", Label: "Status", Kind: Choice, Policy: Transition, Options: []Option{{Value: "draft"}, {Value: "open"}, {Value: "shipped"}, {Value: "cancelled"}},
				Moves: [][2]string{{"draft", "open"}, {"open", "shipped"}, {"open", "cancelled"}}}}},
		{ID: 20, Name: "order_line", Label: "Line", Plural: "Lines", Home: HomeRoot, Parent: "order", Owned: true, Title: []string{"quantity"}, Fields: []*Field{
			{ID: 16, Name: "order", Label: "Order", Kind: Link, Target: "order", Required: true}, {ID: 17, Name: "quantity", Label: "Quantity", Kind: Decimal}}},
	}
}

func newBook(tb testing.TB) *book {
	tb.Helper()
	s, err := NewSchema(1, testEntities()...)
	if err != nil {
		tb.Fatal(err)
	}
	b := &book{schema: s, records: map[RecordID]*Record{}, refused: map[RecordID]RecordID{}, last: map[NodeID]Seq{}}
	for i, code := range []string{"north", "south"} {
		b.records[rid(0xf0+i)] = &Record{Entity: EntityTerritory, ID: rid(0xf0 + i), Territory: Shared, Cells: []Cell{
			{Field: TerritoryCode, Value: TextValue(code)}, {Field: TerritoryNumber, Value: IntegerValue(int64(FirstTerritory) + int64(i))}}}
	}
	return b
}

const north, south = FirstTerritory, FirstTerritory + 1

func rid(n int) RecordID { return RecordID{6: 0x70, 8: 0x80, 14: byte(n >> 8), 15: byte(n)} }

func (b *book) Schema() *Schema { return b.schema }

func (b *book) Record(e EntityID, id RecordID) (*Record, error) {
	if r := b.records[id]; r != nil && r.Entity == e {
		return r, nil
	}
	return nil, nil
}

func (b *book) sorted(keep func(*Record) bool) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		ids := slices.SortedFunc(maps.Keys(b.records), func(a, c RecordID) int { return bytes.Compare(a[:], c[:]) })
		for _, id := range ids {
			if keep(b.records[id]) && !yield(b.records[id], nil) {
				return
			}
		}
	}
}

func (b *book) Lookup(e *Entity, f *Field, v Value) (RecordID, bool, error) {
	for r := range b.sorted(func(r *Record) bool { return r.Entity == e.ID && !r.Deleted }) {
		if bytes.Equal(AppendKey(nil, r.Value(f.ID)), AppendKey(nil, v)) {
			return r.ID, true, nil
		}
	}
	return RecordID{}, false, nil
}

func (b *book) linked(c Child, parent RecordID, deleted bool) iter.Seq2[*Record, error] {
	return b.sorted(func(r *Record) bool {
		return r.Entity == c.Entity.ID && r.Deleted == deleted && r.Value(c.Field.ID).Link() == parent
	})
}

func (b *book) Children(c Child, p RecordID) iter.Seq2[*Record, error] { return b.linked(c, p, false) }
func (b *book) Deleted(c Child, p RecordID) iter.Seq2[*Record, error]  { return b.linked(c, p, true) }

func (b *book) Under(root RecordID) iter.Seq2[*Record, error] {
	return b.sorted(func(r *Record) bool { return r.Root == root && r.ID != root && !r.Deleted })
}

func (b *book) Refused(id RecordID) (RecordID, bool, error) {
	a, ok := b.refused[id]
	return a, ok, nil
}

func (b *book) TerritoryByCode(code string) (TerritoryID, bool, error) {
	for _, r := range b.records {
		if r.Entity == EntityTerritory && r.Value(TerritoryCode).Str() == code {
			return TerritoryID(r.Value(TerritoryNumber).Int()), true, nil
		}
	}
	return 0, false, nil
}

func (b *book) NextNumber(EntityID) (int64, error) { return 100, nil }

// decide runs a mutation of node at HLC hlc and keeps what it writes.
func (b *book) decide(tb testing.TB, node NodeID, hlc HLC, ops ...Op) Decision {
	tb.Helper()
	return b.decideIn(tb, node, Env{HLC: hlc, Home: north}, ops...)
}

func (b *book) decideIn(tb testing.TB, node NodeID, env Env, ops ...Op) Decision {
	tb.Helper()
	b.last[node]++
	b.rev++
	env.Rev = b.rev
	m := &Mutation{Node: node, Incarnation: 1, Seq: b.last[node], HLC: env.HLC, Actor: fmt.Sprintf("user%d", node), Ops: ops}
	back, err := DecodeMutation(AppendMutation(nil, m))
	if err != nil {
		tb.Fatal(err)
	}
	d, err := Decide(b, back, env)
	if err != nil {
		tb.Fatal(err)
	}
	for _, w := range d.Writes {
		again, err := DecodeRecord(w.Entity, w.ID, AppendRecord(nil, w))
		if err != nil {
			tb.Fatal(err)
		}
		b.records[w.ID] = again
	}
	for _, r := range d.Refused {
		b.refused[r.Record] = r.Attention
	}
	return d
}

func create(e EntityID, id RecordID, cells ...Input) Op {
	return Op{Kind: OpCreate, Entity: e, Record: id, Cells: cells}
}

func patch(e EntityID, id RecordID, seen Rev, cells ...Input) Op {
	return Op{Kind: OpPatch, Entity: e, Record: id, Seen: Token{Rev: seen}, Cells: cells}
}

func txt(f FieldID, s string) Input { return Input{f, TextValue(s)} }

func (b *book) attention(kind string) []*Record {
	var out []*Record
	for r := range b.sorted(func(r *Record) bool { return r.Entity == EntityAttention && r.Value(AttentionKind).Str() == kind }) {
		out = append(out, r)
	}
	return out
}

func want(tb testing.TB, d Decision, k OutcomeKind, code Code) {
	tb.Helper()
	if d.Outcome.Kind != k || d.Outcome.Code != code {
		tb.Fatalf("outcome %v %q (%s), want %v %q", d.Outcome.Kind, d.Outcome.Code, d.Outcome.Message, k, code)
	}
}

func TestDecide_BothFieldsSurvive(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	want(t, b.decide(t, 1, 10, create(16, a, txt(16, "Acme"), txt(22, "c1"))), Accepted, "")
	want(t, b.decide(t, 1, 30, patch(16, a, 1, txt(16, "Acme Ltd"))), Accepted, "")
	want(t, b.decide(t, 2, 20, patch(16, a, 1, Input{18, PhoneValue("+351 21 000 000")})), Accepted, "")
	r := b.records[a]
	if r.Value(16).Str() != "Acme Ltd" || r.Value(18).Str() != "+351 21 000 000" {
		t.Fatalf("a field was lost: %q %q", r.Value(16), r.Value(18))
	}
	if got := b.attention("conflict"); len(got) != 0 {
		t.Fatalf("edits of different fields made %d conflicts", len(got))
	}
}

func TestDecide_SameFieldKeepsTheLoser(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, late  HLC
		stands, lost string
	}{
		{"LaterTimeWins", 100, 200, "from 2", "from 1"},
		{"EarlierTimeLosesThoughDecidedLast", 200, 100, "from 1", "from 2"},
		{"EqualTimeHigherNodeWins", 100, 100, "from 2", "from 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			a := rid(1)
			b.decide(t, 3, 1, create(16, a, txt(16, "start")))
			want(t, b.decide(t, 1, c.first, patch(16, a, 1, txt(16, "from 1"))), Accepted, "")
			want(t, b.decide(t, 2, c.late, patch(16, a, 1, txt(16, "from 2"))), Merged, "")
			if got := b.records[a].Value(16).Str(); got != c.stands {
				t.Fatalf("%q stands, want %q", got, c.stands)
			}
			n := b.attention("conflict")
			if len(n) != 1 {
				t.Fatalf("%d conflicts, want 1", len(n))
			}
			var kept, lost Side
			mustUnmarshal(t, n[0].Value(AttentionKept).Str(), &kept)
			mustUnmarshal(t, n[0].Value(AttentionLost).Str(), &lost)
			if string(kept.Value) != fmt.Sprintf("%q", c.stands) || string(lost.Value) != fmt.Sprintf("%q", c.lost) {
				t.Fatalf("kept %s lost %s", kept.Value, lost.Value)
			}
			if lost.Actor != "user"+c.lost[5:] || n[0].Value(AttentionActor).Str() != lost.Actor {
				t.Fatalf("the loser's author is %q", lost.Actor)
			}
		})
	}
}

func mustUnmarshal(tb testing.TB, s string, into any) {
	tb.Helper()
	if err := json.Unmarshal([]byte(s), into); err != nil {
		tb.Fatalf("%q: %v", s, err)
	}
}

func TestDecide_WhoHadSeenItWinsWhateverTheClocks(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1000, create(16, a, txt(16, "old")))
	want(t, b.decide(t, 2, 5, patch(16, a, 1, txt(16, "new"))), Accepted, "")
	if got := b.records[a].Value(16).Str(); got != "new" {
		t.Fatalf("an edit that had seen %q lost to it", got)
	}
}

func TestDecide_TwoClerksOfOneBranch(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "start")))
	b.decide(t, 1, 10, patch(16, a, 1, txt(16, "clerk A")))
	op := patch(16, a, 1, txt(16, "clerk B"))
	op.Seen.Seq = 1
	want(t, b.decide(t, 1, 20, op), Merged, "")
	if len(b.attention("conflict")) != 1 {
		t.Fatal("one clerk overwrote the other silently")
	}
	op = patch(16, a, 1, txt(16, "clerk C"))
	op.Seen.Seq = 3
	want(t, b.decide(t, 1, 5, op), Accepted, "")
	if got := b.records[a].Value(16).Str(); got != "clerk C" {
		t.Fatalf("%q stands, though clerk C had seen it", got)
	}
}

func TestDecide_Sets(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), Input{19, ChoicesValue("red", "blue")}))
	b.decide(t, 1, 2, Op{Kind: OpSetAdd, Entity: 16, Record: a, Seen: Token{Rev: 1}, Cells: []Input{{19, ChoicesValue("red", "green")}}})
	b.decide(t, 2, 3, Op{Kind: OpSetRemove, Entity: 16, Record: a, Seen: Token{Rev: 1}, Cells: []Input{{19, ChoicesValue("red", "blue")}}})
	if got := b.records[a].Value(19).Set(); !slices.Equal(got, []string{"green", "red"}) {
		t.Fatalf("set is %v: add wins over an unseen removal, a seen element goes", got)
	}
	b.decide(t, 2, 4, patch(16, a, 2, Input{19, ChoicesValue("white")}))
	if got := b.records[a].Value(19).Set(); !slices.Equal(got, []string{"white"}) {
		t.Fatalf("set is %v after a whole-set patch that had seen it", got)
	}
	b.decide(t, 2, 5, patch(16, a, 9, Input{19, Value{}}))
	if !b.records[a].Value(19).IsNull() {
		t.Fatal("clearing a set left something")
	}
}

func TestDecide_Counter(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), Input{20, IntegerValue(5)}))
	add := func(n int64) Op {
		return Op{Kind: OpCounterAdd, Entity: 16, Record: a, Seen: Token{Rev: 1}, Cells: []Input{{20, IntegerValue(n)}}}
	}
	b.decide(t, 1, 2, add(3))
	b.decide(t, 2, 2, add(-10))
	if got := b.records[a].Value(20).Int(); got != -2 {
		t.Fatalf("counter is %d, want -2", got)
	}
	b.decide(t, 1, 3, add(-1<<62))
	want(t, b.decide(t, 1, 3, add(-1<<62), add(-1<<62)), Rejected, CodeInvalid)
}

func TestDecide_Transition(t *testing.T) {
	b := newBook(t)
	a, o := rid(1), rid(2)
	b.decide(t, 1, 1, create(16, a, txt(16, "x")), create(19, o, Input{16, LinkValue(a)}, Input{17, ChoiceValue("open")}))
	move := func(from, to string) Op {
		return Op{Kind: OpTransition, Entity: 19, Record: o, Seen: Token{Rev: 1}, Cells: []Input{{17, ChoiceValue(from)}, {17, ChoiceValue(to)}}}
	}
	want(t, b.decide(t, 2, 2, move("open", "cancelled")), Accepted, "")
	want(t, b.decide(t, 1, 3, move("open", "shipped")), Parked, CodeTransition)
	if got := b.records[o].Value(17).Str(); got != "cancelled" {
		t.Fatalf("status %q", got)
	}
	n := b.attention("parked")
	if len(n) != 1 || !strings.Contains(n[0].Value(AttentionMessage).Str(), `cannot move to "shipped"`) {
		t.Fatalf("parked: %v", n)
	}
	if n[0].Root != a || n[0].Territory != north {
		t.Fatal("the attention record does not travel with the account")
	}
}

func TestDecide_Review(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), txt(21, "X Ltd")))
	b.decide(t, 1, 2, patch(16, a, 1, txt(21, "X plc")))
	want(t, b.decide(t, 2, 9, patch(16, a, 1, txt(21, "Y Ltd"))), Parked, CodeConflict)
	if got := b.records[a].Value(21).Str(); got != "X plc" {
		t.Fatalf("legal name %q changed under review", got)
	}
}

func TestDecide_RejectionsAreWhole(t *testing.T) {
	a := rid(1)
	for _, c := range []struct {
		name string
		code Code
		env  Env
		ops  []Op
	}{
		{"Required", CodeRequired, Env{}, []Op{create(16, rid(9), Input{18, PhoneValue("12345")})}},
		{"ClearRequired", CodeRequired, Env{}, []Op{patch(16, a, 1, Input{16, Value{}})}},
		{"UnknownField", CodeUnknownField, Env{}, []Op{patch(16, a, 1, txt(999, "x"))}},
		{"UnknownEntity", CodeUnknownEntity, Env{}, []Op{create(999, rid(9))}},
		{"SystemField", CodeReadOnly, Env{}, []Op{patch(16, a, 1, txt(FieldCreatedBy, "me"))}},
		{"Kind", CodeInvalid, Env{}, []Op{patch(16, a, 1, Input{16, IntegerValue(3)})}},
		{"Option", CodeInvalid, Env{}, []Op{patch(16, a, 1, Input{23, ChoiceValue("cold")})}},
		{"Exists", CodeExists, Env{}, []Op{create(16, a, txt(16, "again"))}},
		{"Missing", CodeNotFound, Env{}, []Op{patch(16, rid(77), 1, txt(16, "x"))}},
		{"GoneForGood", CodeDeleted, Env{Level: levelGone}, []Op{patch(16, rid(77), 1, txt(16, "x"))}},
		{"NeverThere", CodeNotFound, Env{Level: levelGone}, []Op{patch(16, rid(77), 0, txt(16, "x"))}},
		{"GoneBeforeMastersTell", CodeNotFound, Env{Level: levelGone - 1}, []Op{patch(16, rid(77), 1, txt(16, "x"))}},
		{"LostByARestore", CodeNotFound, Env{Level: levelGone, Lineage: past}, []Op{patch(16, rid(77), 500, txt(16, "x"))}},
		{"LinkToNothing", CodeNotFound, Env{}, []Op{create(19, rid(9), Input{16, LinkValue(rid(77))})}},
		{"UniqueTakenFolded", CodeDuplicateKey, Env{}, []Op{create(16, rid(9), txt(16, "b"), txt(22, "CODE-1"))}},
		{"UniqueTwiceInOne", CodeDuplicateKey, Env{}, []Op{create(16, rid(8), txt(16, "b"), txt(22, "n")), create(16, rid(9), txt(16, "b"), txt(22, "N"))}},
		{"NotItsTerritory", CodeTerritory, Env{Writable: func(t TerritoryID) bool { return t == south }}, []Op{patch(16, a, 1, txt(16, "x"))}},
		{"ClusterRecord", CodeForbidden, Env{}, []Op{create(EntitySite, rid(9), txt(SiteName, "lisbon"))}},
		{"NothingAsked", CodeInvalid, Env{}, nil},
		{"SecondOpFails", CodeNotFound, Env{}, []Op{patch(16, a, 1, txt(16, "first")), patch(16, rid(77), 1, txt(16, "x"))}},
		{"SetAddOnText", CodeInvalid, Env{}, []Op{{Kind: OpSetAdd, Entity: 16, Record: a, Cells: []Input{txt(16, "x")}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			b.decide(t, 1, 1, create(16, a, txt(16, "Acme"), txt(22, "code-1")))
			before := AppendRecord(nil, b.records[a])
			c.env.HLC, c.env.Home = 5, north
			want(t, b.decideIn(t, 2, c.env, c.ops...), Rejected, c.code)
			if !bytes.Equal(before, AppendRecord(nil, b.records[a])) || b.records[rid(9)] != nil || b.records[rid(8)] != nil {
				t.Fatal("a rejected mutation left something behind")
			}
			if n := b.attention("rejected"); len(n) != 1 || n[0].Territory != north || n[0].Value(AttentionCode).Str() != string(c.code) {
				t.Fatalf("rejection note: %v", n)
			}
		})
	}
}

func TestDecide_DependsOnRejectedCreation(t *testing.T) {
	b := newBook(t)
	want(t, b.decide(t, 1, 1, create(17, rid(5), Input{17, Value{}})), Rejected, CodeRequired)
	want(t, b.decide(t, 1, 2, patch(17, rid(5), 0, txt(16, "late name"))), Rejected, CodeDependsOn)
	want(t, b.decide(t, 1, 3, create(16, rid(6), txt(16, "A"), Input{24, LinkValue(rid(5))})), Rejected, CodeDependsOn)
	under := 0
	for _, n := range b.attention("rejected") {
		if !n.Value(AttentionUnder).IsNull() {
			under++
		}
	}
	if under != 2 {
		t.Fatalf("%d of 2 dependants are shown under the first rejection", under)
	}
}

func TestDecide_DeleteAgainstEdit(t *testing.T) {
	setup := func(t *testing.T) (*book, RecordID) {
		b := newBook(t)
		b.decide(t, 1, 1, create(16, rid(1), txt(16, "Acme")), create(17, rid(2), txt(16, "Ann"), Input{17, LinkValue(rid(1))}))
		return b, rid(1)
	}
	del := func(e EntityID, id RecordID, seen Rev) Op {
		return Op{Kind: OpDelete, Entity: e, Record: id, Seen: Token{Rev: seen}}
	}
	t.Run("EditAfterUnseenDelete", func(t *testing.T) {
		b, a := setup(t)
		want(t, b.decide(t, 2, 5, del(16, a, 1)), Accepted, "")
		want(t, b.decide(t, 1, 6, patch(16, a, 1, txt(16, "Acme 2"))), Parked, CodeDeleted)
		n := b.attention("parked")[0]
		var ops []OpText
		mustUnmarshal(t, n.Value(AttentionOps).Str(), &ops)
		for i := range ops {
			ops[i].Seen = ""
		}
		again, err := ParseOps(b.schema, ops)
		if err != nil {
			t.Fatal(err)
		}
		for i := range again {
			again[i].Seen = Token{Rev: b.rev}
		}
		want(t, b.decide(t, 1, 7, again...), Accepted, "")
		if r := b.records[a]; r.Deleted || r.Value(16).Str() != "Acme 2" {
			t.Fatal("one click did not restore and apply")
		}
	})
	t.Run("DeleteAfterUnseenEdit", func(t *testing.T) {
		b, a := setup(t)
		b.decide(t, 1, 5, patch(16, a, 1, txt(16, "Acme 2")))
		want(t, b.decide(t, 2, 6, del(16, a, 1)), Parked, CodeDeleted)
		if !b.records[a].Deleted || b.records[a].Value(16).Str() != "Acme 2" {
			t.Fatal("the deletion must stand and keep the edit")
		}
	})
	t.Run("EditWins", func(t *testing.T) {
		b, _ := setup(t)
		b.decide(t, 2, 5, del(17, rid(2), 1))
		want(t, b.decide(t, 1, 6, patch(17, rid(2), 1, txt(16, "Anna"))), Accepted, "")
		if b.records[rid(2)].Deleted {
			t.Fatal("edit-wins did not bring the record back")
		}
	})
	t.Run("SeenDeleteRefusesEdits", func(t *testing.T) {
		b, a := setup(t)
		b.decide(t, 2, 5, del(16, a, 1))
		want(t, b.decide(t, 1, 6, patch(16, a, 2, txt(16, "x"))), Rejected, CodeDeleted)
	})
}

func TestDecide_OwnedGoesAndReturnsWithItsParent(t *testing.T) {
	b := newBook(t)
	a, o := rid(1), rid(2)
	b.decide(t, 1, 1, create(16, a, txt(16, "x")), create(19, o, Input{16, LinkValue(a)}),
		create(20, rid(3), Input{16, LinkValue(o)}), create(20, rid(4), Input{16, LinkValue(o)}))
	b.decide(t, 1, 2, Op{Kind: OpDelete, Entity: 20, Record: rid(4), Seen: Token{Rev: 1}})
	want(t, b.decide(t, 1, 3, Op{Kind: OpDelete, Entity: 19, Record: o, Seen: Token{Rev: 2}}), Accepted, "")
	if !b.records[rid(3)].Deleted {
		t.Fatal("a line outlived its order")
	}
	want(t, b.decide(t, 1, 4, Op{Kind: OpRestore, Entity: 19, Record: o, Seen: Token{Rev: 3}}), Accepted, "")
	if b.records[rid(3)].Deleted || !b.records[rid(4)].Deleted {
		t.Fatal("restore must bring back what went with the order, and no more")
	}
	if b.records[rid(3)].Entered != b.rev {
		t.Fatal("a restored record must be sent whole: Entered")
	}
}

func TestDecide_AccountMovesWithItsTree(t *testing.T) {
	b := newBook(t)
	a, o, l := rid(1), rid(2), rid(3)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), txt(17, "north")))
	b.decide(t, 1, 2, create(19, o, Input{16, LinkValue(a)}), create(20, l, Input{16, LinkValue(o)}), create(17, rid(4), txt(16, "Ann"), Input{17, LinkValue(a)}))
	d := b.decide(t, 1, 3, patch(16, a, 2, txt(17, "south")))
	want(t, d, Accepted, "")
	for _, id := range []RecordID{a, o, l, rid(4)} {
		if r := b.records[id]; r.Territory != south || r.Entered != b.rev || r.Stamp.Rev != b.rev || r.Root != a {
			t.Fatalf("record %s is in territory %d, entered %d, rev %d", id, r.Territory, r.Entered, r.Stamp.Rev)
		}
	}
	want(t, b.decide(t, 1, 4, patch(16, a, 3, txt(17, "nowhere"))), Rejected, CodeNotFound)
}

func TestDecide_RecordsWithoutAccountLiveAtHome(t *testing.T) {
	b := newBook(t)
	b.decideIn(t, 1, Env{HLC: 1, Home: south}, create(17, rid(4), txt(16, "Ann")))
	if got := b.records[rid(4)].Territory; got != south {
		t.Fatalf("territory %d", got)
	}
}

func TestDecide_Guards(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "x"), Input{20, IntegerValue(5)}))
	for _, c := range []struct {
		g  Guard
		ok bool
	}{
		{Guard{GuardExists, 16, a, 0, Value{}}, true}, {Guard{GuardAbsent, 16, a, 0, Value{}}, false},
		{Guard{GuardEquals, 16, a, 16, TextValue("x")}, true}, {Guard{GuardEquals, 16, a, 16, TextValue("y")}, false},
		{Guard{GuardAtLeast, 16, a, 20, IntegerValue(5)}, true}, {Guard{GuardAtLeast, 16, a, 20, IntegerValue(6)}, false},
		{Guard{GuardAtMost, 16, a, 20, IntegerValue(5)}, true}, {Guard{GuardAtMost, 16, a, 20, DecimalValue(9, 0, "")}, false},
	} {
		m := &Mutation{Node: 1, Seq: 9, Ops: []Op{patch(16, a, 1, txt(16, "z"))}, Guards: []Guard{c.g}}
		d, err := Decide(b, m, Env{Rev: 9, HLC: 9, Home: north})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Outcome.Kind == Accepted; got != c.ok {
			t.Errorf("guard %+v: accepted %v, want %v", c.g, got, c.ok)
		}
	}
}

// TestDecide_NothingIsLost drives random edits of one record from three nodes
// that see it at random moments, and asserts that every value ever accepted for
// a latest-wins field stands, was seen by whoever replaced it, or is kept in a
// conflict.
func TestDecide_NothingIsLost(t *testing.T) {
	for seed := range int64(60) {
		b := newBook(t)
		a := rid(1)
		b.decide(t, 1, 1, create(16, a, txt(16, "v0")))
		next := uint64(seed)*2862933555777941757 + 3037000493
		rnd := func(n uint64) uint64 { next = next*2862933555777941757 + 3037000493; return next >> 33 % n }
		kept := map[string]bool{}
		seen := map[NodeID]Rev{1: 1, 2: 1, 3: 1}
		for i := range 40 {
			node := NodeID(1 + rnd(3))
			if rnd(3) == 0 {
				seen[node] = b.rev
			}
			before := b.records[a].Cell(16)
			v := fmt.Sprintf("v%d", i+1)
			op := patch(16, a, seen[node], txt(16, v))
			b.decide(t, node, HLC(rnd(1000)), op)
			after := b.records[a].Value(16).Str()
			replaced := before.Value.Str()
			for _, n := range b.attention("conflict") {
				var s Side
				mustUnmarshal(t, n.Value(AttentionLost).Str(), &s)
				kept[strings.Trim(string(s.Value), `"`)] = true
			}
			if after == v && !before.Stamp.seenBy(node, op.Seen) && !kept[replaced] {
				t.Fatalf("seed %d step %d: %q was overwritten unseen and is nowhere", seed, i, replaced)
			}
			if after != v && !kept[v] {
				t.Fatalf("seed %d step %d: %q lost and is nowhere", seed, i, v)
			}
		}
	}
}

// TestDecide_PendingIsWhatTheMasterDecides: with nothing concurrent, the branch
// shows before the decision what the master shows after it.
func TestDecide_PendingIsWhatTheMasterDecides(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	m := &Mutation{Node: 7, Seq: 1, HLC: NewHLC(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC).UnixMilli()), Actor: "ann", Ops: []Op{create(16, a, txt(16, "Acme"), Input{19, ChoicesValue("x")})}}
	hoped, err := Decide(b, m, Env{Rev: Pending, HLC: m.HLC, Home: north})
	if err != nil {
		t.Fatal(err)
	}
	decided, err := Decide(b, m, Env{Rev: 8, HLC: m.HLC, Home: north})
	if err != nil {
		t.Fatal(err)
	}
	h, d := hoped.Writes[0], decided.Writes[0]
	for i, c := range d.Cells {
		if !c.Value.Equal(h.Cells[i].Value) || h.Cells[i].Stamp.Rev != Pending {
			t.Fatalf("field %d: hoped %v, decided %v", c.Field, h.Cells[i].Value, c.Value)
		}
	}
	if got := h.TokenAt(9); got != (Token{Timeline: 9, Node: 7, Seq: 1}) {
		t.Fatalf("token of a pending record is %v", got)
	}
}

func TestDecide_MetadataMustLeaveASchema(t *testing.T) {
	e := &Entity{ID: 40, Name: "visit", Label: "Visit", Plural: "Visits", Home: HomeRoot, Title: []string{"where"}, Fields: []*Field{
		{ID: 16, Name: "where", Label: "Where", Kind: Text}, {ID: 17, Name: "account", Label: "Account", Kind: Link, Target: "account"}}}
	admin := Env{HLC: 5, Home: north, Admin: true}
	b := newBook(t)
	want(t, b.decideIn(t, 1, admin, MetadataOps(e)...), Accepted, "")
	e.Fields[1].Target = "nothing"
	e.ID, e.Name = 41, "trip"
	for _, ops := range [][]Op{MetadataOps(e), {{Kind: OpDelete, Entity: EntityEntity, Record: metadataID(40, 0), Seen: Token{Rev: 9}}}} {
		if got := newBookWith(t, b).decideIn(t, 1, admin, ops...).Outcome; got.Kind != Rejected || got.Code != CodeInvalid {
			t.Errorf("metadata that no node can use: %v %v", got.Kind, got.Code)
		}
	}
}

// newBookWith returns a book with b's records.
func newBookWith(tb testing.TB, b *book) *book {
	c := newBook(tb)
	maps.Copy(c.records, b.records)
	c.rev, c.last = b.rev, maps.Clone(b.last)
	return c
}
