package clustertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/devcluster"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// An upgrade is a cluster whose nodes are of several versions while clerks write
// at each of them. It runs in a bubble.
type upgrade struct {
	*testing.T
	w     *world
	acked map[string]bool // records whose creation a branch has acknowledged
	mu    sync.Mutex      // protects acked
	made  int
}

func newUpgrade(t *testing.T, ctx context.Context, dir string) *upgrade {
	u := &upgrade{T: t, w: newWorld(dir, 1), acked: map[string]bool{}}
	u.must(u.w.start(ctx, devcluster.Options{Cities: []string{"lisbon", "porto"}, Protocol: 1}, 40*time.Millisecond))
	u.must(u.w.play(ctx, `create hq account/acme name="Acme" territory=key-accounts`, "create hq contact/ana last_name=Reis account=acme points=0", "settle"))
	return u
}

func (u *upgrade) must(err error) {
	u.Helper()
	if err == nil {
		err = u.w.broken()
	}
	if err != nil {
		u.w.close()
		u.Fatal(err)
	}
}

// write has a clerk at each branch edit until act returns. An edit that a branch
// which is up does not take fails the test.
func (u *upgrade) write(ctx context.Context, act func() error) {
	u.Helper()
	ctx, stop := context.WithCancel(ctx)
	var clerks sync.WaitGroup
	for _, m := range u.w.c.Branches() {
		clerks.Go(func() { u.clerk(ctx, m) })
	}
	err := act()
	stop()
	clerks.Wait()
	u.must(err)
}

func (u *upgrade) clerk(ctx context.Context, m *devcluster.Member) {
	for ctx.Err() == nil {
		time.Sleep(300 * time.Millisecond)
		api, err := m.API()
		if err != nil {
			continue // it is being upgraded
		}
		u.mu.Lock()
		u.made++
		name := fmt.Sprintf("activity/%d", u.made)
		activity, contact := u.w.id(name), u.w.id("contact/ana")
		account := u.w.id("account/acme")
		u.mu.Unlock()
		_, err = api.Commit(ctx, crm.Request{Actor: "clerk@" + m.Site, Intent: "test.note", Ops: u.note(ctx, m, activity, contact, account)})
		u.mu.Lock()
		if err == nil {
			u.acked[name] = true
		} else if m.Up() && ctx.Err() == nil {
			u.Errorf("%s did not take an edit: %v", m.Name, err)
		}
		u.mu.Unlock()
	}
}

