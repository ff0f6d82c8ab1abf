package faultnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
)

// Config says what a proxy stands between.
type Config struct {
	Network string // "tcp" (default) or "udp"
	Listen  string // address to listen on; default "127.0.0.1:0"
	Target  string // address to pass traffic on to
	Seed    uint64 // of all that is drawn
	Window  int    // bytes held in each direction of each connection; 0: 256 KiB
	Faults  Faults // to begin with

	// Where traffic comes from and goes to; nil means real sockets.
	ListenStream func(network, addr string) (net.Listener, error)
	ListenPacket func(network, addr string) (net.PacketConn, error)
	Dial         func(ctx context.Context, network, addr string) (net.Conn, error)
}

// A Proxy passes traffic on and spoils it.
type Proxy struct {
	cfg    Config
	addr   net.Addr
	ctx    context.Context // ends with Close; the goroutines' own
	cancel context.CancelFunc
	close  func() error // of the listening socket
	wg     sync.WaitGroup

	mu      sync.Mutex // protects what follows
	faults  Faults
	changes uint64        // how often faults have been set
	changed chan struct{} // closed when faults are set again
	counts  Counts
	live    map[*connection]bool
}

const defaultWindow = 256 << 10

// Open listens and begins to pass traffic on.
func Open(cfg Config) (*Proxy, error) {
	cfg = cfg.complete()
	p := &Proxy{cfg: cfg, changed: make(chan struct{}), live: map[*connection]bool{}}
	if err := p.Spoil(cfg.Faults); err != nil {
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	var err error
	switch cfg.Network {
	case "tcp":
		err = p.openStream()
	case "udp":
		err = p.openPacket()
	default:
		err = fmt.Errorf("network %q is neither tcp nor udp", cfg.Network)
	}
	if err != nil {
		p.cancel()
		return nil, fmt.Errorf("faultnet: open proxy to %s: %w", cfg.Target, err)
	}
	return p, nil
}

func (c Config) complete() Config {
	if c.Network == "" {
		c.Network = "tcp"
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.ListenStream == nil {
		c.ListenStream = net.Listen
	}
	if c.ListenPacket == nil {
		c.ListenPacket = net.ListenPacket
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	return c
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.addr.String() }

// Spoil sets the faults from now on. What is on its way keeps the delay it was
// given, but meets a cut or a black hole that is there when it would arrive. The
// error names the first value out of range, and then nothing changes.
func (p *Proxy) Spoil(f Faults) error {
	return p.alter(func(old *Faults) { *old = f })
}

// Faults returns what was set last.
func (p *Proxy) Faults() Faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

func (p *Proxy) alter(change func(*Faults)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.faults
	change(&f)
	if err := errors.Join(f.Up.check(), f.Down.check()); err != nil {
		return fmt.Errorf("faultnet: spoil: %w", err)
	}
	p.faults = f
	p.changes++
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// A view is the faults of one direction at a moment.
type view struct {
	Line
	change  uint64          // number of the Spoil that set it
	changed <-chan struct{} // closed when it is no longer true
}

func (p *Proxy) view(w way) view {
	p.mu.Lock()
	defer p.mu.Unlock()
	return view{p.faults.line(w), p.changes, p.changed}
}

// Reset resets every TCP connection that is open now and returns how many.
func (p *Proxy) Reset() int {
	all := p.connections()
	for _, c := range all {
		c.reset()
	}
	return len(all)
}

func (p *Proxy) connections() []*connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.live))
}

// Counts returns what the proxy has seen so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

func (p *Proxy) count(add func(*Counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.counts)
}

// Close stops listening, closes every connection and waits for all goroutines.
// Later calls do nothing.
func (p *Proxy) Close() error {
	if p.ctx.Err() != nil {
		p.wg.Wait()
		return nil
	}
	p.cancel()
	err := p.close()
	for _, c := range p.connections() {
		c.shut()
	}
	p.wg.Wait()
	return err
}
