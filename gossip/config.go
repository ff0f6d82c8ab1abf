package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// KeySize is the length of a cluster's gossip key in bytes (AES-256).
const KeySize = 32

// A Preset is a set of timings for one kind of network.
type Preset int

const (
	// WAN is for nodes in different places: a probe every 5 s, an answer
	// expected within 3 s. It is the zero Preset.
	WAN Preset = iota
	// LAN is for nodes in one building or region: a probe every second, an
	// answer expected within 500 ms.
	LAN
)

// Config says who this node is and how it reaches the others.
type Config struct {
	// Name is "node-" and Meta.Node in decimal; empty means exactly that.
	Name string
	// Meta is what the other nodes are told at first; see Gossip.UpdateMeta.
	Meta Meta
	// Key is the cluster's gossip key, KeySize bytes; required.
	Key []byte
	// Label is the cluster id, 1 to 255 bytes; nodes with another are ignored.
	Label string
	// Preset chooses the timings.
	Preset Preset

	// Transport carries packets and streams; nil means UDP and TCP on Bind.
	// Run takes it over and shuts it down.
	Transport *PacketTransport
	// Bind is the host:port to listen on if Transport is nil; port 0 takes any
	// port that is free for both protocols.
	Bind string
	// Advertise is the IP:port that others use to reach this node if Transport
	// is nil; empty means Bind, which must then name one IP.
	Advertise string

	// Seeds returns the addresses to join. It is asked every 5 s while no other
	// node is known, and once a minute to find nodes that drifted away; it may
	// be nil for a node that only waits to be joined.
	Seeds func(ctx context.Context) []string

	// NoDrain lets Run return as soon as the sockets are closed, without
	// waiting for memberlist's last probe to time out (up to one probe interval,
	// longer if the node is unhealthy). It is for a process about to exit.
	NoDrain bool

	// Logger receives memberlist's messages and ours; nil means slog.Default.
	Logger *slog.Logger
}

// validate reports the first field that cannot work, and fills defaults.
func (c *Config) validate() error {
	if c.Name == "" {
		c.Name = nodeName(c.Meta.Node)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	switch {
	case c.Name != nodeName(c.Meta.Node):
		return fmt.Errorf("name %q is not %q", c.Name, nodeName(c.Meta.Node))
	case len(c.Key) != KeySize:
		return fmt.Errorf("key has %d bytes, want %d", len(c.Key), KeySize)
	case c.Label == "" || len(c.Label) > memberlist.LabelMaxSize:
		return fmt.Errorf("label has %d bytes, want 1 to %d", len(c.Label), memberlist.LabelMaxSize)
	case c.Preset != WAN && c.Preset != LAN:
		return fmt.Errorf("unknown preset %d", c.Preset)
	case c.Transport == nil && c.Bind == "":
		return errors.New("neither a transport nor an address to bind")
	}
	return c.Meta.validate()
}

// listen binds Bind for both protocols.
func (c *Config) listen() (*PacketTransport, error) {
	advertise := c.Advertise
	if advertise != "" {
		ap, err := netip.ParseAddrPort(advertise)
		if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() {
			return nil, fmt.Errorf("advertised address %q is not a reachable IP:port", advertise)
		}
	}
	pc, l, err := bindBoth(c.Bind)
	if err != nil {
		return nil, err
	}
	if advertise == "" {
		advertise = l.Addr().String()
	}
	if ap, err := netip.ParseAddrPort(advertise); err != nil || ap.Addr().IsUnspecified() {
		pc.Close()
		l.Close()
		return nil, fmt.Errorf("bound to %s: the address to advertise must be given", c.Bind)
	}
	dialer := net.Dialer{}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", addr)
	}
	return NewPacketTransport(pc, l, dial, advertise), nil
}

// bindBoth listens on one port with TCP and UDP. A port that the kernel picked
// for TCP may be taken for UDP, so it is picked anew a few times.
func bindBoth(addr string) (net.PacketConn, net.Listener, error) {
	const tries = 10
	var lastErr error
	for range tries {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l, nil
		}
		l.Close()
		lastErr = err
	}
	return nil, nil, lastErr
}

// memberlistConfig states how ours differs from memberlist's presets.
func (c *Config) memberlistConfig() *memberlist.Config {
	conf := memberlist.DefaultWANConfig()
	if c.Preset == LAN {
		conf = memberlist.DefaultLANConfig()
	}
	conf.Name = c.Name
	conf.Label = c.Label
	conf.SecretKey = slices.Clone(c.Key)

	conf.TCPTimeout = 10 * time.Second          // a state exchange is a few round trips, even by satellite
	conf.UDPBufferSize = 1200                   // fits a tunnel over an IPv6 path (MTU 1280) unfragmented
	conf.DeadNodeReclaimTime = 30 * time.Second // a dead node may come back on another address
	return conf
}

// logger bridges memberlist's messages to c.Logger.
func (c *Config) logger(b *logBridge) *log.Logger { return log.New(b, "", 0) }

func nodeName(node uint32) string { return fmt.Sprintf("node-%d", node) }