// note makes a record and counts it, with what the branch shows as seen.
func (u *upgrade) note(ctx context.Context, m *devcluster.Member, activity, contact, account crm.RecordID) (ops []crm.Op) {
	api, err := m.API()
	if err != nil {
		return nil
	}
	_, err = api.Read(ctx, crm.Demand{}, func(r *store.Reader) error {
		made, counted := r.Schema().Entity("activity"), r.Schema().Entity("contact")
		set := func(name string, v crm.Value) crm.Input { return crm.Input{Field: made.Field(name).ID, Value: v} }
		rec, err := r.Record(counted.ID, contact)
		if err != nil {
			return err
		}
		ops = []crm.Op{
			{Kind: crm.OpCreate, Entity: made.ID, Record: activity, Cells: []crm.Input{set("kind", crm.ChoiceValue("note")), set("subject", crm.TextValue("written")),
				set("at", crm.InstantValue(time.Now())), set("account", crm.LinkValue(account))}},
			{Kind: crm.OpCounterAdd, Entity: counted.ID, Record: contact, Seen: r.Token(rec), Cells: []crm.Input{{Field: counted.Field("points").ID, Value: crm.IntegerValue(1)}}},
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return ops
}

// converge waits until nothing is pending, and compares the nodes with each other
// and with what was acknowledged.
func (u *upgrade) converge(ctx context.Context) {
	u.Helper()
	u.must(u.w.play(ctx, "settle"))
	for _, m := range u.w.c.Members() {
		u.must(u.w.read(ctx, m.Name, func(r *store.Reader) error {
			e := r.Schema().Entity("contact")
			rec, err := r.Record(e.ID, u.w.id("contact/ana"))
			if err != nil {
				return err
			}
			if got := int(rec.Value(e.Field("points").ID).Int()); got != len(u.acked) {
				u.Errorf("%s counts %d edits, and %d were acknowledged", m.Name, got, len(u.acked))
			}
			for name := range u.acked {
				if rec, err := r.Record(r.Schema().Entity("activity").ID, u.w.id(name)); err != nil || rec == nil {
					u.Errorf("%s lacks %s: %v", m.Name, name, err)
				}
			}
			return nil
		}))
	}
}

// restart stops a node and starts it held at a version, while clerks write.
func (u *upgrade) restart(ctx context.Context, m *devcluster.Member, protocol uint16) {
	u.Helper()
	u.write(ctx, func() error {
		if err := m.Stop(); err != nil {
			return err
		}
		time.Sleep(time.Second)
		m.Hold(protocol)
		if err := m.Start(); err != nil {
			return err
		}
		time.Sleep(5 * time.Second)
		return nil
	})
	u.converge(ctx)
}

// levels returns what each master says is activated, and what each branch spoke
// last.
func (u *upgrade) levels(ctx context.Context) (masters, branches []uint16) {
	u.Helper()
	for _, m := range u.w.c.Members() {
		n, err := m.Node()
		u.must(err)
		var s node.Status
		s, err = n.Status(ctx)
		u.must(err)
		if s.MasterStatus != nil {
			masters = append(masters, s.Level)
		} else {
			branches = append(branches, s.Protocol)
		}
	}
	return masters, branches
}

func (u *upgrade) want(ctx context.Context, masters, branches []uint16) {
	u.Helper()
	if m, b := u.levels(ctx); !slices.Equal(m, masters) || !slices.Equal(b, branches) {
		u.Errorf("masters are at %d and branches speak %d, want %d and %d", m, b, masters, branches)
	}
}

// A cluster of the first release is upgraded node by node, back and forth, while
// clerks write: no edit fails or is lost, the nodes are equal after each step, and
// a newer version is used once every master knows it, by sessions too that began
// before.
func TestUpgrade_OneNodeAtATime(t *testing.T) {
	dir := t.TempDir()
	inBubble(t, func(t *testing.T, ctx context.Context) {
		u := newUpgrade(t, ctx, dir)
		masters, branches := u.w.c.Masters(), u.w.c.Branches()
		old := []uint16{1, 1, 1}
		u.restart(ctx, branches[0], 0)
		u.restart(ctx, masters[1], 2)
		u.restart(ctx, masters[2], 0)
		u.want(ctx, old, []uint16{1, 1})
		u.restart(ctx, masters[2], 1) // back, as nothing was activated
		u.restart(ctx, masters[2], 0)
		u.want(ctx, old, []uint16{1, 1})
		u.restart(ctx, masters[0], 0)
		u.want(ctx, []uint16{2, 2, 2}, u.spoken(ctx))
		u.restart(ctx, branches[1], 0)
		u.restart(ctx, masters[1], 0)
		u.write(ctx, func() error { time.Sleep(time.Minute); return nil })
		u.converge(ctx)
		newest := syncproto.MaxVersion
		u.want(ctx, []uint16{newest, newest, newest}, []uint16{newest, newest})
		u.refuses(ctx, masters[2])
		u.restart(ctx, branches[0], 2)
		u.want(ctx, []uint16{newest, newest, newest}, []uint16{2, newest})
		t.Logf("%d edits acknowledged", len(u.acked))
		u.must(u.w.close())
	})
}

// spoken returns what the branches speak, where that depends on when their
// sessions began.
func (u *upgrade) spoken(ctx context.Context) []uint16 {
	_, b := u.levels(ctx)
	return b
}

// refuses demands that the master does not start as a program from before.
func (u *upgrade) refuses(ctx context.Context, m *devcluster.Member) {
	u.Helper()
	u.must(m.Stop())
	m.Hold(1)
	if err := m.Start(); crm.CodeOf(err) != syncproto.CodeVersion {
		u.Errorf("a master of the first release starts after the upgrade: %v", err)
	}
	m.Hold(0)
	u.must(m.Start())
	u.converge(ctx)
}
