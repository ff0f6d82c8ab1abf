package wansim

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const ms = time.Millisecond

// slope has 80 ms from oslo to pune, 30 ms from pune to oslo.
const slope = "from,to,rtt_ms\noslo,pune,160\npune,oslo,60\n"

func mustParse(tb testing.TB, text string) *Matrix {
	tb.Helper()
	m, err := ParseMatrix(strings.NewReader(text), "test.csv")
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// bubble runs f with a network in virtual time.
func bubble(t *testing.T, cfg Config, f func(*testing.T, *Network)) {
	t.Helper()
	if cfg.Matrix == nil {
		cfg.Matrix = Uniform(80*ms, "oslo", "pune", "lima")
	}
	synctest.Test(t, func(t *testing.T) {
		n := New(cfg)
		defer n.Close()
		f(t, n)
	})
}

func listen(tb testing.TB, h *Host) net.Listener {
	tb.Helper()
	l, err := h.Listen("7000")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// connected returns both ends of a connection from oslo to pune, both settled.
func connected(tb testing.TB, n *Network) (client, server net.Conn) {
	tb.Helper()
	l := listen(tb, n.Host("pune", "p"))
	client = dial(tb, n.Host("oslo", "o"), "p:7000")
	server, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	return client, server
}

func dial(tb testing.TB, h *Host, address string) net.Conn {
	tb.Helper()
	c, err := h.Dial(context.Background(), address)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func write(tb testing.TB, c net.Conn, s string) {
	tb.Helper()
	if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
		tb.Fatalf("write: %d, %v", n, err)
	}
}

func read(tb testing.TB, c net.Conn, want string) {
	tb.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		tb.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func wantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("got error %v, want %v", err, want)
	}
}

// took checks the virtual time since start to the nanosecond.
func took(tb testing.TB, start time.Time, want time.Duration) {
	tb.Helper()
	if got := time.Since(start); got != want {
		tb.Fatalf("took %v, want %v", got, want)
	}
}

func TestConn_RoundTrip(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		start := time.Now()
		l := listen(t, n.Host("pune", "p"))
		client := dial(t, n.Host("oslo", "o"), "p:7000")
		took(t, start, 80*ms)
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		took(t, start, 120*ms)
		for range 100 {
			start := time.Now()
			write(t, client, "ping")
			read(t, server, "ping")
			took(t, start, 40*ms)
			write(t, server, "pong")
			read(t, client, "pong")
			took(t, start, 80*ms)
		}
		if up, down := n.Bytes("oslo", "pune"), n.Bytes("pune", "oslo"); up != 400 || down != 400 {
			t.Errorf("counted %d and %d bytes, want 400 each", up, down)
		}
	})
}

func TestConn_Asymmetric(t *testing.T) {
	bubble(t, Config{Matrix: mustParse(t, slope)}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		start := time.Now()
		write(t, client, "x")
		read(t, server, "x")
		took(t, start, 80*ms)
		write(t, server, "y")
		read(t, client, "y")
		took(t, start, 110*ms)
	})
}

func TestConn_SameSite(t *testing.T) {
	for _, test := range []struct {
		local, want time.Duration
	}{{0, 300 * time.Microsecond}, {2 * ms, 2 * ms}} {
		bubble(t, Config{LocalRTT: test.local, Bandwidth: 1, Loss: 1}, func(t *testing.T, n *Network) {
			listen(t, n.Host("oslo", "a"))
			start := time.Now()
			dial(t, n.Host("oslo", "b"), "a:7000")
			took(t, start, test.want)
		})
	}
}

func TestConn_Bandwidth(t *testing.T) {
	bubble(t, Config{Bandwidth: 1_000_000}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		start := time.Now()
		go client.Write(make([]byte, 1_000_000))
		if _, err := io.ReadFull(server, make([]byte, 1_000_000)); err != nil {
			t.Fatal(err)
		}
		took(t, start, time.Second+40*ms)
	})
}

