package session

import (
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A circle is what a relay was told of the nodes that it could serve, itself
// among them, in one session. The zero value is of a node that is no relay.
//
// Invariant: once a final batch is applied, the relay knows of each node what was
// decided of its Mutations up to the batch's To, and every outcome that is more
// than acceptance.
type circle struct {
	roster *Roster      // by which nodes was made
	nodes  []crm.NodeID // ascending; none: it is no relay
	told   map[crm.NodeID]syncproto.NodeState
	noted  map[crm.NodeID]crm.Seq // outcomes up to here were sent
}

// relays reports whether the node is a relay.
func (c *circle) relays() bool { return len(c.nodes) > 0 }

// follow makes the circle that of the node by the roster.
func (c *circle) follow(r *Roster, n crm.NodeID) {
	if c.roster == r {
		return
	}
	c.roster, c.nodes = r, nil
	if !r.Nodes[n].relays() {
		return
	}
	for _, id := range sortedKeys(r.Nodes) {
		if id == n || r.Serves(n, id) {
			c.nodes = append(c.nodes, id)
		}
	}
	if c.told == nil {
		c.told, c.noted = map[crm.NodeID]syncproto.NodeState{}, map[crm.NodeID]crm.Seq{}
	}
}

// sent notes that the relay will apply b.
func (c *circle) sent(b *syncproto.Batch) {
	if c.told == nil {
		return
	}
	for _, o := range b.Outcomes {
		c.noted[o.Node] = max(c.noted[o.Node], o.Seq)
	}
	for _, n := range b.Nodes {
		c.told[n.Node] = n
		c.noted[n.Node] = max(c.noted[n.Node], n.LastSeq)
	}
}

// since is the Rev from which on the relay has been able to serve the node by the
// roster, or a later one.
func (r *Roster) since(relay, n crm.NodeID) crm.Rev {
	a, b := r.Nodes[relay], r.Nodes[n]
	since := max(a.Since, b.Since)
	for _, s := range []SiteFacts{r.Sites[a.Site], r.Sites[b.Site]} {
		since = max(since, s.Since)
		for _, g := range s.Grants {
			since = max(since, g.Rev)
		}
	}
	return since
}

// nodes adds the states of the nodes that a relay could serve, where they moved,
// and what became of their Mutations where that is more than acceptance. If that
// does not fit, the batch becomes a part that carries outcomes and nothing else.
func (p *packer) nodes(r *Roster) error {
	if p.version < versionRelays {
		return nil
	}
	p.circle.follow(r, p.node)
	room := partBudget
	for _, id := range p.circle.nodes {
		st, known, err := p.tx.Node(id)
		if err != nil {
			return err
		}
		if !known && p.server != 0 {
			return &crm.Error{Code: crm.CodeStale, Op: "read feed", Item: fmt.Sprintf("node %d", id), Message: "this relay was not told of the node yet"}
		}
		now := syncproto.NodeState{Node: id, Incarnation: st.Incarnation, LastSeq: st.LastSeq, LastHash: st.LastHash}
		if was, told := p.circle.told[id]; told && was == now {
			continue
		}
		if err := p.outcomesOf(id, r, &room); err != nil {
			return err
		}
		if room < 0 {
			p.batch.Final, p.batch.Upto, p.batch.Nodes = false, max(p.cursor, p.resume), nil
			return nil
		}
		p.batch.Nodes = append(p.batch.Nodes, now)
	}
	return nil
}

// outcomesOf adds the outcomes of a node that the relay was not sent, while there
// is room for them. Those of the relay itself go with every batch.
func (p *packer) outcomesOf(n crm.NodeID, r *Roster, room *int) error {
	if n == p.node {
		return nil
	}
	_, told := p.circle.told[n]
	known := p.cursor // the relay has its outcomes up to here
	if told || p.circle.noted[n] > 0 || r.since(p.node, n) > p.cursor {
		known = 0
	}
	for o, err := range p.tx.Outcomes(n, p.circle.noted[n]) {
		if err != nil {
			return err
		}
		if o.Rev <= known {
			continue
		}
		if *room -= syncproto.OutcomeSize(o); *room < 0 && len(p.batch.Outcomes) > 0 {
			return nil
		}
		*room = max(*room, 0)
		p.batch.Outcomes = append(p.batch.Outcomes, o)
	}
	return nil
}
