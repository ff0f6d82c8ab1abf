package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestStandIn(t *testing.T) {
	for addr, want := range map[string]string{
		"10.1.2.3:99":          "10.1.2.3:99",
		"[2001:db8::1]:99":     "[2001:db8::1]:99",
		"[::ffff:10.1.2.3]:99": "10.1.2.3:99",
	} {
		ip, port := standIn(addr)
		if got := net.JoinHostPort(ip.String(), fmt.Sprint(port)); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	one, port := standIn("lisbon-1:8000")
	two, _ := standIn("lisbon-2:8000")
	if one[0] != standInPrefix || len(one) != net.IPv6len || one.Equal(two) || port != 8000 {
		t.Errorf("lisbon-1:8000 is %v port %d, lisbon-2 is %v", one, port, two)
	}
	for _, addr := range []string{"lisbon-1", "lisbon-1:0", "lisbon-1:http", "10.1.2.3:0"} {
		if _, port := standIn(addr); port != standInPort {
			t.Errorf("%s: port %d, want %d", addr, port, standInPort)
		}
	}
}

func TestAddressBook_StaysBounded(t *testing.T) {
	book := make(addressBook)
	for i := range maxAddresses + 10 {
		addr := fmt.Sprintf("host-%d:1", i)
		if got := book.find(book.add(addr)); got != addr {
			t.Fatalf("found %q, want %q", got, addr)
		}
	}
	if len(book) != maxAddresses {
		t.Errorf("%d entries, want %d", len(book), maxAddresses)
	}
	if got, want := book.find("10.0.0.1:1"), "10.0.0.1:1"; got != want {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestPacketTransport_BoundsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		server, client := n.transport("a:1"), n.transport("b:1")
		server.start()
		var accepted []net.Conn
		for range maxInbound + 1 {
			if _, err := client.DialTimeout(client.learn("a:1"), time.Minute); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			select {
			case s := <-server.StreamCh():
				accepted = append(accepted, s)
			default:
			}
		}
		if got := server.refused.Load(); got != 1 || len(accepted) != maxInbound {
			t.Errorf("%d refused, %d accepted; want 1 and %d", got, len(accepted), maxInbound)
		}
		for _, s := range accepted {
			s.Close()
			s.Close() // must not count twice
		}
		if server.inbound != 0 {
			t.Errorf("%d streams open, want 0", server.inbound)
		}
		for s := range client.open {
			s.Close()
		}
		server.Shutdown()
		client.Shutdown()
	})
}

func TestStream_BoundsBytes(t *testing.T) {
	transport := newFakeNet(0).transport("a:1")
	near, far := net.Pipe()
	s, err := transport.adopt(near, true)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.CopyN(far, zeros{}, maxStream+1)
		far.Close()
	}()
	n, err := io.Copy(io.Discard, s)
	if n != maxStream || !errors.Is(err, errStreamTooLong) {
		t.Errorf("read %d bytes, %v; want %d and %v", n, err, maxStream, errStreamTooLong)
	}
	s.Close()
	transport.Shutdown()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// memberlist does not close a stream on which it could not write its label.
func TestPacketTransport_ShutdownAfterFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		server, client := n.transport("a:1"), n.transport("b:1")
		s, err := client.DialTimeout(client.learn("a:1"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("nobody reads this")); err == nil {
			t.Fatal("a write that nobody read succeeded: the stream has no deadline")
		}
		client.Shutdown()
		(<-n.hosts["a:1"].conns).Close()
		server.Shutdown()
	})
}

func TestPacketTransport_ErrorsAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		a := n.transport("a:1")
		a.start()
		a.Shutdown()
		if _, err := a.WriteTo([]byte("x"), "b:1"); err != net.ErrClosed {
			t.Errorf("WriteTo: %v, want %v", err, net.ErrClosed)
		}
		if _, err := a.DialTimeout("b:1", time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("DialTimeout: %v, want %v", err, context.Canceled)
		}
	})
}

func TestDelegate_RefusesContradictions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(delay)
		g, err := Open(testConfig(n, 1))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		node := func(name, addr string, a announcement) *memberlist.Node {
			ip, port := standIn(addr)
			return &memberlist.Node{Name: name, Addr: ip, Port: port, Meta: a.append(nil)}
		}
		two := announcement{Meta: Meta{Node: 2}, Gossip: hostOf(2)}
		if err := (delegate{g}).NotifyAlive(node("node-2", hostOf(2), two)); err != nil {
			t.Errorf("refused an honest node: %v", err)
		}
		oversized := node("node-2", hostOf(2), two)
		oversized.Meta = make([]byte, maxAnnouncement+1)
		for name, bad := range map[string]*memberlist.Node{
			"Name":      node("node-3", hostOf(2), two),
			"Address":   node("node-2", hostOf(3), two),
			"Oversized": oversized,
		} {
			if err := (delegate{g}).NotifyAlive(bad); !errors.Is(err, errAnnouncement) {
				t.Errorf("%s: %v, want %v", name, err, errAnnouncement)
			}
		}
		if got := g.Stats().MetaRejected; got != 3 {
			t.Errorf("counted %d, want 3", got)
		}
	})
}
