package master

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
)

// masterNode signs a certificate for a master.
func masterNode(t *testing.T, ca *auth.CA, n int) *auth.Node {
	t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := auth.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(csr, auth.Identity{Cluster: "c1", Role: auth.RoleMaster, Site: "hq", Node: uint32(n)}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	node, err := auth.NewNode(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// secure gives each ledger of a lab a certificate.
func secure(t *testing.T) func(n int, cfg *ledgerConfig) {
	t.Helper()
	ca, err := auth.NewCA("c1", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return func(n int, cfg *ledgerConfig) {
		node := masterNode(t, ca, n)
		cfg.Server = auth.ServerTLS(node, ca.Cert, time.Now, auth.ALPNRaft)
		cfg.Client = auth.ClientTLS(node, ca.Cert, time.Now, auth.ExpectMaster, auth.ALPNRaft)
	}
}

func TestStream_SecuresRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, secure(t))
		c := first()
		w.mustDecide(c, 3, "a")
		w.mustAgree(1, 2, 3)
		leader := w.leader()
		stranger, err := w.net.Host("Paris", "stranger").Dial(t.Context(), raftAddress(leader.n))
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		if _, err := stranger.Write([]byte{connRaft, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		for {
			n, err := stranger.Read(buf)
			if err != nil {
				break // after TLS's alert
			}
			if n == len(buf) {
				t.Fatal("a stranger was answered")
			}
		}
		w.mustDecide(c, 1, "b")
	})
}

func TestStream_TakesAVoteInTheVotersNameOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, secure(t))
		leader := w.leader()
		voter := w.ledgers[leader.n%3+1]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		own := voteCast{StateVote{crm.NodeID(voter.n), Accumulator{1}}, 1 << 40}
		if err := voter.stream.sendVote(ctx, raftAddress(leader.n), own); err != nil {
			t.Errorf("an honest vote: %v", err)
		}
		forged := voteCast{StateVote{crm.NodeID(leader.n), Accumulator{2}}, 1 << 40}
		if err := voter.stream.sendVote(ctx, raftAddress(leader.n), forged); err == nil {
			t.Error("a vote in another's name was taken")
		}
		leader.mu.Lock()
		defer leader.mu.Unlock()
		if got := leader.poll.votes[1<<40]; len(got) != 1 || got[own.Node] != own.Accumulator {
			t.Errorf("votes: %v", got)
		}
	})
}

// TestStream_ShedsSilentConnections: whoever connects and says nothing is cut
// off, and costs Raft nothing meanwhile.
func TestStream_ShedsSilentConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 1, nil)
		var silent []net.Conn
		for i := range 10 {
			c, err := w.net.Host("Paris", fmt.Sprint("silent", i)).Dial(t.Context(), raftAddress(1))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			silent = append(silent, c)
		}
		w.mustDecide(first(), 1, "a")
		for _, c := range silent {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a silent connection was answered")
			}
		}
	})
}

func TestPoll_ForgetsOldVotes(t *testing.T) {
	var p poll
	for i := range uint64(100) {
		p.add(voteCast{StateVote{Node: 2}, i})
	}
	if len(p.votes) != keptMarks {
		t.Errorf("%d marks are kept", len(p.votes))
	}
	if p.votes[99] == nil {
		t.Error("the newest mark was forgotten")
	}
}

func TestMajority(t *testing.T) {
	vote := func(sums ...byte) (votes []StateVote) {
		for i, s := range sums {
			votes = append(votes, StateVote{crm.NodeID(i + 1), Accumulator{s}})
		}
		return votes
	}
	for _, x := range []struct {
		votes []StateVote
		sum   byte
		n     int
	}{
		{vote(), 0, 0}, {vote(1, 1, 1), 1, 3}, {vote(1, 2, 2), 2, 2}, {vote(2, 1, 2), 2, 2}, {vote(1, 2), 1, 1}, {vote(3, 3, 1, 1, 3), 3, 3},
	} {
		if sum, n := majority(x.votes); sum[0] != x.sum || n != x.n {
			t.Errorf("%v: %d with %d votes", x.votes, sum[0], n)
		}
	}
}
