package master

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A lead answers what only the master that leads can, from its own ledger. It is
// what other masters reach over a link: a question is not passed on twice.
type lead struct{ m *Master }

// Greet judges a Hello by the newest decided state. The error says that this
// master does not lead, or cannot tell.
func (l lead) Greet(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	if err := l.m.ledger.verify(ctx); err != nil {
		return nil, err
	}
	s, err := l.m.server.StandingOf(h)
	if err != nil {
		return nil, err
	}
	j := s.Judge(h)
	if j.Freeze != "" {
		return j.Answer, l.m.Freeze(ctx, h.Node, j.Freeze)
	}
	if j.Admit != "" {
		trail := s.Trail
		if s, err = l.m.admit(ctx, h.Node, j.Admit); err != nil {
			return nil, err
		}
		s.Trail = trail
		j.Answer = s.Welcome()
	}
	if _, ok := j.Answer.(*syncproto.Welcome); ok && s.Facts.Role == auth.RoleReplica {
		l.m.reports.note(h.Node, s.Cursor(h), h.LowBase, l.m.millis())
	}
	return j.Answer, nil
}

// maxFlight bounds the bytes of Mutations that the leader has on their way through
// its log, whoever brings them: each master and each relay has a backlog of its
// own, and Raft counts entries only.
const maxFlight = 32 << 20

// Submit logs the Mutations, in as many entries as there is poison among them. A
// master that does not lead, or has too many on their way, says so. If some are
// decided before one that is refused, the Reply is of those.
func (l lead) Submit(ctx context.Context, s session.Submission) (session.Reply, error) {
	size := int64(0)
	for _, raw := range s.Mutations {
		size += int64(len(raw))
	}
	defer l.m.flight.Add(-size)
	if l.m.flight.Add(size) > maxFlight {
		return session.Reply{}, &crm.Error{Code: crm.CodeUnavailable, Op: "push", Message: "the leader is overloaded; nothing was changed"}
	}
	r, err := l.submitFirst(ctx, &s)
	for err == nil && r.Taken() && len(s.Mutations) > 0 && r.Last+1 == s.First {
		next, failure := l.submitFirst(ctx, &s)
		switch {
		case errors.Is(failure, errUnknown):
			return session.Reply{}, failure
		case failure != nil:
			return r, nil
		}
		next.Outcomes = append(r.Outcomes, next.Outcomes...)
		r = next
	}
	return r, err
}

// submitFirst logs what goes into one entry, and leaves the rest in s.
func (l lead) submitFirst(ctx context.Context, s *session.Submission) (session.Reply, error) {
	now := l.m.millis()
	part, rest, err := l.m.rehearsal.first(*s, now)
	if err != nil {
		return session.Reply{}, err
	}
	results, index, err := l.m.ledger.propose(ctx, PushOf(part, now))
	if err != nil && len(results) == 0 {
		return session.Reply{}, err
	}
	*s = rest
	return ReplyOf(part, index, results), nil
}

// Ask says what a linearizable read must have reached. A master that does not
// lead answers with code no_leader and says how far it is itself.
func (l lead) Ask(ctx context.Context, _ syncproto.AskKind) (*syncproto.Answer, error) {
	err := l.m.ledger.verify(ctx)
	a := &syncproto.Answer{Index: l.m.ledger.fsm.Applied(), Rev: l.m.ledger.head()}
	if err != nil {
		a.Code, a.Message = crm.CodeOf(err), err.Error()
	}
	return a, nil
}

// PushOf is the entry of a Submission that the leader received at a time in Unix
// milliseconds.
func PushOf(s session.Submission, receivedMillis int64) PushEntry {
	return PushEntry{Node: s.Node, Incarnation: s.Incarnation, ReceivedMillis: receivedMillis, OffsetMillis: s.OffsetMillis, Mutations: s.Mutations}
}

// ReplyOf is what the leader replies to a Submission whose entry at the index
// came to the results.
func ReplyOf(s session.Submission, index uint64, results []Decided) session.Reply {
	r := session.Reply{Last: s.First - 1, Index: index}
	for _, d := range results {
		if d.Gap != 0 || d.Fork || d.Fenced != 0 {
			r.Gap, r.Fork, r.Fenced = d.Gap, d.Fork, d.Fenced
			return r
		}
		r.Outcomes = append(r.Outcomes, d.Outcome)
		r.Last++
	}
	return r
}

// An upstream is whom this master asks: itself while it leads, else the leader.
type upstream struct{ m *Master }

func (u upstream) Greet(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	to, err := u.leader("connect")
	if err != nil {
		return nil, err
	}
	return to.Greet(ctx, h)
}

