package faultnet

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pair is a client and a server that talk through a proxy over real sockets.
type pair struct {
	proxy          *Proxy
	listener       net.Listener
	client, server *net.TCPConn
}

func openPair(t *testing.T, f Faults) *pair {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	p, err := Open(Config{Target: l.Addr().String(), Seed: 1})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	both := &pair{proxy: p, listener: l}
	both.client, both.server = both.connect(t)
	must(t, p.Spoil(f))
	return both
}

// connect makes one more connection through the proxy.
func (p *pair) connect(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	c, err := net.Dial("tcp", p.proxy.Addr())
	must(t, err)
	s, err := p.listener.Accept()
	must(t, err)
	for _, conn := range []net.Conn{c, s} {
		t.Cleanup(func() { conn.Close() })
		must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func wantReset(t *testing.T, name string, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s reads %v, want a reset", name, err)
	}
}

func wantEnd(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || string(b) != want {
		t.Errorf("read %q and %v, want %q and the end", b, err, want)
	}
}

func TestProxy_HalfClose(t *testing.T) {
	p := openPair(t, Faults{})
	write(t, p.client, "question")
	must(t, p.client.CloseWrite())
	wantEnd(t, p.server, "question")
	write(t, p.server, "answer")
	must(t, p.server.Close())
	wantEnd(t, p.client, "answer")
}

func TestProxy_PassesResetsOn(t *testing.T) {
	p := openPair(t, Faults{})
	must(t, p.server.SetLinger(0))
	must(t, p.server.Close())
	wantReset(t, "the client", p.client)
}

func TestProxy_ResetNow(t *testing.T) {
	p := openPair(t, Faults{})
	write(t, p.client, "before")
	read(t, p.server, "before")
	if n := p.proxy.Reset(); n != 1 {
		t.Errorf("reset %d connections, want 1", n)
	}
	wantReset(t, "the client", p.client)
	wantReset(t, "the server", p.server)
	client, server := p.connect(t)
	write(t, client, "again")
	read(t, server, "again")
}

func TestProxy_ResetAfterBytes(t *testing.T) {
	p := openPair(t, Faults{})
	write(t, p.client, "does not count")
	read(t, p.server, "does not count")
	must(t, p.proxy.Spoil(Faults{Up: Line{End: Reset, After: 1000}}))
	write(t, p.client, strings.Repeat("a", 999))
	read(t, p.server, strings.Repeat("a", 999))
	write(t, p.client, "bc")
	wantReset(t, "the client", p.client)
	wantReset(t, "the server", p.server)
	eventually(t, func() bool { return p.proxy.Counts().Resets == 1 })
}

func TestProxy_Truncate(t *testing.T) {
	p := openPair(t, Faults{Down: Line{End: Truncate, After: 5}})
	write(t, p.server, "truncated here")
	wantEnd(t, p.client, "trunc")
	wantEnd(t, p.server, "")
	if c := p.proxy.Counts(); c.Truncated != 1 || c.Down.Bytes != 5 || c.Down.Vanished != 9 {
		t.Errorf("counted %+v", c)
	}
}

// TestProxy_BlackHole: bytes vanish without an end or a reset; the connection
// stays dead when the line is clear again, and a new one lives.
func TestProxy_BlackHole(t *testing.T) {
	p := openPair(t, Faults{Up: Line{Flow: BlackHole}, Down: Line{Flow: BlackHole}})
	write(t, p.client, "vanishes")
	write(t, p.server, "this too")
	eventually(t, func() bool { c := p.proxy.Counts(); return c.Up.Vanished == 8 && c.Down.Vanished == 8 })
	silent(t, p.client, 20*ms)
	silent(t, p.server, 20*ms)
	must(t, p.proxy.Spoil(Faults{}))
	write(t, p.client, "for ever")
	eventually(t, func() bool { return p.proxy.Counts().Up.Vanished == 16 })
	must(t, p.client.Close())
	silent(t, p.server, 20*ms)
	client, server := p.connect(t)
	write(t, client, "alive")
	read(t, server, "alive")
}

func TestProxy_HalfOpen(t *testing.T) {
	p := openPair(t, Faults{Up: Line{Flow: BlackHole}})
	write(t, p.client, "not heard")
	write(t, p.server, "heard")
	read(t, p.client, "heard")
	silent(t, p.server, 20*ms)
}

// TestProxy_DialsWhenClear: a client that connects during a cut reaches the
// target when it is over.
func TestProxy_DialsWhenClear(t *testing.T) {
	p := openPair(t, Faults{Down: Line{Flow: Cut}})
	c, err := net.Dial("tcp", p.proxy.Addr())
	must(t, err)
	defer c.Close()
	write(t, c, "early")
	must(t, p.listener.(*net.TCPListener).SetDeadline(time.Now().Add(20*ms)))
	if _, err := p.listener.Accept(); !os.IsTimeout(err) {
		t.Fatalf("the target was dialed during a cut: %v", err)
	}
	must(t, p.listener.(*net.TCPListener).SetDeadline(time.Time{}))
	must(t, p.proxy.Spoil(Faults{}))
	s, err := p.listener.Accept()
	must(t, err)
	defer s.Close()
	read(t, s, "early")
}

func TestProxy_RefusedByTarget(t *testing.T) {
	p := openPair(t, Faults{})
	must(t, p.listener.Close())
	switch c, err := net.Dial("tcp", p.proxy.Addr()); {
	case err == nil:
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		wantReset(t, "the client", c)
	case !errors.Is(err, syscall.ECONNRESET): // the reset may overtake the dialer
		t.Fatal(err)
	}
	if got := p.proxy.Counts().Refused; got != 1 {
		t.Errorf("counted %d refusals", got)
	}
}

// TestProxy_BackPressure: a sender into a cut line is stopped by a bounded number
// of bytes, and all of them arrive once it is clear.
func TestProxy_BackPressure(t *testing.T) {
	p := openPair(t, Faults{Up: Line{Flow: Cut}})
	must(t, p.client.SetWriteDeadline(time.Now().Add(200*ms)))
	sent, err := io.CopyN(p.client, zeros{}, 1<<30)
	if !os.IsTimeout(err) || sent > 64<<20 {
		t.Fatalf("a cut line took %d bytes (%v)", sent, err)
	}
	must(t, p.proxy.Spoil(Faults{}))
	must(t, p.client.CloseWrite())
	if got, err := io.Copy(io.Discard, p.server); err != nil || got != sent {
		t.Errorf("%d of %d bytes arrived (%v)", got, sent, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestProxy_CloseEndsAll: Close returns with everything in the way of bytes, and
// leaves no connection.
func TestProxy_CloseEndsAll(t *testing.T) {
	p := openPair(t, Faults{Up: Line{Flow: Cut}, Down: Line{Delay: time.Hour}})
	write(t, p.client, "held")
	write(t, p.server, "late")
	must(t, p.proxy.Close())
	if c := p.proxy.Counts(); c.Open != 0 {
		t.Errorf("%d connections are open after Close", c.Open)
	}
	if _, err := p.client.Read(make([]byte, 1)); err == nil {
		t.Error("the client's connection is alive after Close")
	}
	must(t, p.proxy.Close())
}

func TestProxy_RefusesWrongFaults(t *testing.T) {
	p := openPair(t, Faults{Up: Line{Delay: ms}})
	for want, f := range map[string]Faults{
		"Loss is 1.5":  {Up: Line{Loss: 1.5}},
		"Rate is neg":  {Down: Line{Rate: -1}},
		"flow 3 or":    {Down: Line{Flow: 3}},
		"Delay is neg": {Down: Line{Delay: -1}},
	} {
		if err := p.proxy.Spoil(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", f, err, want)
		}
	}
	if got := p.proxy.Faults(); got.Up.Delay != ms {
		t.Errorf("a refused Spoil changed the faults to %+v", got)
	}
	if _, err := Open(Config{Network: "sctp", Target: "x"}); err == nil || !strings.Contains(err.Error(), "neither tcp nor udp") {
		t.Errorf("got %v", err)
	}
}

// eventually polls for what a real socket will bring about.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(ms)
	defer tick.Stop()
	for range 20_000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatal("it never came about")
}
