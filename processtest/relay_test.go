package processtest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/faultnet"
	"github.com/tradepost-crm/tradepost/node"
)

// inSession waits until the branch is in session with the node at addr.
func (b *branch) inSession(ctx context.Context, t *testing.T, addr string) {
	t.Helper()
	must(t, Await(ctx, "a session with "+addr, func() (bool, error) {
		s, err := b.status(ctx)
		return s.Connected && s.Master == addr, err
	}))
}

// A master that joined as a relay serves a branch that is far from the masters:
// the branch finds that it is nearer, goes to the masters when it dies, and loses
// nothing, and the relay gets a vote when an operator says so.
func TestRelay_OfMasters(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	pid := os.Getpid()
	host := fmt.Sprintf("127.78.%d.%d", pid>>8&0xff, pid&0xff|1) // loopback of this test's own
	far, err := faultnet.Open(faultnet.Config{Listen: host + ":7500", Target: host + ":7400", Seed: 1})
	must(t, err)
	defer func() { must(t, far.Close()) }()
	line := map[string]*faultnet.Proxy{"wan": far}
	befall := func(text string) {
		t.Helper()
		script, err := faultnet.ParseScript(text)
		must(t, err)
		must(t, script.Run(ctx, line))
	}
	befall("at 0s * delay 40ms")
	c := startAt(ctx, t, 1, func(name string) (Place, error) {
		if name == "m1" {
			return Place{Host: host, Prefix: []string{"env", "TRADEPOST_ADVERTISE_SYNC=" + far.Addr()}}, nil
		}
		return Place{}, nil
	})
	b := newBranch(ctx, t, c.Replicas[0], 2)
	b.inSession(ctx, t, far.Addr())
	b.awaitDecided(ctx, t)

	must(t, c.join(ctx, "m2", "hq", "relay", &c.Masters))
	relay := c.Masters[1]
	near := relay.args[slices.Index(relay.args, "--sync")+1]
	must(t, awaitRev(ctx, b.client, headOf(ctx, t, c))) // the relay's record is here
	befall("at 0s * reset")
	b.inSession(ctx, t, near)
	b.awaitEdits(ctx, t, 20)
	b.awaitDecided(ctx, t)
	b.shows(ctx, t, near, far.Addr())
	if got := suffrages(ctx, t, c); got != "nonvoter voter" {
		t.Errorf("the masters are %s", got)
	}

	must(t, relay.Kill())
	b.inSession(ctx, t, far.Addr())
	b.awaitEdits(ctx, t, 20)
	b.awaitDecided(ctx, t)
	must(t, relay.Start())
	must(t, relay.AwaitReady(ctx))

	number := nodeNumber(ctx, t, relay)
	_, err = c.Masters[0].run(ctx, "node promote", at(c.Masters[0], number)...)
	must(t, err)
	must(t, Await(ctx, "the relay to vote", func() (bool, error) { return suffrages(ctx, t, c) == "voter voter", nil }))
	b.awaitEdits(ctx, t, 20)
	b.stop()
	verify(ctx, t, c, b.writer, 1)
}

// shows wants the branch's status to say who is in use and how near each is.
func (b *branch) shows(ctx context.Context, t *testing.T, near, far string) {
	t.Helper()
	var s node.Status
	must(t, b.client.Status(ctx, &s))
	rtt := map[string]float64{}
	for _, c := range s.Candidates {
		rtt[c.Address] = c.RTTMillis
		if c.InUse != (c.Address == near) {
			t.Errorf("in use: %+v", c)
		}
	}
	if rtt[near] <= 0 || rtt[far] <= rtt[near] {
		t.Errorf("round trips %v", rtt)
	}
	t.Logf("the relay is %.1f ms away, the master %.1f ms", rtt[near], rtt[far])
}

// suffrages returns which masters vote, sorted.
func suffrages(ctx context.Context, t *testing.T, c *Cluster) string {
	t.Helper()
	client, err := c.Masters[0].Client()
	must(t, err)
	peers, err := client.Peers(ctx)
	must(t, err)
	var out []string
	for _, p := range peers {
		out = append(out, p.Suffrage)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func nodeNumber(ctx context.Context, t *testing.T, p *Process) string {
	t.Helper()
	client, err := p.Client()
	must(t, err)
	var s node.Status
	must(t, client.Status(ctx, &s))
	return strconv.Itoa(int(s.Node))
}
