package wansim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"
)

// A Host is one machine, or one process, at a site. It lives until [Host.Crash];
// then it stays down, and a new Host of the same name takes its place.
type Host struct {
	net  *Network
	name string
	site int // index in the matrix

	down      bool
	gate      gate // dialers wait here; woken by cuts and heals too
	port      int  // last port given to a dialer
	listeners map[string]*listener
	packets   map[string]*packetConn
}

// Name returns the host's part of its addresses.
func (h *Host) Name() string { return h.name }

// Site returns where the host stands.
func (h *Host) Site() Site { return h.net.cfg.Matrix.Sites[h.site] }

// Listen accepts connections to "name:port". Port is a decimal number; "0" or ""
// chooses a free one. The error wraps syscall.EADDRINUSE if the port is taken and
// syscall.ENETDOWN if the host has crashed.
func (h *Host) Listen(port string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	a, err := h.bind(port, func(p string) bool { return h.listeners[p] != nil })
	if err != nil {
		return nil, opError("listen", nil, addr{h.name, port}, err)
	}
	l := &listener{host: h, addr: a}
	h.listeners[a.port] = l
	return l, nil
}

// ListenPacket opens "name:port" for datagrams, with the ports and errors of
// [Host.Listen]. Datagrams get lost with Config.Loss and while a link is cut, may
// overtake each other under Config.Jitter, and are dropped when a reader falls a
// MiB behind.
func (h *Host) ListenPacket(port string) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	a, err := h.bind(port, func(p string) bool { return h.packets[p] != nil })
	if err != nil {
		return nil, opError("listen", nil, addr{h.name, port}, err)
	}
	c := &packetConn{host: h, addr: a, flows: map[addr]*rand.Rand{}}
	h.packets[a.port] = c
	return c, nil
}

// bind returns the address of a port that is not taken.
func (h *Host) bind(port string, taken func(string) bool) (addr, error) {
	if h.down || h.net.closed {
		return addr{}, syscall.ENETDOWN
	}
	if port == "" || port == "0" {
		port = h.freePort(taken)
	}
	a, err := parseAddr(net.JoinHostPort(h.name, port))
	if err == nil && taken(a.port) {
		err = syscall.EADDRINUSE
	}
	return a, err
}

// freePort returns the next ephemeral port, going round in 49152..65535.
func (h *Host) freePort(taken func(string) bool) string {
	const lowest, highest = 49152, 65535
	for range highest - lowest + 1 {
		h.port++
		if h.port < lowest || h.port > highest {
			h.port = lowest
		}
		if p := strconv.Itoa(h.port); !taken(p) {
			return p
		}
	}
	return strconv.Itoa(h.port)
}

// Dial connects to "name:port", which takes one round trip. The error, a
// *net.OpError, wraps
//
//   - syscall.ECONNREFUSED, after one round trip, if nobody listens there;
//   - syscall.ETIMEDOUT if a cut lasts longer than Config.DialTimeout;
//   - ctx.Err() if ctx ends first;
//   - a *net.DNSError if no host ever had the name;
//   - syscall.ENETDOWN if this host crashes.
//
// The connection does not end with ctx.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	remote, err := h.net.resolve(address)
	if err != nil {
		return nil, opError("dial", nil, nil, err)
	}
	c, err := h.dial(ctx, remote)
	if err != nil {
		return nil, opError("dial", nil, remote, err)
	}
	return c, nil
}

func (h *Host) dial(ctx context.Context, remote addr) (*conn, error) {
	n := h.net
	giveUp := time.Now().Add(n.cfg.DialTimeout)
	key := n.dialKey(h.name, remote)
	rng := n.rng(key, "dial")
	site := n.hosts[remote.host].site
	there, back := n.links[h.site][site], n.links[site][h.site]

	if err := h.travel(ctx, there, rng, giveUp); err != nil {
		return nil, err
	}
	called := n.hosts[remote.host] // it may have crashed, revived or moved meanwhile
	lis := called.listeners[remote.port]
	if err := h.travel(ctx, back, rng, giveUp); err != nil {
		return nil, err
	}
	if lis == nil || lis.closed || len(lis.queue) == backlog || called.site != site {
		return nil, syscall.ECONNREFUSED
	}
	local := addr{h.name, h.freePort(func(string) bool { return false })}
	c := n.connect(key, h, local, called, remote)
	lis.offer(c.peer, time.Now().Add(there.delay))
	return c, nil
}

// travel takes a packet of the handshake over l, however often a cut swallows it.
func (h *Host) travel(ctx context.Context, l *link, rng *rand.Rand, giveUp time.Time) error {
	for {
		for l.cut {
			if err := h.pause(ctx, giveUp); err != nil {
				return err
			}
			if due(giveUp, time.Now()) {
				return syscall.ETIMEDOUT
			}
		}
		cuts, arrival := l.cuts, l.send(time.Now(), 0, rng)
		if l.loses(0, rng) {
			arrival = arrival.Add(l.rto)
		}
		for l.cuts == cuts && !due(arrival, time.Now()) {
			if err := h.pause(ctx, arrival); err != nil {
				return err
			}
		}
		if l.cuts == cuts {
			return h.alive(ctx)
		}
	}
}

// pause waits until the instant or a change, and tells whether to go on.
func (h *Host) pause(ctx context.Context, until time.Time) error {
	if err := h.alive(ctx); err != nil {
		return err
	}
	h.gate.wait(&h.net.mu, until, ctx.Done())
	return h.alive(ctx)
}

func (h *Host) alive(ctx context.Context) error {
	if h.down || h.net.closed {
		return syscall.ENETDOWN
	}
	return ctx.Err()
}

// Crash kills the host as kill -9 kills a process: its listeners and connections
// are closed at once, and the other ends are reset one way later, or once a cut
// heals. What had not arrived by then is lost. Everything the host still tries
// fails with an error that wraps net.ErrClosed or syscall.ENETDOWN.
func (h *Host) Crash() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	now := time.Now()
	h.down = true
	for _, l := range h.listeners {
		l.close(now)
	}
	for _, p := range h.packets {
		p.close()
	}
	for _, c := range h.net.circuits {
		for _, e := range c.ends {
			if e.host == h {
				e.abort(now)
			}
		}
	}
	h.gate.wake()
}

// Revive returns a fresh host with the name and site of h, which stays down; it
// returns h itself if h never crashed.
func (h *Host) Revive() *Host { return h.net.Host(h.Site().Name, h.name) }

func (h *Host) String() string { return fmt.Sprintf("%s at %s", h.name, h.Site().Name) }
