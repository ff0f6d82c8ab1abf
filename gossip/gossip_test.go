package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const delay = 40 * time.Millisecond // one way, in every test over a fakeNet

var (
	testKey  = bytes.Repeat([]byte{7}, KeySize)
	otherKey = bytes.Repeat([]byte{8}, KeySize)
)

func hostOf(node uint32) string { return fmt.Sprintf("site-%d:7946", node) }

func testConfig(n *fakeNet, node uint32) Config {
	return Config{
		Meta: Meta{
			Node: node, Role: "replica", Site: fmt.Sprintf("site-%d", node),
			Sync: fmt.Sprintf("site-%d:7001", node), HTTP: fmt.Sprintf("https://site-%d", node),
		},
		Key:       testKey,
		Label:     "cluster-a",
		Transport: n.transport(hostOf(node)),
		Seeds:     func(context.Context) []string { return []string{hostOf(1), hostOf(2)} },
		Logger:    slog.New(slog.DiscardHandler),
	}
}

// run opens a node and runs it; the returned func stops it and waits.
func run(t *testing.T, cfg Config) (*Gossip, func()) {
	t.Helper()
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stopped := false
	return g, func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// runThree runs nodes 1 to 3 until each sees all; stop ends them together.
func runThree(t *testing.T, n *fakeNet) (nodes []*Gossip, stop func()) {
	t.Helper()
	var stops []func()
	for id := range uint32(3) {
		g, stop := run(t, testConfig(n, id+1))
		nodes, stops = append(nodes, g), append(stops, stop)
	}
	stop = func() {
		done := make(chan struct{})
		for _, s := range stops {
			go func() { s(); done <- struct{}{} }()
		}
		for range stops {
			<-done
		}
	}
	for _, g := range nodes {
		waitFor(t, g, time.Minute, func() bool { return states(g) == "1 alive, 2 alive, 3 alive" })
	}
	return nodes, stop
}

// waitFor waits in virtual time until cond, which is tried at every change.
func waitFor(t *testing.T, g *Gossip, limit time.Duration, cond func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond) // an RTT is no change
	defer tick.Stop()
	for !cond() {
		select {
		case <-g.Changes():
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v; members: %s", g.Address(), limit, states(g))
		}
	}
}

func states(g *Gossip) string {
	var list []string
	for _, m := range g.Members() {
		list = append(list, fmt.Sprintf("%d %v", m.Node, m.State))
	}
	return strings.Join(list, ", ")
}

func TestGossip_DiscoversAndMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := runThree(t, newFakeNet(delay))
		defer stop()
		waitFor(t, nodes[0], time.Minute, func() bool {
			_, two := nodes[0].RTT(2)
			_, three := nodes[0].RTT(3)
			return two && three
		})
		for _, node := range []uint32{2, 3} {
			if rtt, _ := nodes[0].RTT(node); rtt < 2*delay || rtt > 2*delay+time.Millisecond {
				t.Errorf("RTT(%d) = %v, want %v", node, rtt, 2*delay)
			}
		}
		third := nodes[0].Members()[2]
		if want := testConfig(newFakeNet(0), 3).Meta; third.Meta != want {
			t.Errorf("meta = %+v, want %+v", third.Meta, want)
		}
		if !third.RTTKnown || third.Since.IsZero() {
			t.Errorf("member = %+v, want a known RTT and a time", third)
		}
		if _, ok := nodes[0].RTT(1); ok {
			t.Error("a node knows an RTT to itself")
		}
		if got := nodes[0].HealthScore(); got != 0 {
			t.Errorf("health score = %d, want 0", got)
		}
		if got := nodes[0].Stats(); got != (Stats{}) {
			t.Errorf("stats = %+v, want none", got)
		}
	})
}

