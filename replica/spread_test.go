package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A tangle is a branch and its masters that edit a few records which hang
// together, so that pending edits see, free and take what other edits make. It
// runs in one goroutine: each step is a commit, a decision or a batch.
type tangle struct {
	*rapid.T
	m    *scripted
	feed *scriptedFeed
	r    *Replica
	dir  string
	now  time.Time
	sent crm.Seq // the masters have the branch's edits up to here
}

// TestAround_IsTheWholeFold: after every batch the overlay, and the traces that
// the next batch relies on, are what folding the whole outbox over the base makes.
func TestAround_IsTheWholeFold(t *testing.T) {
	proto := newTangleFiles(t)
	rapid.Check(t, func(rt *rapid.T) {
		x := proto.open(t, rt)
		defer x.close()
		rt.Repeat(map[string]func(*rapid.T){
			"branch":      x.commits,
			"head office": x.headOffice,
			"decide":      x.decide,
			"batch":       x.then(x.batch),
			"crash":       x.then(x.crash),
			"restart":     x.then(x.restart),
		})
	})
}

// TestSpread_Siblings: over a change of one member of a set those are decided
// anew who looked at the set, not those who joined it too.
func TestSpread_Siblings(t *testing.T) {
	f := newTangleFiles(t)
	r, err := Open(tangleConfig(f.dir, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	commit := func(op crm.Op) {
		t.Helper()
		if _, err := r.Commit(t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: []crm.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	reaches := func(want ...crm.Seq) {
		t.Helper()
		err := r.journal.View(func(j *store.JTx) error {
			traces, err := j.Touched(1)
			if err != nil {
				return err
			}
			s := newSpread(j)
			err = s.begin(traces)
			if got := slices.Sorted(maps.Keys(s.again)); !slices.Equal(got, want) {
				t.Errorf("a change of what edit 1 made reaches %v, want %v", got, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	commit(makeOp("contact 2", "account 0", ""))
	commit(makeOp("contact 3", "account 0", ""))
	reaches(1)
	commit(crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: id("account 0")})
	reaches(1, 3) // 3 has looked for children to delete
}

// tangleFiles are the files that each history begins with.
type tangleFiles struct {
	dir  string
	seq  crm.Seq // of head office
	head crm.Rev
}

func newTangleFiles(t *testing.T) tangleFiles {
	t.Helper()
	m := newScripted(t)
	for i := range 3 {
		m.edit(account(fmt.Sprint("account ", i), text(accTerritory, "north")))
	}
	for _, name := range []string{"contact 0", "contact 1", "order 0", "order 1", "line 0", "line 1"} {
		m.edit(makeOp(name, "account 0", "order 0"))
	}
	f := tangleFiles{dir: t.TempDir(), seq: m.seq, head: m.head()}
	r, err := Open(tangleConfig(f.dir, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	r.advance(func(p *position) { p.timeline = m.timeline }) // as a Welcome has it
	m.states[replicaN] = &store.NodeState{Node: replicaN}
	if err := (&pull{r: r}).take((&scriptedFeed{m: m, node: replicaN, fresh: true}).next()); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, m.db.Path(), filepath.Join(f.dir, "master.db"))
	return f
}

func tangleConfig(dir string, now func() time.Time) Config {
	return Config{Dir: dir, ID: ID{Cluster: "acme", Site: lisbon, Node: replicaN}, Now: now, Store: store.Options{NoSync: true},
		Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("there is no line") }, Masters: func() []string { return nil }}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f tangleFiles) open(t *testing.T, rt *rapid.T) *tangle {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"master.db", "base.db", "journal.db"} {
		copyFile(t, filepath.Join(f.dir, name), filepath.Join(dir, name))
	}
	db, err := store.Open(filepath.Join(dir, "master.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	x := &tangle{T: rt, dir: dir, now: time.Now()}
	x.m = &scripted{tb: t, db: db, timeline: 1, headNode: 1, seq: f.seq, states: map[crm.NodeID]*store.NodeState{replicaN: {Node: replicaN}},
		site: map[crm.NodeID]string{replicaN: lisbon}, changed: make(chan struct{}), now: x.tick}
	x.feed = &scriptedFeed{m: x.m, node: replicaN, cursor: f.head, at: f.head, began: true}
	x.reopen()
	return x
}

func (x *tangle) tick() time.Time {
	x.now = x.now.Add(time.Second)
	return x.now
}

func (x *tangle) reopen() {
	r, err := Open(tangleConfig(x.dir, x.tick))
	if err != nil {
		x.Fatal(err)
	}
	x.r = r
}

func (x *tangle) close() {
	for _, err := range []error{x.r.Close(), x.m.db.Close(), os.RemoveAll(x.dir)} {
		if err != nil {
			x.Fatal(err)
		}
	}
}

// then makes a step, and compares.
func (x *tangle) then(step func(*rapid.T)) func(*rapid.T) {
	return func(t *rapid.T) {
		step(t)
		x.same(t)
	}
}

// same compares what was folded step by step with the whole fold.
func (x *tangle) same(t *rapid.T) {
	j, err := x.r.journal.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Rollback()
	err = x.r.base.View(func(tx *store.Tx) error {
		overlay, traces := x.state(j)
		f, err := x.r.newFolder(j, tx)
		if err != nil {
			return err
		}
		if err := f.all(); err != nil {
			return err
		}
		overlayNow, tracesNow := x.state(j)
		if diff := cmp.Diff(overlayNow, overlay); diff != "" {
			t.Errorf("overlay (-whole fold +as it is):\n%s", diff)
		}
		if diff := cmp.Diff(tracesNow, traces); diff != "" {
			t.Errorf("traces (-whole fold +as they are):\n%s", diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// state returns the overlay and the traces as text.
func (x *tangle) state(j *store.JTx) (overlay map[string]string, traces map[crm.Seq][]store.RecordKey) {
	raw, err := overlayBytes(j)
	if err != nil {
		x.Fatal(err)
	}
	overlay = map[string]string{}
	for k, b := range raw {
		rec, err := crm.DecodeRecord(k.Entity, k.ID, b)
		if err != nil {
			x.Fatal(err)
		}
		overlay[k.String()] = fmt.Sprintf("%+v", *rec)
	}
	traces = map[crm.Seq][]store.RecordKey{}
	for e, err := range j.Outbox(0) {
		if err != nil {
			x.Fatal(err)
		}
		if traces[e.Seq], err = j.Touched(e.Seq); err != nil {
			x.Fatal(err)
		}
	}
	return overlay, traces
}

// commits has the branch make some edits.
func (x *tangle) commits(t *rapid.T) {
	for range rapid.IntRange(1, 6).Draw(t, "edits") {
		x.commit(t)
	}
}

// commit makes an edit, which the branch may refuse.
func (x *tangle) commit(t *rapid.T) {
	req := crm.Request{Actor: "bea", Intent: "test", Ops: x.ops(t, x.token), Guards: x.guards(t)}
	_, err := x.r.Commit(t.Context(), req)
	if code := crm.CodeOf(err); err != nil && (code == "" || code == crm.CodeInternal) {
		t.Fatal(err)
	}
}

// token is what a screen of the branch shows of the record now.
func (x *tangle) token(e crm.EntityID, record crm.RecordID) (token crm.Token) {
	_, err := x.r.Read(x.Context(), crm.Demand{}, func(r *store.Reader) error {
		rec, err := r.Record(e, record)
		if rec != nil {
			token = r.Token(rec)
		}
		return err
	})
	if err != nil {
		x.Fatal(err)
	}
	return token
}

func (x *tangle) headOffice(t *rapid.T) {
	ops := x.ops(t, func(crm.EntityID, crm.RecordID) crm.Token { return crm.Token{Timeline: 1, Rev: x.m.head()} })
	x.m.headOffice(x.tick().UnixMilli(), ops...)
}

// decide has the masters take some of the outbox.
func (x *tangle) decide(t *rapid.T) {
	f := &syncproto.Push{First: x.sent + 1}
	n := rapid.IntRange(1, 4).Draw(t, "mutations")
	err := x.r.journal.View(func(j *store.JTx) error {
		for e, err := range j.Outbox(x.sent) {
			if err != nil || len(f.Mutations) == n {
				return err
			}
			f.Mutations = append(f.Mutations, e.Bytes)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Mutations) == 0 {
		t.Skip("nothing to decide")
	}
	x.sent = x.m.react(replicaN, f).(*syncproto.Pushed).Seq
}

func (x *tangle) batch(t *rapid.T) {
	b := x.feed.next()
	if b == nil {
		t.Skip("nothing new")
	}
	if err := (&pull{r: x.r}).take(b); err != nil {
		t.Fatal(err)
	}
}

func (x *tangle) restart(t *rapid.T) {
	if err := x.r.Close(); err != nil {
		t.Fatal(err)
	}
	x.reopen()
}

// crash ends the branch between a batch's transaction of the base and the
// journal's.
func (x *tangle) crash(t *rapid.T) {
	b := x.feed.next()
	if b == nil {
		t.Skip("nothing new")
	}
	c := &change{r: x.r, batch: b, items: b.Items, whole: b.Whole, notes: b.Outcomes}
	err := x.r.base.Update(func(tx *store.Tx) error {
		c.tx = tx
		return c.commit()
	})
	if err != nil {
		t.Fatal(err)
	}
	x.restart(t)
}

// The records of a tangle, by name.
var tangleNames = []string{"account 0", "account 1", "account 2", "contact 0", "contact 1", "contact 2", "order 0", "order 1", "order 2", "line 0", "line 1", "line 2"}

var (
	tangleEntity = map[string]crm.EntityID{"account": catalog.Account, "contact": catalog.Contact, "order": catalog.Order, "line": catalog.OrderLine}
	tangleText   = map[crm.EntityID]crm.FieldID{catalog.Account: accDescription, catalog.Contact: 37, catalog.Order: 31, catalog.OrderLine: 24}
	tangleParent = map[crm.EntityID]crm.FieldID{catalog.Contact: 18, catalog.Order: 19}
)

const tangleUnique = crm.FieldID(16)

func entityOf(name string) crm.EntityID { return tangleEntity[name[:len(name)-2]] }

// makeOp creates the record, if it is a contact or order in the account, if it
// is a line in the order.
func makeOp(name, inAccount, inOrder string, cells ...crm.Input) crm.Op {
	switch e := entityOf(name); e {
	case catalog.Account:
		return account(name, cells...)
	case catalog.Contact:
		return create(e, name, append(cells, text(22, name), crm.Input{Field: 18, Value: crm.LinkValue(id(inAccount))})...)
	case catalog.Order:
		return orderOp(name, inAccount, cells...)
	default:
		return create(e, name, append(cells, crm.Input{Field: 18, Value: crm.LinkValue(id(inOrder))}, crm.Input{Field: 21, Value: crm.DecimalValue(1, 0, "")})...)
	}
}

// ops draws one op or two. shown tells what the author's screen shows of a record.
func (x *tangle) ops(t *rapid.T, shown func(crm.EntityID, crm.RecordID) crm.Token) []crm.Op {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) crm.Op {
		name := rapid.SampledFrom(tangleNames).Draw(t, "record")
		op := x.op(t, name)
		if op.Kind != crm.OpCreate && rapid.Bool().Draw(t, "seen") {
			op.Seen = shown(op.Entity, op.Record)
		}
		return op
	}), 1, 2).Draw(t, "ops")
}

func (x *tangle) op(t *rapid.T, name string) crm.Op {
	e, any := entityOf(name), rapid.IntRange(0, 2)
	value := crm.Input{Field: tangleText[e], Value: crm.TextValue(fmt.Sprint("text ", any.Draw(t, "text")))}
	key := crm.Input{Field: tangleUnique, Value: crm.TextValue(fmt.Sprint("key ", any.Draw(t, "key")))}
	op := crm.Op{Kind: crm.OpPatch, Entity: e, Record: id(name)}
	switch rapid.SampledFrom([]string{"create", "text", "text", "key", "move", "territory", "delete", "restore", "status", "points"}).Draw(t, "op") {
	case "create":
		cells := []crm.Input{value}
		if rapid.Bool().Draw(t, "keyed") {
			cells = append(cells, key)
		}
		return makeOp(name, fmt.Sprint("account ", any.Draw(t, "account")), fmt.Sprint("order ", any.Draw(t, "order")), cells...)
	case "key":
		op.Cells = []crm.Input{key}
	case "delete":
		op.Kind = crm.OpDelete
	case "restore":
		op.Kind = crm.OpRestore
	case "move":
		if f, ok := tangleParent[e]; ok {
			op.Cells = []crm.Input{{Field: f, Value: crm.LinkValue(id(fmt.Sprint("account ", any.Draw(t, "to"))))}}
			return op
		}
		op.Cells = []crm.Input{value}
	case "territory":
		if e == catalog.Account {
			op.Cells = []crm.Input{text(accTerritory, rapid.SampledFrom([]string{"north", "south"}).Draw(t, "territory"))}
			return op
		}
		op.Cells = []crm.Input{value}
	case "status":
		if e == catalog.Order {
			op.Cells = []crm.Input{{Field: 21, Value: crm.ChoiceValue(rapid.SampledFrom([]string{"open", "confirmed", "shipped"}).Draw(t, "status"))}}
			return op
		}
		op.Cells = []crm.Input{value}
	case "points":
		if e == catalog.Contact {
			op.Kind, op.Cells = crm.OpCounterAdd, []crm.Input{{Field: 38, Value: crm.IntegerValue(1)}}
			return op
		}
		op.Cells = []crm.Input{value}
	default:
		op.Cells = []crm.Input{value}
	}
	return op
}

// guards draws a condition now and then, which turns an edit's outcome when
// somebody else changes what it is about.
func (x *tangle) guards(t *rapid.T) []crm.Guard {
	if rapid.IntRange(0, 2).Draw(t, "guarded") > 0 {
		return nil
	}
	name := rapid.SampledFrom(tangleNames).Draw(t, "guard")
	g := crm.Guard{Entity: entityOf(name), Record: id(name), Kind: rapid.SampledFrom([]crm.GuardKind{crm.GuardExists, crm.GuardAbsent, crm.GuardEquals}).Draw(t, "condition")}
	if g.Kind == crm.GuardEquals {
		g.Field, g.Value = tangleText[g.Entity], crm.TextValue(fmt.Sprint("text ", rapid.IntRange(0, 2).Draw(t, "equals")))
	}
	return []crm.Guard{g}
}

// TestMemberships: a change is told to the sets that the record joins or leaves
// and to the unique values that it takes or frees, and to no others.
func TestMemberships(t *testing.T) {
	m := newScripted(t)
	var contact *crm.Entity
	m.view(func(tx *store.Tx) { contact = tx.Schema().EntityByID(catalog.Contact) })
	rec := func(account, root, key string, deleted bool) *crm.Record {
		r := &crm.Record{Entity: catalog.Contact, ID: id("contact"), Root: id(root), Deleted: deleted}
		if key != "" {
			r.Cells = append(r.Cells, crm.Cell{Field: tangleUnique, Value: crm.TextValue(key)})
		}
		r.Cells = append(r.Cells, crm.Cell{Field: 18, Value: crm.LinkValue(id(account))})
		return r
	}
	key := func(s string) crm.RecordID { return valueID(catalog.Contact, tangleUnique, crm.TextValue(s)) }
	here, alive := rec("acme", "acme", "k", false), []crm.RecordID{underID(id("acme")), childrenID(id("acme")), key("k")}
	for _, c := range []struct {
		name     string
		old, now *crm.Record
		want     []crm.RecordID
	}{
		{"comes", nil, here, alive},
		{"goes", here, nil, alive},
		{"dies", here, rec("acme", "acme", "k", true), alive},
		{"comes back", rec("acme", "acme", "k", true), here, alive},
		{"stays", here, here, nil},
		{"moves", here, rec("globex", "globex", "k", false), []crm.RecordID{underID(id("acme")), underID(id("globex")), childrenID(id("acme")), childrenID(id("globex"))}},
		{"renames", here, rec("acme", "acme", "l", false), []crm.RecordID{key("k"), key("l")}},
		{"moves dead", rec("acme", "acme", "k", true), rec("globex", "globex", "k", true), []crm.RecordID{childrenID(id("acme")), childrenID(id("globex"))}},
	} {
		if got := memberships(contact, c.old, c.now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
