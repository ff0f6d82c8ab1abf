package faultnet

import (
	"context"
	"errors"
	"net"
	"sync"
)

// A connection is a client's, with the one to the target that goes with it.
type connection struct {
	proxy  *Proxy
	number uint64
	ctx    context.Context // ends when the connection is over
	cancel context.CancelFunc

	mu   sync.Mutex // protects what follows
	ends []net.Conn // the client's and, once dialed, the target's
	over bool
}

func (p *Proxy) openStream() error {
	l, err := p.cfg.ListenStream("tcp", p.cfg.Listen)
	if err != nil {
		return err
	}
	p.addr, p.close = l.Addr(), l.Close
	p.wg.Go(func() { p.accept(l) })
	return nil
}

func (p *Proxy) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c := p.newConnection(conn)
		p.wg.Go(func() {
			defer p.forget(c)
			c.run()
		})
	}
}

func (p *Proxy) newConnection(client net.Conn) *connection {
	c := &connection{proxy: p, ends: []net.Conn{client}}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	c.number = uint64(p.counts.Connections)
	p.counts.Connections++
	p.counts.Open++
	p.live[c] = true
	if p.ctx.Err() != nil { // Close has seen to all others
		c.shut()
	}
	return c
}

func (p *Proxy) forget(c *connection) {
	c.shut()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, c)
	p.counts.Open--
}

// run dials the target as soon as a handshake would get through, and passes on
// what comes until both directions have ended.
func (c *connection) run() {
	if !c.proxy.awaitOpen(c.ctx) {
		return
	}
	target, err := c.proxy.cfg.Dial(c.ctx, "tcp", c.proxy.cfg.Target)
	if err != nil {
		if c.ctx.Err() == nil {
			c.proxy.count(func(n *Counts) { n.Refused++ })
			c.reset()
		}
		return
	}
	if !c.attach(target) {
		return
	}
	client := c.ends[0]
	there, back := newLane(c, up, client, target), newLane(c, down, target, client)
	there.other, back.other = back, there
	var wg sync.WaitGroup
	for _, l := range []*lane{there, back} {
		wg.Go(l.read)
		wg.Go(l.write)
	}
	wg.Wait()
}

// awaitOpen waits until neither direction is cut or a black hole; false means
// that ctx ended first.
func (p *Proxy) awaitOpen(ctx context.Context) bool {
	for {
		there, back := p.view(up), p.view(down)
		if there.Flow == Clear && back.Flow == Clear {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-there.changed:
		case <-back.changed:
		}
	}
}

// attach makes the target part of the connection, unless that is over.
func (c *connection) attach(target net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		target.Close()
		return false
	}
	c.ends = append(c.ends, target)
	return true
}

// reset ends the connection with a reset to both peers.
func (c *connection) reset() {
	if c.finish(func(end net.Conn) {
		if tcp, ok := end.(interface{ SetLinger(sec int) error }); ok {
			_ = tcp.SetLinger(0) // fails only on a socket that is closed already
		}
	}) {
		c.proxy.count(func(n *Counts) { n.Resets++ })
	}
}

// shut closes both ends as they are.
func (c *connection) shut() { c.finish(func(net.Conn) {}) }

// finish closes both ends after preparing them, once; false means that they were
// closed before.
func (c *connection) finish(prepare func(net.Conn)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.over = true
	c.cancel()
	for _, end := range c.ends {
		prepare(end)
		end.Close()
	}
	return true
}

// closeWrite ends the stream to a peer, and leaves the one from it open where
// the connection can.
func closeWrite(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || errors.Is(half.CloseWrite(), errors.ErrUnsupported) {
		c.Close()
	}
}
