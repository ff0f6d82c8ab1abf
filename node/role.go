package node

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/gossip"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/replica"
)

func (n *Node) openMaster(cert *auth.Node) error {
	ca, err := auth.LoadCA(n.set.Dir)
	if err != nil {
		return err
	}
	key, err := ca.KeyDER()
	if err != nil {
		return err
	}
	if err := n.sameRaftLog(); err != nil {
		return err
	}
	g, err := n.gossipConfig()
	if err != nil {
		return err
	}
	listen := map[string]string{master.ListenSync: n.set.Listen.Sync, master.ListenRaft: n.set.Listen.Raft}
	n.master, err = master.Open(master.Config{
		Dir: n.set.Dir, Node: cert, CA: ca, CAKey: key, City: n.set.City, Country: n.set.Country,
		Listen: func(kind string) (net.Listener, error) { return n.env.Listen(listen[kind]) }, Dial: n.env.Dial,
		SyncAddress: advertised(n.set.Advertise.Sync, n.set.Listen.Sync), RaftAddress: advertised(n.set.Advertise.Raft, n.set.Listen.Raft),
		HTTPAddress: advertised(n.set.Advertise.HTTP, n.set.Listen.HTTP),
		Preset:      n.set.Preset, LogStore: n.set.RaftLog, Protocol: n.set.Protocol, Gossip: g,
		Now: n.env.Now, Rand: n.env.Rand, Logger: n.env.Logger, Metrics: master.NewMetrics(n.registry), Fatal: n.env.Fatal,
	})
	return err
}

// raftLogFiles are the files by which the kinds of Raft log are known.
var raftLogFiles = map[string]string{"wal": "wal-meta.db", "bbolt": "log.db"}

// sameRaftLog refuses to begin a second Raft log beside the one of another kind
// that is there: the master would forget how it voted and what it had agreed to.
func (n *Node) sameRaftLog() error {
	for kind, name := range raftLogFiles {
		path := n.set.path("raft", name)
		if _, err := os.Stat(path); err == nil && kind != n.set.RaftLog {
			return badSetting("raft_log", "%q, but %s is a log of kind %s; a master keeps the kind it began with: say --raft-log %s, or remove the master and join it anew", n.set.RaftLog, path, kind, kind)
		}
	}
	return nil
}

// bootstrap starts the cluster the first time its first master runs, and then
// forgets that there was something to start.
func (n *Node) bootstrap(ctx context.Context) error {
	if err := n.master.Bootstrap(ctx, master.Initial{Catalogue: catalog.Requests("cluster")}); err != nil {
		return err
	}
	n.log().Info("the cluster has begun", "cluster", n.id.Cluster)
	id := n.id
	id.Bootstrap = false
	return writeIdentity(n.set.Dir, id)
}

// serves reports whether the node serves replicas.
func (n *Node) serves() bool { return n.id.Role == auth.RoleMaster || n.set.Relay }

// relay says how a replica serves others, nil if it does not.
func (n *Node) relay(cert *auth.Node, ca *x509.Certificate) *replica.Relay {
	if !n.serves() {
		return nil
	}
	return &replica.Relay{
		Listen:  func() (net.Listener, error) { return n.env.Listen(n.set.Listen.Sync) },
		Address: advertised(n.set.Advertise.Sync, n.set.Listen.Sync),
		TLS:     auth.ServerTLS(cert, ca, n.env.Now, auth.ALPNSync, auth.ALPNLink),
		Link:    auth.ClientTLS(cert, ca, n.env.Now, nil, auth.ALPNLink),
	}
}

func (n *Node) openReplica(cert *auth.Node, ca *x509.Certificate) error {
	g, err := n.gossipConfig()
	if err != nil {
		return err
	}
	if g != nil {
		if n.gossip, err = gossip.Open(*g); err != nil {
			return err
		}
	}
	n.replica, err = replica.Open(replica.Config{
		Dir: n.set.Dir, ID: replica.ID{Cluster: n.id.Cluster, Site: n.id.Site, Node: n.id.Node},
		TLS: auth.ClientTLS(cert, ca, n.env.Now, nil, auth.ALPNSync), Dial: n.env.Dial, Masters: n.masters, Protocol: n.set.Protocol, Relay: n.relay(cert, ca),
		Now: n.env.Now, Rand: n.env.Rand, Logger: n.env.Logger, Metrics: replica.NewMetrics(n.registry),
	})
	return err
}

// masters returns the sync addresses to try: those gossip has measured, nearest
// first, then those known from settings and joining.
func (n *Node) masters() []string {
	var out []string
	if n.gossip != nil {
		live := slices.DeleteFunc(n.gossip.Members(), func(m gossip.Member) bool {
			return m.State != gossip.Alive || m.Role != string(auth.RoleMaster) || m.Sync == "" || !m.RTTKnown
		})
		slices.SortStableFunc(live, func(a, b gossip.Member) int { return int(a.RTT - b.RTT) })
		for _, m := range live {
			out = append(out, m.Sync)
		}
	}
	for _, addr := range slices.Concat(n.set.Masters, n.id.Masters) {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// gossipConfig returns nil where gossip is off or the node was given no key.
func (n *Node) gossipConfig() (*gossip.Config, error) {
	if n.set.Listen.Gossip == "" {
		return nil, nil
	}
	key, err := os.ReadFile(n.set.path("gossip.key"))
	if errors.Is(err, fs.ErrNotExist) {
		n.log().Warn("gossip is off: this node was given no gossip key")
		return nil, nil
	}
	if err != nil {
		return nil, dirError("open node", n.set.path("gossip.key"), "%v", err)
	}
	c := &gossip.Config{
		Key: key, Label: n.id.Cluster, Preset: gossip.WAN, Logger: n.env.Logger, Bind: n.set.Listen.Gossip, Advertise: n.set.Advertise.Gossip, NoDrain: !n.env.Drain,
		Meta:  gossip.Meta{Node: uint32(n.id.Node), Role: string(n.id.Role), Site: n.id.Site, HTTP: advertised(n.set.Advertise.HTTP, n.set.Listen.HTTP)},
		Seeds: func(context.Context) []string { return n.gossipSeeds() },
	}
	if n.serves() {
		c.Meta.Sync = advertised(n.set.Advertise.Sync, n.set.Listen.Sync)
	}
	if n.env.ListenPacket == nil {
		return c, nil
	}
	return c, n.simulateGossip(c)
}

// simulateGossip carries gossip over the injected network.
func (n *Node) simulateGossip(c *gossip.Config) error {
	pc, err := n.env.ListenPacket(n.set.Listen.Gossip)
	if err != nil {
		return err
	}
	l, err := n.env.Listen(n.set.Listen.Gossip)
	if err != nil {
		return errors.Join(err, pc.Close())
	}
	c.Transport = gossip.NewPacketTransport(pc, l, n.env.Dial, advertised(n.set.Advertise.Gossip, n.set.Listen.Gossip))
	return nil
}

// gossipSeeds are the masters' hosts at this node's own gossip port: gossip
// uses one port throughout a cluster.
func (n *Node) gossipSeeds() []string {
	_, port, err := net.SplitHostPort(n.set.Listen.Gossip)
	if err != nil {
		return nil
	}
	var out []string
	for _, addr := range slices.Concat(n.set.Masters, n.id.Masters) {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			out = append(out, net.JoinHostPort(host, port))
		}
	}
	return out
}
