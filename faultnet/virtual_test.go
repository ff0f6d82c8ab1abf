package faultnet

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A port is a listener whose connections come from its own dial: both ends of
// net.Pipe, so that a proxy between two ports runs in virtual time.
type port struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPort() *port { return &port{make(chan net.Conn), make(chan struct{})} }

func (p *port) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error   { close(p.closed); return nil }
func (p *port) Addr() net.Addr { return &net.TCPAddr{} }

// bubble runs a test in virtual time with a proxy between client and server.
func bubble(t *testing.T, f Faults, test func(t *testing.T, p *Proxy, client, server net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		front, back := newPort(), newPort()
		p, err := Open(Config{
			Target: "server", Faults: f, Seed: 1, Dial: back.dial,
			ListenStream: func(string, string) (net.Listener, error) { return front, nil },
		})
		must(t, err)
		client, err := front.dial(t.Context(), "", "")
		must(t, err)
		server, err := back.Accept()
		must(t, err)
		defer func() {
			must(t, p.Close())
			client.Close()
			server.Close()
		}()
		test(t, p, client, server)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	must(t, err)
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q and %v, want %q", b[:n], err, want)
	}
}

// silent asserts that nothing arrives at c for a while, no end and no reset.
func silent(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(d)))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !os.IsTimeout(err) {
		t.Fatalf("read %d bytes and %v, want silence for %v", n, err, d)
	}
	must(t, c.SetReadDeadline(time.Time{}))
}

func took(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Errorf("took %v, want %v", got, want)
	}
}

func TestProxy_Delay(t *testing.T) {
	bubble(t, Faults{Up: Line{Delay: 80 * ms}, Down: Line{Delay: 20 * ms}}, func(t *testing.T, p *Proxy, client, server net.Conn) {
		start := time.Now()
		write(t, client, "ask")
		write(t, client, " twice")
		read(t, server, "ask twice")
		took(t, start, 80*ms)
		write(t, server, "answer")
		read(t, client, "answer")
		took(t, start, 100*ms)
		must(t, p.Spoil(Faults{}))
		write(t, client, "at once")
		read(t, server, "at once")
		took(t, start, 100*ms)
	})
}

func TestProxy_Rate(t *testing.T) {
	bubble(t, Faults{Up: Line{Rate: 10_000, Burst: 1000}}, func(t *testing.T, p *Proxy, client, server net.Conn) {
		start := time.Now()
		text := strings.Repeat("x", 21_000)
		go client.Write([]byte(text))
		read(t, server, text)
		took(t, start, 2*time.Second)
		write(t, server, "the other way is not narrow")
		read(t, client, "the other way is not narrow")
		took(t, start, 2*time.Second)
		synctest.Wait()
		if c := p.Counts(); c.Up.Bytes != 21_000 || c.Connections != 1 || c.Open != 1 {
			t.Errorf("counted %+v", c)
		}
	})
}

func TestProxy_LossStallsAStream(t *testing.T) {
	bubble(t, Faults{Down: Line{Loss: 1, RTO: 100 * ms}}, func(t *testing.T, p *Proxy, client, server net.Conn) {
		start := time.Now()
		write(t, server, "lost and lost")
		synctest.Wait()
		must(t, p.Spoil(Faults{}))
		write(t, server, ", not lost")
		read(t, client, "lost and lost, not lost")
		took(t, start, 255*100*ms)
		if c := p.Counts(); c.Down.Lost != maxRetries {
			t.Errorf("counted %d lost segments, want %d", c.Down.Lost, maxRetries)
		}
	})
}

func TestProxy_CutHoldsUntilClear(t *testing.T) {
	bubble(t, Faults{Up: Line{Delay: 40 * ms}}, func(t *testing.T, p *Proxy, client, server net.Conn) {
		write(t, client, "on its way, ")
		time.Sleep(39 * ms)
		must(t, p.Spoil(Faults{Up: Line{Flow: Cut}}))
		write(t, client, "during the cut")
		silent(t, server, time.Minute)
		write(t, server, "the other way flows")
		read(t, client, "the other way flows")
		start := time.Now()
		must(t, p.Spoil(Faults{}))
		read(t, server, "on its way, during the cut")
		took(t, start, 0)
	})
}

// TestProxy_Window: a cut line takes as much as the window and then lets the
// sender wait.
func TestProxy_Window(t *testing.T) {
	bubble(t, Faults{Up: Line{Flow: Clear}}, func(t *testing.T, p *Proxy, client, server net.Conn) {
		must(t, p.Spoil(Faults{Up: Line{Flow: Cut}}))
		must(t, client.SetWriteDeadline(time.Now().Add(time.Hour)))
		n, err := client.Write(make([]byte, 10*defaultWindow))
		if !os.IsTimeout(err) || n < defaultWindow/2 || n > defaultWindow+largestPiece {
			t.Errorf("a cut line took %d bytes (%v), want about %d and no more", n, err, defaultWindow)
		}
		must(t, p.Spoil(Faults{}))
		read(t, server, strings.Repeat("\x00", n))
	})
}

func TestScript_Run(t *testing.T) {
	bubble(t, Faults{Down: Line{Delay: ms}}, func(t *testing.T, p *Proxy, _, _ net.Conn) {
		s, err := ParseScript(`
			at 4s lisbon up loss 30%     # after the next line, for it comes later
			at 2s lisbon cut 5s
			at 3s * down delay 80ms 10s
			at 5s lisbon jitter 7ms
			at 9s lisbon heal`)
		must(t, err)
		start := time.Now()
		done := make(chan error)
		go func() { done <- s.Run(t.Context(), map[string]*Proxy{"lisbon": p}) }()
		for _, c := range []struct {
			at   time.Duration
			want Faults
		}{
			{1, Faults{Down: Line{Delay: ms}}},
			{2, Faults{Up: Line{Flow: Cut}, Down: Line{Delay: ms, Flow: Cut}}},
			{3, Faults{Up: Line{Flow: Cut}, Down: Line{Delay: 80 * ms, Flow: Cut}}},
			{4, Faults{Up: Line{Flow: Cut, Loss: 0.3}, Down: Line{Delay: 80 * ms, Flow: Cut}}},
			{6, Faults{Up: Line{Flow: Cut, Loss: 0.3, Jitter: 7 * ms}, Down: Line{Delay: 80 * ms, Flow: Cut, Jitter: 7 * ms}}},
			{7, Faults{Up: Line{Loss: 0.3, Jitter: 7 * ms}, Down: Line{Delay: 80 * ms, Jitter: 7 * ms}}},
			{9, Faults{}},
		} {
			time.Sleep(time.Until(start.Add(c.at*time.Second + ms)))
			if got := p.Faults(); got != c.want {
				t.Errorf("after %ds: %+v, want %+v", c.at, got, c.want)
			}
		}
		must(t, <-done)
		took(t, start, 13*time.Second)
	})
}

func TestScript_RunEndsWithContext(t *testing.T) {
	bubble(t, Faults{}, func(t *testing.T, p *Proxy, _, _ net.Conn) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := Script{{At: 2 * time.Second, Link: "lisbon", Fault: "cut"}}
		if err := s.Run(ctx, map[string]*Proxy{"lisbon": p}); err != context.DeadlineExceeded || p.Faults() != (Faults{}) {
			t.Errorf("got %v and %+v", err, p.Faults())
		}
	})
}
