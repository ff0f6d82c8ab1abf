package main

import (
	"net"
	"sync/atomic"
)

// segment is how many bytes of payload a TCP segment carries over Ethernet with
// timestamps; segmentHeader is what IPv4 and TCP add to each.
const (
	segment       = 1448
	segmentHeader = 52
)

// A meter counts what both ends of a link write, below TLS.
type meter struct{ down, up counter }

// A counter counts one direction. Each Write is taken to leave as segments of
// its own, because Go sets TCP_NODELAY.
type counter struct{ bytes, segments atomic.Int64 }

func (c *counter) add(n int) {
	c.bytes.Add(int64(n))
	c.segments.Add(int64((n + segment - 1) / segment))
}

// A traffic is what went over a link.
type traffic struct{ down, up flow }

type flow struct{ bytes, segments int64 }

// wire is the flow with the headers of IP and TCP.
func (f flow) wire() int64 { return f.bytes + f.segments*segmentHeader }

func (m *meter) read() traffic { return traffic{m.down.read(), m.up.read()} }

func (c *counter) read() flow { return flow{c.bytes.Load(), c.segments.Load()} }

func (t traffic) minus(u traffic) traffic {
	return traffic{flow{t.down.bytes - u.down.bytes, t.down.segments - u.down.segments}, flow{t.up.bytes - u.up.bytes, t.up.segments - u.up.segments}}
}

type meteredConn struct {
	net.Conn
	c *counter
}

func (m meteredConn) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.c.add(n)
	return n, err
}

type meteredListener struct {
	net.Listener
	c *counter
}

func (l meteredListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return meteredConn{conn, l.c}, nil
}
