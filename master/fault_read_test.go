package master

import (
	"testing"
	"testing/synctest"

	"github.com/tradepost-crm/tradepost/crm"
)

// TestVerify_AFollowersIndexIsNoLeaders: a master that reads its commit index
// while it follows, and is elected before it asks whether it leads, must not take
// that index for what was decided.
func TestVerify_AFollowersIndexIsNoLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, nil)
		c := first()
		w.mustDecide(c, 1, "a")
		w.settle(1, 2, 3)
		old := w.leader()
		next := w.ledgers[old.n%3+1]
		term, at, err := next.commitIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.mustDecide(c, 3, "b")
		if err := old.transfer(t.Context(), serverID(crm.NodeID(next.n))); err != nil {
			t.Fatal(err)
		}
		w.waitFor("it to lead", func() bool { return w.leader().n == next.n })
		if err := next.verify(t.Context()); err != nil {
			t.Errorf("it leads, and says %v", err)
		}
		if now := next.raft.CommitIndex(); now <= at+1 {
			t.Fatalf("the index was %d and is %d: nothing was decided in between", at, now)
		}
		if err := next.outcome("verify leader", next.confirm(t.Context(), term)); crm.CodeOf(err) != crm.CodeNoLeader {
			t.Errorf("an index that it read as a follower passed for the leader's: %v", err)
		}
	})
}
