package replica

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A branch is a replica under test. In a bubble synctest.Wait lets everything
// happen that can happen now.
type branch struct {
	*Replica
	t    *testing.T
	dir  string
	stop func()
}

// open opens a branch without running it.
func open(t *testing.T, m *scripted, dir string, edits ...func(*Config)) *branch {
	t.Helper()
	c := Config{Dir: dir, ID: ID{Cluster: "acme", Site: lisbon, Node: replicaN}, Dial: m.dial, Masters: func() []string { return []string{"master:1"} }}
	for _, edit := range edits {
		edit(&c)
	}
	r, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return &branch{Replica: r, t: t, dir: dir, stop: func() {}}
}

// start opens and runs a branch, and waits until it can do no more.
func start(t *testing.T, m *scripted, dir string, edits ...func(*Config)) *branch {
	t.Helper()
	b := open(t, m, dir, edits...)
	b.run(m)
	return b
}

func (b *branch) run(m *scripted) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("run: %v", err)
		}
		m.mu.Lock()
		for _, c := range m.conns {
			_ = c.Close()
		}
		m.conns = nil
		m.mu.Unlock()
		synctest.Wait()
	}
	b.t.Cleanup(b.stop)
	synctest.Wait()
}

func (b *branch) commit(ops ...crm.Op) crm.Seq {
	b.t.Helper()
	r, err := b.Commit(b.t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: ops})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Seq
}

// refuse expects an edit to be refused with the code.
func (b *branch) refuse(want crm.Code, ops ...crm.Op) {
	b.t.Helper()
	_, err := b.Commit(b.t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: ops})
	if got := crm.CodeOf(err); got != want {
		b.t.Fatalf("commit: %v, want %s", err, want)
	}
}

func (b *branch) read(fn func(*store.Reader)) crm.Freshness {
	b.t.Helper()
	f, err := b.Read(b.t.Context(), crm.Demand{}, func(r *store.Reader) error { fn(r); return nil })
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

func (b *branch) record(e crm.EntityID, name string) (rec *crm.Record) {
	b.t.Helper()
	b.read(func(r *store.Reader) { rec, _ = r.Record(e, id(name)) })
	return rec
}

// field returns an account's value as readers see it, "-" if there is none.
func (b *branch) field(name string, f crm.FieldID) string {
	b.t.Helper()
	rec := b.record(catalog.Account, name)
	if rec == nil || rec.Deleted {
		return "-"
	}
	return rec.Value(f).String()
}

func (b *branch) token(name string) (t crm.Token) {
	b.t.Helper()
	rec := b.record(catalog.Account, name)
	b.read(func(r *store.Reader) { t = r.Token(rec) })
	return t
}

func (b *branch) outcome(seq crm.Seq) string {
	b.t.Helper()
	o, ok, err := b.Outcome(seq)
	switch {
	case err != nil:
		b.t.Fatal(err)
	case !ok:
		return "pending"
	case o.Code != "":
		return o.Kind.String() + " " + string(o.Code)
	}
	return o.Kind.String()
}

// sound expects Check to find nothing.
func (b *branch) sound() {
	b.t.Helper()
	findings, err := b.Check(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range findings {
		b.t.Errorf("check: %s: %s", f.File, f.Finding)
	}
}

func (b *branch) want(got, want any) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("(-want +got):\n%s", diff)
	}
}

// same expects base and master to hold the same live records.
func (b *branch) same(m *scripted) {
	b.t.Helper()
	m.view(func(want *store.Tx) {
		err := b.base.View(func(got *store.Tx) error {
			a, _ := authorOf(want, lisbon)
			for _, t := range a.holds {
				w, _ := want.Digest(t)
				if g, _ := got.Digest(t); g != w {
					b.t.Errorf("territory %d differs from the master's", t)
				}
			}
			return nil
		})
		if err != nil {
			b.t.Error(err)
		}
	})
}

// copyFiles copies a node's directory as a crash would leave it.
func copyFiles(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"journal.db", "base.db"} {
		raw, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func bubble(t *testing.T, fn func(*testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

func TestReplica_EditGoesRound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		b.want(b.field("acme", accName), "acme")
		b.want(b.Status().Cursor, m.head())

		seen := b.token("acme")
		m.set(func() { m.holdFeed = true })
		seq := b.commit(patch(catalog.Account, "acme", seen, text(accDescription, "from lisbon")))
		b.want(b.field("acme", accDescription), "from lisbon")
		synctest.Wait()
		b.want(b.outcome(seq), "pending")
		b.want(b.Status().Outbox.Entries, 1)
		b.want(b.token("acme"), crm.Token{Timeline: 1, Node: replicaN, Rev: seen.Rev, Seq: seq})
		b.sound()

		m.set(func() { m.holdFeed = false })
		o, err := b.Await(t.Context(), seq)
		b.want(err, nil)
		b.want(o.Kind, crm.Accepted)
		synctest.Wait()
		b.want(b.Status().Outbox.Entries, 0)
		b.want(b.field("acme", accDescription), "from lisbon")
		b.want(b.record(catalog.Account, "acme").Stamp.Rev, m.head())
		b.want(m.applied[len(m.applied)-1], m.head())
		b.same(m)
		b.sound()
	})
}

