package master

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// The codes of a refused handshake.
const (
	CodeWrongCluster crm.Code = "wrong_cluster" // the node is of another cluster
	CodeWrongNode    crm.Code = "wrong_node"    // it says it is a node that its certificate does not bear
)

const (
	fencedAdvice = "this disk is an old copy of the node's: stop the other process that runs with this node's certificate, or let this one rebuild its base and be admitted again"
	frozenAdvice = "two disks have made edits under this node's number; an administrator must choose one and freeze the other"
)

// handshakeLimit bounds a handshake's wait for the leader and for this master to
// catch up.
const handshakeLimit = 10 * time.Second

// A standing is what the decided records say of a node.
type standing struct {
	timeline uint64
	head     crm.Rev
	facts    nodeFacts
	listed   bool // facts is set
	state    store.NodeState
	admitted bool // state is set
	roster   *roster
}

func (m *Master) standing(n crm.NodeID) (s standing, err error) {
	err = m.ledger.db().View(func(tx *store.Tx) (err error) {
		s, err = m.standingIn(tx, n)
		return err
	})
	return s, err
}

func (m *Master) standingIn(tx *store.Tx, n crm.NodeID) (s standing, err error) {
	if s.timeline, err = tx.Timeline(); err != nil {
		return s, err
	}
	if s.head, err = tx.Rev(); err != nil {
		return s, err
	}
	if s.roster, err = m.rosters.at(tx); err != nil {
		return s, err
	}
	s.facts, s.listed = s.roster.nodes[n]
	s.state, s.admitted, err = tx.Node(n)
	return s, err
}

// facts returns a node's record as this master knows it.
func (m *Master) facts(n crm.NodeID) (nodeFacts, bool) {
	s, err := m.standing(n)
	return s.facts, err == nil && s.listed
}

// welcomeReplica answers a replica's Hello. The leader judges it, because only
// the newest state tells an old copy of a disk; without a leader the replica
// gets its feed nevertheless, unless it must be admitted.
func (m *Master) welcomeReplica(ctx context.Context, h *syncproto.Hello, id auth.Identity) syncproto.Frame {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	if err := m.checkHello(h, id); err != nil {
		return refusalOf(err)
	}
	f, err := m.askGreeting(ctx, h)
	if err != nil {
		m.log.Debug("the leader did not judge a replica's Hello", "node", h.Node, "error", err)
		if f, err = m.greetAlone(h); err != nil {
			return m.busy(err)
		}
	}
	w, ok := f.(*syncproto.Welcome)
	if !ok {
		return f
	}
	if err := m.catchUp(ctx, h, w); err != nil {
		return m.busy(err)
	}
	s, err := m.standing(h.Node)
	if err == nil {
		err = s.belongs(id)
	}
	if err != nil {
		return refusalOf(err)
	}
	leader, _, self := m.ledger.leader()
	w.Head, w.Leader, w.Masters = s.head, self, s.roster.masters(nodeOf(leader))
	return w
}

// catchUp waits until this master is where the leader was, and where the replica
// is: a replica is never sent back. What is staged may include some of the Rev
// after Staged.
func (m *Master) catchUp(ctx context.Context, h *syncproto.Hello, w *syncproto.Welcome) error {
	goal := w.Head
	if h.Timeline == w.Timeline {
		goal = max(goal, h.Cursor)
		if h.Staged > 0 {
			goal = max(goal, h.Staged+1)
		}
	}
	return m.ledger.waitRev(ctx, goal)
}

// checkHello judges what needs no state.
func (m *Master) checkHello(h *syncproto.Hello, id auth.Identity) error {
	if h.Cluster != m.id.Cluster {
		return &crm.Error{Code: CodeWrongCluster, Op: "connect", Item: h.Cluster, Message: fmt.Sprintf("this master is of cluster %s; check the address", m.id.Cluster)}
	}
	if h.Node != crm.NodeID(id.Node) {
		return &crm.Error{Code: CodeWrongNode, Op: "connect", Item: fmt.Sprintf("node %d", h.Node), Message: fmt.Sprintf("the certificate is node %d's; each node has its own directory", id.Node)}
	}
	_, err := syncproto.Negotiate(syncproto.MinVersion, syncproto.MaxVersion, h.ProtoMin, h.ProtoMax)
	return err
}

// belongs judges whether a certificate's bearer is part of the cluster now.
func (s standing) belongs(id auth.Identity) error {
	switch {
	case !s.listed:
		return &crm.Error{Code: crm.CodeForbidden, Op: "connect", Item: fmt.Sprintf("node %d", id.Node), Message: "the cluster has no such node; join it again with a new join string"}
	case !s.facts.Active:
		return removed(s.facts)
	case s.facts.Site != id.Site || s.facts.Role != id.Role:
		return &crm.Error{Code: crm.CodeForbidden, Op: "connect", Item: fmt.Sprintf("node %d", id.Node),
			Message: fmt.Sprintf("the certificate is of a %s of site %s, the node is a %s of site %s now; join it again", id.Role, id.Site, s.facts.Role, s.facts.Site)}
	}
	return nil
}

