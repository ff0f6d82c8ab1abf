package processtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/replica"
)

var (
	stopFor      = flag.Duration("stop-for", 6*time.Second, "how long to stop the leader")
	untilNoticed = flag.Bool("until-noticed", false, "cut the branch's line until it knows, which takes up to three heartbeats, 30 s")
)

func newWan(t *testing.T) *Wan {
	t.Helper()
	w, err := NewWan(t.Context())
	if errors.Is(err, ErrNoNetns) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

func addNetns(t *testing.T, w *Wan) *Netns {
	t.Helper()
	n, err := w.Add(t.Context())
	must(t, err)
	return n
}

// TestNetns_Lines: each direction is cut, healed and narrowed by itself.
func TestNetns_Lines(t *testing.T) {
	w := newWan(t)
	here, there := addNetns(t, w), addNetns(t, w)
	socket := func(n *Netns) net.PacketConn {
		var conn net.PacketConn
		var err error
		must(t, n.visit(func() { conn, err = net.ListenPacket("udp", n.Host+":7000") }))
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	a, b := socket(here), socket(there)
	carries := func(from, to net.PacketConn, patience time.Duration) bool {
		t.Helper()
		must(t, to.SetReadDeadline(time.Now().Add(patience)))
		_, err := from.WriteTo([]byte("hello"), to.LocalAddr())
		must(t, err)
		_, _, err = to.ReadFrom(make([]byte, 10))
		return err == nil
	}
	const short, long = 50 * time.Millisecond, 10 * time.Second
	for _, step := range []struct {
		cut      Direction
		out, in_ bool // is anything carried?
	}{{0, true, true}, {Out, false, true}, {In, true, false}, {Both, false, false}, {0, true, true}} {
		must(t, here.Heal(t.Context(), Both))
		must(t, here.Cut(t.Context(), step.cut))
		for name, c := range map[string]struct {
			from, to net.PacketConn
			want     bool
		}{"out": {a, b, step.out}, "in": {b, a, step.in_}} {
			patience := short
			if c.want {
				patience = long
			}
			if got := carries(c.from, c.to, patience); got != c.want {
				t.Errorf("cut %d: %s carries: %v, want %v", step.cut, name, got, c.want)
			}
		}
	}
}

// TestNetns_Rate: what is more than the bucket takes its time.
func TestNetns_Rate(t *testing.T) {
	w := newWan(t)
	here, there := addNetns(t, w), addNetns(t, w)
	var l net.Listener
	var err error
	must(t, there.visit(func() { l, err = net.Listen("tcp", there.Host+":7000") }))
	must(t, err)
	defer l.Close()
	must(t, here.Rate(t.Context(), Out, 1_000_000))
	c, err := here.Dial(t.Context(), "tcp", l.Addr().String())
	must(t, err)
	defer c.Close()
	s, err := l.Accept()
	must(t, err)
	defer s.Close()
	start := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { c.Write(make([]byte, 100_000)) })
	for n := 0; n < 100_000; {
		k, err := s.Read(make([]byte, 32<<10))
		must(t, err)
		n += k
	}
	wg.Wait()
	// 100 kB less the bucket of 32 KiB at 1 Mbit/s take 0.54 s.
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("100 kB took %v at 1 Mbit/s", took)
	}
}

// TestNetns_Sweep: what a process that is gone has left is removed, with what
// still runs in it.
func TestNetns_Sweep(t *testing.T) {
	newWan(t) // skips
	ended := exec.Command("true")
	must(t, ended.Run())
	left := fmt.Sprintf("%s%d-1", netnsPrefix, ended.Process.Pid)
	must(t, tool(t.Context(), "ip", "netns", "add", left))
	sleeper := exec.Command("ip", "netns", "exec", left, "sleep", "600")
	must(t, sleeper.Start())
	must(t, Await(t.Context(), "the sleeper to be inside", func() (bool, error) {
		pids, err := exec.Command("ip", "netns", "pids", left).Output()
		return len(pids) > 0, err
	}))
	mine := newWan(t)
	if err := sleeper.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the sleeper ended with %v", err)
	}
	if _, err := os.Stat("/run/netns/" + left); err == nil {
		t.Errorf("%s is still there", left)
	}
	if _, err := os.Stat("/run/netns/" + mine.name); err != nil {
		t.Error(err)
	}
}

// TestNetns_CutsAndPauses runs three masters and a branch in namespaces of their
// own. The branch is cut off, both ways and one way, and edits go on there; the
// leader is stopped, another leads, and it comes back. All is decided once, and
// digests are equal.
func TestNetns_CutsAndPauses(t *testing.T) {
	t.Parallel()
	w := newWan(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+*stopFor)
	defer cancel()
	lines := map[string]*Netns{}
	c := startAt(ctx, t, 3, func(name string) (Place, error) {
		n, err := w.Add(ctx)
		lines[name] = n
		return n.Place(), err
	})
	b := newBranch(ctx, t, c.Replicas[0], 2)
	for _, d := range []Direction{Both, Out, In} {
		b.cutOff(ctx, t, lines["r-lisbon"], d)
	}
	b.narrow(ctx, t, lines["r-lisbon"])
	stopLeader(ctx, t, c, b)
	b.stop()
	verify(ctx, t, c, b.writer, 0)
}

