package processtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoNetns says that this machine can make no network namespaces; the error
// around it says why. Tests skip on it.
var ErrNoNetns = errors.New("processtest: no network namespaces here")

// A Wan is a bridge in a network namespace of its own and the namespaces plugged
// into it. Nothing of the machine's own network is touched.
type Wan struct {
	name string // of the bridge's namespace; those of the places begin with it
	mu   sync.Mutex
	all  []*Netns
}

// A Netns is a network namespace with one address on its Wan.
type Netns struct {
	Name string // as ip netns knows it
	Host string // its address
	wan  *Wan
	plug string // the bridge's end of its cable

	mu    sync.Mutex // protects what follows, and the queues
	lines [2]netLine // to the Wan, from it
}

// A netLine is one direction of a cable.
type netLine struct {
	cut  bool
	rate int // bits a second; 0: no limit
}

// Direction names one direction of a namespace's cable, or both.
type Direction int

// Out is what the namespace sends, In what it receives.
const (
	Out  Direction = 1
	In   Direction = 2
	Both           = Out | In
)

const netnsPrefix = "tradepost-"

// NewWan makes an empty Wan, after removing what earlier processes that are gone
// have left of theirs. Close removes it.
func NewWan(ctx context.Context) (*Wan, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: they take root", ErrNoNetns)
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoNetns, err)
		}
	}
	if err := sweepNetns(ctx); err != nil {
		return nil, err
	}
	w := &Wan{name: fmt.Sprintf("%s%d-%d", netnsPrefix, os.Getpid(), wans.next())}
	if err := tool(ctx, "ip", "netns", "add", w.name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNetns, err)
	}
	err := errors.Join(
		tool(ctx, "ip", "-n", w.name, "link", "add", "name", "wan", "type", "bridge"),
		tool(ctx, "ip", "-n", w.name, "link", "set", "wan", "up"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNetns, errors.Join(err, w.Close()))
	}
	return w, nil
}

// wans numbers those of this process.
var wans counter

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// Add plugs one more namespace in.
func (w *Wan) Add(ctx context.Context) (*Netns, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := len(w.all) + 1
	n := &Netns{Name: fmt.Sprintf("%s-%d", w.name, i), Host: fmt.Sprintf("10.77.0.%d", i), wan: w, plug: fmt.Sprintf("plug%d", i)}
	if err := tool(ctx, "ip", "netns", "add", n.Name); err != nil {
		return nil, err
	}
	w.all = append(w.all, n)
	for _, args := range [][]string{
		{"-n", w.name, "link", "add", "name", n.plug, "type", "veth", "peer", "name", "eth0", "netns", n.Name},
		{"-n", w.name, "link", "set", n.plug, "master", "wan", "up"},
		{"-n", n.Name, "link", "set", "lo", "up"},
		{"-n", n.Name, "addr", "add", n.Host + "/24", "dev", "eth0"},
		{"-n", n.Name, "link", "set", "eth0", "up"},
	} {
		if err := tool(ctx, "ip", args...); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Close removes the namespaces and with them their cables. End the processes in
// them first.
func (w *Wan) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, n := range w.all {
		errs = append(errs, tool(context.Background(), "ip", "netns", "del", n.Name))
	}
	return errors.Join(append(errs, tool(context.Background(), "ip", "netns", "del", w.name))...)
}

// sweepNetns removes the namespaces of processes that ended without Close, and
// ends the nodes that still run in them: no others can be there.
func sweepNetns(ctx context.Context) error {
	names, err := filepath.Glob("/run/netns/" + netnsPrefix + "*")
	if err != nil {
		return err
	}
	for _, path := range names {
		name := filepath.Base(path)
		owner, _, _ := strings.Cut(strings.TrimPrefix(name, netnsPrefix), "-")
		if _, err := os.Stat("/proc/" + owner); err == nil {
			continue
		}
		inside, err := exec.CommandContext(ctx, "ip", "netns", "pids", name).Output()
		if err != nil {
			continue // another process sweeps too
		}
		for _, field := range strings.Fields(string(inside)) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
			}
		}
		_ = tool(ctx, "ip", "netns", "del", name) // likewise
	}
	return nil
}

// tool runs a program of iproute2.
func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Place is where a process in the namespace stands.
func (n *Netns) Place() Place {
	return Place{Host: n.Host, Prefix: []string{"ip", "netns", "exec", n.Name}, Dial: n.Dial}
}

// Cut lets nothing through in a direction, without a sign to either side.
func (n *Netns) Cut(ctx context.Context, d Direction) error {
	return n.set(ctx, d, func(l *netLine) { l.cut = true })
}

// Heal takes back a Cut.
func (n *Netns) Heal(ctx context.Context, d Direction) error {
	return n.set(ctx, d, func(l *netLine) { l.cut = false })
}

// Rate limits a direction to so many bits a second, 0 for no limit.
func (n *Netns) Rate(ctx context.Context, d Direction, bits int) error {
	return n.set(ctx, d, func(l *netLine) { l.rate = bits })
}

// set changes lines and the queues that make them so: each direction's is at the
// end of the cable that sends.
func (n *Netns) set(ctx context.Context, d Direction, change func(*netLine)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d&Out != 0 {
		change(&n.lines[0])
		if err := n.lines[0].queue(ctx, n.Name, "eth0"); err != nil {
			return err
		}
	}
	if d&In != 0 {
		change(&n.lines[1])
		return n.lines[1].queue(ctx, n.wan.name, n.plug)
	}
	return nil
}

// queue gives a device the queue of its line: one that has room for no packet
// for a cut, a token bucket for a limited rate, the default otherwise.
func (l netLine) queue(ctx context.Context, netns, device string) error {
	at := []string{"-n", netns, "qdisc", "replace", "dev", device, "root"}
	switch {
	case l.cut:
		at = append(at, "bfifo", "limit", "1")
	case l.rate > 0:
		at = append(at, "tbf", "rate", strconv.Itoa(l.rate)+"bit", "burst", "32kb", "latency", "400ms")
	default:
		at = append(at, "pfifo", "limit", "1000")
	}
	return tool(ctx, "tc", at...)
}

// Dial connects to an address, which must be numeric, as a process in the
// namespace does.
func (n *Netns) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	visit := n.visit(func() { conn, err = new(net.Dialer).DialContext(ctx, network, addr) })
	return conn, errors.Join(visit, err)
}

// visit runs do on a thread that is in the namespace meanwhile. Sockets that do
// opens belong to the namespace.
func (n *Netns) visit(do func()) error {
	there, err := os.Open("/run/netns/" + n.Name)
	if err != nil {
		return err
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		defer here.Close()
		err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", n.Name, err)
	}
	do()
	if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave %s: %w", n.Name, err) // locked, the thread ends with this goroutine
	}
	runtime.UnlockOSThread()
	return nil
}