func TestConn_BandwidthIsShared(t *testing.T) {
	bubble(t, Config{Bandwidth: 1_000_000}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		listen(t, n.Host("pune", "q"))
		other := dial(t, n.Host("oslo", "o2"), "q:7000")
		start := time.Now()
		write(t, other, strings.Repeat("x", 500_000))
		write(t, client, "behind")
		read(t, server, "behind")
		took(t, start, 500*ms+6*time.Microsecond+40*ms)
		write(t, server, "the other way is free")
		read(t, client, "the other way is free")
		took(t, start, 580*ms+27*time.Microsecond)
	})
}

func TestConn_Window(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		start := time.Now()
		write(t, client, strings.Repeat("x", windowSize))
		took(t, start, 0)
		client.SetWriteDeadline(start.Add(time.Hour))
		k, err := client.Write([]byte("one too many"))
		wantErr(t, err, os.ErrDeadlineExceeded)
		if k != 0 {
			t.Errorf("wrote %d bytes into a full window", k)
		}
		took(t, start, time.Hour)
		client.SetWriteDeadline(time.Time{})
		go io.Copy(io.Discard, server)
		start = time.Now()
		write(t, client, "fits")
		took(t, start, 40*ms)
	})
}

func TestConn_ThroughputIsOneWindowPerRoundTrip(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		start := time.Now()
		go func() {
			client.Write(make([]byte, 10*windowSize))
			client.Close()
		}()
		got, err := io.Copy(io.Discard, server)
		if got != 10*windowSize || err != nil {
			t.Fatalf("copied %d, %v", got, err)
		}
		took(t, start, 9*80*ms+40*ms)
	})
}

func TestConn_LossKeepsOrder(t *testing.T) {
	const size = 300_000
	run := func() (elapsed time.Duration) {
		bubble(t, Config{Loss: 0.02, Jitter: 0.5, Seed: 7}, func(t *testing.T, n *Network) {
			client, server := connected(t, n)
			start := time.Now()
			go func() {
				for i := 0; i < size; i += 100 {
					client.Write(pattern(i, 100))
				}
				client.Close()
			}()
			got, err := io.ReadAll(server)
			if err != nil || string(got) != string(pattern(0, size)) {
				t.Fatalf("read %d bytes out of order, %v", len(got), err)
			}
			elapsed = time.Since(start)
		})
		return elapsed
	}
	first := run()
	if first < 240*ms || first > 260*ms {
		t.Errorf("took %v, want one way, one retransmission timeout of 200 ms, and jitter under 20 ms", first)
	}
	if again := run(); again != first {
		t.Errorf("took %v, then %v with the same seed", first, again)
	}
}

// pattern returns bytes i to i+n of a sequence with a period of 251.
func pattern(i, n int) []byte {
	b := make([]byte, n)
	for k := range b {
		b[k] = byte((i + k) % 251)
	}
	return b
}

func TestConn_CloseAfterData(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		start := time.Now()
		write(t, client, "last words")
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		read(t, server, "last words")
		took(t, start, 40*ms)
		for range 2 {
			if _, err := server.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("got %v, want io.EOF", err)
			}
		}
		took(t, start, 40*ms)
		_, err := server.Write([]byte("x"))
		wantErr(t, err, syscall.EPIPE)
		_, err = client.Read(nil)
		wantErr(t, err, net.ErrClosed)
		wantErr(t, client.Close(), net.ErrClosed)
		wantErr(t, client.SetDeadline(time.Time{}), net.ErrClosed)
		server.Close()
		if len(n.circuits) != 0 {
			t.Errorf("%d circuits left after both ends closed", len(n.circuits))
		}
	})
}

func TestConn_CloseWakesBothEnds(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		errs := make(chan error, 2)
		go func() { _, err := client.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := server.Write(make([]byte, 2*windowSize)); errs <- err }()
		synctest.Wait()
		start := time.Now()
		client.Close()
		wantErr(t, <-errs, net.ErrClosed)
		took(t, start, 0)
		wantErr(t, <-errs, syscall.EPIPE)
		took(t, start, 40*ms)
	})
}

