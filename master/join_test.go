package master

import (
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

func TestJoin_ATokenIsGoodForOneNode(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		js := r.token("warsaw", auth.RoleReplica)
		joined, cert, err := r.join(js, auth.RoleReplica, nil)
		if err != nil {
			t.Fatal(err)
		}
		if joined.Site != "warsaw" || len(joined.CAKey) != 0 || len(joined.RaftPeers) != 0 || joined.Timeline == 0 || len(joined.Masters) != 1 {
			t.Errorf("joined %v as a replica: key of %d bytes, peers %v", joined.Site, len(joined.CAKey), joined.RaftPeers)
		}
		if err := cert.Verify(r.ca.Cert, time.Now()); err != nil || cert.Identity.Node != uint32(joined.Node) || cert.Identity.Role != auth.RoleReplica {
			t.Errorf("certificate of %s: %v", cert.Identity, err)
		}
		_, _, err = r.join(js, auth.RoleReplica, nil)
		wantCode(t, err, CodeJoinUsed)
	})
}

func TestJoin_Refusals(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		js := r.token("warsaw", auth.RoleReplica)
		_, _, err := r.join(js, auth.RoleReplica, func(j *syncproto.Join) { j.Secret[0]++ })
		wantCode(t, err, CodeJoinToken)
		_, _, err = r.join(js, auth.RoleReplica, func(j *syncproto.Join) { j.TokenID = "00000000" })
		wantCode(t, err, CodeJoinToken)
		_, _, err = r.join(js, auth.RoleMaster, nil)
		wantCode(t, err, CodeJoinRole)
		_, _, err = r.join(js, auth.RoleReplica, func(j *syncproto.Join) { j.CSR = []byte("nonsense") })
		wantCode(t, err, crm.CodeInvalid)
		if err != nil && strings.Contains(err.Error(), string(js.Token.Secret[:])) {
			t.Error("the refusal holds the secret")
		}

		wrong := js
		wrong.CAPin[0]++
		_, _, err = r.join(wrong, auth.RoleReplica, nil)
		if got := auth.CodeOf(err); got != auth.CodePinMismatch {
			t.Errorf("wrong pin: %q (%v)", got, err)
		}

		time.Sleep(2 * time.Hour)
		_, _, err = r.join(js, auth.RoleReplica, nil)
		wantCode(t, err, CodeJoinExpired)
	})
}

func TestJoin_ASiteHasOneReplica(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		first, second := r.token("warsaw", auth.RoleReplica), r.token("warsaw", auth.RoleReplica)
		joined, _, err := r.join(first, auth.RoleReplica, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = r.join(second, auth.RoleReplica, nil)
		wantCode(t, err, CodeSiteTaken)
		if !strings.Contains(err.Error(), "node remove") {
			t.Errorf("%q does not say what to do", err)
		}
		_, err = m.CreateToken(t.Context(), "admin", "warsaw", auth.RoleReplica, time.Hour)
		wantCode(t, err, CodeSiteTaken)

		if err := m.RemoveNode(t.Context(), "admin", joined.Node); err != nil {
			t.Fatal(err)
		}
		again, _, err := r.join(second, auth.RoleReplica, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again.Node == joined.Node {
			t.Errorf("node %d was given a second time", again.Node)
		}
	})
}

// Two replicas of a site that join at the same moment: the decision, not the
// look before it, lets one of them in.
func TestJoin_TwoAtOnceForOneSite(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		tokens := []auth.JoinString{r.token("warsaw", auth.RoleReplica), r.token("warsaw", auth.RoleReplica)}
		r.awaitHead(m)
		var plans []joinPlan
		for _, js := range tokens {
			p, err := m.planJoin(&syncproto.Join{TokenID: js.Token.ID, Secret: js.Token.Secret, Role: "replica"})
			if err != nil {
				t.Fatal(err)
			}
			plans = append(plans, p)
		}
		codes := map[crm.Code]int{}
		for _, p := range append(plans, plans[0]) {
			got, err := m.author.commit(t.Context(), p.request)
			if err != nil {
				t.Fatal(err)
			}
			codes[crm.CodeOf(p.judge(*got.Outcome))]++
		}
		if codes[""] != 1 || codes[CodeSiteTaken] != 1 || codes[CodeJoinUsed] != 1 {
			t.Errorf("outcomes %v", codes)
		}
	})
}

func TestCreateToken_Refusals(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		_, err := m.CreateToken(t.Context(), "admin", "atlantis", auth.RoleReplica, time.Hour)
		wantCode(t, err, crm.CodeNotFound)
		_, err = m.CreateToken(t.Context(), "admin", "warsaw", "viewer", time.Hour)
		wantCode(t, err, crm.CodeInvalid)
		_, err = m.CreateToken(t.Context(), "admin", "warsaw", auth.RoleReplica, 0)
		wantCode(t, err, crm.CodeInvalid)
		r.read(m, func(tx *store.Tx) error {
			n, err := tx.Count(crm.EntityJoinToken)
			if n != 0 {
				t.Errorf("%d tokens were kept", n)
			}
			return err
		})
	})
}

func TestJoin_AMasterBecomesAVoterAndLeaves(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		m := r.leader()
		other := r.follower()
		if got, want := other.ledger.head(), m.ledger.head(); got != want {
			t.Errorf("the second master is at %d, the first at %d", got, want)
		}
		err := m.RemovePeer(t.Context(), "node-2")
		if err != nil {
			t.Fatal(err)
		}
		peers, err := m.ListPeers(t.Context())
		if err != nil || len(peers) != 1 {
			t.Errorf("peers %v, %v", peers, err)
		}
		wantCode(t, m.RemovePeer(t.Context(), "1"), crm.CodeForbidden)
		wantCode(t, m.RemovePeer(t.Context(), "x"), crm.CodeInvalid)
	})
}

// A master that has joined but does not run yet votes nowhere: the only one that
// does must stay. If both masters of two removed each other at once, whoever leads
// goes on and seats the next one.
func TestRemoveNode_KeepsTheOnlyVoter(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		_, cert, err := r.join(r.token("hq", auth.RoleMaster), auth.RoleMaster, func(j *syncproto.Join) {
			j.Sync, j.Raft = syncAddress(2), raftAddress(2)
		})
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, m.RemoveNode(t.Context(), "admin", 1), crm.CodeForbidden)
		own, _ := m.facts(1)
		op := patch(crm.EntityNode, own.Record, crm.NodeStatus, crm.ChoiceValue("removed"))
		op.Seen = own.Token
		r.commit(m, op)
		other := r.start(&rigMaster{cert: cert, dir: t.TempDir()}, 2)
		r.waitFor("the removed master to leave", func() bool {
			peers, err := other.ListPeers(t.Context())
			return err == nil && len(peers) == 1 && peers[0].ID == "node-2" && peers[0].Suffrage == "voter" && other.Leading()
		})
		r.commit(other, createAccount(newID(), "acme", "north"))
	})
}
