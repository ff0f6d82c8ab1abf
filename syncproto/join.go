package syncproto

import (
	"fmt"
	"log/slog"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Join asks for admission with a one-time token. It is the first and only
// frame of a new node on a connection of its own.
type Join struct {
	TokenID string
	Secret  [16]byte
	CSR     []byte // certificate request, DER
	Role    string // master or replica; must be the token's
	City    string
	Sync    string // host:port at which others reach the node; "" if none can
	HTTP    string
	Raft    string // of a master
}

// Kind returns KindJoin.
func (*Join) Kind() Kind { return KindJoin }

// String keeps the secret out of logs.
func (f *Join) String() string { return "join with token " + f.TokenID }

// LogValue returns String.
func (f *Join) LogValue() slog.Value { return slog.StringValue(f.String()) }

func (f *Join) fields(c *codec) {
	c.text("token_id", &f.TokenID, maxName)
	c.fixed("secret", f.Secret[:])
	c.bytes("csr", &f.CSR, 1, maxDER)
	c.text("role", &f.Role, maxName)
	c.text("city", &f.City, maxName)
	c.text("sync", &f.Sync, maxAddress)
	c.text("http", &f.HTTP, maxAddress)
	c.text("raft", &f.Raft, maxAddress)
}

// A Joined admits a node.
type Joined struct {
	Cluster   string
	Node      crm.NodeID
	Cert      []byte // the node's certificate, DER
	CACert    []byte // DER
	CAKey     []byte // DER; masters only, else empty
	GossipKey []byte // empty if the node does not gossip
	Masters   []string
	Site      string
	Timeline  uint64
	RaftPeers []RaftPeer // masters only
}

// A RaftPeer is a voter and the address of its Raft port.
type RaftPeer struct {
	Node    crm.NodeID
	Address string // host:port
}

// Kind returns KindJoined.
func (*Joined) Kind() Kind { return KindJoined }

// String keeps the keys out of logs.
func (f *Joined) String() string { return fmt.Sprintf("joined %s as node %d", f.Cluster, f.Node) }

// LogValue returns String.
func (f *Joined) LogValue() slog.Value { return slog.StringValue(f.String()) }

func (f *Joined) fields(c *codec) {
	c.text("cluster", &f.Cluster, maxName)
	number(c, "node", &f.Node)
	c.bytes("cert", &f.Cert, 1, maxDER)
	c.bytes("ca_cert", &f.CACert, 1, maxDER)
	c.bytes("ca_key", &f.CAKey, 0, maxDER)
	c.bytes("gossip_key", &f.GossipKey, 0, maxSecret)
	c.addresses("masters", &f.Masters)
	c.text("site", &f.Site, maxName)
	number(c, "timeline", &f.Timeline)
	each(c, "raft_peers", &f.RaftPeers, maxAddresses, 2, func(p *RaftPeer) {
		number(c, "node", &p.Node)
		c.text("address", &p.Address, maxAddress)
	})
}
