package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// elsewhere says that this node lacks a power, and who has it.
func elsewhere(op, who string) error {
	return &crm.Error{Code: crm.CodeNotFound, Op: op, Message: "this node does not offer it; ask " + who}
}

// status answers GET /api/v1/status.
func (s *Server) status(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	v, err := s.cfg.Status(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

// A NodeText is a node of the cluster: its record, and what gossip says of it.
type NodeText struct {
	ID        string     `json:"id"`
	Node      crm.NodeID `json:"node"`
	Site      string     `json:"site"`
	Role      string     `json:"role"`
	Status    string     `json:"status"` // active or removed
	City      string     `json:"city,omitempty"`
	Sync      string     `json:"sync_address,omitempty"`
	HTTP      string     `json:"http_address,omitempty"`
	Raft      string     `json:"raft_address,omitempty"`
	Self      bool       `json:"self,omitempty"`   // the node that answers
	State     string     `json:"state,omitempty"`  // alive, suspect, dead or left; absent: nothing heard
	RTTMillis float64    `json:"rtt_ms,omitempty"` // from here; absent: unmeasured
	Since     *time.Time `json:"since,omitempty"`  // when State last changed, by this node's clock
}

// nodes answers GET /api/v1/nodes.
func (s *Server) nodes(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	var live []Member
	if s.cfg.Members != nil {
		var err error
		if live, err = s.cfg.Members(r.Context()); err != nil {
			return err
		}
	}
	return s.answer(w, r, "list", func(rd *store.Reader, p *page) (int, error) {
		out := []NodeText{}
		for rec, err := range rd.Scan(rd.Schema().EntityByID(crm.EntityNode)) {
			if err != nil {
				return len(out), err
			}
			n := nodeText(rec, live)
			n.Self = n.Node == s.cfg.Self && n.Node != 0
			out = append(out, n)
		}
		slices.SortFunc(out, func(a, b NodeText) int { return int(a.Node) - int(b.Node) })
		return len(out), p.marshal(map[string]any{"items": out})
	})
}

func nodeText(rec *crm.Record, live []Member) NodeText {
	text := func(f crm.FieldID) string { return rec.Value(f).String() }
	n := NodeText{ID: rec.ID.String(), Node: crm.NodeID(rec.Value(crm.NodeNumber).Int()), Site: text(crm.NodeSite), Role: text(crm.NodeRole),
		Status: text(crm.NodeStatus), City: text(crm.NodeCity), Sync: text(crm.NodeSync), HTTP: text(crm.NodeHTTP), Raft: text(crm.NodeRaft)}
	for _, m := range live {
		if m.Node == n.Node {
			n.State, n.RTTMillis = m.State, milliseconds(m.RTT)
			if !m.Since.IsZero() {
				n.Since = &m.Since
			}
		}
	}
	return n
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// outbox answers GET /api/v1/outbox.
func (s *Server) outbox(w http.ResponseWriter, r *http.Request, _ string) error {
	return sendItems(w, r, s.cfg.Outbox, "outbox", "a replica: masters decide edits at once")
}

// check answers GET /api/v1/check, which reads the whole store.
func (s *Server) check(w http.ResponseWriter, r *http.Request, _ string) error {
	unhurried(w)
	return sendItems(w, r, s.cfg.Check, "check", "the node itself: run the check on its data directory")
}

// listPeers answers GET /api/v1/raft/peers.
func (s *Server) listPeers(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.Peers == nil {
		return errNoPeers
	}
	return sendItems(w, r, s.cfg.Peers.List, "raft peers", "a master")
}

var errNoPeers = elsewhere("raft peers", "a master: replicas are never members of Raft")

// sendItems answers with the items that power returns.
func sendItems[T any](w http.ResponseWriter, r *http.Request, power func(context.Context) ([]T, error), op, who string) error {
	if power == nil {
		return elsewhere(op, who)
	}
	if _, err := readParams(r); err != nil {
		return err
	}
	items, err := power(r.Context())
	if err != nil {
		return err
	}
	if items == nil {
		items = []T{}
	}
	return writeJSON(w, http.StatusOK, Items[T]{items})
}

// Items is an answer that is a list without pages.
type Items[T any] struct {
	Items []T `json:"items"`
}

// removePeer answers DELETE /api/v1/raft/peers/{id}.
func (s *Server) removePeer(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.Peers == nil {
		return errNoPeers
	}
	if err := s.cfg.Peers.Remove(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// transfer answers POST /api/v1/raft/peers/transfer {"to":…}.
func (s *Server) transfer(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.Peers == nil {
		return errNoPeers
	}
	var to string
	if err := readShape(w, r, shape{"to": &to}); err != nil {
		return err
	}
	if err := s.cfg.Peers.Transfer(r.Context(), to); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Bounds of a join token's life.
const (
	defaultTTL = time.Hour
	maxTTL     = 30 * 24 * time.Hour
)

// createToken answers POST /api/v1/tokens {"site":…,"role":…,"ttl":"1h"}.
func (s *Server) createToken(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.CreateToken == nil {
		return elsewhere("create join token", "a master")
	}
	var site, role, text string
	if err := readShape(w, r, shape{"site": &site, "role": &role, "ttl": &text}); err != nil {
		return err
	}
	ttl := defaultTTL
	if text != "" {
		var err error
		if ttl, err = time.ParseDuration(text); err != nil || ttl <= 0 || ttl > maxTTL {
			return invalid("ttl", "%q is not a time such as 24h, and at most %s", short(text), maxTTL)
		}
	}
	if site == "" {
		return &crm.Error{Code: crm.CodeRequired, Item: "site", Message: "which site is the token for?"}
	}
	if role != "master" && role != "replica" {
		return invalid("role", "%q is not master or replica", short(role))
	}
	token, err := s.cfg.CreateToken(r.Context(), site, role, ttl)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusCreated, token)
}

var errNoWan = elsewhere("wan", "a node started by tradepost dev: only its WAN is simulated")

// showWan answers GET /api/v1/wan.
func (s *Server) showWan(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.Wan == nil {
		return errNoWan
	}
	return sendItems(w, r, s.cfg.Wan.Links, "wan", "")
}

// changeWan answers POST /api/v1/wan {"action":"cut"|"heal","site":…}.
func (s *Server) changeWan(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.Wan == nil {
		return errNoWan
	}
	var action, site string
	if err := readShape(w, r, shape{"action": &action, "site": &site}); err != nil {
		return err
	}
	var err error
	switch {
	case action == "cut" && site != "":
		err = s.cfg.Wan.Cut(r.Context(), site)
	case action == "heal":
		err = s.cfg.Wan.Heal(r.Context(), site)
	default:
		err = invalid("action", "want cut with a site, or heal")
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
