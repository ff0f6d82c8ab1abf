package wansim

import (
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	maxPacket   = 65507   // bytes, as of UDP over IPv4
	packetQueue = 1 << 20 // bytes on their way to a reader or unread
)

var _ net.PacketConn = (*packetConn)(nil)

type packetConn struct {
	host   *Host
	addr   addr
	flows  map[addr]*rand.Rand // by destination
	queue  []packet            // in order of arrival
	queued int                 // bytes in queue
	closed bool

	gate          gate
	readDeadline  time.Time
	writeDeadline time.Time
}

type packet struct {
	link *link
	from addr
	data []byte
	at   time.Time
}

func (c *packetConn) LocalAddr() net.Addr { return c.addr }

// ReadFrom waits for a datagram; what does not fit into p is lost.
func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	mu := &c.host.net.mu
	mu.Lock()
	defer mu.Unlock()
	for {
		now := time.Now()
		if err := c.failure(now, c.readDeadline); err != nil {
			return 0, nil, opError("read", c.addr, nil, err)
		}
		var at time.Time
		if len(c.queue) > 0 {
			at = c.queue[0].at
		}
		if due(at, now) {
			got := c.queue[0]
			c.queue = slices.Delete(c.queue, 0, 1)
			c.queued -= len(got.data)
			return copy(p, got.data), got.from, nil
		}
		c.gate.wait(mu, first(at, c.readDeadline), nil)
	}
}

// WriteTo sends p to an address "name:port" and does not tell whether it arrives.
// The error wraps syscall.EMSGSIZE if p is longer than 65507 bytes, or a
// *net.DNSError if no host ever had the name.
func (c *packetConn) WriteTo(p []byte, to net.Addr) (int, error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	err := c.failure(now, c.writeDeadline)
	if err == nil && len(p) > maxPacket {
		err = syscall.EMSGSIZE
	}
	var remote addr
	if err == nil {
		remote, err = n.resolve(to.String())
	}
	if err != nil {
		return 0, opError("write", c.addr, to, err)
	}
	c.send(now, remote, p)
	return len(p), nil
}

func (c *packetConn) send(now time.Time, remote addr, p []byte) {
	n := c.host.net
	host := n.hosts[remote.host]
	l := n.links[c.host.site][host.site]
	if l.cut {
		return
	}
	flow := c.flows[remote]
	if flow == nil {
		flow = n.rng(c.addr.String()+">"+remote.String(), "datagrams")
		c.flows[remote] = flow
	}
	at := l.send(now, len(p), flow)
	lost := l.loses(len(p), flow)
	if dst := host.packets[remote.port]; dst != nil && !lost {
		dst.deliver(packet{l, c.addr, slices.Clone(p), at})
	}
}

// deliver queues p in order of arrival, unless the queue is full.
func (c *packetConn) deliver(p packet) {
	if c.queued+len(p.data) > packetQueue {
		return
	}
	i := len(c.queue)
	for i > 0 && p.at.Before(c.queue[i-1].at) {
		i--
	}
	c.queue = slices.Insert(c.queue, i, p)
	c.queued += len(p.data)
	c.gate.wake()
}

// drop forgets what is still on its way over links, which have changed state: over
// one that has just healed there is nothing.
func (c *packetConn) drop(links map[*link]bool, now time.Time) {
	c.queue = slices.DeleteFunc(c.queue, func(p packet) bool {
		gone := links[p.link] && p.at.After(now)
		if gone {
			c.queued -= len(p.data)
			p.link.bytes -= int64(len(p.data))
		}
		return gone
	})
	c.gate.wake()
}

func (c *packetConn) failure(now, deadline time.Time) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case due(deadline, now):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *packetConn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return opError("close", c.addr, nil, net.ErrClosed)
	}
	c.close()
	return nil
}

func (c *packetConn) close() {
	c.closed = true
	delete(c.host.packets, c.addr.port)
	c.queue, c.queued = nil, 0
	c.gate.wake()
}

func (c *packetConn) SetDeadline(t time.Time) error {
	return c.setDeadline(func() { c.readDeadline, c.writeDeadline = t, t })
}

func (c *packetConn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(func() { c.readDeadline = t })
}

func (c *packetConn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(func() { c.writeDeadline = t })
}

func (c *packetConn) setDeadline(set func()) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return opError("set", c.addr, nil, net.ErrClosed)
	}
	set()
	c.gate.wake()
	return nil
}
