package wansim

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

var _ net.Conn = (*conn)(nil)

// A circuit is an established connection: two ends and what lies between them.
type circuit struct {
	net  *Network
	key  string // "host>address#nth dial": seeds the circuit and orders it among others
	ends [2]*conn
	// stallAt is when both ends are reset, because something has been waiting
	// for an acknowledgement since StallTimeout before and a cut stops it.
	stallAt time.Time
}

// A conn is one end of a circuit.
type conn struct {
	*circuit
	host          *Host
	local, remote addr
	peer          *conn
	in, out       *stream

	gate          gate
	writing       bool  // a Write is under way; others wait, so that writes stay whole
	err           error // why this end is dead: net.ErrClosed or syscall.ECONNRESET
	rst           bool  // a reset is on its way here
	rstAt         time.Time
	readDeadline  time.Time
	writeDeadline time.Time
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Read returns what has arrived, waiting for at least one byte of it.
func (c *conn) Read(p []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		now := time.Now()
		if err := c.failure(now, c.readDeadline); err != nil {
			return 0, opError("read", c.local, c.remote, err)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := c.in.take(now, p); n > 0 {
			c.peer.gate.wake()
			return n, nil
		}
		if c.in.ended(now) {
			return 0, io.EOF
		}
		c.gate.wait(&c.net.mu, first(c.in.next(), c.readDeadline, c.rstAt, c.stallAt), nil)
	}
}

// Write returns when all of p is in the send window, which is not to say that it
// has arrived.
func (c *conn) Write(p []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for c.writing {
		if err := c.failure(time.Now(), c.writeDeadline); err != nil {
			return 0, opError("write", c.local, c.remote, err)
		}
		c.gate.wait(&c.net.mu, first(c.writeDeadline, c.rstAt, c.stallAt), nil)
	}
	c.writing = true
	n, err := c.write(p)
	c.writing = false
	c.gate.wake()
	return n, err
}

func (c *conn) write(p []byte) (int, error) {
	n := 0
	for {
		now := time.Now()
		err := c.failure(now, c.writeDeadline)
		if err == nil && due(c.in.finAt(), now) {
			err = syscall.EPIPE
		}
		if err != nil {
			return n, opError("write", c.local, c.remote, err)
		}
		if n == len(p) {
			return n, nil
		}
		if k := min(c.out.space(now), len(p)-n, segmentSize); k > 0 {
			c.send(now, segment{data: append([]byte(nil), p[n:n+k]...)})
			n += k
			continue
		}
		c.gate.wait(&c.net.mu, first(c.out.nextAck(), c.in.finAt(), c.writeDeadline, c.rstAt, c.stallAt), nil)
	}
}

// send puts seg on its way to the other end, which throws it away if it is dead.
func (c *conn) send(now time.Time, seg segment) {
	c.out.send(now, seg)
	if c.peer.err != nil {
		c.out.queue = nil
	}
	if c.out.fwd.cut || c.out.rev.cut {
		c.stall(now)
	}
	c.peer.gate.wake()
}

// failure says why this end can do nothing now, if it cannot.
func (c *conn) failure(now, deadline time.Time) error {
	c.settle(now)
	switch {
	case c.err != nil:
		return c.err
	case due(deadline, now):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Close ends the connection from this side. The other end reads what was written,
// then io.EOF. What was not read here is lost.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	now := time.Now()
	c.settle(now)
	if c.err == net.ErrClosed {
		return opError("close", c.local, c.remote, net.ErrClosed)
	}
	if c.err == nil {
		c.send(now, segment{fin: true})
	}
	c.die(net.ErrClosed)
	return nil
}

// abort kills this end and sends the other a reset, as the kernel does for a
// killed process.
func (c *conn) abort(now time.Time) {
	c.settle(now)
	if c.err != nil {
		return
	}
	c.die(net.ErrClosed)
	if c.peer.err == nil {
		c.peer.rst = true
		if !c.out.fwd.cut {
			c.peer.rstAt = now.Add(c.out.fwd.delay)
		}
		c.peer.gate.wake()
	}
}

// die makes this end useless and forgets the circuit with its second end.
func (c *conn) die(err error) {
	c.err = err
	c.in.queue = nil
	c.gate.wake()
	if c.peer.err != nil {
		delete(c.net.circuits, c.key)
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadline(func() { c.readDeadline, c.writeDeadline = t, t })
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(func() { c.readDeadline = t })
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(func() { c.writeDeadline = t })
}

func (c *conn) setDeadline(set func()) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.err != nil {
		return opError("set", c.local, c.remote, c.err)
	}
	set()
	c.gate.wake()
	return nil
}

// settle makes true what has become due: a reset that arrived, a stall too long.
func (c *circuit) settle(now time.Time) {
	stalled := due(c.stallAt, now)
	for _, e := range c.ends {
		if e.err == nil && (stalled || due(e.rstAt, now)) {
			e.die(syscall.ECONNRESET)
		}
	}
}

// stall starts the clock of the stall timeout unless it runs.
func (c *circuit) stall(now time.Time) {
	if !c.stallAt.IsZero() {
		return
	}
	c.stallAt = now.Add(c.net.cfg.StallTimeout)
	c.wake()
}

func (c *circuit) wake() {
	for _, e := range c.ends {
		e.gate.wake()
	}
}

// turn follows its links into a cut or out of it.
func (c *circuit) turn(changed map[*link]bool, cut bool, now time.Time) {
	out := c.ends[0].out
	for _, l := range []*link{out.fwd, out.rev} {
		switch {
		case changed[l] && cut:
			c.hold(l, now)
		case changed[l]:
			c.resume(l, now)
		}
	}
}

// hold keeps back everything on its way over l, which has just been cut.
func (c *circuit) hold(l *link, now time.Time) {
	c.settle(now)
	for _, e := range c.ends {
		if e.out.fwd != l && e.out.rev != l {
			continue
		}
		e.out.hold(l, now)
		if e.out.fwd == l && e.peer.rstAt.After(now) {
			e.peer.rstAt = time.Time{}
		}
		if e.out.unacked(now) {
			c.stall(now)
		}
	}
	c.wake()
}

// resume lets flow again what was held because of l, which has just healed.
func (c *circuit) resume(l *link, now time.Time) {
	c.settle(now)
	for _, e := range c.ends {
		e.out.resume(l, now)
		if e.out.fwd == l && e.peer.rst && e.peer.rstAt.IsZero() {
			e.peer.rstAt = now.Add(l.delay)
		}
	}
	if out := c.ends[0].out; !out.fwd.cut && !out.rev.cut {
		c.stallAt = time.Time{}
	}
	c.wake()
}