func TestGossip_CutOffNodeReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		nodes, stop := runThree(t, n)
		defer stop()

		n.setCut(hostOf(3), true)
		waitFor(t, nodes[0], 2*time.Minute, func() bool { return states(nodes[0]) == "1 alive, 2 alive, 3 suspect" })
		waitFor(t, nodes[0], 5*time.Minute, func() bool { return states(nodes[0]) == "1 alive, 2 alive, 3 dead" })
		waitFor(t, nodes[2], 10*time.Minute, func() bool { return states(nodes[2]) == "1 dead, 2 dead, 3 alive" })
		time.Sleep(10 * time.Minute) // memberlist itself forgets the dead after one

		n.setCut(hostOf(3), false)
		for _, g := range nodes {
			waitFor(t, g, 2*time.Minute, func() bool { return states(g) == "1 alive, 2 alive, 3 alive" })
		}
	})
}

func TestGossip_SuspectIsVindicated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		nodes, stop := runThree(t, n)
		defer stop()
		died := func() bool { return strings.Contains(states(nodes[0]), "dead") }

		n.setCut(hostOf(3), true)
		waitFor(t, nodes[0], 2*time.Minute, func() bool { return died() || states(nodes[0]) == "1 alive, 2 alive, 3 suspect" })
		n.setCut(hostOf(3), false)
		waitFor(t, nodes[0], time.Minute, func() bool { return died() || states(nodes[0]) == "1 alive, 2 alive, 3 alive" })
		if died() {
			t.Errorf("members = %s, want none dead", states(nodes[0]))
		}
	})
}

// Neither half is alone, so only the minute's search brings them together.
func TestGossip_HalvesFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		seed := func(node uint32) func(context.Context) []string {
			return func(context.Context) []string { return []string{hostOf(node)} }
		}
		var nodes []*Gossip
		for node, seeds := range map[uint32]func(context.Context) []string{1: seed(2), 2: seed(1), 3: seed(4), 4: seed(3)} {
			cfg := testConfig(n, node)
			cfg.Seeds = seeds
			if node == 4 {
				cfg.Seeds = func(context.Context) []string { return []string{hostOf(3), hostOf(1)} }
				n.setCut(hostOf(1), true)
			}
			g, stop := run(t, cfg)
			defer stop()
			nodes = append(nodes, g)
		}
		time.Sleep(10 * time.Second)
		n.setCut(hostOf(1), false)
		for _, g := range nodes {
			waitFor(t, g, 5*time.Minute, func() bool {
				return states(g) == "1 alive, 2 alive, 3 alive, 4 alive"
			})
		}
	})
}

func TestGossip_LeavesPolitely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		nodes, stop := runThree(t, n)
		defer stop()

		four, stopFour := run(t, testConfig(n, 4))
		for _, g := range append(nodes, four) { // before it knows anyone, it has nobody to tell
			waitFor(t, g, time.Minute, func() bool { return states(g) == "1 alive, 2 alive, 3 alive, 4 alive" })
		}
		start := time.Now()
		stopFour()
		if took, limit := time.Since(start), 4*time.Second+5*time.Second; took > limit {
			t.Errorf("stopping took %v, want at most %v", took, limit)
		}
		waitFor(t, nodes[0], time.Second, func() bool { return states(nodes[0]) == "1 alive, 2 alive, 3 alive, 4 left" })
		if err := four.Run(t.Context()); err == nil {
			t.Error("a second Run succeeded")
		}

		again, stopAgain := run(t, testConfig(n, 4))
		defer stopAgain()
		for _, g := range append(nodes, again) {
			waitFor(t, g, time.Minute, func() bool { return states(g) == "1 alive, 2 alive, 3 alive, 4 alive" })
		}
	})
}

func TestGossip_MetaUpdateTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := runThree(t, newFakeNet(delay))
		defer stop()

		meta := nodes[2].Members()[2].Meta
		meta.Role = "master"
		if err := nodes[2].UpdateMeta(meta); err != nil {
			t.Fatal(err)
		}
		for _, g := range nodes {
			waitFor(t, g, 30*time.Second, func() bool { return g.Members()[2].Role == "master" })
		}
		meta.Node = 9
		if err := nodes[2].UpdateMeta(meta); err == nil {
			t.Error("a node changed its id")
		}
	})
}

