package processtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// A poisonous edit gives a record this name. In the binary of buildPoisoned a
// master that judges one runs out of memory, from which no program recovers.
const poisonName = "poison"

const (
	judging  = "	d := newDecider(v, m, env)\n	err := d.run()\n"
	poisoned = `	for _, op := range m.Ops {
		for _, c := range op.Cells {
			if env.Rev != Pending && c.Value.Kind() == Text && c.Value.Str() == "` + poisonName + `" {
				panic(string(make([]byte, int64(1)<<46)))
			}
		}
	}
`
)

// buildPoisoned builds a binary whose decisions have that bug, by an overlay of
// the source.
func buildPoisoned(ctx context.Context, t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path, err := filepath.Abs("../crm/decide.go")
	must(t, err)
	source := string(readFile(t, path))
	if strings.Count(source, judging) != 1 {
		t.Fatalf("%s does not judge where it did: put the bug where the code went", path)
	}
	spoiled := filepath.Join(dir, "decide.go")
	must(t, os.WriteFile(spoiled, []byte(strings.Replace(source, judging, poisoned+judging, 1)), 0o600))
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: spoiled}})
	must(t, err)
	overlay, bin := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tradepost")
	must(t, os.WriteFile(overlay, list, 0o600))
	out, err := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", bin, "github.com/tradepost-crm/tradepost/cmd/tradepost").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return bin
}

// supervise starts each process again whenever it ends by itself, until ctx
// ends, and counts how often.
func supervise(ctx context.Context, t *testing.T, list []*Process) (deaths *atomic.Int64, wait func()) {
	var wg sync.WaitGroup
	deaths = new(atomic.Int64)
	for _, p := range list {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-p.exited:
				}
				deaths.Add(1)
				if err := p.Start(); err != nil {
					t.Errorf("start %s: %v", p.Name, err)
					return
				}
			}
		})
	}
	return deaths, wg.Wait
}

// TestPoison: edits that end the process of every master that judges them, at
// the head and in the middle of a branch's queue. All others are decided, each
// poisonous one is rejected once and shown at the branch with its values, and the
// masters can be started again afterwards.
func TestPoison(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	const edits, masters = 24, 3
	poisonous := map[int]bool{0: true, edits / 2: true}
	c, err := NewCluster(ctx, buildPoisoned(ctx, t), t.TempDir(), masters, map[string][]string{"lisbon": {"iberia"}})
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	branch, err := c.Replicas[0].Client()
	must(t, err)
	_, err = branch.Create(ctx, "account", httpapi.Fields{"name": "before", "territory": "iberia"}, httpapi.Wait(20*time.Second))
	must(t, err)
	for _, p := range c.Masters {
		must(t, p.Kill())
	}
	for i := range edits {
		name := fmt.Sprint("edit ", i)
		if poisonous[i] {
			name = poisonName
		}
		_, err := branch.Create(ctx, "account", httpapi.Fields{"name": name, "territory": "iberia"}, 0)
		must(t, err)
	}
	for _, p := range c.Masters {
		must(t, p.Start())
	}

	start := time.Now()
	supervision, stop := context.WithCancel(ctx)
	deaths, wait := supervise(supervision, t, c.Masters)
	err = Await(ctx, "the outbox to drain", func() (bool, error) {
		out, err := branch.Outbox(ctx)
		return err == nil && len(out) == 0, err
	})
	took := time.Since(start)
	stop()
	wait()
	must(t, err)
	// Each master finds out by itself, but one that knows is enough.
	if n, most := int(deaths.Load()), 2*masters*len(poisonous); n < 2*len(poisonous) || n > most {
		t.Errorf("masters died %d times, want %d to %d", n, 2*len(poisonous), most)
	}
	t.Logf("%d edits, of which %d end a master: decided after %v and %d deaths of masters", edits, len(poisonous), took.Round(time.Millisecond), deaths.Load())

	for _, p := range c.Masters { // they replay the log
		if !p.hasExited() {
			must(t, p.Kill())
		}
		must(t, p.Start())
	}
	for _, p := range c.Masters {
		must(t, p.AwaitReady(ctx))
	}
	wantPoison(ctx, t, branch, edits, len(poisonous))
	head := headOf(ctx, t, c)
	for _, p := range c.Masters {
		m, err := p.Client()
		must(t, err)
		must(t, awaitRev(ctx, m, head))
		wantPoison(ctx, t, m, edits, len(poisonous))
	}
	must(t, c.Stop())
	compareDigests(t, c)
}

// wantPoison wants every edit but the poisonous ones at a node, and of those one
// rejection each.
func wantPoison(ctx context.Context, t *testing.T, at *httpapi.Client, edits, poison int) {
	t.Helper()
	found := 0
	for item, err := range at.List(ctx, "account", httpapi.Query{Limit: 1000}) {
		must(t, err)
		var name string
		must(t, json.Unmarshal(item.Fields["name"], &name))
		if name == poisonName {
			t.Error("a poisonous edit took effect")
		}
		if strings.HasPrefix(name, "edit ") {
			found++
		}
	}
	if found != edits-poison {
		t.Errorf("%d accounts, want %d", found, edits-poison)
	}
	list, err := at.Attention(ctx, httpapi.Watch{})
	must(t, err)
	if len(list.Items) != poison {
		t.Errorf("%d entries on the attention list, want %d", len(list.Items), poison)
	}
	for _, a := range list.Items {
		if a.Kind != "rejected" || a.Code != crm.CodePoison || len(a.Ops) != 1 || string(a.Ops[0].Fields["name"]) != `"`+poisonName+`"` {
			t.Errorf("on the attention list: %+v", a)
		}
	}
}