func TestReplica_OfflineEditsSurviveACrash(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		m.cut()
		for i := range 20 {
			b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accDescription, strings.Repeat("x", i+1))))
		}
		b.commit(account("globex", text(accTerritory, "south")))
		dir := copyFiles(t, b.dir)
		b.stop()

		c := open(t, m, dir)
		c.want(c.field("acme", accDescription), strings.Repeat("x", 20))
		c.want(c.field("globex", accName), "globex")
		c.want(c.Status().Outbox.Entries, 21)
		c.sound()
		m.heal()
		c.run(m)
		c.want(c.Status().Outbox.Entries, 0)
		c.want(c.outcome(21), "accepted")
		c.same(m)
		c.sound()
		m.view(func(tx *store.Tx) {
			rec, _ := tx.Record(catalog.Account, id("globex"))
			c.want(rec.Stamp.Node, replicaN)
		})
	})
}

func TestReplica_CrashBetweenBaseAndJournal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		m.set(func() { m.holdFeed = true })
		b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accDescription, "mine")))
		journal := copyFiles(t, b.dir)
		m.set(func() { m.holdFeed = false })
		synctest.Wait()
		both := copyFiles(t, b.dir)
		b.stop()
		raw, err := os.ReadFile(filepath.Join(journal, "journal.db"))
		if err == nil {
			err = os.WriteFile(filepath.Join(both, "journal.db"), raw, 0o600)
		}
		b.want(err, nil)

		c := open(t, m, both)
		c.want(c.Status().Outbox.Entries, 0)
		c.want(c.field("acme", accDescription), "mine")
		c.want(c.record(catalog.Account, "acme").Stamp.Rev, m.head())
		c.sound()
	})
}

func TestCommit_RefusesWhatTheMasterWould(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		fresh := open(t, m, t.TempDir())
		fresh.refuse(crm.CodeUnavailable, account("too soon"))
		b := start(t, m, t.TempDir())
		before := b.Status().Seq
		b.refuse(crm.CodeExists, account("acme"))
		b.refuse(crm.CodeNotFound, patch(catalog.Account, "nobody", crm.Token{}, text(accDescription, "x")))
		b.refuse(crm.CodeRequired, patch(catalog.Account, "acme", b.token("acme"), crm.Input{Field: accName}))
		b.refuse(crm.CodeForbidden, create(crm.EntityTerritory, "t", text(crm.TerritoryCode, "x"), text(crm.TerritoryName, "x")))
		b.refuse(crm.CodeInvalid)
		large := text(accDescription, strings.Repeat("x", crm.MaxText))
		b.refuse(crm.CodeTooLarge, account("big 1", large), account("big 2", large))
		b.want(b.Status().Seq, before)

		order := create(catalog.Order, "order", crm.Input{Field: 19, Value: crm.LinkValue(id("acme"))},
			crm.Input{Field: 21, Value: crm.ChoiceValue("shipped")}, crm.Input{Field: 22, Value: crm.DateDays(20_000)})
		b.commit(order)
		move := crm.Op{Kind: crm.OpTransition, Entity: catalog.Order, Record: id("order"), Seen: crm.Token{Timeline: 1, Node: replicaN, Seq: before + 1},
			Cells: []crm.Input{{Field: 21, Value: crm.ChoiceValue("shipped")}, {Field: 21, Value: crm.ChoiceValue("draft")}}}
		b.refuse(crm.CodeTransition, move)
		b.sound()
	})
}

func TestSeries_GaplessAfterRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		m.edit(orderOp("old", "acme", text(18, "ORD-LISBON-000041")))
		b := start(t, m, t.TempDir())
		m.cut()
		b.commit(orderOp("o1", "acme"))
		b.refuse(crm.CodeRequired, create(catalog.Order, "bad"))
		b.refuse(crm.CodeExists, orderOp("o1", "acme"))
		b.commit(orderOp("typed", "acme", text(18, "ORD-LISBON-000043")))
		b.commit(orderOp("o2", "acme"), orderOp("o3", "acme"))
		b.refuse(crm.CodeDuplicateKey, orderOp("twice", "acme", text(18, "ORD-LISBON-000044")))
		var got []string
		for _, name := range []string{"o1", "typed", "o2", "o3"} {
			got = append(got, b.record(catalog.Order, name).Value(18).Str())
		}
		b.want(got, []string{"ORD-LISBON-000042", "ORD-LISBON-000043", "ORD-LISBON-000044", "ORD-LISBON-000045"})
		b.sound()
	})
}

func orderOp(name, account string, cells ...crm.Input) crm.Op {
	return create(catalog.Order, name, append([]crm.Input{{Field: 19, Value: crm.LinkValue(id(account))}, {Field: 22, Value: crm.DateDays(20_000)}}, cells...)...)
}

