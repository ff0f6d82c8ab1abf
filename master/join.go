package master

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// The codes of a join that is refused.
const (
	CodeJoinToken   crm.Code = "join_token"         // no such token, or not its secret
	CodeJoinUsed    crm.Code = "join_token_used"    // the token let a node join already
	CodeJoinExpired crm.Code = "join_token_expired" // the token's time is over
	CodeJoinRole    crm.Code = "join_role"          // the token is for the other role
	CodeSiteTaken   crm.Code = "site_has_replica"   // the site has an active replica
)

const (
	// joinLimit bounds a join from its first frame to the answer.
	joinLimit = 20 * time.Second
	// joinFlight bounds the way of a join's answer: nobody vouches for the caller.
	joinFlight = 10 * time.Second
	// maxJoins is how many connections of nodes that want to join are open at once.
	maxJoins = 64
)

// serveJoin lets one node into the cluster, or says why not. Nobody vouches for
// the caller but its token.
func (m *Master) serveJoin(ctx context.Context, c *tls.Conn, conn *syncproto.Conn) {
	select {
	case m.joining <- struct{}{}:
		defer func() { <-m.joining }()
	default:
		m.cfg.Metrics.joins.WithLabelValues(string(crm.CodeUnavailable)).Inc()
		return
	}
	if err := c.SetWriteDeadline(time.Now().Add(joinLimit + joinFlight)); err != nil {
		return
	}
	f, err := session.ReceiveFirst(c, conn)
	if err != nil {
		m.log.Debug("a joining node said nothing", "from", c.RemoteAddr(), "error", err)
		return
	}
	ask, ok := f.(*syncproto.Join)
	if !ok {
		m.sendRefusal(conn, session.Unexpected(f))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	joined, err := m.join(ctx, ask)
	if err != nil {
		m.cfg.Metrics.joins.WithLabelValues(string(crm.CodeOf(err))).Inc()
		m.sendRefusal(conn, err)
		return
	}
	m.cfg.Metrics.joins.WithLabelValues("joined").Inc()
	m.log.Info("a node joined", "node", joined.Node, "role", ask.Role, "site", joined.Site, "from", c.RemoteAddr())
	if err := conn.Send(joined); err != nil {
		m.log.Warn("a node joined and did not hear of it; remove it and let it join again", "node", joined.Node, "error", err)
	}
}

// join uses up the token and makes the node's record in one decision, so a token
// is good for one node however many ask at once, and then signs.
func (m *Master) join(ctx context.Context, ask *syncproto.Join) (*syncproto.Joined, error) {
	// The token may be younger than what this master has applied.
	if rev, err := m.leaderRev(ctx); err != nil {
		return nil, err
	} else if err := m.ledger.waitRev(ctx, rev); err != nil {
		return nil, err
	}
	plan, err := m.planJoin(ask)
	if err != nil {
		return nil, err
	}
	// A request that cannot be signed must not cost the token.
	trial := auth.Identity{Cluster: m.id.Cluster, Role: plan.role, Site: plan.site, Node: 1}
	if _, err := m.cfg.CA.Sign(ask.CSR, trial, m.now(), auth.NodeCertTTL); err != nil {
		return nil, refusedBy(err)
	}
	r, err := m.author.commit(ctx, plan.request)
	if err != nil {
		return nil, err
	}
	if err := plan.judge(*r.Outcome); err != nil {
		return nil, err
	}
	if err := m.ledger.waitRev(ctx, r.Outcome.Rev); err != nil {
		return nil, err
	}
	return m.joined(plan, ask)
}

// A joinPlan is a join that may be granted.
type joinPlan struct {
	role    auth.Role
	votes   bool // of a master
	site    string
	node    crm.RecordID
	request crm.Request
}

// planJoin judges a token against what is decided.
func (m *Master) planJoin(ask *syncproto.Join) (p joinPlan, err error) {
	err = m.ledger.db().View(func(tx *store.Tx) error {
		tok, err := findToken(tx, ask.TokenID)
		if err != nil {
			return err
		}
		if err := m.checkToken(tok, ask); err != nil {
			return err
		}
		if err := knowsRelays(tx, ask); err != nil {
			return err
		}
		ros, err := m.server.Rosters().At(tx)
		if err != nil {
			return err
		}
		p.role, p.votes, p.site = auth.Role(ask.Role).Joined(), auth.Role(ask.Role) != auth.RoleRelay, tok.Value(crm.JoinTokenSite).Str()
		if p.node, err = m.place(ros, p.role, p.site); err != nil {
			return err
		}
		seen, err := tx.Token(tok)
		p.request = p.ops(tok, seen, ask)
		return err
	})
	return p, err
}

func findToken(tx *store.Tx, id string) (*crm.Record, error) {
	e := tx.Schema().EntityByID(crm.EntityJoinToken)
	rec, ok, err := tx.Lookup(e, e.FieldByID(crm.JoinTokenID), crm.TextValue(id))
	if err != nil || !ok {
		return nil, err
	}
	return tx.Record(crm.EntityJoinToken, rec)
}

// checkToken judges a token, nil if there is none of that id. Only who knows the
// secret learns more than that it was refused.
func (m *Master) checkToken(tok *crm.Record, ask *syncproto.Join) error {
	refuse := func(code crm.Code, message string) error {
		return &crm.Error{Code: code, Op: "join", Item: "token " + clip(ask.TokenID), Message: message}
	}
	if tok == nil || !matches(tok, ask) {
		return refuse(CodeJoinToken, "the cluster knows no such token; make a new one with `tradepost token create`")
	}
	until := tok.Value(crm.JoinTokenUntil).Time()
	role := auth.Role(ask.Role).Joined()
	switch {
	case tok.Value(crm.JoinTokenStatus).Str() != "open":
		return refuse(CodeJoinUsed, "a node joined with it already; make a new one with `tradepost token create`")
	case m.now().After(until):
		return refuse(CodeJoinExpired, fmt.Sprintf("it was good until %s; make a new one with `tradepost token create`", until.Format(time.RFC3339)))
	case tok.Value(crm.JoinTokenRole).Str() != string(role):
		return refuse(CodeJoinRole, fmt.Sprintf("it is for a %s, and a %s asks", tok.Value(crm.JoinTokenRole).Str(), clip(ask.Role)))
	case role == auth.RoleMaster && len(m.cfg.CAKey) == 0:
		return refuse(crm.CodeForbidden, "this master does not hold the cluster's key; ask another one")
	case role == auth.RoleMaster && (ask.Raft == "" || ask.Sync == ""):
		return refuse(crm.CodeInvalid, "a master must say under which addresses it is reached for Raft and for sync")
	}
	return nil
}

// knowsRelays refuses a relay while some master does not know of relays.
func knowsRelays(tx *store.Tx, ask *syncproto.Join) error {
	level, err := session.LevelIn(tx)
	if err == nil && auth.Role(ask.Role) == auth.RoleRelay && level < levelRelays {
		err = &crm.Error{Code: crm.CodeUnavailable, Op: "join", Item: "relay", Message: "not every master knows relays yet; upgrade them all and try again"}
	}
	return err
}

func matches(tok *crm.Record, ask *syncproto.Join) bool {
	hash, err := hex.DecodeString(tok.Value(crm.JoinTokenHash).Str())
	if err != nil || len(hash) != sha256.Size {
		return false
	}
	return auth.JoinToken{ID: ask.TokenID, Secret: ask.Secret}.Matches([sha256.Size]byte(hash))
}

// place returns the id of the record that a new node gets. For a site's replica
// it follows from how many the site has had, so of two that join at once one
// finds its record made.
func (m *Master) place(r *session.Roster, role auth.Role, site string) (crm.RecordID, error) {
	if _, ok := r.Sites[site]; !ok {
		return crm.RecordID{}, &crm.Error{Code: crm.CodeNotFound, Op: "join", Item: site, Message: "there is no such site any more; make it, or make a token for another"}
	}
	if role == auth.RoleMaster {
		return m.newRecordID(), nil
	}
	if n, ok := r.ReplicaOf(site); ok {
		return crm.RecordID{}, siteTaken(site, n.Node)
	}
	had := 0
	for _, n := range r.Nodes {
		if n.Site == site && n.Role == auth.RoleReplica {
			had++
		}
	}
	return madeID(sha256.Sum256(fmt.Appendf(nil, "tradepost replica %s %d", site, had))), nil
}

func siteTaken(site string, n crm.NodeID) error {
	return &crm.Error{Code: CodeSiteTaken, Op: "join", Item: site,
		Message: fmt.Sprintf("the site has a replica, node %d; a site has one: remove that with `tradepost node remove %d` first", n, n)}
}

func (p joinPlan) ops(tok *crm.Record, seen crm.Token, ask *syncproto.Join) crm.Request {
	cells := []crm.Input{
		{Field: crm.NodeSite, Value: crm.TextValue(p.site)}, {Field: crm.NodeRole, Value: crm.ChoiceValue(string(p.role))},
		{Field: crm.NodeSync, Value: crm.TextValue(ask.Sync)}, {Field: crm.NodeHTTP, Value: crm.TextValue(ask.HTTP)},
		{Field: crm.NodeStatus, Value: crm.ChoiceValue("active")}, {Field: crm.NodeCity, Value: crm.TextValue(ask.City)},
		{Field: crm.NodeRaft, Value: crm.TextValue(ask.Raft)},
	}
	if !p.votes {
		cells = append(cells, crm.Input{Field: crm.NodeSuffrage, Value: crm.ChoiceValue("nonvoter")})
	}
	return crm.Request{Actor: "join:" + ask.TokenID, Intent: "node.join",
		Guards: []crm.Guard{{Kind: crm.GuardEquals, Entity: crm.EntityJoinToken, Record: tok.ID, Field: crm.JoinTokenStatus, Value: crm.ChoiceValue("open")}},
		Ops: []crm.Op{
			{Kind: crm.OpPatch, Entity: crm.EntityJoinToken, Record: tok.ID, Seen: seen,
				Cells: []crm.Input{{Field: crm.JoinTokenStatus, Value: crm.ChoiceValue("used")}}},
			{Kind: crm.OpCreate, Entity: crm.EntityNode, Record: p.node, Cells: cells},
		}}
}

// judge words a rejection for the one who joins.
func (p joinPlan) judge(o crm.Outcome) error {
	switch {
	case o.Kind != crm.Rejected:
		return nil
	case o.Code == crm.CodeGuard:
		return &crm.Error{Code: CodeJoinUsed, Op: "join", Message: "another node joined with the token just now"}
	case o.Code == crm.CodeExists:
		return &crm.Error{Code: CodeSiteTaken, Op: "join", Item: p.site, Message: "another replica of the site joined just now"}
	}
	return &crm.Error{Code: o.Code, Op: "join", Message: o.Message}
}

// joined is the answer to a join that was decided.
func (m *Master) joined(p joinPlan, ask *syncproto.Join) (*syncproto.Joined, error) {
	out := &syncproto.Joined{Cluster: m.id.Cluster, CACert: m.cfg.CA.Cert.Raw, Site: p.site}
	err := m.ledger.db().View(func(tx *store.Tx) (err error) {
		rec, err := tx.Record(crm.EntityNode, p.node)
		if err != nil {
			return err
		}
		out.Node = crm.NodeID(rec.Value(crm.NodeNumber).Int())
		if out.Timeline, err = tx.Timeline(); err != nil {
			return err
		}
		ros, err := m.server.Rosters().At(tx)
		if err != nil {
			return err
		}
		leader, _, _ := m.ledger.leader()
		out.Masters = ros.Hosts(nodeOf(leader), out.Node)
		return nil
	})
	if err != nil {
		return nil, err
	}
	id := auth.Identity{Cluster: m.id.Cluster, Role: p.role, Site: p.site, Node: uint32(out.Node)}
	if out.Cert, err = m.cfg.CA.Sign(ask.CSR, id, m.now(), auth.NodeCertTTL); err != nil {
		return nil, refusedBy(err)
	}
	if m.cfg.Gossip != nil {
		out.GossipKey = m.cfg.Gossip.Key // of hints only: a replica that others can reach may gossip too
	}
	if p.role == auth.RoleMaster {
		out.CAKey = m.cfg.CAKey
		if err := m.introduce(out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// introduce adds what masters need to talk to each other.
func (m *Master) introduce(out *syncproto.Joined) error {
	servers, _, err := m.ledger.servers()
	for _, s := range servers {
		out.RaftPeers = append(out.RaftPeers, syncproto.RaftPeer{Node: nodeOf(s.ID), Address: string(s.Address)})
	}
	return err
}

// refusedBy gives an error of auth a code that travels.
func refusedBy(err error) error {
	return &crm.Error{Code: crm.CodeInvalid, Op: "join", Item: auth.CodeOf(err), Message: err.Error()}
}

// CreateToken makes a token that lets one node of the role join at the site
// until ttl has passed, and returns what a person carries there.
func (m *Master) CreateToken(ctx context.Context, actor, site string, role auth.Role, ttl time.Duration) (auth.JoinString, error) {
	js := auth.JoinString{CAPin: auth.Pin(m.cfg.CA.Cert)}
	err := m.ledger.db().View(func(tx *store.Tx) error {
		ros, err := m.server.Rosters().At(tx)
		if err != nil {
			return err
		}
		leader, _, _ := m.ledger.leader()
		js.Endpoints = ros.Masters(nodeOf(leader))
		js.Endpoints = js.Endpoints[:min(len(js.Endpoints), 16)]
		return mayJoin(ros, site, role)
	})
	if err != nil {
		return js, err
	}
	if ttl <= 0 {
		return js, &crm.Error{Code: crm.CodeInvalid, Op: "create token", Item: "ttl", Message: fmt.Sprintf("%s is no time to join in; the usual is 1h", ttl)}
	}
	m.randMu.Lock()
	js.Token, err = auth.NewJoinToken(m.cfg.Rand)
	m.randMu.Unlock()
	if err != nil {
		return js, err
	}
	if _, err := js.Encode(); err != nil {
		return js, refusedBy(err)
	}
	r, err := m.Commit(ctx, m.tokenRequest(actor, site, role, js.Token, ttl))
	if err != nil {
		return js, err
	}
	return js, rejected("create token", r.Outcome)
}

// mayJoin refuses a token that could only be refused later.
func mayJoin(r *session.Roster, site string, role auth.Role) error {
	if _, ok := r.Sites[site]; !ok {
		return &crm.Error{Code: crm.CodeNotFound, Op: "create token", Item: site, Message: "there is no such site; make it first"}
	}
	if role != auth.RoleMaster && role != auth.RoleReplica {
		return &crm.Error{Code: crm.CodeInvalid, Op: "create token", Item: "role", Message: fmt.Sprintf("%q is neither master nor replica", role)}
	}
	if n, ok := r.ReplicaOf(site); ok && role == auth.RoleReplica {
		return siteTaken(site, n.Node)
	}
	return nil
}

func (m *Master) tokenRequest(actor, site string, role auth.Role, t auth.JoinToken, ttl time.Duration) crm.Request {
	hash := t.Hash()
	return crm.Request{Actor: actor, Intent: "token.create", Ops: []crm.Op{{Kind: crm.OpCreate, Entity: crm.EntityJoinToken, Record: m.newRecordID(), Cells: []crm.Input{
		{Field: crm.JoinTokenID, Value: crm.TextValue(t.ID)}, {Field: crm.JoinTokenHash, Value: crm.TextValue(hex.EncodeToString(hash[:]))},
		{Field: crm.JoinTokenSite, Value: crm.TextValue(site)}, {Field: crm.JoinTokenRole, Value: crm.ChoiceValue(string(role))},
		{Field: crm.JoinTokenUntil, Value: crm.InstantValue(m.now().Add(ttl))}, {Field: crm.JoinTokenStatus, Value: crm.ChoiceValue("open")},
	}}}}
}

// rejected returns the error for an outcome that is a rejection, else nil.
func rejected(op string, o *crm.Outcome) error {
	if o.Kind != crm.Rejected {
		return nil
	}
	return &crm.Error{Code: o.Code, Op: op, Message: o.Message}
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
