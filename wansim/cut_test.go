package wansim

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCut_HoldsUntilHeal(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		write(t, client, "on its way, ")
		time.Sleep(39 * ms)
		n.Cut("oslo", "pune")
		write(t, client, "during the cut, ")
		server.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := server.Read(make([]byte, 1))
		wantErr(t, err, os.ErrDeadlineExceeded)
		server.SetReadDeadline(time.Time{})
		if got := n.Bytes("oslo", "pune"); got != 0 {
			t.Errorf("counted %d bytes over a cut link", got)
		}
		start := time.Now()
		n.Heal("oslo", "pune")
		write(t, client, "after it")
		read(t, server, "on its way, during the cut, after it")
		took(t, start, 40*ms)
		if got := n.Bytes("oslo", "pune"); got != 36 {
			t.Errorf("counted %d bytes, want 36", got)
		}
		time.Sleep(time.Hour)
		write(t, server, "no stall once healed")
		read(t, client, "no stall once healed")
	})
}

func TestCut_SparesWhatHasArrived(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		write(t, client, "arrived")
		time.Sleep(80 * ms)
		n.Cut("oslo", "pune")
		time.Sleep(time.Hour)
		read(t, server, "arrived")
		n.HealAll()
		write(t, server, "an idle connection outlives a cut")
		read(t, client, "an idle connection outlives a cut")
	})
}

func TestCut_BackPressure(t *testing.T) {
	bubble(t, Config{StallTimeout: time.Hour}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		n.Cut("oslo", "pune")
		start := time.Now()
		go func() {
			time.Sleep(time.Minute)
			n.Heal("pune", "oslo")
			io.Copy(io.Discard, server)
		}()
		write(t, client, strings.Repeat("x", windowSize+1))
		took(t, start, time.Minute+80*ms)
	})
}

func TestCut_BandwidthAfterHeal(t *testing.T) {
	bubble(t, Config{Bandwidth: 100_000}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		write(t, client, strings.Repeat("x", 500_000))
		n.Cut("oslo", "pune")
		time.Sleep(time.Second)
		n.Heal("oslo", "pune")
		start := time.Now()
		read(t, server, strings.Repeat("x", 500_000))
		took(t, start, 5*time.Second+40*ms)
	})
}

func TestCutOneWay(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		n.CutOneWay("oslo", "pune")
		start := time.Now()
		write(t, server, "this way is open")
		read(t, client, "this way is open")
		took(t, start, 40*ms)
		write(t, client, "this is not")
		time.Sleep(time.Second)
		start = time.Now()
		n.Heal("oslo", "pune")
		read(t, server, "this is not")
		took(t, start, 40*ms)
	})
}

func TestCut_StallTimeout(t *testing.T) {
	both := func(n *Network) { n.Cut("oslo", "pune") }
	for name, cut := range map[string]func(*Network){
		"both ways":        both,
		"data":             func(n *Network) { n.CutOneWay("oslo", "pune") },
		"acknowledgements": func(n *Network) { n.CutOneWay("pune", "oslo") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, n *Network) {
				client, server := connected(t, n)
				cut(n)
				time.Sleep(time.Minute)
				start := time.Now()
				write(t, client, "x")
				client.SetReadDeadline(start.Add(20 * time.Second))
				_, err := client.Read(make([]byte, 1))
				wantErr(t, err, syscall.ECONNRESET)
				took(t, start, 15*time.Second)
				_, err = server.Write([]byte("x"))
				wantErr(t, err, syscall.ECONNRESET)
				n.HealAll()
				_, err = client.Write([]byte("x"))
				wantErr(t, err, syscall.ECONNRESET)
			})
		})
	}
}

// A heal comes too late for a connection that nobody looked at.
func TestCut_StallTimeoutBeforeHeal(t *testing.T) {
	bubble(t, Config{StallTimeout: time.Second}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		write(t, client, "on its way")
		n.Cut("oslo", "pune")
		time.Sleep(time.Second)
		n.Heal("oslo", "pune")
		_, err := server.Read(make([]byte, 1))
		wantErr(t, err, syscall.ECONNRESET)
	})
}

