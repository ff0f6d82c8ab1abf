package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/url"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Watch says which items of the attention list are asked for.
type Watch struct {
	Status string // open, resolved, dismissed or all; "" is open
	Kind   string // conflict, parked or rejected; "" is any
	Record string // id of the record it is about; "" is any
	Limit  int
	Cursor string
}

// Attention returns a page of the attention list, newest first.
func (c *Client) Attention(ctx context.Context, a Watch) (Attentions, error) {
	q := url.Values{}
	set(q, "status", a.Status)
	set(q, "kind", a.Kind)
	set(q, "record", a.Record)
	set(q, "cursor", a.Cursor)
	setLimit(q, a.Limit)
	var out Attentions
	_, err := c.do(ctx, request{method: "GET", path: path("attention"), query: q}, &out)
	return out, err
}

// AttentionItem returns one item of the attention list.
func (c *Client) AttentionItem(ctx context.Context, id string) (Attention, error) {
	var out Attention
	_, err := c.do(ctx, request{method: "GET", path: path("attention", id)}, &out)
	return out, err
}

// Resolve closes an item; take is one of its Takes.
func (c *Client) Resolve(ctx context.Context, id, take string, w Wait) (Mutated, error) {
	return c.mutated(ctx, request{method: "POST", path: path("attention", id, "resolve"), query: w.query(), body: map[string]string{"take": take}})
}

// ErrReload ends a stream of changes of which some were missed: what is shown
// must be read again.
var ErrReload = errors.New("changes were missed; read again")

// Changes yields the changes of the entities, all without any, from now on. It
// ends when ctx does, with [ErrReload], or when the node cannot be heard any more.
func (c *Client) Changes(ctx context.Context, entities ...string) iter.Seq2[ChangeEvent, error] {
	return func(yield func(ChangeEvent, error) bool) {
		q := url.Values{}
		set(q, "entity", strings.Join(entities, ","))
		resp, err := c.open(ctx, request{method: "GET", path: path("changes"), query: q})
		if err != nil {
			yield(ChangeEvent{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for name := ""; lines.Scan(); {
			if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = event
			}
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok || name == "ready" {
				continue
			}
			ev, err := changeIn(name, data)
			if !yield(ev, err) || err != nil {
				return
			}
		}
		if ctx.Err() == nil {
			yield(ChangeEvent{}, &crm.Error{Code: crm.CodeUnavailable, Op: "watch changes", Item: c.BaseURL, Message: "the node ended the stream", Err: lines.Err()})
		}
	}
}

func changeIn(event, data string) (ChangeEvent, error) {
	var ev ChangeEvent
	if event == "reload" {
		return ev, ErrReload
	}
	return ev, json.Unmarshal([]byte(data), &ev)
}

// Schema returns the live schema.
func (c *Client) Schema(ctx context.Context) (*crm.Schema, error) {
	var text SchemaText
	if _, err := c.do(ctx, request{method: "GET", path: path("schema")}, &text); err != nil {
		return nil, err
	}
	return text.Schema()
}

// Ready returns nil if the node can serve, or why not.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, request{method: "GET", path: "/readyz"}, nil)
	return err
}

// Status decodes the state of the node into out.
func (c *Client) Status(ctx context.Context, out any) error {
	_, err := c.do(ctx, request{method: "GET", path: path("status")}, out)
	return err
}

// Nodes returns the nodes of the cluster by number.
func (c *Client) Nodes(ctx context.Context) ([]NodeText, error) {
	return items[NodeText](ctx, c, request{method: "GET", path: path("nodes")})
}

// Outbox returns the node's edits that the master has not decided.
func (c *Client) Outbox(ctx context.Context) ([]OutboxEntry, error) {
	return items[OutboxEntry](ctx, c, request{method: "GET", path: path("outbox")})
}

// Check lets the node check its files and returns what is wrong.
func (c *Client) Check(ctx context.Context) ([]Finding, error) {
	return items[Finding](ctx, c, request{method: "GET", path: path("check")})
}

// Peers returns the servers of Raft.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return items[Peer](ctx, c, request{method: "GET", path: path("raft", "peers")})
}

// RemovePeer removes a server from Raft.
func (c *Client) RemovePeer(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: path("raft", "peers", id)}, nil)
	return err
}

// TransferLeader hands leadership to a server, "" to whom Raft likes.
func (c *Client) TransferLeader(ctx context.Context, to string) error {
	_, err := c.do(ctx, request{method: "POST", path: path("raft", "peers", "transfer"), body: map[string]string{"to": to}}, nil)
	return err
}

// CreateToken makes what lets one new node join; ttl 0 is the server's default.
func (c *Client) CreateToken(ctx context.Context, site, role string, ttl time.Duration) (JoinToken, error) {
	body := map[string]string{"site": site, "role": role}
	if ttl > 0 {
		body["ttl"] = ttl.String()
	}
	var out JoinToken
	_, err := c.do(ctx, request{method: "POST", path: path("tokens"), body: body}, &out)
	return out, err
}

// Wan returns the lines of the simulated WAN.
func (c *Client) Wan(ctx context.Context) ([]WanLink, error) {
	return items[WanLink](ctx, c, request{method: "GET", path: path("wan")})
}

// CutWan cuts a site off the simulated WAN.
func (c *Client) CutWan(ctx context.Context, site string) error { return c.wan(ctx, "cut", site) }

// HealWan mends the lines of a site, all lines for "".
func (c *Client) HealWan(ctx context.Context, site string) error { return c.wan(ctx, "heal", site) }

func (c *Client) wan(ctx context.Context, action, site string) error {
	_, err := c.do(ctx, request{method: "POST", path: path("wan"), body: map[string]string{"action": action, "site": site}}, nil)
	return err
}
