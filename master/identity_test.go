package master

import (
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// Masters that were restored may give a number to a new node that an old one of
// another site bears too. Whatever that one's disk says is not the new one's: it is
// turned away, by the leader and by a follower, and the new one goes on.
func TestIdentity_AnotherNodeOfTheNumber(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		b := r.branch("warsaw", "Warsaw")
		b.connect(r.leader())
		b.push(1, b.mutation(createAccount(newID(), "Made by the new one", "north")))
		want[*syncproto.Pushed](b)
		r.awaitRev(r.follower(), r.leader().ledger.head())
		b.hangUp()
		n := crm.NodeID(b.cert.Identity.Node)
		state := func() (st store.NodeState) {
			r.read(r.leader(), func(tx *store.Tx) (err error) {
				st, _, err = tx.Node(n)
				return err
			})
			return st
		}
		before := state()
		id := b.cert.Identity
		id.Site = "madrid"
		old := &branch{r: r, host: b.host, cert: r.sign(id), next: b.next}
		defer old.hangUp()
		for name, incarnation := range map[string]crm.Incarnation{"forked": before.Incarnation, "ahead": before.Incarnation + 1, "new": 0} {
			for _, m := range []*rigMaster{r.leader(), r.follower()} {
				h := old.hello()
				h.Incarnation = incarnation
				h.Chain = crm.ChainHash{1}
				f, err := old.dial(m, h)
				if refused, ok := f.(*syncproto.Refused); err != nil || !ok || refused.Code != crm.CodeForbidden {
					t.Errorf("%s: answered with %+v, %v", name, f, err)
				}
			}
		}
		if st := state(); st.Frozen != "" || st.Incarnation != before.Incarnation || st.LastSeq != before.LastSeq {
			t.Errorf("the new node is %+v, was %+v", st, before)
		}
		b.connect(r.follower())
	})
}