func TestConn_WritesStayWhole(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		const writers, size = 4, windowSize/2 + 1
		done := make(chan bool)
		for i := range writers {
			go func() {
				client.Write([]byte(strings.Repeat(string(rune('a'+i)), size)))
				done <- true
			}()
		}
		go func() {
			for range writers {
				<-done
			}
			client.Close()
		}()
		got, err := io.ReadAll(server)
		if err != nil || len(got) != writers*size {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		for i := 0; i < len(got); i += size {
			if strings.Trim(string(got[i:i+size]), string(got[i:i+1])) != "" {
				t.Fatalf("the write at byte %d is mixed with another", i)
			}
		}
	})
}

func TestConn_Deadline(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		start := time.Now()
		client.SetReadDeadline(start.Add(time.Second))
		_, err := client.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("got %v, want a timeout", err)
		}
		took(t, start, time.Second)
		write(t, client, "reading timed out, writing did not")

		client.SetDeadline(time.Now().Add(-1))
		_, err = client.Write([]byte("x"))
		wantErr(t, err, os.ErrDeadlineExceeded)
		client.SetDeadline(time.Time{})
		write(t, server, "again")
		read(t, client, "again")
	})
}

func TestConn_DeadlineMovedWhileReading(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, _ := connected(t, n)
		errs := make(chan error)
		go func() { _, err := client.Read(make([]byte, 1)); errs <- err }()
		synctest.Wait()
		start := time.Now()
		client.SetReadDeadline(start.Add(3 * time.Second))
		wantErr(t, <-errs, os.ErrDeadlineExceeded)
		took(t, start, 3*time.Second)
	})
}

func TestConn_Addresses(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		if got := server.LocalAddr(); got.Network() != "wansim" || got.String() != "p:7000" {
			t.Errorf("server is at %v %v", got.Network(), got)
		}
		if client.RemoteAddr() != server.LocalAddr() || client.LocalAddr() != server.RemoteAddr() {
			t.Errorf("%v → %v against %v → %v", client.LocalAddr(), client.RemoteAddr(), server.RemoteAddr(), server.LocalAddr())
		}
		if host, _, err := net.SplitHostPort(client.LocalAddr().String()); host != "o" || err != nil {
			t.Errorf("client is at %v", client.LocalAddr())
		}
	})
}

func TestNetwork_IdleHourCostsNothing(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		go io.Copy(server, server)
		time.Sleep(1000 * time.Hour)
		write(t, client, "still there")
		read(t, client, "still there")
	})
}

func TestNetwork_CloseWakesEverybody(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		packets, err := n.Host("lima", "l").ListenPacket("0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := n.Host("lima", "l").Listen("0")
		if err != nil {
			t.Fatal(err)
		}
		n.Cut("oslo", "lima")
		errs := make(chan error)
		go func() { _, err := client.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := server.Write(make([]byte, 2*windowSize)); errs <- err }()
		go func() { _, err := l.Accept(); errs <- err }()
		go func() { _, _, err := packets.ReadFrom(nil); errs <- err }()
		go func() { _, err := n.Host("oslo", "o").Dial(t.Context(), "l:1"); errs <- err }()
		synctest.Wait()
		start := time.Now()
		n.Close()
		for range 5 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ENETDOWN) {
				t.Errorf("got %v", err)
			}
		}
		took(t, start, 0)
	})
}

func TestNew_Panics(t *testing.T) {
	for name, cfg := range map[string]Config{
		"bandwidth": {Bandwidth: -1},
		"loss":      {Loss: 1.1},
		"jitter":    {Jitter: -0.1},
		"duration":  {LocalRTT: -1},
	} {
		t.Run(name, func(t *testing.T) {
			wantPanic(t, name, func() { New(cfg) })
		})
	}
	n := New(Config{})
	n.Host("tokyo", "t")
	wantPanic(t, "no site", func() { n.Host("Atlantis", "x") })
	wantPanic(t, "not at", func() { n.Host("Lagos", "t") })
	wantPanic(t, "colon", func() { n.Host("Lagos", "a:b") })
	wantPanic(t, "colon", func() { n.Host("Lagos", "") })
}

func wantPanic(tb testing.TB, with string, f func()) {
	tb.Helper()
	defer func() {
		tb.Helper()
		if msg, _ := recover().(string); !strings.Contains(msg, with) {
			tb.Errorf("panic %q, want one with %q", msg, with)
		}
	}()
	f()
}