func TestCommit_GroupsShareOneTransaction(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		m.cut()
		synctest.Wait()
		before := b.journal.Stats().Commits
		const n = 40
		<-b.commits.turn // as a caller that is writing does
		errs := make(chan error, n)
		for i := range n {
			go func() {
				op := account(string(rune('a'+i%26))+strings.Repeat("a", i), text(accTerritory, "north"))
				if i%10 == 9 {
					op.Cells = nil
				}
				_, err := b.Commit(t.Context(), crm.Request{Actor: "bea", Ops: []crm.Op{op}})
				errs <- err
			}()
		}
		synctest.Wait()
		b.want(len(errs), 0)
		b.commits.turn <- struct{}{}
		failed := 0
		for range n {
			if err := <-errs; err != nil {
				b.want(crm.CodeOf(err), crm.CodeRequired)
				failed++
			}
		}
		b.want(failed, n/10)
		b.want(b.journal.Stats().Commits-before, uint64(1))
		b.want(b.Status().Outbox.Entries, n-n/10)
		b.sound()
	})
}

func TestCommit_DiskFullAcknowledgesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		b.stop()
		if err := b.journal.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(b.dir, "journal.db")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if b.journal, err = store.OpenJournal(path, store.Options{MaxSize: int(info.Size())}); err != nil {
			t.Fatal(err)
		}
		last := b.Status().Seq
		for i := range 2000 {
			_, err = b.Commit(t.Context(), crm.Request{Actor: "bea", Ops: []crm.Op{account("full "+strconv.Itoa(i), text(accTerritory, "north"), text(accDescription, strings.Repeat("x", 30_000)))}})
			if err != nil {
				break
			}
			last++
		}
		b.want(crm.CodeOf(err), crm.CodeDiskFull)
		b.want(b.Status().Seq, last)
		b.want(b.read(func(*store.Reader) {}).Seq, last)
		b.sound()
	})
}

func TestCommit_WithdrawnBeforeItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		<-b.commits.turn
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() {
			_, err := b.Commit(ctx, crm.Request{Actor: "bea", Ops: []crm.Op{account("gone", text(accTerritory, "north"))}})
			got <- err
		}()
		synctest.Wait()
		cancel()
		b.want((<-got).Error(), context.Canceled.Error())
		b.commits.turn <- struct{}{}
		b.commit(account("here", text(accTerritory, "north")))
		b.want(b.field("gone", accName), "-")
	})
}

func TestRebase_MastersChangeUnderPendingEdits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		rev := m.edit(account("acme", text(accTerritory, "north"), text(accDescription, "old"), crm.Input{Field: accEmployees, Value: crm.IntegerValue(1)}))
		b := start(t, m, t.TempDir())
		m.set(func() { m.holdFeed = true })
		m.cut()
		b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accDescription, "mine")))
		b.commit(create(catalog.Contact, "carl", contactCells("acme")...))
		m.edit(patch(catalog.Account, "acme", crm.Token{Rev: rev}, crm.Input{Field: accEmployees, Value: crm.IntegerValue(9)}, text(accTerritory, "south")))

		// The edits are not sent until the change has been seen here.
		m.set(func() { m.down, m.busy = false, 1<<20 })
		m.set(func() { m.holdFeed = false })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		rec := b.record(catalog.Account, "acme")
		b.want(rec.Value(accDescription).Str(), "mine")
		b.want(rec.Value(accEmployees).Int(), int64(9))
		b.want(b.record(catalog.Contact, "carl").Territory, rec.Territory)
		b.want(rec.Territory, b.territory("south"))
		b.want(b.Status().Outbox.Entries, 2)
		b.sound()

		m.set(func() { m.busy = 0 })
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want(b.Status().Outbox.Entries, 0)
		b.same(m)
		b.sound()
	})
}

func (b *branch) territory(code string) (t crm.TerritoryID) {
	b.read(func(r *store.Reader) { t, _, _ = r.TerritoryByCode(code) })
	return t
}

func contactCells(account string) []crm.Input {
	return []crm.Input{{Field: contactLast, Value: crm.TextValue("Carlson")}, {Field: contactAccount, Value: crm.LinkValue(id(account))}}
}

var contactLast, contactAccount = contactFields()

func contactFields() (last, account crm.FieldID) {
	for _, e := range catalog.Entities() {
		if e.ID != catalog.Contact {
			continue
		}
		for _, f := range e.Fields {
			switch f.Name {
			case "last_name":
				last = f.ID
			case "account":
				account = f.ID
			}
		}
	}
	return last, account
}

func TestRebase_OutcomesThatAreNotAcceptance(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		start0 := m.now().UnixMilli()
		rev := m.edit(account("acme", text(accTerritory, "north"), text(accDescription, "old"), text(accLegal, "Acme Ltd")))
		m.edit(account("doomed", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		m.cut()
		time.Sleep(time.Minute)
		merged := b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accDescription, "mine")))
		parked := b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accLegal, "Acme plc")))
		rejected := b.commit(account("twin", text(accTerritory, "north"), text(16, "KEY-1")))
		depends := b.commit(patch(catalog.Account, "twin", b.token("twin"), text(accDescription, "more")))
		gone := b.commit(patch(catalog.Account, "doomed", b.token("doomed"), text(accDescription, "late")))

		m.headOffice(start0+1000, patch(catalog.Account, "acme", crm.Token{Rev: rev}, text(accDescription, "theirs"), text(accLegal, "Acme Inc")))
		m.edit(account("other", text(accTerritory, "south"), text(16, "key-1")))
		m.edit(crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: id("doomed"), Seen: crm.Token{Rev: m.head()}})
		m.heal()
		time.Sleep(2 * time.Minute)
		synctest.Wait()

		for seq, want := range map[crm.Seq]string{merged: "merged", parked: "parked conflict", rejected: "rejected duplicate_key",
			depends: "rejected depends_on", gone: "parked deleted"} {
			b.want(b.outcome(seq), want)
		}
		b.want(b.field("acme", accDescription), "mine")
		b.want(b.field("acme", accLegal), "Acme Inc")
		b.want(b.field("twin", accName), "-")
		b.want(b.field("doomed", accName), "-")
		kinds := map[string]int{}
		b.read(func(r *store.Reader) {
			for rec, err := range r.Scan(r.Schema().EntityByID(crm.EntityAttention)) {
				if err != nil {
					t.Error(err)
					return
				}
				kinds[rec.Value(crm.AttentionKind).Str()]++
			}
		})
		b.want(kinds, map[string]int{"conflict": 1, "parked": 2, "rejected": 2})
		b.same(m)
		b.sound()
	})
}

