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
		Node: n.API(), Role: string(n.id.Role), Authenticate: n.authenticate, Members: n.members, Check: n.check, Wan: n.env.Wan,
		Registry: n.registry, OpenMetrics: n.set.OpenMetrics, Logger: n.env.Logger, Now: n.env.Now, Rand: n.env.Rand,
	}
	if n.replica != nil {
		c.Status = func(context.Context) (any, error) { return n.replica.Status(), nil }
		c.Outbox = n.outbox
		return c
	}
	c.Status = func(context.Context) (any, error) { return n.master.Status(), nil }
	c.CreateToken = n.createToken
	c.Peers = &httpapi.Peers{List: n.peers, Remove: n.master.RemovePeer, Transfer: n.master.TransferLeader}
	return c
}

// authenticate gives auth's verdict the form of the API's errors.
func (n *Node) authenticate(header string) (string, error) {
	_, actor, err := n.tokens.Check(header)
	if err != nil {
		return "", &crm.Error{Code: crm.CodeUnauthorized, Op: "authenticate", Message: err.Error()}
	}
	return actor, nil
}

func (n *Node) members(context.Context) ([]httpapi.Member, error) {
	var list []gossip.Member
	switch {
	case n.gossip != nil:
		list = n.gossip.Members()
	case n.master != nil:
		list = n.master.GossipMembers()
	}
	out := make([]httpapi.Member, 0, len(list))
	for _, m := range list {
		out = append(out, httpapi.Member{Node: crm.NodeID(m.Node), State: m.State.String(), RTT: m.RTT, Since: m.Since})
	}
	return out, nil
}

func (n *Node) check(ctx context.Context) ([]httpapi.Finding, error) {
	if n.master != nil {
		found, err := n.master.Check(ctx)
		out := make([]httpapi.Finding, 0, len(found))
		for _, f := range found {
			out = append(out, httpapi.Finding{Kind: f.Bucket, Item: f.Item, Message: f.Detail})
		}
		return out, err
	}
	found, err := n.replica.Check(ctx)
	out := make([]httpapi.Finding, 0, len(found))
	for _, f := range found {
		out = append(out, httpapi.Finding{Kind: f.File + "/" + f.Bucket, Item: f.Item, Message: f.Detail})
	}
	return out, err
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
