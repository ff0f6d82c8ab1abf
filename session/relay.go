package session

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// CodeNotServed refuses a node at a relay that does not hold all its territories.
const CodeNotServed crm.Code = "not_served"

// relays reports whether the node is a replica that serves others: it says where.
func (n NodeFacts) relays() bool { return n.Active && n.Role == auth.RoleReplica && n.Sync != "" }

// Serves reports whether a relay may serve a node: its site holds all that the
// node's site does. Of two relays whose sites hold the same the lower number
// serves the higher one, so that no relay stands above itself.
func (r *Roster) Serves(relay, n crm.NodeID) bool {
	above, below := r.Nodes[relay], r.Nodes[n]
	if !above.relays() || !below.Active || below.Role != auth.RoleReplica || relay == n {
		return false
	}
	has, wants := r.Sites[above.Site].Grants, r.Sites[below.Site].Grants
	if len(missing(has, wants)) > 0 {
		return false
	}
	return !below.relays() || relay < n || len(missing(wants, has)) > 0
}

// missing returns the territories that are wanted and not among has.
func missing(has, wants []Grant) (out []crm.TerritoryID) {
	for _, w := range wants {
		if !slices.ContainsFunc(has, func(h Grant) bool { return h.Territory == w.Territory }) {
			out = append(out, w.Territory)
		}
	}
	return out
}

// Hosts returns the sync addresses where a replica may ask, at most as many as a
// Welcome may carry: those of the masters, the leader first, and of the relays
// that may serve it.
func (r *Roster) Hosts(leader, n crm.NodeID) []string {
	out := r.Masters(leader)
	for _, id := range sortedKeys(r.Nodes) {
		if r.Serves(id, n) && len(out) < maxHosts {
			out = append(out, r.Nodes[id].Sync)
		}
	}
	return out
}

// servedBy judges whether the relay can serve the node as of the Standing. The
// error has code not_served, or stale if it may be able to a little later.
func (s Standing) servedBy(relay crm.NodeID) error {
	n := s.Facts.Node
	if !s.Roster.Serves(relay, n) {
		return &crm.Error{Code: CodeNotServed, Op: "connect", Item: fmt.Sprintf("node %d", n),
			Message: fmt.Sprintf("the relay of site %s does not hold all territories of site %s; ask a master: %s", s.Roster.Nodes[relay].Site, s.Facts.Site, strings.Join(s.Roster.Masters(0), ", "))}
	}
	if !s.Admitted {
		return &crm.Error{Code: crm.CodeStale, Op: "connect", Item: fmt.Sprintf("node %d", n), Message: "this relay was not told of the node yet"}
	}
	return nil
}

// versionRelays is the version from which on relays serve: before it nobody could
// tell how old a head is.
const versionRelays = 3

// relays judges whether a relay can serve a node that was welcomed above. The
// error has code not_served, or stale if it may be able to a little later.
func (s *Server) relays(st Standing, h *syncproto.Hello, w *syncproto.Welcome) error {
	switch {
	case st.Timeline != w.Timeline || !st.Listed && st.Head < w.Head:
		return &crm.Error{Code: crm.CodeStale, Op: "connect", Message: "this relay is behind the masters"}
	case min(w.Proto, h.ProtoMax, s.cfg.Protocol) < versionRelays:
		return &crm.Error{Code: crm.CodeStale, Op: "connect", Message: "relays serve from version 3 of the protocol on"}
	case !st.Listed:
		return nil // Belongs says why
	}
	return st.servedBy(s.cfg.Relay)
}

// age is how long ago the head was known to be the leader's, for a frame of
// versionRelays; the highest if nobody knows.
func (s *Server) age() uint32 {
	if s.cfg.Age == nil {
		return 0
	}
	return uint32(min(s.cfg.Age().Milliseconds(), math.MaxUint32))
}

// servable ends a relay's feed that cannot go on: the relay's own base was begun
// anew, or it may not serve the replica any more.
func (f *Feed) servable(s Standing) error {
	switch {
	case f.server == 0:
		return nil
	case s.Timeline != f.timeline || s.Head < f.cursor:
		return &crm.Error{Code: crm.CodeStale, Op: "read feed", Message: fmt.Sprintf("the relay begins anew; it is at rev %d, the replica at %d", s.Head, f.cursor)}
	}
	return s.servedBy(f.server)
}

// behalf is the Upstream of a relay's link. The relay speaks for the nodes that
// it may serve and for no others.
type behalf struct {
	Upstream
	srv *Server
	id  auth.Identity // the relay's
}

// MaySpeak judges whether a relay may speak for a node. The error has code
// forbidden or removed, or stale if this node may not know the other one yet.
func (s *Server) MaySpeak(relay auth.Identity, n crm.NodeID) error {
	st, err := s.Standing(crm.NodeID(relay.Node))
	if err == nil {
		err = st.Belongs(relay)
	}
	if err != nil {
		return err
	}
	item := fmt.Sprintf("node %d", n)
	switch _, listed := st.Roster.Nodes[n]; {
	case !listed:
		return &crm.Error{Code: crm.CodeStale, Op: "speak for a node", Item: item, Message: "it is not known here yet"}
	case !st.Roster.Serves(st.Facts.Node, n):
		return &crm.Error{Code: crm.CodeForbidden, Op: "speak for a node", Item: item, Message: fmt.Sprintf("node %d is no relay that holds all its territories", relay.Node)}
	}
	return nil
}

func (b behalf) Greet(ctx context.Context, h *syncproto.Hello) (syncproto.Frame, error) {
	if err := b.srv.MaySpeak(b.id, h.Node); err != nil {
		return nil, err
	}
	return b.Upstream.Greet(ctx, h)
}

func (b behalf) Submit(ctx context.Context, s Submission) (Reply, error) {
	if err := b.srv.MaySpeak(b.id, s.Node); err != nil {
		return Reply{}, err
	}
	return b.Upstream.Submit(ctx, s)
}

// ServeRelay answers a relay's [Link] until that hangs up, as ServeLink does a
// master's.
func (s *Server) ServeRelay(ctx context.Context, conn *syncproto.Conn, id auth.Identity, up Upstream) error {
	b := behalf{Upstream: up, srv: s, id: id}
	st, err := s.Standing(crm.NodeID(id.Node))
	if err == nil {
		err = st.Belongs(id)
	}
	if err != nil {
		conn.Send(Refusal(err)) // whether it hears is its affair
		return err
	}
	return s.serveLink(ctx, conn, b, func(n crm.NodeID) error { return s.MaySpeak(id, n) })
}