// startAt starts a cluster whose processes stand at places.
func startAt(ctx context.Context, t *testing.T, masters int, place func(name string) (Place, error)) *Cluster {
	t.Helper()
	bin, err := built()
	must(t, err)
	c, err := NewClusterAt(ctx, bin, t.TempDir(), masters, map[string][]string{"lisbon": {"iberia"}}, place)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	return c
}

// A branch is a replica where clerks write without pause.
type branch struct {
	*writer
	process *Process
	stop    func() // of the clerks; returns when they have ended
}

func newBranch(ctx context.Context, t *testing.T, p *Process, clerks int) *branch {
	t.Helper()
	b := &branch{writer: newWriter(ctx, t, p, "branch", 0), process: p}
	loop, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range clerks {
		wg.Go(func() { b.run(loop, fmt.Sprintf("clerk%d", i)) })
	}
	b.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(b.stop)
	return b
}

func (b *branch) status(ctx context.Context) (replica.Status, error) {
	var s replica.Status
	err := b.client.Status(ctx, &s)
	return s, err
}

// awaitEdits waits until n more edits are acknowledged.
func (b *branch) awaitEdits(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	want := b.count() + n
	must(t, Await(ctx, fmt.Sprintf("%d edits", n), func() (bool, error) { return b.count() >= want, nil }))
}

// awaitDecided waits until every edit of until now is decided, as far as the
// branch has heard.
func (b *branch) awaitDecided(ctx context.Context, t *testing.T) {
	t.Helper()
	at, err := b.status(ctx)
	must(t, err)
	must(t, Await(ctx, "the masters' decisions", func() (bool, error) {
		now, err := b.status(ctx)
		return now.Decided >= at.Seq, err
	}))
}

// cutOff cuts a direction of the branch's line, lets edits go on meanwhile, and
// heals. No decision reaches the branch during a cut, whichever way it is: what
// the branch sends needs an acknowledgement.
func (b *branch) cutOff(ctx context.Context, t *testing.T, line *Netns, d Direction) {
	t.Helper()
	b.awaitDecided(ctx, t)
	must(t, line.Cut(ctx, d))
	start, before := time.Now(), b.count()
	early := b.awaitQuiet(ctx, t)
	b.awaitEdits(ctx, t, 100)
	for *untilNoticed && b.connected(ctx, t) {
		b.awaitEdits(ctx, t, 10)
	}
	late, err := b.status(ctx)
	must(t, err)
	if late.Decided != early.Decided || late.Outbox.Entries < 100 {
		t.Errorf("cut %d: edits %d to %d were decided during it, %d wait", d, early.Decided, late.Decided, late.Outbox.Entries)
	}
	edits, healed := b.count()-before, time.Now()
	must(t, line.Heal(ctx, d))
	b.awaitDecided(ctx, t)
	t.Logf("cut %d for %v: %d edits meanwhile, decided %v after the heal", d, healed.Sub(start).Round(time.Millisecond), edits, time.Since(healed).Round(time.Millisecond))
}

// awaitQuiet waits until what was on its way at a cut is over: 20 edits go by and
// none is decided. A line that is not cut is noticed by what is decided afterwards.
func (b *branch) awaitQuiet(ctx context.Context, t *testing.T) replica.Status {
	t.Helper()
	var s replica.Status
	for range 20 {
		before := s.Decided
		var err error
		s, err = b.status(ctx)
		must(t, err)
		if s.Decided == before {
			break
		}
		b.awaitEdits(ctx, t, 20)
	}
	return s
}

func (b *branch) connected(ctx context.Context, t *testing.T) bool {
	t.Helper()
	s, err := b.status(ctx)
	must(t, err)
	return s.Connected
}

// narrow lets a line of 512 kbit/s carry the edits for a while.
func (b *branch) narrow(ctx context.Context, t *testing.T, line *Netns) {
	t.Helper()
	must(t, line.Rate(ctx, Both, 512_000))
	b.awaitEdits(ctx, t, 100)
	b.awaitDecided(ctx, t)
	must(t, line.Rate(ctx, Both, 0))
}

// stopLeader stops the leading process for a while, as a machine that hangs.
func stopLeader(ctx context.Context, t *testing.T, c *Cluster, b *branch) {
	t.Helper()
	old, err := c.Leader(ctx)
	must(t, err)
	must(t, old.cmd.Process.Signal(syscall.SIGSTOP))
	over := time.After(*stopFor)
	resume := sync.OnceValue(func() error { return old.cmd.Process.Signal(syscall.SIGCONT) })
	defer resume()
	start := time.Now()
	rest := &Cluster{}
	for _, p := range c.Masters {
		if p != old {
			rest.Masters = append(rest.Masters, p)
		}
	}
	next, err := rest.Leader(ctx)
	must(t, err)
	elected := time.Since(start)
	b.awaitEdits(ctx, t, 100)
	<-over
	must(t, resume())
	must(t, Await(ctx, old.Name+" to follow", func() (bool, error) {
		client, err := old.Client()
		if err != nil {
			return false, err
		}
		var s struct{ Leads, Ready bool }
		err = client.Status(ctx, &s)
		return err == nil && s.Ready && !s.Leads, err
	}))
	resumed := time.Since(start)
	b.awaitDecided(ctx, t)
	t.Logf("%s stopped for %v: %s leads after %v, %s follows %v after the end, edits decided %v after it", old.Name, *stopFor, next.Name, elected.Round(time.Millisecond),
		old.Name, (resumed - *stopFor).Round(time.Millisecond), (time.Since(start) - *stopFor).Round(time.Millisecond))
}
