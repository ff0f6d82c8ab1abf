package master

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A faultWire spoils the connections of one master's Raft, dialed and accepted:
// it can break all of them, in the middle of a call too, make them fall silent
// without a word to either end, and delay what is written.
type faultWire struct {
	mu    sync.Mutex // protects the rest
	conns map[*faultConn]struct{}
	delay time.Duration
	short int // bytes after which a new connection breaks; negative: it does not
}

func newFaultWire() *faultWire { return &faultWire{conns: map[*faultConn]struct{}{}, short: -1} }

// spoil puts the wire between a ledger and its network.
func (w *faultWire) spoil(cfg *ledgerConfig) {
	dial, listen := cfg.Dial, cfg.Listen
	cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return w.join(c), nil
	}
	cfg.Listen = func() (net.Listener, error) {
		lis, err := listen()
		if err != nil {
			return nil, err
		}
		return faultListener{lis, w}, nil
	}
}

func (w *faultWire) join(raw net.Conn) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &faultConn{Conn: raw, wire: w, room: w.short}
	w.conns[c] = struct{}{}
	return c
}

// each does something with every connection that is open now.
func (w *faultWire) each(do func(*faultConn)) {
	w.mu.Lock()
	var all []*faultConn
	for c := range w.conns {
		all = append(all, c)
	}
	w.mu.Unlock()
	for _, c := range all {
		do(c)
	}
}

// drop closes every connection after it has taken a few more bytes, which may be
// in the middle of a call or of its answer.
func (w *faultWire) drop(rng *rand.Rand) {
	room := rng.IntN(300)
	w.each(func(c *faultConn) { c.limit(room) })
}

// shorten makes every connection break after so many bytes, or none with -1.
func (w *faultWire) shorten(room int) {
	w.mu.Lock()
	w.short = room
	w.mu.Unlock()
	w.each(func(c *faultConn) { c.limit(room) })
}

// mute makes every connection that is open now half open: this end can write, and
// nothing arrives.
func (w *faultWire) mute() { w.each(func(c *faultConn) { c.silence() }) }

// slow delays each write.
func (w *faultWire) slow(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = d
}

func (w *faultWire) leave(c *faultConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *faultWire) pause() {
	w.mu.Lock()
	d := w.delay
	w.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
}

type faultListener struct {
	net.Listener
	wire *faultWire
}

func (l faultListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wire.join(c), nil
}

type faultConn struct {
	net.Conn
	wire *faultWire

	mu    sync.Mutex // protects the rest
	room  int        // bytes it takes until it breaks; negative: it does not
	muted bool
}

func (c *faultConn) limit(room int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room = room
}

func (c *faultConn) silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.muted = true
}

func (c *faultConn) Write(p []byte) (int, error) {
	c.wire.pause()
	c.mu.Lock()
	room, muted := c.room, c.muted
	if room >= 0 {
		c.room = max(0, room-len(p))
	}
	c.mu.Unlock()
	switch {
	case muted:
		return len(p), nil
	case room >= 0 && room < len(p):
		n, _ := c.Conn.Write(p[:room])
		c.Close()
		return n, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *faultConn) Close() error {
	c.wire.leave(c)
	return c.Conn.Close()
}
