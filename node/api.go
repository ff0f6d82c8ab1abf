package node

import (
	"context"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/gossip"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/store"
)

// apiConfig says what this node's HTTP server can do.
func (n *Node) apiConfig() httpapi.Config {
	c := httpapi.Config{
		Node: n.API(), Self: n.id.Node, Status: func(ctx context.Context) (any, error) { return n.Status(ctx) }, Role: string(n.id.Role), Authenticate: n.authenticate, Members: n.members, Check: n.check, Wan: n.env.Wan,
		Registry: n.registry, OpenMetrics: n.set.OpenMetrics, Logger: n.env.Logger, Now: n.env.Now, Rand: n.env.Rand,
	}
	if n.replica != nil {
		c.Outbox = n.outbox
		return c
	}
	c.CreateToken = n.createToken
	c.Backups = &httpapi.Backups{Write: n.writeBackup, Announce: n.announceBackup}
	c.Peers = &httpapi.Peers{List: n.peers, Remove: n.master.RemovePeer, Transfer: n.master.TransferLeader}
	return c
}

func (n *Node) authenticate(header string) (string, error) {
	_, actor, err := n.tokens.Check(header)
	return actor, err
}

// members returns what gossip knows, and where there is none what the session
// with a master does.
func (n *Node) members(ctx context.Context) ([]httpapi.Member, error) {
	var list []gossip.Member
	switch {
	case n.gossip != nil:
		list = n.gossip.Members()
	case n.master != nil:
		list = n.master.GossipMembers()
	default:
		return n.inSession(ctx)
	}
	out := make([]httpapi.Member, 0, len(list))
	for _, m := range list {
		member := httpapi.Member{Node: crm.NodeID(m.Node), State: m.State.String(), Since: m.Since}
		if m.RTTKnown {
			member.RTT = m.RTT
		}
		out = append(out, member)
	}
	return out, nil
}

// inSession returns the master that this replica is connected to.
func (n *Node) inSession(ctx context.Context) (out []httpapi.Member, err error) {
	s := n.replica.Status()
	if !s.Connected {
		return nil, nil
	}
	_, err = n.replica.Read(ctx, crm.Demand{Level: crm.Local}, func(r *store.Reader) error {
		out = nil
		for rec, err := range r.Scan(r.Schema().EntityByID(crm.EntityNode)) {
			if err != nil {
				return err
			}
			if rec.Value(crm.NodeSync).Str() == s.Master {
				out = append(out, httpapi.Member{Node: crm.NodeID(rec.Value(crm.NodeNumber).Int()), State: gossip.Alive.String(), RTT: s.RTT})
			}
		}
		return nil
	})
	return out, err
}

func (n *Node) check(ctx context.Context) ([]httpapi.Finding, error) {
	if n.master != nil {
		found, err := n.master.Check(ctx)
		return masterFindings(found), err
	}
	found, err := n.replica.Check(ctx)
	return replicaFindings(found), err
}

func (n *Node) outbox(ctx context.Context) ([]httpapi.OutboxEntry, error) {
	entries, err := n.replica.Outbox(ctx)
	if err != nil {
		return nil, err
	}
	var schema *crm.Schema
	_, err = n.replica.Read(ctx, crm.Demand{Level: crm.Local}, func(r *store.Reader) error {
		schema = r.Schema()
		return nil
	})
	out := make([]httpapi.OutboxEntry, 0, len(entries))
	for _, e := range entries {
		m := e.Mutation
		out = append(out, httpapi.OutboxEntry{Seq: m.Seq, At: e.At, Actor: m.Actor, Intent: m.Intent, Bytes: e.Bytes, Ops: crm.FormatOps(schema, m.Ops)})
	}
	return out, err
}

func (n *Node) createToken(ctx context.Context, site, role string, ttl time.Duration) (httpapi.JoinToken, error) {
	js, err := n.master.CreateToken(ctx, "admin", site, auth.Role(role), ttl)
	if err != nil {
		return httpapi.JoinToken{}, err
	}
	text, err := js.Encode()
	return httpapi.JoinToken{Token: text, Site: site, Role: role, Expires: n.env.Now().Add(ttl).UTC()}, err
}

func (n *Node) peers(ctx context.Context) ([]httpapi.Peer, error) {
	list, err := n.master.ListPeers(ctx)
	out := make([]httpapi.Peer, 0, len(list))
	for _, p := range list {
		out = append(out, httpapi.Peer{ID: p.ID, Address: p.Address, Suffrage: p.Suffrage, Leader: p.Leader})
	}
	return out, err
}
