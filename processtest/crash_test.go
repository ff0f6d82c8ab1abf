package processtest

import (
	"cmp"
	"context"
	"flag"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

var (
	crashCycles = flag.Int("crash-cycles", 20, "how many processes to kill")
	crashEdits  = flag.Int("crash-edits", 10_000, "how many edits must be acknowledged meanwhile")
	crashDir    = flag.String("crash-dir", "", "an empty directory for the nodes, which is kept; one that goes away if none is given")
)

// branches are two sites that share a territory and two that share another.
var branches = map[string][]string{"lisbon": {"iberia"}, "porto": {"iberia"}, "oslo": {"nordic"}, "bergen": {"nordic"}}

// startCluster starts a cluster in dir that is stopped at the end of the test.
func startCluster(ctx context.Context, t *testing.T, dir string, masters int, sites map[string][]string) *Cluster {
	t.Helper()
	bin, err := built()
	must(t, err)
	c, err := NewCluster(ctx, bin, dir, masters, sites)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	return c
}

// TestCrashCycles kills masters and replicas, the leader among them, amid edits
// at every node: each edit that was acknowledged takes effect once, everywhere.
// `go test ./processtest -run TestCrashCycles -v -timeout 0 -args -crash-cycles
// 2000 -crash-edits 1000000` is the long run.
func TestCrashCycles(t *testing.T) {
	ctx := t.Context()
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-10*time.Second))
		defer cancel()
	}
	c := startCluster(ctx, t, cmp.Or(*crashDir, t.TempDir()), 3, branches)
	r := NewCrash(c, t.Logf)
	for _, at := range r.Replicas {
		must(t, r.Hire(ctx, at, 16, branches[strings.TrimPrefix(at.Name, "r-")][0]))
	}
	for _, at := range r.Masters {
		must(t, r.Hire(ctx, at, 4, "iberia"))
	}
	must(t, r.Run(ctx, NewPace(*crashCycles, *crashEdits)))
	t.Logf("%v: all nodes serve, %d edits acknowledged", r.Figures.Elapsed(), r.pace.Edits())
	v, err := r.Prove(ctx)
	must(t, err)
	for _, p := range r.posts() {
		r.Figures.Look(p)
	}
	t.Logf("%v: every node is compared", r.Figures.Elapsed())
	must(t, c.Stop())
	compareDigests(t, c)
	compareNodeStates(t, c)
	for _, text := range v.Wrong {
		t.Error(text)
	}
	if kills, _ := r.Figures.Kills(); kills != *crashCycles || v.Acked < *crashEdits {
		t.Errorf("%d kills and %d edits, not %d and %d", kills, v.Acked, *crashCycles, *crashEdits)
	}
	summarise(t, r, v)
}

func summarise(t *testing.T, r *Crash, v Verdict) {
	t.Helper()
	kills, kinds := r.Figures.Kills()
	seconds := r.Figures.Elapsed().Seconds()
	verdict := "0 lost, 0 doubled, 0 undecided; every node shows each edit once, digests and outcomes are equal"
	if t.Failed() {
		verdict = "FAILED, see above"
	}
	t.Logf(`
crash cycles   %d kills with SIGKILL in %v, %.1f a second: %s; %d times most masters at once
edits          %d acknowledged, %.0f a second; %d found taken after a kill took the answer, %d not taken and made again
ledger         %d clerks at %d nodes, %d contacts, a record for each %dth edit
start/serving  p50/p99: %s
largest        %s
verdict        %s`, kills, r.Figures.Elapsed(), float64(kills)/seconds, kinds, r.Figures.Majorities(), v.Acked, float64(v.Acked)/seconds, v.Found, v.Again,
		len(r.clerks), len(r.posts()), len(r.clerks)*contactsEach, noteEvery, r.Figures.Starts(), r.Figures.Sizes(), verdict)
}

// compareNodeStates reads the stopped masters' files: all have decided the same
// edits of every node, with the same outcomes, and those are all that the node
// has made.
func compareNodeStates(t *testing.T, c *Cluster) {
	t.Helper()
	want := decidedBy(t, c.Masters[0])
	for _, p := range c.Masters[1:] {
		if got := decidedBy(t, p); !maps.Equal(got, want) {
			t.Errorf("%s and %s have not decided the same: %v, %v", p.Name, c.Masters[0].Name, got, want)
		}
	}
	for _, p := range c.Replicas {
		j, err := store.OpenJournal(filepath.Join(p.Dir, "journal.db"), store.Options{ReadOnly: true})
		must(t, err)
		defer j.Close()
		must(t, j.View(func(tx *store.JTx) error {
			id, err := tx.Identity()
			if s := want[id.Node]; s.last != id.NextSeq-1 || s.chain != id.Chain {
				t.Errorf("%s has made %d edits, chain %x; the masters have decided %d, chain %x", p.Name, id.NextSeq-1, id.Chain, s.last, s.chain)
			}
			return err
		}))
	}
}

// A nodeState is what a master has decided of a node: the last edit, the hash
// over all of them, and how many had another outcome than plain acceptance.
type nodeState struct {
	last     crm.Seq
	chain    crm.ChainHash
	outcomes int
}

func decidedBy(t *testing.T, p *Process) map[crm.NodeID]nodeState {
	t.Helper()
	db, err := store.Open(filepath.Join(p.Dir, "master.db"), store.Options{ReadOnly: true})
	must(t, err)
	defer db.Close()
	out := map[crm.NodeID]nodeState{}
	must(t, db.View(func(tx *store.Tx) error {
		for n, err := range tx.Nodes() {
			if err != nil {
				return err
			}
			s := nodeState{last: n.LastSeq, chain: n.LastHash}
			for _, err := range tx.Outcomes(n.Node, 0) {
				if err != nil {
					return err
				}
				s.outcomes++
			}
			out[n.Node] = s
		}
		return nil
	}))
	return out
}