func TestRebase_ShowsEarlyWhatWillNotStand(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		m.set(func() { m.busy = 1 << 20 })
		b.commit(account("mine", text(accTerritory, "north"), text(16, "K")))
		m.edit(account("theirs", text(accTerritory, "north"), text(16, "k")))
		synctest.Wait()
		b.want(b.field("mine", accName), "-")
		b.want(b.field("theirs", accName), "theirs")
		b.want(b.Status().Outbox.Entries, 1)
		b.sound()
		m.edit(patch(catalog.Account, "theirs", crm.Token{Rev: m.head()}, crm.Input{Field: 16}))
		synctest.Wait()
		b.want(b.field("mine", accName), "mine")
		b.sound()
	})
}

func TestPush_BusyAndGapOnlyDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		m.cut()
		for i := range 60 {
			b.commit(account("many"+strings.Repeat("i", i), text(accTerritory, "north"), text(accDescription, strings.Repeat("x", 30_000))))
		}
		m.set(func() { m.down, m.busy, m.gaps = false, 2, 3 })
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		b.want(b.Status().Outbox.Entries, 0)
		b.want(b.Status().Decided, crm.Seq(60))
		b.same(m)
		b.sound()
	})
}

func TestSession_ARefusedNodeKeepsServing(t *testing.T) {
	for code, answer := range map[crm.Code]syncproto.Frame{
		crm.CodeFenced:  &syncproto.Fenced{Incarnation: 9, Reason: "old copy"},
		crm.CodeFrozen:  &syncproto.Frozen{Reason: "two disks"},
		"wrong_cluster": &syncproto.Refused{Code: "wrong_cluster", Message: "not ours"},
	} {
		t.Run(string(code), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newScripted(t)
				b := start(t, m, t.TempDir())
				m.cut()
				m.set(func() { m.down, m.answer = false, answer })
				seq := b.commit(account("here", text(accTerritory, "north")))
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				b.want(b.Status().Code, code)
				b.want(b.Status().Connected, false)
				b.want(b.field("here", accName), "here")
				b.want(b.outcome(seq), "pending")
				b.want(b.Ready(), nil)
				if n := len(m.hellos); n > 30 {
					t.Errorf("%d sessions were tried in ten minutes", n)
				}
				m.set(func() { m.answer = nil })
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				b.want(b.outcome(seq), "accepted")
			})
		})
	}
}

func TestSession_ASilentMasterIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.mute = true
		b := start(t, m, t.TempDir())
		b.want(b.Status().Connected, true)
		m.set(func() { m.mute = false })
		time.Sleep(32 * time.Second)
		synctest.Wait()
		b.want(b.Status().Connected, true)
		b.want(b.Ready(), nil)
		b.want(len(m.hellos), 2)
	})
}

func TestSession_BackOffGrowsAndEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.down = true
		var tries atomic.Int64
		dial := m.dial
		b := start(t, m, t.TempDir(), func(c *Config) {
			c.Dial = func(ctx context.Context, addr string) (net.Conn, error) { tries.Add(1); return dial(ctx, addr) }
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := tries.Load(); n < 60 || n > 400 {
			t.Errorf("%d tries in an hour without a master, want about 120", n)
		}
		m.heal()
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want(b.Status().Connected, true)
	})
}

func TestBootstrap_InterruptedAndResumed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		fill(m, 300)
		m.part, m.stopAt = 20, 3
		b := open(t, m, t.TempDir())
		b.part = 20
		b.run(m)
		m.cut()
		synctest.Wait()
		b.want(crm.CodeOf(b.Ready()), crm.CodeUnavailable)
		if b.Status().Staged == 0 {
			t.Fatal("nothing was kept of the bootstrap that broke off")
		}
		m.edit(crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: id("bulk 0"), Seen: crm.Token{Rev: m.head()}})
		dir := copyFiles(t, b.dir)
		b.stop()

		c := open(t, m, dir)
		c.part = 20
		staged := c.Status().Staged
		m.set(func() { m.down, m.stopAt = false, 0 })
		c.run(m)
		c.want(m.lastHello().Staged, staged)
		c.want(m.lastHello().Bootstrap, false)
		c.want(c.Ready(), nil)
		c.want(c.field("bulk 0", accName), "-")
		c.want(c.field("bulk 299", accName), "bulk 299")
		c.same(m)
		c.sound()
	})
}

