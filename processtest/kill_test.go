package processtest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/store"
)

var (
	replicaKills = flag.Int("replica-kills", 5, "how often to kill the replica")
	leaderKills  = flag.Int("leader-kills", 3, "how often to kill the leader")
)

// A writer edits through one node without pause and remembers what was
// acknowledged. Each edit makes an activity and counts it on a contact in one
// mutation, so that an edit lost or doubled shows in two places.
type writer struct {
	client  *httpapi.Client
	name    string
	account string
	contact string
	wait    httpapi.Wait

	mu    sync.Mutex
	acked map[string]bool
	tried int
}

// run writes edits named after the loop until ctx ends.
func (w *writer) run(ctx context.Context, loop string) {
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprintf("%s-%d", loop, i)
		_, err := w.client.Mutate(ctx, w.edit(key), w.wait)
		w.mu.Lock()
		w.tried++
		if err == nil {
			w.acked[key] = true
		}
		w.mu.Unlock()
		if err != nil {
			w.pause(ctx)
		}
	}
}

// pause keeps a dead node from being asked in a tight loop.
func (w *writer) pause(ctx context.Context) {
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// noteIntent is what a writer's edits are for.
const noteIntent = "test.note"

func (w *writer) edit(key string) httpapi.MutationText {
	raw := func(v any) json.RawMessage { b, _ := json.Marshal(v); return b }
	return httpapi.MutationText{Intent: noteIntent, Ops: []crm.OpText{
		{Op: "create", Entity: "activity", Fields: map[string]json.RawMessage{
			"external_id": raw(key), "kind": raw("note"), "subject": raw("written by " + w.name), "at": raw("2026-11-21T09:00:00Z"), "account": raw(w.account)}},
		{Op: "counter-add", Entity: "contact", Record: w.contact, Fields: map[string]json.RawMessage{"points": raw(1)}},
	}}
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

func newCluster(t *testing.T, masters int) (context.Context, *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(90+8*(*replicaKills+*leaderKills))*time.Second)
	t.Cleanup(cancel)
	dir := t.TempDir()
	bin, err := Build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCluster(ctx, bin, dir, masters, map[string][]string{"lisbon": {"iberia"}})
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ctx, c
}

func newWriter(ctx context.Context, t *testing.T, at *Process, name string, wait httpapi.Wait) *writer {
	t.Helper()
	c, err := at.Client()
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Create(ctx, "account", httpapi.Fields{"name": name, "territory": "iberia"}, httpapi.Wait(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Create(ctx, "contact", httpapi.Fields{"last_name": name, "account": a.Item.ID}, httpapi.Wait(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return &writer{client: c, name: name, account: a.Item.ID, contact: p.Item.ID, wait: wait, acked: map[string]bool{}}
}

// TestKill_Replica kills a branch in the middle of a write loop, again and
// again: what it acknowledged was fsynced, so nothing is missing.
func TestKill_Replica(t *testing.T) {
	ctx, c := newCluster(t, 1)
	branch := c.Replicas[0]
	w := newWriter(ctx, t, branch, "branch", 0)
	loop, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { w.run(loop, fmt.Sprintf("clerk%d", i)) })
	}
	for i := range *replicaKills {
		want := w.count() + 20 + rand.IntN(60)
		must(t, Await(ctx, "acknowledged edits", func() (bool, error) { return w.count() >= want, nil }))
		must(t, branch.Kill())
		must(t, branch.Start())
		must(t, branch.AwaitReady(ctx))
		if (i+1)%10 == 0 {
			t.Logf("%d kills, %d edits acknowledged", i+1, w.count())
		}
	}
	stop()
	wg.Wait()
	verify(ctx, t, c, w, *replicaKills)
}

// TestKill_Leader kills the leading master while a branch's edits go through.
func TestKill_Leader(t *testing.T) {
	ctx, c := newCluster(t, 3)
	w := newWriter(ctx, t, c.Replicas[0], "through", httpapi.Wait(30*time.Second))
	loop, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.run(loop, "clerk") })
	for i := range *leaderKills {
		want := w.count() + 30
		must(t, Await(ctx, "decided edits", func() (bool, error) { return w.count() >= want, nil }))
		leader, err := c.Leader(ctx)
		must(t, err)
		must(t, leader.Kill())
		if _, err := c.Leader(ctx); err != nil {
			t.Fatal(err)
		}
		must(t, leader.Start())
		must(t, leader.AwaitReady(ctx))
		if (i+1)%10 == 0 {
			t.Logf("%d kills, %d edits decided", i+1, w.count())
		}
	}
	stop()
	wg.Wait()
	verify(ctx, t, c, w, *leaderKills)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// verify waits until the branch has shipped all and then compares what was
// acknowledged with what every node holds.
func verify(ctx context.Context, t *testing.T, c *Cluster, w *writer, kills int) {
	t.Helper()
	settle(ctx, t, c, w)
	must(t, c.Stop())
	compareDigests(t, c)
	t.Logf("%d kills: %d edits acknowledged of %d tried, 0 lost, 0 applied twice, digests equal", kills, w.count(), w.tried)
}

// settle waits until every node has all, and checks each.
func settle(ctx context.Context, t *testing.T, c *Cluster, w *writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	must(t, Await(ctx, "the outbox to drain", func() (bool, error) {
		out, err := w.client.Outbox(ctx)
		return err == nil && len(out) == 0, err
	}))
	head := headOf(ctx, t, c)
	for _, p := range slices.Concat(c.Masters, c.Replicas) {
		client, err := p.Client()
		must(t, err)
		must(t, awaitRev(ctx, client, head))
		checkNode(ctx, t, p.Name, client, w)
	}
}

// headOf returns the highest Rev that any node shows. The leader's alone may be
// lower: it tells of a decision when it is in its own file, which may be after a
// follower wrote it and a replica got it from there.
func headOf(ctx context.Context, t *testing.T, c *Cluster) (head crm.Rev) {
	t.Helper()
	for _, p := range slices.Concat(c.Masters, c.Replicas) {
		client, err := p.Client()
		must(t, err)
		var s struct{ Head, Cursor crm.Rev }
		must(t, client.Status(ctx, &s))
		head = max(head, s.Head, s.Cursor)
	}
	return head
}

func awaitRev(ctx context.Context, client *httpapi.Client, head crm.Rev) error {
	return Await(ctx, "the head", func() (bool, error) {
		var s struct{ Head, Cursor crm.Rev }
		err := client.Status(ctx, &s)
		return err == nil && max(s.Cursor, s.Head) >= head && (s.Cursor == 0 || s.Cursor >= head), err
	})
}

func checkNode(ctx context.Context, t *testing.T, name string, client *httpapi.Client, w *writer) {
	t.Helper()
	found := map[string]int{}
	for item, err := range client.List(ctx, "activity", httpapi.Query{Filter: fmt.Sprintf("account == %q", w.account), Limit: 1000}) {
		must(t, err)
		var key string
		must(t, json.Unmarshal(item.Fields["external_id"], &key))
		found[key]++
	}
	for key := range maps.Keys(w.acked) {
		if found[key] != 1 {
			t.Errorf("%s: acknowledged edit %s is there %d times", name, key, found[key])
		}
	}
	contact, _, err := client.Get(ctx, "contact", w.contact, httpapi.Asked{})
	must(t, err)
	points, err := strconv.Atoi(string(contact.Fields["points"]))
	must(t, err)
	if points != len(found) {
		t.Errorf("%s: %d activities, but the counter says %d: an edit took effect twice or in part", name, len(found), points)
	}
	findings, err := client.Check(ctx)
	must(t, err)
	for _, f := range findings {
		t.Errorf("%s: check: %s %s: %s", name, f.Kind, f.Item, f.Message)
	}
}

// compareDigests reads the stopped nodes' files: each territory that a replica
// holds has the masters' digest.
func compareDigests(t *testing.T, c *Cluster) {
	t.Helper()
	want := digests(t, filepath.Join(c.Masters[0].Dir, "master.db"))
	for _, p := range c.Masters[1:] {
		if got := digests(t, filepath.Join(p.Dir, "master.db")); !maps.Equal(got, want) {
			t.Errorf("%s: digests differ from %s's: %v, %v", p.Name, c.Masters[0].Name, got, want)
		}
	}
	for _, p := range c.Replicas {
		got := digests(t, filepath.Join(p.Dir, "base.db"))
		if len(got) < 2 {
			t.Errorf("%s holds %d territories", p.Name, len(got))
		}
		for territory, d := range got {
			if d != want[territory] {
				t.Errorf("%s: territory %d has digest %x, the masters %x", p.Name, territory, d, want[territory])
			}
		}
	}
}

func digests(t *testing.T, path string) map[crm.TerritoryID]store.Digest {
	t.Helper()
	db, err := store.Open(path, store.Options{ReadOnly: true})
	must(t, err)
	defer db.Close()
	out := map[crm.TerritoryID]store.Digest{}
	must(t, db.View(func(tx *store.Tx) error {
		for territory := range tx.Territories() {
			d, err := tx.Digest(territory)
			if err != nil {
				return err
			}
			out[territory] = d
		}
		return nil
	}))
	return out
}
