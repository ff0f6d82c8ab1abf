package faultnet

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// openUDP returns a client's socket through a proxy, and the target's.
func openUDP(t *testing.T, cfg Config) (*Proxy, net.Conn, net.PacketConn) {
	t.Helper()
	target, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { target.Close() })
	cfg.Network, cfg.Target = "udp", target.LocalAddr().String()
	p, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	client, err := net.Dial("udp", p.Addr())
	must(t, err)
	t.Cleanup(func() { client.Close() })
	for _, c := range []interface{ SetDeadline(time.Time) error }{client, target} {
		must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	}
	return p, client, target
}

func receive(t *testing.T, c net.PacketConn, want string) net.Addr {
	t.Helper()
	b := make([]byte, 2000)
	n, from, err := c.ReadFrom(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("received %q (%v), want %q", b[:n], err, want)
	}
	return from
}

func TestDatagrams_Sessions(t *testing.T) {
	p, first, target := openUDP(t, Config{})
	second, err := net.Dial("udp", p.Addr())
	must(t, err)
	defer second.Close()
	write(t, first, "one")
	a := receive(t, target, "one")
	write(t, second, "two")
	b := receive(t, target, "two")
	for _, answer := range []struct {
		to   net.Addr
		text string
	}{{b, "to two"}, {a, "to one"}} {
		_, err := target.WriteTo([]byte(answer.text), answer.to)
		must(t, err)
	}
	read(t, first, "to one")
	read(t, second, "to two")
	eventually(t, func() bool { c := p.Counts(); return c.Connections == 2 && c.Up.Bytes == 6 })
}

func TestDatagrams_LostDuplicatedReordered(t *testing.T) {
	p, client, target := openUDP(t, Config{Seed: 1})
	send := func(text string, f Line) {
		t.Helper()
		must(t, p.Spoil(Faults{Up: f}))
		before := seen(p)
		write(t, client, text)
		eventually(t, func() bool { return seen(p) > before })
	}
	send("lost", Line{Loss: 1})
	send("cut off", Line{Flow: Cut})
	send("swallowed", Line{Flow: BlackHole})
	send("held back", Line{Reorder: 1, ReorderBy: time.Second})
	send("double", Line{Duplicate: 1})
	must(t, p.Spoil(Faults{}))
	for _, want := range []string{"double", "double", "held back"} {
		receive(t, target, want)
	}
	if c := p.Counts().Up; c.Lost != 3 || c.Reordered != 1 || c.Duplicated != 1 {
		t.Errorf("counted %+v", c)
	}
}

// seen counts the datagrams whose fate is known.
func seen(p *Proxy) int64 {
	c := p.Counts().Up
	return c.Lost + c.Reordered + c.Duplicated
}

// TestDatagrams_Window: what does not fit is lost, like in a router's queue.
func TestDatagrams_Window(t *testing.T) {
	p, client, _ := openUDP(t, Config{Window: 5000, Faults: Faults{Up: Line{Delay: time.Hour}}})
	for range 10 {
		write(t, client, fmt.Sprintf("%1000d", 1))
	}
	eventually(t, func() bool { return p.Counts().Up.Overflowed == 6 })
}

// TestDatagrams_Evict: the session unused for longest makes room.
func TestDatagrams_Evict(t *testing.T) {
	p, _, target := openUDP(t, Config{})
	for i := range maxSessions + 10 {
		c, err := net.Dial("udp", p.Addr())
		must(t, err)
		write(t, c, "hello")
		defer c.Close() // until the end, so that no two have one port
		receive(t, target, "hello")
		if i >= maxSessions {
			eventually(t, func() bool { return p.Counts().Open <= maxSessions })
		}
	}
	if c := p.Counts(); c.Connections != maxSessions+10 {
		t.Errorf("counted %+v", c)
	}
}
