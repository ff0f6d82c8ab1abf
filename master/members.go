package master

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/gossip"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	// memberEvery is how often the leader compares the masters' records with
	// Raft's configuration.
	memberEvery = time.Second
	// voterLag is how many Revs a new master may be behind when it becomes a voter.
	voterLag = 1000
	// memberTimeout bounds one step.
	memberTimeout = 10 * time.Second
)

// A Member is a node of the cluster as this master knows it. Zero values mean
// unknown.
type Member struct {
	Node   crm.NodeID `json:"node"`
	Role   auth.Role  `json:"role"`
	Site   string     `json:"site"`
	City   string     `json:"city,omitempty"`
	Active bool       `json:"active"` // not removed
	Sync   string     `json:"sync,omitempty"`
	HTTP   string     `json:"http,omitempty"`

	Incarnation crm.Incarnation `json:"incarnation,omitempty"`
	LastSeq     crm.Seq         `json:"last_seq,omitempty"` // its newest edit that is decided
	Frozen      string          `json:"frozen,omitempty"`   // why its edits are refused
	Cursor      crm.Rev         `json:"cursor,omitempty"`   // of a replica: what it has applied
	LagRevs     crm.Rev         `json:"lag_revs,omitempty"` // of a replica: from Cursor to this master's head
	Seen        time.Time       `json:"seen,omitzero"`      // when it was last heard

	Session bool          `json:"session"` // it is connected to this master
	Since   time.Time     `json:"since,omitzero"`
	RTT     time.Duration `json:"rtt_ns,omitempty"`
	Offset  time.Duration `json:"offset_ns,omitempty"` // how far this master's clock is ahead of its
	Gossip  string        `json:"gossip,omitempty"`    // alive, suspect, dead or left

	Raft   string `json:"raft,omitempty"` // of a master: voter or nonvoter; "" if it has no part in Raft
	Leader bool   `json:"leader,omitempty"`
}