func removed(n nodeFacts) error {
	return &crm.Error{Code: crm.CodeRemoved, Op: "connect", Item: fmt.Sprintf("node %d", n.Node), Message: "the node was removed from the cluster; join it again with a new join string"}
}

// askGreeting has the leader judge a Hello, here or on another master.
func (m *Master) askGreeting(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	id, _, self := m.ledger.leader()
	switch {
	case self:
		return m.greet(ctx, h)
	case id == "":
		return nil, errNoLeader("connect")
	}
	return m.links.hello(ctx, nodeOf(id), h)
}

// greet judges a Hello by the newest decided state: Welcome, with a new
// incarnation if the disk is new or an old copy; Fenced; Frozen; or Refused. The
// error says that this master does not lead, or cannot tell.
func (m *Master) greet(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	if err := m.ledger.verify(ctx); err != nil {
		return nil, err
	}
	s, err := m.standing(h.Node)
	if err != nil {
		return nil, err
	}
	if !s.listed || !s.facts.Active {
		return refusalOf(s.belongs(auth.Identity{Node: uint32(h.Node)})), nil
	}
	if f := s.outcast(h); f != nil {
		return f, nil
	}
	if s.forked(h) {
		err := m.Freeze(ctx, h.Node, frozenAdvice)
		return &syncproto.Frozen{Reason: frozenAdvice}, err
	}
	if reason := s.mustAdmit(h); reason != "" {
		if s, err = m.admit(ctx, h.Node, reason); err != nil {
			return nil, err
		}
	}
	if s.facts.Role == auth.RoleReplica {
		m.reports.note(h.Node, s.cursor(h), h.LowBase, m.millis())
	}
	return s.welcome(), nil
}

// greetAlone is greet by what this master knows, while nobody leads.
func (m *Master) greetAlone(h *syncproto.Hello) (syncproto.Frame, error) {
	s, err := m.standing(h.Node)
	if err != nil {
		return nil, err
	}
	if f := s.outcast(h); f != nil {
		return f, nil
	}
	if s.mustAdmit(h) != "" || s.forked(h) {
		return nil, errNoLeader("admit the node")
	}
	return s.welcome(), nil
}

// outcast returns Frozen or Fenced, or nil.
func (s standing) outcast(h *syncproto.Hello) syncproto.Frame {
	switch {
	case s.state.Frozen != "":
		return &syncproto.Frozen{Reason: s.state.Frozen}
	case h.Incarnation != 0 && h.Incarnation < s.state.Incarnation:
		return &syncproto.Fenced{Incarnation: s.state.Incarnation, Reason: fencedAdvice}
	}
	return nil
}

// mustAdmit says why the disk needs a new incarnation, or "".
func (s standing) mustAdmit(h *syncproto.Hello) string {
	switch {
	case !s.admitted || h.Incarnation == 0:
		return "the disk is new"
	case h.Incarnation > s.state.Incarnation:
		return "the masters were restored from a backup"
	case h.NextSeq-1 < s.state.LastSeq:
		return "the disk was rolled back"
	}
	return ""
}

// forked reports whether the disk's last edit is another one than the masters
// have under its number.
func (s standing) forked(h *syncproto.Hello) bool {
	return h.Incarnation == s.state.Incarnation && h.NextSeq-1 == s.state.LastSeq && h.Chain != s.state.LastHash
}

// cursor is the replica's Cursor in the masters' timeline.
func (s standing) cursor(h *syncproto.Hello) crm.Rev {
	if h.Timeline != s.timeline {
		return 0
	}
	return h.Cursor
}

func (s standing) welcome() *syncproto.Welcome {
	return &syncproto.Welcome{Proto: syncproto.MaxVersion, Timeline: s.timeline, Incarnation: s.state.Incarnation,
		LastSeq: s.state.LastSeq, LastHash: s.state.LastHash, Head: s.head}
}

// admit gives a node's disk the next incarnation and returns where the node
// stands then.
func (m *Master) admit(ctx context.Context, n crm.NodeID, reason string) (s standing, err error) {
	e := admitEntry{Node: n, Reason: reason}
	m.random(e.Nonce[:])
	var given crm.Incarnation
	for {
		results, _, err := m.ledger.propose(ctx, e)
		if err == nil {
			given = results[0].Admitted
			break
		}
		if !errors.Is(err, errUnknown) || ctx.Err() != nil {
			return s, err
		}
	}
	err = m.waitFor(ctx, "the admission of a node", func(tx *store.Tx) (bool, error) {
		s, err = m.standingIn(tx, n)
		return s.state.Incarnation >= given, err
	})
	return s, err
}

// waitFor returns when ok holds of the committed state. It is asked again after
// each commit.
func (m *Master) waitFor(ctx context.Context, what string, ok func(*store.Tx) (bool, error)) error {
	for {
		changed := m.ledger.changed()
		done := false
		err := m.ledger.db().View(func(tx *store.Tx) (err error) {
			done, err = ok(tx)
			return err
		})
		if err != nil || done {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &crm.Error{Code: crm.CodeStale, Op: "wait for " + what, Message: "this master did not get there in time", Err: ctx.Err()}
		}
	}
}
