package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Gossip is this node's part in the cluster's gossip.
type Gossip struct {
	cfg       Config
	conf      *memberlist.Config
	transport *PacketTransport
	members   *table
	stats     counters
	republish chan struct{} // capacity 1; holds a token if own changed since it was sent

	publishing sync.Mutex // held while memberlist.UpdateNode runs, which is not safe beside itself

	mu   sync.Mutex // protects what follows; never held while calling memberlist
	own  announcement
	list *memberlist.Memberlist // nil until Run
	ran  bool                   // Run or Close was called
}

// Open checks cfg and, unless it brings a transport, binds the sockets. It
// starts nothing: call Run, once, or Close. If it fails, cfg.Transport is still
// the caller's.
func Open(cfg Config) (*Gossip, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	transport := cfg.Transport
	if transport == nil {
		var err error
		if transport, err = cfg.listen(); err != nil {
			return nil, fmt.Errorf("open gossip: %w", err)
		}
	}
	g := &Gossip{
		cfg:       cfg,
		conf:      cfg.memberlistConfig(),
		transport: transport,
		members:   newTable(),
		republish: make(chan struct{}, 1),
		own:       announcement{Meta: cfg.Meta, Gossip: transport.advertise},
	}
	if err := g.own.validate(); err != nil {
		if cfg.Transport == nil {
			transport.Shutdown()
		}
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	g.conf.Transport = transport
	g.conf.Logger = cfg.logger(&logBridge{logger: cfg.Logger, stats: &g.stats, members: g.members})
	delegate{g}.install(g.conf)
	return g, nil
}

var errRan = errors.New("run gossip: already run or closed")

// Run joins the cluster and stays in it until ctx ends; then it says good-bye
// to the others, closes the transport and returns nil when all goroutines have
// ended. Saying good-bye takes at most eight gossip intervals (4 s with WAN,
// 1.6 s with LAN); then, unless Config.NoDrain is set, Run waits for a probe
// that may be under way: one probe interval, times one more than HealthScore.
// A second Run is an error.
func (g *Gossip) Run(ctx context.Context) error {
	list, err := g.start()
	if err != nil {
		return err
	}
	var joining sync.WaitGroup
	joining.Go(func() { g.keepJoined(ctx, list) })
	<-ctx.Done()

	g.leave(list)
	g.members.freeze()
	err = list.Shutdown() // closes every stream, which ends a join under way
	joining.Wait()
	g.drain(list)
	if err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

func (g *Gossip) start() (*memberlist.Memberlist, error) {
	if !g.claim() {
		return nil, errRan
	}
	g.transport.start()
	list, err := memberlist.Create(g.conf)
	if err != nil {
		g.transport.Shutdown()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = list
	return list, nil
}

// claim makes Run or Close the only one.
func (g *Gossip) claim() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.ran
	g.ran = true
	return first
}

// Close frees the sockets of a Gossip that will not be Run; after Run it does
// nothing.
func (g *Gossip) Close() error {
	if !g.claim() {
		return nil
	}
	return g.transport.Shutdown()
}

// leave tells the others that this node is going. memberlist does not tell its
// callers whether a node died or left, so the announcement says it first.
func (g *Gossip) leave(list *memberlist.Memberlist) {
	timeout := 4 * g.conf.GossipInterval
	g.mu.Lock()
	g.own.Leaving = true
	g.mu.Unlock()
	if err := g.publish(list, timeout); err != nil {
		g.cfg.Logger.Debug("gossip: leaving was not announced to all", "err", err)
	}
	if err := list.Leave(timeout); err != nil {
		g.cfg.Logger.Debug("gossip: good-bye was not sent to all", "err", err)
	}
}

// drain waits until memberlist's goroutines have ended. Its Shutdown stops all
// but two kinds at once: the prober, which sees the probe under way to its
// end, and those that wait to report a failed indirect probe. Neither can
// outlast the interval of a probe that began just before Shutdown.
func (g *Gossip) drain(list *memberlist.Memberlist) {
	if known, _ := g.members.counts(g.cfg.Name); g.cfg.NoDrain || known == 0 {
		return
	}
	<-time.After(g.conf.ProbeInterval * time.Duration(list.GetHealthScore()+1))
}

// publish spreads the present announcement and waits at most timeout for it to
// be sent; it continues to spread after that.
func (g *Gossip) publish(list *memberlist.Memberlist, timeout time.Duration) error {
	g.publishing.Lock()
	defer g.publishing.Unlock()
	return list.UpdateNode(timeout)
}

func (g *Gossip) announced() announcement {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.own
}

// UpdateMeta changes what the other nodes are told. The node id cannot change.
// It returns at once; the news takes a few gossip intervals to arrive.
func (g *Gossip) UpdateMeta(m Meta) error {
	if m.Node != g.cfg.Meta.Node {
		return fmt.Errorf("update gossip meta: node id %d is not %d", m.Node, g.cfg.Meta.Node)
	}
	if err := m.validate(); err != nil {
		return fmt.Errorf("update gossip meta: %w", err)
	}
	g.mu.Lock()
	g.own.Meta = m
	g.mu.Unlock()
	select {
	case g.republish <- struct{}{}:
	default:
	}
	return nil
}

// Members returns the known nodes by id: this one, the living, the suspect and,
// for a day, the dead and those that left. Before Run it is empty; after Run it
// stays as it was at the end.
func (g *Gossip) Members() []Member { return g.members.list() }

// Changes receives a value after Members changed in anything but an RTT; many
// changes may share one value. It is never closed.
func (g *Gossip) Changes() <-chan struct{} { return g.members.changed }

// RTT returns the smoothed round-trip time to a node, and false if no probe of
// this node has been answered directly by it yet.
func (g *Gossip) RTT(node uint32) (time.Duration, bool) { return g.members.rtt(nodeName(node)) }

// HealthScore tells how well this node keeps up with the protocol: 0 is
// healthy, each step up says that probes or answers were late or lost, and 7 is
// the most. It is 0 before Run.
func (g *Gossip) HealthScore() int {
	g.mu.Lock()
	list := g.list
	g.mu.Unlock()
	if list == nil {
		return 0
	}
	return list.GetHealthScore()
}

// Address returns the address that this node advertises for gossip.
func (g *Gossip) Address() string { return g.transport.advertise }

// Stats returns the counts since Open.
func (g *Gossip) Stats() Stats {
	return Stats{
		DecryptFailures: g.stats.decryptFailures.Load(),
		LabelMismatches: g.stats.labelMismatches.Load(),
		MetaRejected:    g.stats.metaRejected.Load(),
		NameConflicts:   g.stats.nameConflicts.Load(),
		StreamsRefused:  g.transport.refused.Load(),
		Errors:          g.stats.errors.Load(),
	}
}