// Members returns the nodes by number. It works without a leader, from what this
// master knows.
func (m *Master) Members(ctx context.Context) ([]Member, error) {
	var out []Member
	err := m.ledger.db().View(func(tx *store.Tx) error {
		ros, err := m.server.Rosters().At(tx)
		if err != nil {
			return err
		}
		for _, id := range sortedKeys(ros.Nodes) {
			st, _, err := tx.Node(id)
			if err != nil {
				return err
			}
			out = append(out, memberOf(ros.Nodes[id], st))
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	if err := m.addRaft(ctx, out); err != nil {
		return nil, err
	}
	m.addSessions(out)
	m.addGossip(out)
	return out, nil
}

func memberOf(n session.NodeFacts, st store.NodeState) Member {
	out := Member{Node: n.Node, Role: n.Role, Site: n.Site, City: n.City, Active: n.Active, Sync: n.Sync, HTTP: n.HTTP,
		Incarnation: st.Incarnation, LastSeq: st.LastSeq, Frozen: st.Frozen, Cursor: st.Cursor}
	if st.SeenMillis != 0 {
		out.Seen = time.UnixMilli(st.SeenMillis).UTC()
	}
	return out
}

func (m *Master) addRaft(ctx context.Context, list []Member) error {
	peers, err := m.ListPeers(ctx)
	for i := range list {
		for _, p := range peers {
			if p.ID == string(serverID(list[i].Node)) {
				list[i].Raft, list[i].Leader = p.Suffrage, p.Leader
			}
		}
	}
	return err
}

func (m *Master) addSessions(list []Member) {
	head := m.ledger.head()
	live := map[crm.NodeID]session.Status{}
	for _, s := range m.server.Sessions() {
		live[s.Node] = s
	}
	for i := range list {
		if s, ok := live[list[i].Node]; ok {
			describe(&list[i], s)
		}
		if list[i].Role == auth.RoleReplica {
			list[i].LagRevs = head - min(head, list[i].Cursor)
		}
	}
}

// describe fills in what a session knows better than the decided records.
func describe(to *Member, s session.Status) {
	if s.RTT != 0 || s.Offset != 0 {
		to.RTT, to.Offset = s.RTT, s.Offset
	}
	to.Session, to.Since, to.Cursor, to.Seen = true, s.Since, s.Applied, s.Heard
}

func (m *Master) addGossip(list []Member) {
	if m.gossip == nil {
		return
	}
	for _, g := range m.gossip.Members() {
		for i := range list {
			if uint32(list[i].Node) != g.Node {
				continue
			}
			list[i].Gossip = g.State.String()
			if g.RTTKnown && list[i].RTT == 0 {
				list[i].RTT = g.RTT
			}
		}
	}
}

// GossipMembers returns the nodes that gossip knows; none without gossip.
func (m *Master) GossipMembers() []gossip.Member {
	if m.gossip == nil {
		return nil
	}
	return m.gossip.Members()
}

// Leading reports whether this master leads, as far as it knows.
func (m *Master) Leading() bool {
	_, _, self := m.ledger.leader()
	return self
}

// A Peer is a server of Raft's configuration.
type Peer struct {
	ID       string `json:"id"` // node-<number>
	Address  string `json:"address"`
	Suffrage string `json:"suffrage"` // voter or nonvoter
	Leader   bool   `json:"leader"`
	Stale    bool   `json:"stale,omitempty"` // no leader is known that confirms it
}

// ListPeers returns Raft's configuration as this master knows it. It works
// without a leader.
func (m *Master) ListPeers(context.Context) ([]Peer, error) {
	servers, stale, err := m.ledger.servers()
	leader, _, _ := m.ledger.leader()
	var peers []Peer
	for _, s := range servers {
		p := Peer{ID: string(s.ID), Address: string(s.Address), Suffrage: "nonvoter", Leader: s.ID == leader, Stale: stale}
		if s.Suffrage == raft.Voter {
			p.Suffrage = "voter"
		}
		peers = append(peers, p)
	}
	return peers, err
}

// parsePeer reads a Peer's ID, or only its number.
func parsePeer(op, id string) (crm.NodeID, error) {
	if n := nodeOf(raft.ServerID(id)); n != 0 {
		return n, nil
	}
	if n := nodeOf(raft.ServerID("node-" + id)); n != 0 {
		return n, nil
	}
	return 0, &crm.Error{Code: crm.CodeInvalid, Op: op, Item: clip(id), Message: "name a master as node-3 or 3"}
}

// TransferLeader hands the lead to the voter called id, or to any if id is "".
// Only the leader can; the error of another master has code no_leader and names
// it.
func (m *Master) TransferLeader(ctx context.Context, id string) error {
	if leader, _, self := m.ledger.leader(); !self {
		return &crm.Error{Code: crm.CodeNoLeader, Op: "transfer leadership", Item: string(leader), Message: "run the command against the master that leads"}
	}
	if id == "" {
		return m.ledger.transfer(ctx, "")
	}
	n, err := parsePeer("transfer leadership", id)
	if err != nil {
		return err
	}
	return m.ledger.transfer(ctx, serverID(n))
}

// RemovePeer is RemoveNode of the master called id.
func (m *Master) RemovePeer(ctx context.Context, id string) error {
	n, err := parsePeer("remove master", id)
	if err != nil {
		return err
	}
	if f, ok := m.facts(n); ok && f.Role != auth.RoleMaster {
		return &crm.Error{Code: crm.CodeInvalid, Op: "remove master", Item: id, Message: "it is a replica; use `tradepost node remove`"}
	}
	return m.RemoveNode(ctx, "admin", n)
}

// RemoveNode ends a node's part in the cluster. A replica's session ends at
// once; its edits that did not arrive are lost to the cluster. A master leaves
// Raft; RemoveNode returns when it has.
func (m *Master) RemoveNode(ctx context.Context, actor string, n crm.NodeID) error {
	facts, err := m.removable(n)
	if err != nil {
		return err
	}
	r, err := m.Commit(ctx, crm.Request{Actor: actor, Intent: "node.remove", Ops: []crm.Op{{Kind: crm.OpPatch, Entity: crm.EntityNode, Record: facts.Record, Seen: facts.Token,
		Cells: []crm.Input{{Field: crm.NodeStatus, Value: crm.ChoiceValue("removed")}}}}})
	if err == nil {
		err = rejected("remove node", r.Outcome)
	}
	if err != nil || facts.Role != auth.RoleMaster {
		return err
	}
	return m.awaitRemoval(ctx, n)
}

// removable returns a node that may be removed.
func (m *Master) removable(n crm.NodeID) (session.NodeFacts, error) {
	s, err := m.standing(n)
	if err != nil {
		return session.NodeFacts{}, err
	}
	item := fmt.Sprintf("node %d", n)
	if !s.Listed || !s.Facts.Active {
		return session.NodeFacts{}, &crm.Error{Code: crm.CodeNotFound, Op: "remove node", Item: item, Message: "the cluster has no such node"}
	}
	if s.Facts.Role != auth.RoleMaster {
		return s.Facts, nil
	}
	servers, _, err := m.ledger.servers()
	if err != nil {
		return session.NodeFacts{}, err
	}
	if soleVoter(servers, s.Roster, n) {
		return session.NodeFacts{}, &crm.Error{Code: crm.CodeForbidden, Op: "remove node", Item: item, Message: "it is the only master that votes; let another one join first and wait until it votes, or promote a relay"}
	}
	return s.Facts, nil
}

// soleVoter reports whether a master votes and no other one does that is to stay.
// The records do not tell: one that has joined may not run yet.
func soleVoter(servers []raft.Server, r *session.Roster, n crm.NodeID) bool {
	votes := false
	for _, s := range servers {
		id := nodeOf(s.ID)
		switch {
		case s.Suffrage != raft.Voter:
		case id == n:
			votes = true
		case r.Nodes[id].Active:
			return false
		}
	}
	return votes
}

func (m *Master) awaitRemoval(ctx context.Context, n crm.NodeID) error {
	tick := time.NewTicker(memberEvery / 4)
	defer tick.Stop()
	for {
		peers, err := m.ListPeers(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == string(serverID(n)) }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return &crm.Error{Code: crm.CodeTimeout, Op: "remove node", Item: fmt.Sprintf("node %d", n), Message: "it is marked as removed and will leave Raft when a majority of the masters is there", Err: ctx.Err()}
		case <-tick.C:
		}
	}
}

// Freeze refuses a node's edits from now on; with reason "" they are taken
// again. Only the leader can.
func (m *Master) Freeze(ctx context.Context, n crm.NodeID, reason string) error {
	_, _, err := m.ledger.propose(ctx, FreezeEntry{Node: n, Reason: reason})
	return err
}

// memberLoop makes Raft's configuration what the masters' records say, one step
// at a time, while this master leads. What to do follows from the state, so it
// does not matter who led when a master joined or was removed.
func (m *Master) memberLoop(ctx context.Context) error {
	return every(ctx, memberEvery, func() {
		if err := m.announce(ctx); err != nil {
			m.log.Debug("this master's record was not brought up to date", "error", err)
		}
		if _, _, self := m.ledger.leader(); !self {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, memberTimeout)
		defer cancel()
		if err := m.tendMembers(ctx); err != nil {
			m.log.Debug("the masters' configuration was not changed", "error", err)
		}
		if err := m.tendLevel(ctx); err != nil {
			m.log.Debug("no newer version was activated", "error", err)
		}
	})
}

// announce makes this master's record say where it is reached now. It can do so
// only while it hears from a leader.
func (m *Master) announce(ctx context.Context) error {
	n, listed := m.facts(m.node)
	if id, _, _ := m.ledger.leader(); !listed || !n.Active || id == "" {
		return nil
	}
	var cells []crm.Input
	for _, c := range []struct {
		field    crm.FieldID
		old, now string
	}{{crm.NodeSync, n.Sync, m.cfg.SyncAddress}, {crm.NodeHTTP, n.HTTP, m.cfg.HTTPAddress}, {crm.NodeCity, n.City, m.cfg.City}, {crm.NodeRaft, n.Raft, m.cfg.RaftAddress}} {
		if c.old != c.now {
			cells = append(cells, crm.Input{Field: c.field, Value: crm.TextValue(c.now)})
		}
	}
	if len(cells) == 0 {
		return nil
	}
	m.log.Info("this master's addresses changed; its record follows", "fields", len(cells))
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	r, err := m.Commit(ctx, crm.Request{Actor: "cluster", Intent: "node.announce", Ops: []crm.Op{{Kind: crm.OpPatch, Entity: crm.EntityNode, Record: n.Record, Seen: n.Token, Cells: cells}}})
	if err != nil {
		return err
	}
	return rejected("announce", r.Outcome)
}

func (m *Master) tendMembers(ctx context.Context) error {
	servers, _, err := m.ledger.servers()
	if err != nil {
		return err
	}
	s, err := m.standing(m.node)
	if err != nil {
		return err
	}
	known := map[crm.NodeID]raft.Server{}
	for _, srv := range servers {
		known[nodeOf(srv.ID)] = srv
	}
	leaving := func(n crm.NodeID) bool {
		f, listed := s.Roster.Nodes[n]
		return listed && !f.Active
	}
	for _, n := range sortedKeys(known) {
		if n != m.node && leaving(n) {
			return m.expel(ctx, n)
		}
	}
	for _, id := range sortedKeys(s.Roster.Nodes) {
		n := s.Roster.Nodes[id]
		if !n.Active || n.Role != auth.RoleMaster || n.Raft == "" {
			continue
		}
		if done, err := m.seat(ctx, n, known[id]); done || err != nil {
			return err
		}
	}
	if leaving(m.node) && !soleVoter(servers, s.Roster, m.node) {
		return m.expel(ctx, m.node)
	}
	return nil
}

// expel removes a master from Raft. A leader lets another one do that to it.
func (m *Master) expel(ctx context.Context, n crm.NodeID) error {
	m.log.Info("a removed master leaves raft", "node", n)
	if n == m.node {
		return m.ledger.transfer(ctx, "")
	}
	return m.ledger.removeServer(ctx, serverID(n))
}

// seat takes the next step towards making a master a voter at its address, or a
// follower that never votes, and reports whether there was one.
func (m *Master) seat(ctx context.Context, n session.NodeFacts, now raft.Server) (done bool, err error) {
	switch {
	case !n.Votes && now.ID != "" && now.Suffrage != raft.Voter && string(now.Address) == n.Raft:
		return false, nil
	case !n.Votes && now.ID != "" && now.Suffrage != raft.Voter:
		m.log.Info("a relay moved", "node", n.Node, "address", n.Raft)
		return true, m.ledger.addNonvoter(ctx, serverID(n.Node), n.Raft)
	case now.ID == "":
		ask, cancel := context.WithTimeout(ctx, 2*memberEvery)
		defer cancel()
		if _, err := m.askMaster(ask, n.Node); err != nil {
			return false, nil // it does not run yet, and may be fetching the records; see Seed
		}
		m.log.Info("a master begins to follow", "node", n.Node, "address", n.Raft)
		return true, m.ledger.addNonvoter(ctx, serverID(n.Node), n.Raft)
	case now.Suffrage == raft.Voter && string(now.Address) != n.Raft:
		m.log.Info("a master moved", "node", n.Node, "address", n.Raft)
		return true, m.ledger.addVoter(ctx, serverID(n.Node), n.Raft)
	case now.Suffrage != raft.Voter:
		a, err := m.askMaster(ctx, n.Node)
		if err != nil || a.Rev+voterLag < m.ledger.head() {
			return false, nil // not there yet: the next look will tell
		}
		m.log.Info("a master becomes a voter", "node", n.Node)
		return true, m.ledger.addVoter(ctx, serverID(n.Node), n.Raft)
	}
	return false, nil
}