func fill(m *scripted, n int) {
	for i := 0; i < n; i += 10 {
		var ops []crm.Op
		for k := i; k < i+10; k++ {
			ops = append(ops, account("bulk "+strconv.Itoa(k), text(accTerritory, "north")))
		}
		m.edit(ops...)
	}
}

func TestBootstrap_HalfACatalogueIsPutAside(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		// The field that titles an account is defined anew, so it comes last.
		e := func() *crm.Record {
			var found *crm.Record
			m.view(func(tx *store.Tx) {
				for rec, err := range tx.Scan(crm.EntityField) {
					if err == nil && rec.Value(crm.MetaEntity).Int() == int64(catalog.Account) && rec.Value(crm.MetaName).Str() == "name" {
						found = rec
					}
				}
			})
			return found
		}()
		fill(m, 50)
		def := strings.Replace(e.Value(crm.MetaDefinition).Str(), `"label":"Name"`, `"label":"Company"`, 1)
		m.edit(crm.Op{Kind: crm.OpPatch, Entity: crm.EntityField, Record: e.ID, Seen: crm.Token{Rev: m.head()}, Cells: []crm.Input{text(crm.MetaDefinition, def)}})
		m.part = 15
		b := open(t, m, t.TempDir())
		b.part = 15
		b.run(m)
		b.want(b.Ready(), nil)
		b.same(m)
		b.sound()
	})
}

func TestCatchUp_StagedInterruptedAndResumed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		m.cut()
		before := b.Status().Cursor
		fill(m, 200)
		b.part = 20
		m.set(func() { m.down, m.part, m.stopAt = false, 20, 4 })
		for range 5000 { // the next session comes after a random time
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if b.Status().Staged > before {
				break
			}
		}
		m.cut()
		b.want(b.Status().Cursor, before)
		b.want(b.field("bulk 0", accName), "-")
		if b.Status().Staged <= before {
			t.Fatal("nothing was staged")
		}
		dir := copyFiles(t, b.dir)
		b.stop()

		m.set(func() { m.down, m.stopAt = false, 0 })
		c := start(t, m, dir)
		if m.lastHello().Staged <= before {
			t.Error("the catch-up began anew")
		}
		c.want(c.Status().Cursor, m.head())
		c.want(c.field("bulk 199", accName), "bulk 199")
		c.same(m)
		c.sound()
	})
}

// counterOf returns the value of a counter without labels.
func counterOf(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestDigest_MismatchIsAlarmedAndRepaired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		reg := prometheus.NewRegistry()
		b := start(t, m, t.TempDir(), func(c *Config) { c.Metrics = NewMetrics(reg) })
		m.set(func() {
			m.damage = func(batch *syncproto.Batch) {
				for i := range batch.Items {
					if it := &batch.Items[i]; it.ID == id("acme") && it.Partial {
						rec, _ := crm.DecodeRecord(it.Entity, it.ID, it.Body)
						rec.Cells[0].Value = crm.TextValue("damaged on the way")
						it.Body = crm.AppendRecord(nil, rec)
					}
				}
			}
		})
		cursor := b.Status().Cursor
		m.edit(patch(catalog.Account, "acme", crm.Token{Rev: m.head()}, text(accDescription, "right")))
		synctest.Wait()
		b.want(b.Status().Cursor, cursor)
		b.want(b.Status().Suspect, []crm.TerritoryID{b.territory("north")})
		b.want(b.field("acme", accDescription), "")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.want(m.lastHello().Resend, []crm.TerritoryID{b.territory("north")})
		b.want(b.field("acme", accDescription), "right")
		b.want(len(b.Status().Suspect), 0)
		b.same(m)
		b.sound()
		b.want(counterOf(t, reg, "tradepost_state_hash_mismatch_total") > 0, true)
	})
}