// Submit has the leader decide, here or on another master.
func (u upstream) Submit(ctx context.Context, s session.Submission) (session.Reply, error) {
	to, err := u.leader("submit edits")
	if err != nil {
		return session.Reply{}, err
	}
	r, err := to.Submit(ctx, s)
	if r.Fenced != 0 {
		r.Fenced = max(r.Fenced, u.m.incarnation(s.Node)) // a link cannot tell it
	}
	return r, err
}

// Ask waits for a leader that answers, as long as ctx lasts.
func (u upstream) Ask(ctx context.Context, _ syncproto.AskKind) (*syncproto.Answer, error) {
	rev, err := u.m.leaderRev(ctx)
	return &syncproto.Answer{Rev: rev}, err
}

// leader returns who decides now. The error has code no_leader.
func (u upstream) leader(op string) (session.Upstream, error) {
	id, _, self := u.m.ledger.leader()
	switch {
	case self:
		return lead(u), nil
	case id == "":
		return nil, session.NoLeader(op)
	}
	return u.m.links.to(nodeOf(id)), nil
}

// incarnation returns a node's as far as this master knows.
func (m *Master) incarnation(n crm.NodeID) crm.Incarnation {
	s, err := m.standing(n)
	if err != nil {
		return 0
	}
	return s.State.Incarnation
}

// admit gives a node's disk the next incarnation and returns where the node
// stands then.
func (m *Master) admit(ctx context.Context, n crm.NodeID, reason string) (s session.Standing, err error) {
	e := AdmitEntry{Node: n, Reason: reason}
	m.random(e.Nonce[:])
	var given crm.Incarnation
	err = m.resolve(ctx, func() error {
		results, _, err := m.ledger.propose(ctx, e)
		if err == nil {
			given = results[0].Admitted
		}
		return err
	})
	if err != nil {
		return s, err
	}
	err = m.waitFor(ctx, "the admission of a node", func(tx *store.Tx) (bool, error) {
		s, err = m.server.Rosters().Standing(tx, n)
		return s.State.Incarnation >= given, err
	})
	return s, err
}

// resolve repeats try until its outcome is known or ctx ends; it waits for another
// leader in between, retryAfter at most.
func (m *Master) resolve(ctx context.Context, try func() error) error {
	for {
		changed := m.ledger.leaderChanged()
		err := try()
		if !errors.Is(err, errUnknown) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-changed:
		case <-time.After(retryAfter):
		}
	}
}

// serveMaster answers another master until it hangs up.
func (m *Master) serveMaster(ctx context.Context, conn *syncproto.Conn, id auth.Identity) {
	if s, err := m.standing(crm.NodeID(id.Node)); err == nil && s.Listed && !s.Facts.Active {
		m.sendRefusal(conn, s.Belongs(id))
		return
	}
	err := m.server.ServeLink(ctx, conn, lead{m})
	m.log.Debug("another master hung up", "node", id.Node, "error", err)
}

// links are this master's links to other masters, made when needed.
type links struct {
	m *Master

	mu     sync.Mutex // protects the rest
	byNode map[crm.NodeID]*session.Link
	closed bool
}

func newLinks(m *Master) *links { return &links{m: m, byNode: map[crm.NodeID]*session.Link{}} }

// to returns the link to another master.
func (ls *links) to(n crm.NodeID) *session.Link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	k := ls.byNode[n]
	if k == nil {
		k = &session.Link{Name: string(serverID(n)), Logger: ls.m.log, Dial: func(ctx context.Context) (*syncproto.Conn, error) { return ls.m.dialMaster(ctx, n) }}
		ls.byNode[n] = k
		if ls.closed {
			k.Close()
		}
	}
	return k
}

// close ends every link and waits for their goroutines.
func (ls *links) close() {
	ls.mu.Lock()
	ls.closed = true
	open := slices.Collect(maps.Values(ls.byNode))
	ls.mu.Unlock()
	for _, k := range open {
		k.Close()
	}
}

// dialMaster opens a connection to another master's sync port.
func (m *Master) dialMaster(ctx context.Context, to crm.NodeID) (*syncproto.Conn, error) {
	n, ok := m.facts(to)
	if !ok || n.Sync == "" {
		return nil, fmt.Errorf("node %d has no sync address", to)
	}
	raw, err := m.cfg.Dial(ctx, n.Sync)
	if err != nil {
		return nil, err
	}
	expect := func(id auth.Identity) error {
		if crm.NodeID(id.Node) != to {
			return fmt.Errorf("%s answers at the address of node %d", id, to)
		}
		return auth.ExpectMaster(id)
	}
	c := tls.Client(raw, auth.ClientTLS(m.cfg.Node, m.cfg.CA.Cert, m.cfg.Now, expect, auth.ALPNSync))
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return m.newConn(c), nil
}
