package master

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// edits are made by clerks at the masters of a rig, as people make them; each
// makes an account.
type edits struct {
	r    *rig
	ctx  context.Context
	stop func() // ends the clerks and waits for them

	mu    sync.Mutex // protects the rest
	made  []crm.RecordID
	slow  time.Duration // the longest that one took
	fails []error
}

// clerksAt lets a clerk write at each of the masters until stop is called.
func (r *rig) clerksAt(pause time.Duration, masters ...*rigMaster) *edits {
	e := &edits{r: r}
	var cancel context.CancelFunc
	e.ctx, cancel = context.WithCancel(context.Background())
	var busy sync.WaitGroup
	for i, m := range masters {
		busy.Go(func() {
			for n := 0; e.ctx.Err() == nil; n++ {
				e.make(m.Master, fmt.Sprintf("%d/%d", i, n))
				time.Sleep(pause)
			}
		})
	}
	e.stop = sync.OnceFunc(func() {
		cancel()
		busy.Wait()
	})
	r.t.Cleanup(e.stop)
	return e
}

func (e *edits) make(m *Master, name string) {
	id, start := newID(), time.Now()
	got, err := m.Commit(context.WithoutCancel(e.ctx), crm.Request{Actor: "clerk", Intent: "test", Ops: []crm.Op{createAccount(id, name, "north")}})
	if err == nil && got.Outcome.Kind != crm.Accepted {
		err = fmt.Errorf("became %+v", got.Outcome)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slow = max(e.slow, time.Since(start))
	if err != nil {
		e.fails = append(e.fails, fmt.Errorf("%s: %w", name, err))
		return
	}
	e.made = append(e.made, id)
}

// prove demands that no edit failed, and that each is there, once, at every
// master.
func (e *edits) prove(masters ...*rigMaster) {
	t := e.r.t
	t.Helper()
	e.stop()
	for _, err := range e.fails {
		t.Error(err)
	}
	if len(e.made) < 20 {
		t.Errorf("%d edits were made: the test shows nothing", len(e.made))
	}
	head := e.r.leader().ledger.evaluated()
	for _, m := range masters {
		e.r.waitFor("the last edit to be everywhere", func() bool { return m.ledger.head() >= head })
		e.r.read(m, func(tx *store.Tx) error {
			if n, err := tx.Count(entityAccount); n != len(e.made) || err != nil {
				t.Errorf("master %d has %d accounts, %d were made, %v", m.node, n, len(e.made), err)
			}
			for _, id := range e.made {
				if rec, err := tx.Record(entityAccount, id); rec == nil || err != nil {
					t.Errorf("master %d lacks %s, %v", m.node, id, err)
				}
			}
			return nil
		})
	}
	t.Logf("%d edits, the slowest took %v", len(e.made), e.slow)
}

// TestTransfer_UnderLoad: the lead goes from master to master while clerks write
// at all of them. None is told that an edit failed.
func TestTransfer_UnderLoad(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		e := r.clerksAt(30*time.Millisecond, r.masters[0], r.masters[1], r.masters[2])
		for i := range 12 {
			time.Sleep(2 * time.Second)
			to := r.masters[i%3]
			if to.Leading() {
				to = r.masters[(i+1)%3]
			}
			if err := r.leader().TransferLeader(t.Context(), string(serverID(to.node))); err != nil {
				t.Error(err)
			}
			r.waitFor("the lead to move", to.Leading)
		}
		e.prove(r.masters...)
	})
}

// TestMembers_ADeadVoterIsReplacedUnderLoad: it is removed, and another one joins
// under another number, while clerks write. If the dead one comes back to life it
// changes nothing.
func TestMembers_ADeadVoterIsReplacedUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, func(_ int, c *Config) { c.LogStore = "bbolt" })
		dead := r.follower()
		var rest []*rigMaster
		for _, m := range r.masters {
			if m != dead {
				rest = append(rest, m)
			}
		}
		e := r.clerksAt(100*time.Millisecond, rest...)
		time.Sleep(2 * time.Second)
		r.kill(dead)
		time.Sleep(2 * time.Second)
		if err := r.leader().RemoveNode(t.Context(), "admin", dead.node); err != nil {
			t.Fatal(err)
		}
		new := r.addVoter(4)
		voters := func() (ids []string) {
			peers, err := r.leader().ListPeers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range peers {
				if p.Suffrage == "voter" {
					ids = append(ids, p.ID)
				}
			}
			return ids
		}
		want := []string{string(serverID(rest[0].node)), string(serverID(rest[1].node)), "node-4"}
		if got := voters(); !slices.Equal(got, want) {
			t.Errorf("voters %v, want %v", got, want)
		}
		e.stop()
		term := r.leader().ledger.raft.CurrentTerm()
		r.start(dead, int(dead.node))
		time.Sleep(time.Minute)
		if now := r.leader().ledger.raft.CurrentTerm(); now != term {
			t.Errorf("the dead one made the term go from %d to %d", term, now)
		}
		if got := voters(); !slices.Equal(got, want) {
			t.Errorf("voters %v, want %v", got, want)
		}
		if _, err := dead.Commit(t.Context(), crm.Request{Actor: "clerk", Intent: "test", Ops: []crm.Op{createAccount(newID(), "from the dead", "north")}}); err == nil {
			t.Error("a removed master had an edit decided")
		}
		e.prove(rest[0], rest[1], new)
	})
}

// addVoter lets a master join and waits until it votes, under load.
func (r *rig) addVoter(n int) *rigMaster {
	r.t.Helper()
	m := r.joinMaster(n)
	r.waitFor(fmt.Sprintf("master %d to vote", n), func() bool {
		peers, err := r.leader().ListPeers(r.t.Context())
		return err == nil && slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == string(serverID(crm.NodeID(n))) && p.Suffrage == "voter" })
	})
	return m
}