func TestPurge_LostGrantLeavesNoByte(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("kept", text(accTerritory, "north")))
		for i := range 30 {
			m.edit(account("secret "+strconv.Itoa(i), text(accTerritory, "south"), text(accDescription, "CANARY-"+strconv.Itoa(i))))
		}
		b := start(t, m, t.TempDir())
		b.commit(patch(catalog.Account, "secret 1", b.token("secret 1"), text(accDescription, "CANARY-edited")))
		synctest.Wait()
		m.set(func() { m.busy = 1 << 20 })
		b.commit(patch(catalog.Account, "secret 2", b.token("secret 2"), text(accDescription, "TYPED-in vain")))
		if !holds(t, b.dir, "CANARY") {
			t.Fatal("the canary is not in the files even before")
		}
		rev := m.edit(crm.Op{Kind: crm.OpSetRemove, Entity: crm.EntitySite, Record: id("site lisbon"), Seen: crm.Token{Rev: m.head()},
			Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("south")}}})
		synctest.Wait()
		b.want(b.field("secret 1", accName), "-")
		b.want(b.field("kept", accName), "kept")
		m.set(func() { m.busy = 0 })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		b.want(b.outcome(2), "rejected territory")
		// What was asked for in vain is on the attention list of the site's home,
		// and nowhere else.
		if raw, err := os.ReadFile(filepath.Join(b.dir, "journal.db")); err != nil || bytes.Contains(raw, []byte("TYPED")) {
			t.Errorf("the rejected edit is still in the journal (%v)", err)
		}
		if holds(t, b.dir, "CANARY") {
			t.Error("purged bytes are still in the files")
		}
		var proofs []int64
		m.view(func(tx *store.Tx) {
			for rec, err := range tx.Scan(crm.EntityPurge) {
				if err != nil {
					t.Error(err)
					return
				}
				proofs = append(proofs, rec.Value(crm.PurgeRev).Int(), rec.Value(crm.PurgeCount).Int(), rec.Value(crm.PurgeLeft).Int(), rec.Value(crm.PurgeNode).Int())
				b.want(rec.Value(crm.PurgeTerritory).Str(), "south")
			}
		})
		b.want(proofs, []int64{int64(rev), 30, 0, int64(replicaN)})
		b.same(m)
		b.sound()

		// Granted again, the territory comes whole.
		m.edit(crm.Op{Kind: crm.OpSetAdd, Entity: crm.EntitySite, Record: id("site lisbon"), Seen: crm.Token{Rev: m.head()},
			Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("south")}}})
		synctest.Wait()
		b.want(b.field("secret 1", accDescription), "CANARY-edited")
		b.same(m)
		b.sound()
	})
}

// TestPurge_OutcomesNameNoRecordThatIsGone: the sentence of an outcome names its
// record, and stays as long as the note on the attention list does.
func TestPurge_OutcomesNameNoRecordThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("CANARY ltd", text(accTerritory, "south")))
		m.edit(account("plain ltd", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		gone, kept := b.token("CANARY ltd"), b.token("plain ltd")
		for _, name := range []string{"CANARY ltd", "plain ltd"} {
			m.edit(patch(catalog.Account, name, crm.Token{Rev: m.head()}, text(accDescription, "changed")))
		}
		synctest.Wait()
		b.commit(crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: id("CANARY ltd"), Seen: gone})
		b.commit(crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: id("plain ltd"), Seen: kept})
		synctest.Wait()
		m.edit(crm.Op{Kind: crm.OpSetRemove, Entity: crm.EntitySite, Record: id("site lisbon"), Seen: crm.Token{Rev: m.head()},
			Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("south")}}})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if holds(t, b.dir, "CANARY") {
			t.Error("the name of a purged record is still in the files")
		}
		for seq, word := range map[crm.Seq]string{1: "", 2: "plain ltd"} {
			o, decided, err := b.Outcome(seq)
			if err != nil || !decided || o.Kind != crm.Parked || !strings.Contains(o.Message, word) || word == "" && o.Message != "" {
				t.Errorf("edit %d: %+v, %v, %v; want it parked, and of the words %q", seq, o, decided, err, word)
			}
		}
		b.sound()
	})
}

// holds reports whether the text is anywhere in the node's files.
func holds(t *testing.T, dir, s string) bool {
	t.Helper()
	for _, name := range []string{"journal.db", "base.db"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(s)) {
			return true
		}
	}
	return false
}

func TestPurge_MovedRecordIsCompactedAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(create(crm.EntityTerritory, "territory east", text(crm.TerritoryCode, "east"), text(crm.TerritoryName, "East")))
		m.edit(account("mover", text(accTerritory, "north"), text(accDescription, "CANARY-moved")))
		m.edit(account("stays", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		m.edit(patch(catalog.Account, "mover", crm.Token{Rev: m.head()}, text(accTerritory, "east")))
		synctest.Wait()
		b.want(b.field("mover", accName), "-")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if holds(t, b.dir, "CANARY") {
			t.Error("the moved record is still in the files")
		}
		b.same(m)
		b.sound()
	})
}

// TestPurge_RecordMissingFromAWholeTerritory moves a record away while the branch
// is cut off and its territory is granted anew: no item says that it left.
func TestPurge_RecordMissingFromAWholeTerritory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(create(crm.EntityTerritory, "territory east", text(crm.TerritoryCode, "east"), text(crm.TerritoryName, "East")))
		m.edit(account("mover", text(accTerritory, "north"), text(accDescription, "CANARY-moved")))
		m.edit(account("stays", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		m.set(func() { m.down = true })
		m.cut()
		m.edit(patch(catalog.Account, "mover", crm.Token{Rev: m.head()}, text(accTerritory, "east")))
		for _, kind := range []crm.OpKind{crm.OpSetRemove, crm.OpSetAdd} {
			m.edit(crm.Op{Kind: kind, Entity: crm.EntitySite, Record: id("site lisbon"), Seen: crm.Token{Rev: m.head()},
				Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("north")}}})
		}
		m.heal()
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		b.want(b.field("mover", accName), "-")
		b.want(b.field("stays", accName), "stays")
		if holds(t, b.dir, "CANARY") {
			t.Error("the moved record is still in the files")
		}
		b.same(m)
		b.sound()
	})
}

