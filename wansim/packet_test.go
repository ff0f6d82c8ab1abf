package wansim

import (
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

func packetConns(tb testing.TB, n *Network) (a, b net.PacketConn) {
	tb.Helper()
	a, err := n.Host("oslo", "o").ListenPacket("7946")
	if err != nil {
		tb.Fatal(err)
	}
	b, err = n.Host("pune", "p").ListenPacket("7946")
	if err != nil {
		tb.Fatal(err)
	}
	return a, b
}

func sendTo(tb testing.TB, from net.PacketConn, to net.Addr, s string) {
	tb.Helper()
	if n, err := from.WriteTo([]byte(s), to); n != len(s) || err != nil {
		tb.Fatalf("WriteTo: %d, %v", n, err)
	}
}

// received returns the datagrams that arrive until nothing has for a second.
func received(tb testing.TB, c net.PacketConn) []string {
	tb.Helper()
	var got []string
	buf := make([]byte, maxPacket)
	for {
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			wantErr(tb, err, os.ErrDeadlineExceeded)
			return got
		}
		got = append(got, string(buf[:n]))
	}
}

func TestPacket_OneWay(t *testing.T) {
	bubble(t, Config{Matrix: mustParse(t, slope)}, func(t *testing.T, n *Network) {
		a, b := packetConns(t, n)
		start := time.Now()
		sendTo(t, a, b.LocalAddr(), "rumour")
		buf := make([]byte, 3)
		k, from, err := b.ReadFrom(buf)
		if string(buf[:k]) != "rum" || from != a.LocalAddr() || err != nil {
			t.Fatalf("got %q from %v, %v", buf[:k], from, err)
		}
		took(t, start, 80*ms)
		sendTo(t, b, from, "x")
		a.ReadFrom(buf)
		took(t, start, 110*ms)
		if got := n.Bytes("oslo", "pune"); got != 6 {
			t.Errorf("counted %d bytes", got)
		}
	})
}

func TestPacket_LossDependsOnSeed(t *testing.T) {
	run := func(seed uint64) (got []string) {
		bubble(t, Config{Loss: 0.3, Jitter: 1, Seed: seed}, func(t *testing.T, n *Network) {
			a, b := packetConns(t, n)
			for i := range 1000 {
				sendTo(t, a, b.LocalAddr(), fmt.Sprintf("%04d", i))
			}
			got = received(t, b)
		})
		return got
	}
	first := run(1)
	if k := len(first); k < 650 || k > 750 {
		t.Errorf("%d of 1000 datagrams arrived at 30 %% loss", k)
	}
	if slices.IsSorted(first) {
		t.Error("jitter reordered nothing")
	}
	if !slices.Equal(first, run(1)) {
		t.Error("one seed, two outcomes")
	}
	if slices.Equal(first, run(2)) {
		t.Error("two seeds, one outcome")
	}
}

func TestPacket_CutLoses(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		a, b := packetConns(t, n)
		sendTo(t, a, b.LocalAddr(), "arrives")
		time.Sleep(40 * ms)
		sendTo(t, a, b.LocalAddr(), "on its way")
		time.Sleep(20 * ms)
		n.CutOneWay("oslo", "pune")
		sendTo(t, a, b.LocalAddr(), "into the hole")
		n.HealAll()
		sendTo(t, a, b.LocalAddr(), "after")
		if got, want := received(t, b), []string{"arrives", "after"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestPacket_NobodyThere(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		a, b := packetConns(t, n)
		b.Close()
		sendTo(t, a, b.LocalAddr(), "port closed")
		n.Host("pune", "p").Crash()
		sendTo(t, a, b.LocalAddr(), "host down")
		if _, err := a.WriteTo(nil, addr{"nobody", "1"}); err == nil {
			t.Error("wrote to a host that never was")
		}
		_, err := a.WriteTo(make([]byte, maxPacket+1), b.LocalAddr())
		wantErr(t, err, syscall.EMSGSIZE)
	})
}

func TestPacket_QueueIsBounded(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		a, b := packetConns(t, n)
		for range 2 * packetQueue / 1024 {
			sendTo(t, a, b.LocalAddr(), string(make([]byte, 1024)))
		}
		if got := len(received(t, b)); got != packetQueue/1024 {
			t.Errorf("%d datagrams kept", got)
		}
		sendTo(t, a, b.LocalAddr(), "room again")
		if got := received(t, b); len(got) != 1 {
			t.Errorf("got %q", got)
		}
	})
}

func TestPacket_WriteDeadline(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		a, b := packetConns(t, n)
		a.SetWriteDeadline(time.Now())
		_, err := a.WriteTo(nil, b.LocalAddr())
		wantErr(t, err, os.ErrDeadlineExceeded)
		a.SetDeadline(time.Time{})
		sendTo(t, a, b.LocalAddr(), "x")
	})
}

func TestPacket_Closed(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		a, b := packetConns(t, n)
		errs := make(chan error)
		go func() { _, _, err := a.ReadFrom(nil); errs <- err }()
		time.Sleep(ms)
		a.Close()
		wantErr(t, <-errs, net.ErrClosed)
		_, err := a.WriteTo(nil, b.LocalAddr())
		wantErr(t, err, net.ErrClosed)
		wantErr(t, a.Close(), net.ErrClosed)
		wantErr(t, a.SetDeadline(time.Time{}), net.ErrClosed)
		n.Host("pune", "p").Crash()
		wantErr(t, b.Close(), net.ErrClosed)
	})
}
