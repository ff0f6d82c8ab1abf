package wansim

import (
	"net"
	"time"
)

// backlog is how many connections may wait for Accept; more are refused.
const backlog = 1024

var _ net.Listener = (*listener)(nil)

type listener struct {
	host   *Host
	addr   addr
	queue  []pending
	closed bool
	gate   gate
}

// A pending connection may be accepted from at on.
type pending struct {
	conn *conn
	at   time.Time
}

func (l *listener) Addr() net.Addr { return l.addr }

// Accept returns the oldest connection whose dialer's last word of the handshake
// has arrived.
func (l *listener) Accept() (net.Conn, error) {
	mu := &l.host.net.mu
	mu.Lock()
	defer mu.Unlock()
	for {
		if l.closed {
			return nil, opError("accept", nil, l.addr, net.ErrClosed)
		}
		var at time.Time
		if len(l.queue) > 0 {
			at = l.queue[0].at
		}
		if due(at, time.Now()) {
			c := l.queue[0].conn
			l.queue = l.queue[1:]
			return c, nil
		}
		l.gate.wait(mu, at, nil)
	}
}

// Close stops listening and resets the connections nobody accepted.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return opError("close", nil, l.addr, net.ErrClosed)
	}
	l.close(time.Now())
	return nil
}

func (l *listener) close(now time.Time) {
	l.closed = true
	delete(l.host.listeners, l.addr.port)
	for _, p := range l.queue {
		p.conn.abort(now)
	}
	l.queue = nil
	l.gate.wake()
}

// offer queues c for Accept in order of arrival.
func (l *listener) offer(c *conn, at time.Time) {
	i := len(l.queue)
	for i > 0 && at.Before(l.queue[i-1].at) {
		i--
	}
	l.queue = append(l.queue, pending{})
	copy(l.queue[i+1:], l.queue[i:])
	l.queue[i] = pending{c, at}
	l.gate.wake()
}