func TestRollback_NewEditsAreRenumbered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		old := putBack(t, m)

		m.cut()
		c := open(t, m, old)
		seq := c.commit(account("new", text(accTerritory, "north")))
		c.commit(patch(catalog.Account, "new", crm.Token{Timeline: 1, Node: replicaN, Seq: seq}, text(accDescription, "after")))
		c.want(seq, crm.Seq(2))
		m.heal()
		c.run(m)
		c.want(c.field("four", accName), "four")
		c.want(c.field("new", accDescription), "after")
		c.want(c.outcome(seq), "accepted")
		c.want(c.Status().Seq, crm.Seq(6))
		c.want(m.states[replicaN].Incarnation, crm.Incarnation(2))
		m.view(func(tx *store.Tx) {
			rec, _ := tx.Record(catalog.Account, id("new"))
			c.want(rec.Stamp.Seq, crm.Seq(6))
		})
		c.same(m)
		c.sound()
	})
}

func TestRollback_JournalOlderThanBase(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		old := copyFiles(t, b.dir)
		b.commit(account("one", text(accTerritory, "north")))
		synctest.Wait()
		mixed := copyFiles(t, b.dir)
		b.stop()
		raw, err := os.ReadFile(filepath.Join(old, "journal.db"))
		if err == nil {
			err = os.WriteFile(filepath.Join(mixed, "journal.db"), raw, 0o600)
		}
		b.want(err, nil)

		m.cut()
		c := open(t, m, mixed)
		c.want(c.field("one", accName), "one")
		c.refuse(crm.CodeUnavailable, account("unchained", text(accTerritory, "north")))
		m.heal()
		c.run(m)
		seq := c.commit(account("chained", text(accTerritory, "north")))
		synctest.Wait()
		c.want(seq, crm.Seq(2))
		c.want(c.outcome(seq), "accepted")
		c.want(m.states[replicaN].Incarnation, crm.Incarnation(2))
		c.same(m)
		c.sound()
	})
}

func TestRollback_ForkIsFrozen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		b.commit(account("one", text(accTerritory, "north")))
		synctest.Wait()
		old := copyFiles(t, b.dir)
		b.commit(account("two", text(accTerritory, "north")))
		synctest.Wait()
		b.stop()

		c := open(t, m, old)
		c.commit(account("fork 1", text(accTerritory, "north")))
		c.commit(account("fork 2", text(accTerritory, "north")))
		c.run(m)
		c.want(c.Status().Code, crm.CodeFrozen)
		c.want(c.field("fork 2", accName), "fork 2")
		c.want(c.Status().Outbox.Entries, 2)
	})
}

func TestTimeline_RestoredMastersGetTheLostEditsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		b.commit(account("before", text(accTerritory, "north")))
		synctest.Wait()
		backup := filepath.Join(t.TempDir(), "backup.db")
		raw, err := os.ReadFile(m.db.Path())
		if err == nil {
			err = os.WriteFile(backup, raw, 0o600)
		}
		b.want(err, nil)
		state := *m.states[replicaN]
		b.commit(account("after", text(accTerritory, "north")))
		synctest.Wait()
		m.cut()
		synctest.Wait()
		b.want(m.db.Replace(backup), nil)
		m.set(func() { m.states[replicaN], m.timeline, m.down, m.busy = &state, 2, false, 1<<20 })
		time.Sleep(10 * time.Minute) // the tail is looked through meanwhile
		m.set(func() { m.busy = 0 })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.want(b.Status().Timeline, uint64(2))
		b.want(b.field("after", accName), "after")
		b.want(b.field("before", accName), "before")
		b.same(m)
		b.sound()
	})
}

// TestPurge_TailOfABaseFetchedAnew: what left while there was no base to leave
// left the tail's edits of it behind.
func TestPurge_TailOfABaseFetchedAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(create(crm.EntityTerritory, "territory east", text(crm.TerritoryCode, "east"), text(crm.TerritoryName, "East")))
		m.edit(account("mover", text(accTerritory, "north")))
		m.edit(account("stays", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		b.commit(patch(catalog.Account, "mover", b.token("mover"), text(accDescription, "CANARY-moved")))
		kept := b.commit(patch(catalog.Account, "stays", b.token("stays"), text(accDescription, "kept")))
		synctest.Wait()
		b.stop()
		dir := copyFiles(t, b.dir)
		m.edit(patch(catalog.Account, "mover", crm.Token{Rev: m.head()}, text(accTerritory, "east")))
		b.want(os.Remove(filepath.Join(dir, "base.db")), nil)
		c := start(t, m, dir)
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		c.want(c.field("mover", accName), "-")
		if holds(t, c.dir, "CANARY") {
			t.Error("an edit of the record that moved is still in the journal")
		}
		if e := tailEntry(t, c, kept); e.Seq != kept {
			t.Error("an edit of the record that stays is not kept any more")
		}
		c.same(m)
		c.sound()
	})
}

