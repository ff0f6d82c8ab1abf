package gossip

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// A fakeNet joins hosts named like "lisbon-1:7946" with one delay each way.
// Timers deliver, so it has no goroutines of its own.
type fakeNet struct {
	delay time.Duration

	mu    sync.Mutex // protects what follows
	hosts map[string]*fakeHost
	cut   map[string]bool // hosts that nobody reaches and that reach nobody
}

func newFakeNet(delay time.Duration) *fakeNet {
	return &fakeNet{delay: delay, hosts: make(map[string]*fakeHost), cut: make(map[string]bool)}
}

var errUnreachable = errors.New("unreachable")

// reach returns the host at to if from can reach it.
func (n *fakeNet) reach(from, to string) (*fakeHost, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, ok := n.hosts[to]
	return h, ok && !n.cut[from] && !n.cut[to]
}

func (n *fakeNet) setCut(host string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[host] = cut
}

// transport adds a host and returns its transport.
func (n *fakeNet) transport(name string) *PacketTransport {
	h := &fakeHost{
		net: n, name: name,
		packets: make(chan fakePacket, 1024),
		conns:   make(chan net.Conn, 128),
		closed:  make(chan struct{}),
	}
	n.mu.Lock()
	n.hosts[name] = h
	n.mu.Unlock()
	return NewPacketTransport(fakePacketConn{h}, fakeListener{h}, h.dial, name)
}

type fakePacket struct {
	data []byte
	from string
}

type fakeHost struct {
	net     *fakeNet
	name    string
	packets chan fakePacket
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (h *fakeHost) close() error {
	h.once.Do(func() {
		h.net.mu.Lock()
		delete(h.net.hosts, h.name)
		h.net.mu.Unlock()
		close(h.closed)
	})
	return nil
}

func (h *fakeHost) dial(ctx context.Context, addr string) (net.Conn, error) {
	select {
	case <-time.After(2 * h.net.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	to, ok := h.net.reach(h.name, addr)
	if !ok {
		return nil, errUnreachable
	}
	near, far := net.Pipe()
	select {
	case to.conns <- far:
		return near, nil
	case <-to.closed:
		return nil, errUnreachable
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type fakePacketConn struct{ *fakeHost }

func (c fakePacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	p := fakePacket{data: append([]byte(nil), b...), from: c.name}
	time.AfterFunc(c.net.delay, func() {
		host, ok := c.net.reach(c.name, to.String())
		if !ok {
			return
		}
		select {
		case host.packets <- p:
		default:
		}
	})
	return len(b), nil
}

func (c fakePacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-c.packets:
		return copy(b, p.data), opaque(p.from), nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c fakePacketConn) Close() error                     { return c.close() }
func (c fakePacketConn) LocalAddr() net.Addr              { return opaque(c.name) }
func (c fakePacketConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c fakePacketConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c fakePacketConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

type fakeListener struct{ *fakeHost }

func (l fakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l fakeListener) Close() error   { return l.close() }
func (l fakeListener) Addr() net.Addr { return opaque(l.name) }