func TestGossip_StrangersStayOut(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*Config)
		counted func(Stats) uint64
		packet  string
	}{
		"WrongKey": {
			func(c *Config) { c.Key = otherKey },
			func(s Stats) uint64 { return s.DecryptFailures },
			"\xf4\x09cluster-a" + "not sealed with any key at all, but long enough",
		},
		"WrongLabel": {
			func(c *Config) { c.Label = "cluster-b" },
			func(s Stats) uint64 { return s.LabelMismatches },
			"\xf4\x09cluster-b" + "whatever it says",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFakeNet(delay)
				nodes, stop := runThree(t, n)
				defer stop()
				cfg := testConfig(n, 4)
				tc.change(&cfg)
				stranger, stopStranger := run(t, cfg)
				defer stopStranger()

				waitFor(t, nodes[0], time.Minute, func() bool { return tc.counted(nodes[0].Stats()) > 0 })
				before := tc.counted(nodes[0].Stats())
				knock(t, stranger, tc.packet)
				synctest.Wait()
				time.Sleep(delay) // a packet is on its way
				synctest.Wait()
				if got := tc.counted(nodes[0].Stats()); got <= before {
					t.Errorf("counted %d, then %d; want more", before, got)
				}
				if got, want := states(nodes[0]), "1 alive, 2 alive, 3 alive"; got != want {
					t.Errorf("members = %s, want %s", got, want)
				}
				if got, want := states(stranger), "4 alive"; got != want {
					t.Errorf("the stranger sees %s, want %s", got, want)
				}
			})
		})
	}
}

// knock sends node 1 a raw packet.
func knock(t *testing.T, from *Gossip, packet string) {
	t.Helper()
	if _, err := from.transport.WriteTo([]byte(packet), from.transport.learn(hostOf(1))); err != nil {
		t.Fatal(err)
	}
}

func TestGossip_StopsWhileCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		_, stop := runThree(t, n)
		for node := range uint32(3) {
			n.setCut(hostOf(node+1), true)
		}
		time.Sleep(20 * time.Second) // probes fail, a push and pull may hang
		start := time.Now()
		stop()
		if took := time.Since(start); took > time.Minute {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestGossip_LoopbackUDP(t *testing.T) {
	var seeds []string
	cfg := func(node uint32) Config {
		return Config{
			Meta: Meta{Node: node, Role: "master"}, Key: testKey, Label: "cluster-a", Preset: LAN,
			Bind: "127.0.0.1:0", Seeds: func(context.Context) []string { return seeds },
			NoDrain: true, Logger: slog.New(slog.DiscardHandler),
		}
	}
	one, stopOne := run(t, cfg(1))
	defer stopOne()
	seeds = []string{strings.Replace(one.Address(), "127.0.0.1", "localhost", 1)}
	two, stopTwo := run(t, cfg(2))
	defer stopTwo()
	for _, g := range []*Gossip{one, two} {
		waitFor(t, g, 30*time.Second, func() bool { return states(g) == "1 alive, 2 alive" })
	}
	waitFor(t, one, 30*time.Second, func() bool { _, ok := one.RTT(2); return ok })
	stopTwo()
	waitFor(t, one, 10*time.Second, func() bool { return states(one) == "1 alive, 2 left" })
}

func TestOpen_RefusesWhatCannotWork(t *testing.T) {
	good := Config{Meta: Meta{Node: 1}, Key: testKey, Label: "c", Bind: "127.0.0.1:0"}
	g, err := Open(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil {
		t.Error("Run after Close succeeded")
	}
	for name, change := range map[string]func(*Config){
		"ErrName":      func(c *Config) { c.Name = "node-2" },
		"ErrKey":       func(c *Config) { c.Key = c.Key[:16] },
		"ErrLabel":     func(c *Config) { c.Label = "" },
		"ErrPreset":    func(c *Config) { c.Preset = 9 },
		"ErrBind":      func(c *Config) { c.Bind = "" },
		"ErrAdvertise": func(c *Config) { c.Advertise = "lisbon:7946" },
		"ErrAnyIP":     func(c *Config) { c.Bind = "0.0.0.0:0" },
		"ErrRole":      func(c *Config) { c.Meta.Role = strings.Repeat("x", MaxRole+1) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			if g, err := Open(cfg); err == nil {
				g.Close()
				t.Error("Open succeeded")
			}
		})
	}
}
