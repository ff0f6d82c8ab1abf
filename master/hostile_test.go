package master

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// refusedFor is how often a master has refused for a reason.
func (m *rigMaster) refusedFor(reason crm.Code) int {
	return counted(m.cfg.Metrics.refused.WithLabelValues(string(reason)))
}

// counted reads a counter.
func counted(c prometheus.Counter) int {
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		return -1
	}
	return int(families[0].GetMetric()[0].GetCounter().GetValue())
}

// drip sends bytes one by one, a second apart, until the other end hangs up, and
// returns how long that took.
func drip(c net.Conn, b []byte) time.Duration {
	start := time.Now()
	hungUp := make(chan struct{})
	go func() {
		defer close(hungUp)
		_, _ = io.Copy(io.Discard, c)
	}()
	for i := 0; ; i++ {
		select {
		case <-hungUp:
			return time.Since(start)
		case <-time.After(time.Second):
			_, _ = c.Write(b[i%len(b):][:1])
		}
	}
}

// slowHello begins what looks like TLS's first message, and goes on for ever.
var slowHello = []byte{0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3}

// TestDoor_SlowStrangers: more connections than may be in their handshake at once
// dribble theirs. All are hung up on in time and counted, and a branch that comes
// meanwhile is served as soon as there is room.
func TestDoor_SlowStrangers(t *testing.T) {
	const strangers = 300 // the door has room for 256
	inRig(t, 1, func(t *testing.T, r *rig) {
		b, m := r.branch("warsaw", "Warsaw"), r.leader()
		failed := m.cfg.Metrics.handshakes.WithLabelValues("failed")
		before := counted(failed)
		host := r.net.Host("Madrid", "stranger")
		took := make(chan time.Duration, strangers)
		var wg sync.WaitGroup
		for range strangers {
			c, err := host.Dial(t.Context(), m.cfg.SyncAddress)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wg.Go(func() { took <- drip(c, slowHello) })
		}
		start := time.Now()
		b.connect(m)
		waited := time.Since(start)
		wg.Wait()
		close(took)
		longest := time.Duration(0)
		for d := range took {
			longest = max(longest, d)
		}
		hungUp := counted(failed) - before
		t.Logf("a branch was served after %v, the last of %d strangers gone after %v", waited, strangers, longest)
		if waited > 15*time.Second || longest > 30*time.Second {
			t.Errorf("a branch was served after %v, the last stranger gone after %v", waited, longest)
		}
		if hungUp != strangers {
			t.Errorf("%d failed handshakes are counted, want %d", hungUp, strangers)
		}
	})
}

// TestDoor_AHelloThatNeverEnds: a node with a certificate dribbles its Hello. It
// is hung up on in time and counted.
func TestDoor_AHelloThatNeverEnds(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		b, m := r.branch("warsaw", "Warsaw"), r.leader()
		raw, err := b.host.Dial(t.Context(), m.cfg.SyncAddress)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, auth.ClientTLS(b.cert, r.ca.Cert, time.Now, auth.ExpectMaster, auth.ALPNSync))
		defer c.Close()
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		whole := helloBytes(t, b.hello())
		if took := drip(c, whole[:len(whole)-1]); took > 15*time.Second {
			t.Errorf("it took %v to hang up", took)
		}
		if got := m.refusedFor(crm.CodeTimeout); got != 1 {
			t.Errorf("%d are counted", got)
		}
		b.connect(m)
	})
}

// helloBytes is what a Conn sends for a Hello.
func helloBytes(t *testing.T, h *syncproto.Hello) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	sent := make(chan error, 1)
	go func() { sent <- syncproto.NewConn(near).Send(h) }()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err == nil {
		err = <-sent
	}
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// TestFlood_OfHellos: a node that introduces itself over and over is told to wait,
// which is counted, and may come again later.
func TestFlood_OfHellos(t *testing.T) {
	const tries, allowed = 100, 16
	inRig(t, 1, func(t *testing.T, r *rig) {
		b, honest, m := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid"), r.leader()
		r.waitFor("the newest version, which ends sessions", func() bool {
			s, err := m.standing(m.node)
			return err == nil && s.Level == m.cfg.Protocol
		})
		honest.connect(m)
		index, welcomed := m.ledger.fsm.Applied(), 0
		start := time.Now()
		for range tries {
			f, err := b.dial(m, b.hello())
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case *syncproto.Welcome:
				welcomed++
				b.incarnation, b.timeline = f.Incarnation, f.Timeline
			case *syncproto.Busy:
			default:
				t.Fatalf("answered with %s", f.Kind())
			}
		}
		most := allowed + 1 + int(time.Since(start)/time.Second)
		if welcomed > most || m.refusedFor(crm.CodeUnavailable) != tries-welcomed {
			t.Errorf("%d of %d were welcomed, at most %d may, and %d refusals are counted", welcomed, tries, most, m.refusedFor(crm.CodeUnavailable))
		}
		if logged := m.ledger.fsm.Applied() - index; logged > 8 {
			t.Errorf("the flood cost %d entries of the log", logged)
		}
		wantServed(t, r, m, honest)
		time.Sleep(30 * time.Second)
		b.connect(m)
	})
}

// TestFlood_InSession: a node that beats and asks thousands of times a second, and
// does not read the answers, holds up itself only.
func TestFlood_InSession(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		b, honest, m := r.branch("warsaw", "Warsaw"), r.branch("madrid", "Madrid"), r.leader()
		r.waitFor("the newest version, which ends sessions", func() bool {
			s, err := m.standing(m.node)
			return err == nil && s.Level == m.cfg.Protocol
		})
		honest.connect(m)
		f, err := b.dial(m, b.hello())
		if err != nil || f.Kind() != syncproto.KindWelcome {
			t.Fatalf("answered with %v, %v", f, err)
		}
		conn := b.conn
		var flood sync.WaitGroup
		flood.Go(func() {
			for id := uint64(1); ; id++ {
				beat := &syncproto.Heartbeat{T1: time.Now().UnixMilli()}
				if err := conn.Send(beat, beat, beat, beat, beat, beat, beat, beat, &syncproto.Ask{ID: id, What: syncproto.AskLeader}); err != nil {
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
		time.Sleep(5 * time.Second)
		wantServed(t, r, m, honest)
		if m.refusedFor(crm.CodeUnavailable) == 0 {
			t.Error("no unheard heartbeat is counted")
		}
		b.hangUp()
		flood.Wait()
	})
}

// wantServed has the honest branch's edit decided and sent back at once.
func wantServed(t *testing.T, r *rig, m *rigMaster, honest *branch) {
	t.Helper()
	start := time.Now()
	raw := honest.mutation(createAccount(newID(), "acme", "south"))
	honest.push(honest.next-1, raw)
	for honest.decided < honest.next-1 {
		f := honest.frame()
		if f == nil {
			t.Fatal("the honest branch's session ended")
		}
		if batch, ok := f.(*syncproto.Batch); ok {
			honest.apply(batch)
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the honest branch's edit took %v", took)
	}
}