func TestCut_StallClockRestarts(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		client, server := connected(t, n)
		for range 10 {
			n.Cut("oslo", "pune")
			write(t, client, "x")
			time.Sleep(14 * time.Second)
			n.Heal("oslo", "pune")
			read(t, server, "x")
		}
	})
}

func TestIsolate(t *testing.T) {
	bubble(t, Config{DialTimeout: time.Second}, func(t *testing.T, n *Network) {
		listen(t, n.Host("pune", "p"))
		listen(t, n.Host("oslo", "o"))
		n.Isolate("Oslo")
		dial(t, n.Host("oslo", "o2"), "o:7000")
		dial(t, n.Host("lima", "l"), "p:7000")
		for from, to := range map[string]string{"pune": "o:7000", "lima": "o:7000", "oslo": "p:7000"} {
			start := time.Now()
			_, err := n.Host(from, from).Dial(t.Context(), to)
			wantErr(t, err, syscall.ETIMEDOUT)
			took(t, start, time.Second)
		}
		n.HealSite("oslo")
		dial(t, n.Host("lima", "l"), "o:7000")
	})
}

func TestCut_Dial(t *testing.T) {
	for _, dir := range [][2]string{{"oslo", "pune"}, {"pune", "oslo"}} {
		bubble(t, Config{}, func(t *testing.T, n *Network) {
			listen(t, n.Host("pune", "p"))
			o := n.Host("oslo", "o")
			n.CutOneWay(dir[0], dir[1])
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			start := time.Now()
			_, err := o.Dial(ctx, "p:7000")
			wantErr(t, err, context.DeadlineExceeded)
			took(t, start, 3*time.Second)

			start = time.Now()
			_, err = o.Dial(t.Context(), "p:7000")
			if nerr, ok := err.(net.Error); !ok || !nerr.Timeout() {
				t.Errorf("got %v, want a timeout", err)
			}
			took(t, start, 15*time.Second)
		})
	}
}

func TestCut_DialGoesOnAfterHeal(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		listen(t, n.Host("pune", "p"))
		start := time.Now()
		go func() {
			time.Sleep(20 * ms)
			n.Cut("oslo", "pune")
			time.Sleep(5 * time.Second)
			n.Heal("oslo", "pune")
		}()
		dial(t, n.Host("oslo", "o"), "p:7000")
		took(t, start, 5100*ms)
		synctest.Wait()
	})
}

func TestLinks(t *testing.T) {
	bubble(t, Config{Matrix: mustParse(t, slope+"oslo,lima,200\nlima,pune,300\n")}, func(t *testing.T, n *Network) {
		client, _ := connected(t, n)
		write(t, client, "hello")
		n.CutOneWay("pune", "oslo")
		want := []Link{{A: "oslo", B: "pune", RTT: 110 * ms, BytesAB: 5, CutBA: true}}
		if diff := cmp.Diff(want, n.Links()); diff != "" {
			t.Errorf("links (-want +got):\n%s", diff)
		}
		n.Host("lima", "l")
		if got := len(n.Links()); got != 3 {
			t.Errorf("%d links between three sites", got)
		}
	})
}

func TestCut_BadSites(t *testing.T) {
	n := New(Config{Matrix: Uniform(ms, "oslo", "pune")})
	for name, err := range map[string]error{
		"first":   n.Cut("osla", "pune"),
		"second":  n.Heal("pune", "osla"),
		"one way": n.CutOneWay("osla", "osla"),
		"isolate": n.Isolate("osla"),
		"heal":    n.HealSite("osla"),
	} {
		if err == nil || !strings.Contains(err.Error(), `no site "osla"; names like it: oslo`) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := n.Cut("oslo", "OSLO"); err == nil {
		t.Error("cut a site from itself")
	}
}
