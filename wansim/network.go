package wansim

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// A Config says what a network is like. Bandwidth, Loss and Jitter apply to links
// between sites; within a site there is only its round trip.
type Config struct {
	Matrix       *Matrix       // sites and round trips; nil means World()
	Seed         uint64        // of loss and jitter
	Bandwidth    int64         // bytes/s of each directed link, shared first come, first served; 0 means unlimited
	Loss         float64       // 0..1, chance of a packet of up to 1460 bytes to be lost: a datagram is gone, a stream waits max(200 ms, 2 RTT) for it
	Jitter       float64       // >= 0; a segment takes up to this fraction of the one-way delay longer
	LocalRTT     time.Duration // round trip within a site; 0 means what the matrix says
	StallTimeout time.Duration // how long a cut may keep sent bytes unacknowledged until the connection is reset; 0 means 15 s
	DialTimeout  time.Duration // how long Dial waits for a cut to heal; 0 means 15 s
}

// A Network connects hosts. Its methods, and those of everything made from it,
// may be called from any goroutine.
type Network struct {
	cfg   Config
	links [][]*link // by index of site, from and to

	mu       sync.Mutex // everything below, and everything of hosts, circuits, links
	closed   bool
	hosts    map[string]*Host // by name; a revived one replaces the crashed one
	circuits map[string]*circuit
	dials    map[string]int // how often each host dialed each address
}

// New returns a network without hosts. It panics if cfg makes no sense.
func New(cfg Config) *Network {
	if cfg.Matrix == nil {
		cfg.Matrix = World()
	}
	if cfg.StallTimeout == 0 {
		cfg.StallTimeout = 15 * time.Second
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 15 * time.Second
	}
	if err := cfg.validate(); err != nil {
		panic("wansim: " + err.Error())
	}
	return &Network{
		cfg:      cfg,
		links:    cfg.links(),
		hosts:    map[string]*Host{},
		circuits: map[string]*circuit{},
		dials:    map[string]int{},
	}
}

func (cfg *Config) validate() error {
	switch {
	case cfg.Bandwidth < 0:
		return fmt.Errorf("bandwidth %d bytes/s is negative", cfg.Bandwidth)
	case !(cfg.Loss >= 0 && cfg.Loss <= 1):
		return fmt.Errorf("loss %v is not in 0..1", cfg.Loss)
	case !(cfg.Jitter >= 0):
		return fmt.Errorf("jitter %v is negative", cfg.Jitter)
	case cfg.LocalRTT < 0 || cfg.StallTimeout < 0 || cfg.DialTimeout < 0:
		return fmt.Errorf("a negative duration in %+v", *cfg)
	}
	return nil
}

func (cfg *Config) links() [][]*link {
	m := cfg.Matrix
	links := make([][]*link, len(m.Sites))
	for i, from := range m.Sites {
		links[i] = make([]*link, len(m.Sites))
		for j, to := range m.Sites {
			l := &link{from: from.Name, to: to.Name, delay: m.rtt[i][j] / 2}
			if i != j {
				l.rto = max(200*time.Millisecond, m.rtt[i][j]+m.rtt[j][i])
				l.bandwidth, l.loss, l.jitter = cfg.Bandwidth, cfg.Loss, cfg.Jitter
			} else if cfg.LocalRTT > 0 {
				l.delay = cfg.LocalRTT / 2
			}
			links[i][j] = l
		}
	}
	return links
}

// Matrix returns what the network was made from.
func (n *Network) Matrix() *Matrix { return n.cfg.Matrix }

// Host returns the host called name, which it puts at the site if there is none
// or it has crashed. It panics if the matrix has no such site, if the host is up
// elsewhere, or if the name is empty or has a colon.
func (n *Network) Host(site, name string) *Host {
	i, err := n.cfg.Matrix.find(site)
	if err != nil {
		panic("wansim: host " + name + ": " + err.Error())
	}
	if a, err := parseAddr(name + ":1"); err != nil || a.host == "" || a.host != name {
		panic(fmt.Sprintf("wansim: host name %q: want a name without a colon", name))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[name]; h != nil && !h.down {
		if h.site != i {
			panic(fmt.Sprintf("wansim: host %v is not at %s", h, site))
		}
		return h
	}
	h := &Host{net: n, name: name, site: i, listeners: map[string]*listener{}, packets: map[string]*packetConn{}}
	n.hosts[name] = h
	return h
}

// Close ends every connection and wakes everybody who waits, at both ends and at
// once. Nothing of the network runs afterwards: all its work is done by those who
// call it, and their calls return with errors that wrap net.ErrClosed or, from
// Dial and Listen, syscall.ENETDOWN.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, h := range n.hosts {
		for _, l := range h.listeners {
			l.close(time.Now())
		}
		for _, p := range h.packets {
			p.close()
		}
		h.gate.wake()
	}
	for _, c := range n.circuits {
		for _, e := range c.ends {
			e.die(net.ErrClosed)
		}
	}
	return nil
}

func (n *Network) resolve(address string) (addr, error) {
	a, err := parseAddr(address)
	if err != nil {
		return addr{}, err
	}
	if n.hosts[a.host] == nil {
		return addr{}, &net.DNSError{Err: "no such host", Name: a.host, IsNotFound: true}
	}
	return a, nil
}

// dialKey names the next circuit from a host to an address.
func (n *Network) dialKey(host string, remote addr) string {
	pair := host + ">" + remote.String()
	n.dials[pair]++
	return fmt.Sprintf("%s#%09d", pair, n.dials[pair])
}

// rng returns the source of chance of one flow, which no other flow disturbs.
func (n *Network) rng(flow, part string) *rand.Rand {
	sum := fnv.New64a()
	sum.Write([]byte(flow + "/" + part))
	return rand.New(rand.NewPCG(n.cfg.Seed, sum.Sum64()))
}

// connect makes a circuit and returns the end of the host from.
func (n *Network) connect(key string, from *Host, local addr, to *Host, remote addr) *conn {
	there, back := n.links[from.site][to.site], n.links[to.site][from.site]
	up := &stream{fwd: there, rev: back, rng: n.rng(key, "up")}
	down := &stream{fwd: back, rev: there, rng: n.rng(key, "down")}
	c := &circuit{net: n, key: key}
	a := &conn{circuit: c, host: from, local: local, remote: remote, in: down, out: up}
	b := &conn{circuit: c, host: to, local: remote, remote: local, in: up, out: down}
	a.peer, b.peer = b, a
	c.ends = [2]*conn{a, b}
	n.circuits[key] = c
	return a
}

// ordered returns the circuits in the order of their keys, so that a heal gives
// shared bandwidth to the same ones first in every run.
func (n *Network) ordered() []*circuit {
	circuits := make([]*circuit, 0, len(n.circuits))
	for _, key := range slices.Sorted(maps.Keys(n.circuits)) {
		circuits = append(circuits, n.circuits[key])
	}
	return circuits
}
