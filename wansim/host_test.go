package wansim

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestDial_Refused(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		o, p := n.Host("oslo", "o"), n.Host("pune", "p")
		refused := func() {
			t.Helper()
			start := time.Now()
			_, err := o.Dial(t.Context(), "p:7000")
			wantErr(t, err, syscall.ECONNREFUSED)
			took(t, start, 80*ms)
		}
		refused()
		l := listen(t, p)
		dial(t, o, "p:7000")
		l.Close()
		wantErr(t, l.Close(), net.ErrClosed)
		refused()
		listen(t, p)
		p.Crash()
		refused()
	})
}

func TestDial_BadAddress(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		o := n.Host("oslo", "o")
		for _, address := range []string{"", "o", "o:", "o:0", "o:65536", "o:http", "nobody:7000"} {
			if _, err := o.Dial(t.Context(), address); err == nil {
				t.Errorf("dialed %q", address)
			}
		}
	})
}

func TestDial_Cancelled(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		l := listen(t, n.Host("pune", "p"))
		go l.Accept()
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		time.AfterFunc(50*ms, cancel)
		_, err := n.Host("oslo", "o").Dial(ctx, "p:7000")
		wantErr(t, err, context.Canceled)
		took(t, start, 50*ms)
		if len(n.circuits) != 0 {
			t.Error("a cancelled Dial left a circuit")
		}
	})
}

func TestDial_SynLost(t *testing.T) {
	bubble(t, Config{Loss: 1}, func(t *testing.T, n *Network) {
		listen(t, n.Host("pune", "p"))
		start := time.Now()
		dial(t, n.Host("oslo", "o"), "p:7000")
		took(t, start, 480*ms)
	})
}

func TestListen_Ports(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		o := n.Host("oslo", "o")
		listen(t, o)
		_, err := o.Listen("7000")
		wantErr(t, err, syscall.EADDRINUSE)
		if _, err := o.ListenPacket("7000"); err != nil {
			t.Errorf("streams and datagrams share ports: %v", err)
		}
		a, err := o.Listen("0")
		if err != nil {
			t.Fatal(err)
		}
		b, err := o.Listen("")
		if err != nil || a.Addr() == b.Addr() {
			t.Errorf("free ports %v and %v, %v", a.Addr(), b.Addr(), err)
		}
		for _, port := range []string{"-1", "65536", "http"} {
			if _, err := o.Listen(port); err == nil {
				t.Errorf("listens on %q", port)
			}
		}
	})
}

func TestListener_CloseResetsTheUnaccepted(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		l := listen(t, n.Host("pune", "p"))
		c := dial(t, n.Host("oslo", "o"), "p:7000")
		start := time.Now()
		l.Close()
		_, err := c.Read(make([]byte, 1))
		wantErr(t, err, syscall.ECONNRESET)
		took(t, start, 40*ms)
	})
}

func TestListener_BacklogIsBounded(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		listen(t, n.Host("pune", "p"))
		o := n.Host("oslo", "o")
		for range backlog {
			dial(t, o, "p:7000")
		}
		_, err := o.Dial(t.Context(), "p:7000")
		wantErr(t, err, syscall.ECONNREFUSED)
	})
}

func TestCrash(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		p := n.Host("pune", "p")
		write(t, server, "sent before")
		time.Sleep(ms)
		start := time.Now()
		p.Crash()
		_, err := server.Read(make([]byte, 1))
		wantErr(t, err, net.ErrClosed)
		_, err = p.Listen("7001")
		wantErr(t, err, syscall.ENETDOWN)
		_, err = p.Dial(t.Context(), "o:7000")
		wantErr(t, err, syscall.ENETDOWN)
		took(t, start, 0)
		read(t, client, "sent before")
		_, err = client.Read(make([]byte, 1))
		wantErr(t, err, syscall.ECONNRESET)
		took(t, start, 40*ms)
		_, err = client.Write([]byte("x"))
		wantErr(t, err, syscall.ECONNRESET)
	})
}

func TestCrash_BehindACut(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, _ := connected(t, n)
		n.Cut("oslo", "pune")
		n.Host("pune", "p").Crash()
		client.SetReadDeadline(time.Now().Add(time.Hour))
		_, err := client.Read(make([]byte, 1))
		wantErr(t, err, os.ErrDeadlineExceeded)
		client.SetReadDeadline(time.Time{})
		start := time.Now()
		n.Heal("oslo", "pune")
		_, err = client.Read(make([]byte, 1))
		wantErr(t, err, syscall.ECONNRESET)
		took(t, start, 40*ms)
	})
}

// A cut swallows the reset on its way, and the heal sends it again.
func TestCrash_ResetMeetsACut(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, _ := connected(t, n)
		start := time.Now()
		n.Host("pune", "p").Crash()
		time.Sleep(20 * ms)
		n.CutOneWay("pune", "oslo")
		time.Sleep(time.Second)
		n.Heal("pune", "oslo")
		_, err := client.Read(make([]byte, 1))
		wantErr(t, err, syscall.ECONNRESET)
		took(t, start, 1060*ms)
	})
}

func TestCrash_WhileDialing(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		o, p := n.Host("oslo", "o"), n.Host("pune", "p")
		listen(t, p)
		errs := make(chan error)
		go func() { _, err := o.Dial(t.Context(), "p:7000"); errs <- err }()
		time.Sleep(50 * ms)
		o.Crash()
		wantErr(t, <-errs, syscall.ENETDOWN)

		o = o.Revive()
		go func() { _, err := o.Dial(t.Context(), "p:7000"); errs <- err }()
		time.Sleep(50 * ms)
		p.Crash()
		wantErr(t, <-errs, syscall.ECONNREFUSED)
	})
}

func TestRevive(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		p := n.Host("pune", "p")
		if p.Name() != "p" || p.Site() != n.Matrix().Sites[1] {
			t.Errorf("%v: want p at pune", p)
		}
		if p.Revive() != p {
			t.Error("revived a host that is up")
		}
		listen(t, p)
		p.Crash()
		q := p.Revive()
		if q == p || q != n.Host("pune", "p") {
			t.Error("want one fresh host")
		}
		l := listen(t, q)
		c := dial(t, n.Host("oslo", "o"), "p:7000")
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p.Crash()
		write(t, c, "the old host's crash is over")
		read(t, s, "the old host's crash is over")
	})
}

// Nothing is left behind however a crash falls among busy connections.
func TestCrash_Busy(t *testing.T) {
	bubble(t, Config{Bandwidth: 10_000_000, Loss: 0.01, Jitter: 0.1}, func(t *testing.T, n *Network) {
		p := n.Host("pune", "p")
		l := listen(t, p)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
		for range 10 {
			c := dial(t, n.Host("oslo", "o"), "p:7000")
			go func() {
				defer c.Close()
				go c.Write(make([]byte, 4*windowSize))
				io.Copy(io.Discard, c)
			}()
		}
		time.Sleep(time.Second)
		p.Crash()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(n.circuits) != 0 {
			t.Errorf("%d circuits left", len(n.circuits))
		}
	})
}