// tailEntry returns the entry of that Seq in the journal.
func tailEntry(t *testing.T, b *branch, seq crm.Seq) (e store.Entry) {
	t.Helper()
	journal, _ := b.Files()
	if err := journal.View(func(j *store.JTx) (err error) { e, _, err = j.Entry(seq); return err }); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRead_Levels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		within := func(d time.Duration, demand crm.Demand) (crm.Code, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			began := time.Now()
			_, err := b.Read(ctx, demand, func(*store.Reader) error { return nil })
			return crm.CodeOf(err), time.Since(began)
		}
		head := m.head()
		expect := func(d time.Duration, demand crm.Demand, code crm.Code, took time.Duration) {
			t.Helper()
			gotCode, gotTook := within(d, demand)
			b.want(gotCode, code)
			b.want(gotTook, took)
		}
		session := func(mark crm.Mark) crm.Demand { return crm.Demand{Level: crm.Session, Session: mark} }
		expect(time.Second, session(crm.Mark{Timeline: 1, Rev: head}), "", 0)
		expect(time.Second, session(crm.Mark{Timeline: 1, Rev: head + 1}), crm.CodeStale, time.Second)
		expect(time.Second, session(crm.Mark{Timeline: 2, Rev: 1}), crm.CodeStale, 0)
		expect(time.Second, session(crm.Mark{Timeline: 1, Rev: 1, Node: replicaN, Seq: 99}), crm.CodeStale, 0)
		expect(time.Second, crm.Demand{Level: crm.Bounded, MaxStale: time.Second}, "", 0)
		expect(time.Second, crm.Demand{Level: crm.Leader}, "", 0)
		expect(time.Second, crm.Demand{Level: "soon"}, crm.CodeInvalid, 0)

		go func() {
			time.Sleep(300 * time.Millisecond)
			m.edit(account("acme", text(accTerritory, "north")))
		}()
		expect(time.Second, session(crm.Mark{Timeline: 1, Rev: head + 1}), "", 300*time.Millisecond)

		time.Sleep(3 * time.Second) // bounded asks for a heartbeat of its own
		expect(time.Second, crm.Demand{Level: crm.Bounded, MaxStale: time.Second}, "", 0)

		m.set(func() { m.holdFeed = true })
		m.edit(account("late", text(accTerritory, "north")))
		expect(time.Second, crm.Demand{Level: crm.Leader}, crm.CodeStale, time.Second)
		m.set(func() { m.holdFeed = false })
		synctest.Wait()
		expect(time.Second, crm.Demand{Level: crm.Leader}, "", 0)

		m.cut()
		synctest.Wait()
		time.Sleep(2 * time.Second)
		expect(time.Second, crm.Demand{Level: crm.Bounded, MaxStale: time.Hour}, "", 0)
		expect(time.Second, crm.Demand{Level: crm.Bounded, MaxStale: time.Second}, crm.CodeStale, time.Second)
		expect(time.Second, crm.Demand{Level: crm.Leader}, crm.CodeStale, time.Second)
		expect(time.Second, crm.Demand{Level: crm.Local}, "", 0)
		f := b.read(func(*store.Reader) {})
		b.want(f.Connected, false)
	})
}

func TestSubscribe_SlowReaderIsDisconnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		quick, slow := b.Subscribe(ctx), b.Subscribe(ctx)
		b.commit(account("one", text(accTerritory, "north")))
		synctest.Wait()
		pending, decided := <-quick, <-quick
		b.want(pending, crm.Change{Entity: catalog.Account, Record: id("one"), Rev: crm.Pending})
		b.want(decided, crm.Change{Entity: catalog.Account, Record: id("one"), Rev: m.head()})
		n := 2
		for i := 0; n < 2*store.MaxUnread; i++ {
			var ops []crm.Op
			for k := range 100 {
				ops = append(ops, account("sub "+strconv.Itoa(100*i+k), text(accTerritory, "north")))
			}
			m.edit(ops...)
			synctest.Wait()
			for range 100 {
				if _, ok := <-quick; !ok {
					t.Fatal("the quick subscriber was disconnected")
				}
				n++
			}
		}
		got := 0
		for range slow {
			got++
		}
		if got > store.MaxUnread {
			t.Errorf("%d changes waited", got)
		}
		cancel()
		synctest.Wait()
		if _, ok := <-quick; ok {
			t.Error("the channel is open after its context ended")
		}
	})
}

func TestOpen_CorruptFiles(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		m.cut()
		b.commit(account("precious", text(accTerritory, "north")))
		dir := copyFiles(t, b.dir)
		b.stop()
		m.heal()

		if err := os.WriteFile(filepath.Join(dir, "base.db"), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := start(t, m, dir)
		c.want(c.Ready(), nil)
		c.want(c.field("precious", accName), "precious")
		c.want(c.outcome(1), "accepted")
		c.sound()
		broken := copyFiles(t, c.dir)
		if err := os.WriteFile(filepath.Join(broken, "journal.db"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(c.cfg.with(broken))
		c.want(crm.CodeOf(err), crm.CodeCorrupt)
		lost := copyFiles(t, c.dir)
		if err := os.Remove(filepath.Join(lost, "journal.db")); err != nil {
			t.Fatal(err)
		}
		_, err = Open(c.cfg.with(lost))
		c.want(crm.CodeOf(err), crm.CodeCorrupt)
		other := c.cfg.with(copyFiles(t, b.dir))
		other.ID.Node = 8
		_, err = Open(other)
		c.want(crm.CodeOf(err), crm.CodeFormat)
	})
}

func (c Config) with(dir string) Config { c.Dir = dir; return c }
