package processtest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/httpapi"
)

// badClock builds the binary with a clock that is wrong by what stands in the
// file that the environment variable BAD_CLOCK names. The product has no such
// switch, so another main.go takes the place of the real one.
func badClock(ctx context.Context, t *testing.T) string {
	t.Helper()
	const clock = "now: time.Now,"
	path, err := filepath.Abs("../cmd/tradepost/main.go")
	must(t, err)
	source, err := os.ReadFile(path)
	must(t, err)
	if n := strings.Count(string(source), clock); n != 1 {
		t.Fatalf("%s has %q %d times, not once: put the wrong clock where the right one went", path, clock, n)
	}
	dir := t.TempDir()
	wrong := filepath.Join(dir, "main.go")
	must(t, os.WriteFile(wrong, []byte(strings.Replace(string(source), clock,
		`now: func() time.Time {
			text, err := os.ReadFile(os.Getenv("BAD_CLOCK"))
			if err != nil {
				panic(err)
			}
			off, err := time.ParseDuration(string(text))
			if err != nil {
				panic(err)
			}
			return time.Now().Add(off)
		},`, 1)), 0o600))
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: wrong}})
	must(t, err)
	overlay := filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(overlay, list, 0o600))
	bin, err := Build(ctx, dir, "-overlay", overlay)
	must(t, err)
	return bin
}

// TestBadClocks sets the clocks of two branches wrong by 45 minutes, one each way,
// while they run. Both change the same field while the master is away: the later
// change by the master's time stands, whatever the clocks said, and the earlier one
// is kept as a conflict. Each branch says how wrong its clock is. The cluster was
// founded three hours ago, so that its certificates are valid by any of the clocks.
func TestBadClocks(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	bin := badClock(ctx, t)
	clocks, off := t.TempDir(), map[string]time.Duration{"m1": 0, "r-lisbon": 45 * time.Minute, "r-madrid": -45 * time.Minute}
	set := func(name string, to time.Duration) {
		file := filepath.Join(clocks, name)
		must(t, os.WriteFile(file+".new", []byte(to.String()), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	c, err := NewClusterAt(ctx, bin, t.TempDir(), 1, map[string][]string{"lisbon": {"iberia"}, "madrid": {"iberia"}}, func(name string) (Place, error) {
		set(name, -3*time.Hour)
		return Place{Prefix: []string{"env", "BAD_CLOCK=" + filepath.Join(clocks, name)}}, nil
	})
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	fast, slow := c.replica(t, "r-lisbon"), c.replica(t, "r-madrid")
	records := map[string][2]*Process{"the fast clock first": {fast, slow}, "the slow clock first": {slow, fast}}
	contacts := map[string]string{}
	w := newWriter(ctx, t, fast, "branch", httpapi.Wait(20*time.Second))
	for name := range records {
		made, err := w.client.Create(ctx, "contact", httpapi.Fields{"last_name": name, "account": w.account}, httpapi.Wait(20*time.Second))
		must(t, err)
		contacts[name] = made.Item.ID
	}
	for _, p := range c.Replicas {
		awaitContacts(ctx, t, p, contacts)
	}

	for name, to := range off {
		set(name, to)
	}
	must(t, c.Masters[0].Kill())
	for i, title := range []string{"earlier", "later"} {
		for name, order := range records {
			client, err := order[i].Client()
			must(t, err)
			_, err = client.Patch(ctx, "contact", contacts[name], "", httpapi.Fields{"title": title}, 0)
			must(t, err)
		}
		written := time.Now()
		must(t, Await(ctx, "people to take their time", func() (bool, error) { // longer than an offset is wrong by: half a round trip
			return time.Since(written) > 2*time.Second, nil
		}))
	}
	must(t, c.Masters[0].Start())
	must(t, c.Masters[0].AwaitReady(ctx))

	for _, p := range c.Replicas {
		client, err := p.Client()
		must(t, err)
		must(t, Await(ctx, p.Name+" to have its edits decided", func() (bool, error) {
			out, err := client.Outbox(ctx)
			return err == nil && len(out) == 0, err
		}))
		var s struct {
			Offset float64 `json:"offset_ms"`
		}
		must(t, client.Status(ctx, &s))
		ahead := time.Duration(s.Offset * float64(time.Millisecond))
		if wrong := ahead + off[p.Name]; wrong.Abs() > time.Second {
			t.Errorf("%s says that the master's clock is ahead by %v, its own is ahead by %v", p.Name, ahead, off[p.Name])
		}
	}
	head := headOf(ctx, t, c)
	for _, p := range append(c.Masters, c.Replicas...) {
		client, err := p.Client()
		must(t, err)
		must(t, awaitRev(ctx, client, head))
		for name, id := range contacts {
			it, _, err := client.Get(ctx, "contact", id, httpapi.Asked{})
			must(t, err)
			if got := string(it.Fields["title"]); got != `"later"` {
				t.Errorf("%s, %s: the title is %s, not what was written later", p.Name, name, got)
			}
			kept, err := client.Attention(ctx, httpapi.Watch{Record: id})
			must(t, err)
			if len(kept.Items) != 1 || string(kept.Items[0].Lost.Value) != `"earlier"` {
				t.Errorf("%s, %s: the earlier title is not kept as one conflict: %+v", p.Name, name, kept.Items)
			}
		}
	}
	must(t, c.Stop())
	compareDigests(t, c)
}

func (c *Cluster) replica(t *testing.T, name string) *Process {
	t.Helper()
	for _, p := range c.Replicas {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no replica %s", name)
	return nil
}

func awaitContacts(ctx context.Context, t *testing.T, p *Process, contacts map[string]string) {
	t.Helper()
	client, err := p.Client()
	must(t, err)
	for name, id := range contacts {
		must(t, Await(ctx, p.Name+" to hold the contact of "+name, func() (bool, error) {
			_, _, err := client.Get(ctx, "contact", id, httpapi.Asked{})
			return err == nil, err
		}))
	}
}
