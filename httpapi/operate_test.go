package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A replica says of a master's powers where they are.
func TestOperate_Elsewhere(t *testing.T) {
	s := newSite(t, nil)
	for _, line := range []string{"GET outbox", "GET check", "GET raft/peers", "DELETE raft/peers/x", "POST raft/peers/transfer", "POST tokens", "GET wan", "POST wan"} {
		method, path, _ := strings.Cut(line, " ")
		s.run(t, scenario{name: line, method: method, path: "/api/v1/" + path, status: 404, code: "not_found", want: []string{"ask "}})
	}
	s.run(t, scenario{name: "status", method: "GET", path: "/api/v1/status", status: 200, want: []string{`{"site":"Lisbon"}`}})
	s.run(t, scenario{name: "nodes", method: "GET", path: "/api/v1/nodes", status: 200, want: []string{`"node":1`, `"site":"Lisbon"`}, notWant: []string{"state"}})
}

// powers are what a node can do, written down as it is done.
type powers struct{ done []string }

func (p *powers) note(words ...string) error {
	p.done = append(p.done, strings.Join(words, " "))
	return nil
}

func (p *powers) config(c *Config) {
	c.Members = func(context.Context) ([]Member, error) {
		return []Member{{Node: 1, State: "alive", RTT: 1500 * time.Microsecond, Since: noon}}, nil
	}
	c.Outbox = func(context.Context) ([]OutboxEntry, error) {
		return []OutboxEntry{{Seq: 7, At: noon, Actor: "ana", Intent: "account.create", Bytes: 90, Ops: []crm.OpText{{Op: "create", Entity: "account", Record: acme}}}}, nil
	}
	c.Check = func(context.Context) ([]Finding, error) { return nil, nil }
	c.CreateToken = func(_ context.Context, site, role string, ttl time.Duration) (JoinToken, error) {
		return JoinToken{Token: "tpj1.x", Site: site, Role: role, Expires: noon.Add(ttl)}, nil
	}
	c.Peers = &Peers{
		List: func(context.Context) ([]Peer, error) {
			return []Peer{{ID: "node-1", Address: "a:1", Suffrage: "voter", Leader: true}}, nil
		},
		Remove:   func(_ context.Context, id string) error { return p.note("remove", id) },
		Transfer: func(_ context.Context, id string) error { return p.note("transfer", id) },
	}
	c.Wan = &Wan{
		Links: func(context.Context) ([]WanLink, error) {
			return []WanLink{{A: "a", B: "b", RTTMillis: 80, Cut: true, Bytes: 5}}, nil
		},
		Cut:  func(_ context.Context, site string) error { return p.note("cut", site) },
		Heal: func(_ context.Context, site string) error { return p.note("heal", site) },
	}
}

func TestOperate(t *testing.T) {
	var p powers
	s := newSite(t, p.config)
	ctx, c := t.Context(), s.client
	var status struct{ Site string }
	must(t, c.Status(ctx, &status))
	nodes, err := c.Nodes(ctx)
	must(t, err)
	outbox, err := c.Outbox(ctx)
	must(t, err)
	findings, err := c.Check(ctx)
	must(t, err)
	peers, err := c.Peers(ctx)
	must(t, err)
	token, err := c.CreateToken(ctx, "Porto", "replica", 2*time.Hour)
	must(t, err)
	links, err := c.Wan(ctx)
	must(t, err)
	for _, err := range []error{c.RemovePeer(ctx, "node/2"), c.TransferLeader(ctx, "node-3"), c.CutWan(ctx, "Porto"), c.HealWan(ctx, "")} {
		must(t, err)
	}
	got, err := json.Marshal([]any{status, nodes[0].State, nodes[0].RTTMillis, outbox, findings, peers, token, links, p.done})
	must(t, err)
	want := `[{"Site":"Lisbon"},"alive",1.5,` +
		`[{"seq":7,"at":"2026-11-21T12:00:00Z","actor":"ana","intent":"account.create","bytes":90,"ops":[{"op":"create","entity":"account","record":"` + acme + `"}]}],[],` +
		`[{"id":"node-1","address":"a:1","suffrage":"voter","leader":true}],` +
		`{"token":"tpj1.x","site":"Porto","role":"replica","expires":"2026-11-21T14:00:00Z"},` +
		`[{"a":"a","b":"b","rtt_ms":80,"cut":true,"bytes":5}],` +
		`["remove node/2","transfer node-3","cut Porto","heal "]]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, sc := range []scenario{
		{name: "token for no site", method: "POST", path: "/api/v1/tokens", body: `{"role":"replica"}`, status: 422, code: "required"},
		{name: "token for no role", method: "POST", path: "/api/v1/tokens", body: `{"site":"Porto","role":"boss"}`, status: 400, code: "invalid"},
		{name: "token for ever", method: "POST", path: "/api/v1/tokens", body: `{"site":"Porto","role":"replica","ttl":"9999h"}`, status: 400, code: "invalid"},
		{name: "token unknown member", method: "POST", path: "/api/v1/tokens", body: `{"sites":"Porto"}`, status: 400, code: "unknown_field"},
		{name: "transfer of wrong type", method: "POST", path: "/api/v1/raft/peers/transfer", body: `{"to":7}`, status: 400, code: "invalid"},
		{name: "wan does what", method: "POST", path: "/api/v1/wan", body: `{"action":"burn"}`, status: 400, code: "invalid"},
		{name: "wan cut of nothing", method: "POST", path: "/api/v1/wan", body: `{"action":"cut"}`, status: 400, code: "invalid"},
		{name: "unknown parameter", method: "GET", path: "/api/v1/check?fast=true", status: 400, code: "invalid"},
	} {
		s.run(t, sc)
	}
}

func TestOperate_ErrorsOfPowers(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.CreateToken = func(context.Context, string, string, time.Duration) (JoinToken, error) {
			return JoinToken{}, &crm.Error{Code: crm.CodeNoLeader, Message: "no master leads now"}
		}
		c.Check = func(context.Context) ([]Finding, error) { return nil, errPlain }
		c.Status = func(context.Context) (any, error) { return nil, context.DeadlineExceeded }
	})
	_, err := s.client.CreateToken(t.Context(), "Porto", "replica", 0)
	if crm.CodeOf(err) != crm.CodeNoLeader {
		t.Errorf("token: %v", err)
	}
	if _, err = s.client.Check(t.Context()); crm.CodeOf(err) != crm.CodeInternal || strings.Contains(err.Error(), "secret") {
		t.Errorf("check: %v", err)
	}
	if err = s.client.Status(t.Context(), nil); crm.CodeOf(err) != crm.CodeTimeout {
		t.Errorf("status: %v", err)
	}
}

func TestClient_Errors(t *testing.T) {
	s := newSite(t, nil)
	lost := &Client{BaseURL: "http://127.0.0.1:1", Token: s.token}
	if err := lost.Ready(t.Context()); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("no node: %v", err)
	}
	odd := &Client{BaseURL: "::"}
	if err := odd.Ready(t.Context()); crm.CodeOf(err) != crm.CodeInvalid {
		t.Errorf("no address: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.client.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	_, _, err := s.client.Get(t.Context(), "account", "../../status", Asked{})
	if crm.CodeOf(err) != crm.CodeInvalid {
		t.Errorf("a path for an id: %v", err)
	}
	_, err = s.client.Create(t.Context(), "account", Fields{"naem": "x"}, 0)
	e, ok := errors.AsType[*crm.Error](err)
	if !ok || e.Code != crm.CodeUnknownField || e.Item != "naem" || !strings.Contains(e.Message, `did you mean "name"`) {
		t.Errorf("a typed error: %+v", err)
	}
}

func TestClient_ListAndReport(t *testing.T) {
	s := newSite(t, nil)
	for range 25 {
		s.mustCreate(t, "account", Fields{"name": "Acme", "rating": "hot"})
	}
	n := 0
	for it, err := range s.client.List(t.Context(), "account", Query{Asked: Asked{Fields: []string{"name"}}, Filter: `rating == "hot"`, Sort: "-name", Limit: 10}) {
		must(t, err)
		if it.Text("name") != "Acme" || len(it.Fields) != 1 {
			t.Fatalf("%+v", it)
		}
		n++
	}
	if n != 25 {
		t.Errorf("listed %d, want 25", n)
	}
	for _, err := range s.client.List(t.Context(), "account", Query{Filter: "x"}) {
		if crm.CodeOf(err) != crm.CodeUnknownField {
			t.Errorf("a bad filter: %v", err)
		}
	}
	r, f, err := s.client.Report(t.Context(), Summary{Entity: "account", Group: "rating"})
	must(t, err)
	if len(r.Rows) != 1 || string(r.Rows[0][1]) != "25" || f.Rev == 0 || !f.Connected {
		t.Errorf("%+v %+v", r, f)
	}
	hits, err := s.client.Search(t.Context(), "acm", []string{"account"}, 5)
	must(t, err)
	if len(hits) != 5 || hits[0].Title != "Acme" {
		t.Errorf("%+v", hits)
	}
	id := hits[0].ID
	_, err = s.client.Delete(t.Context(), "account", id, hits[0].Token, 0)
	must(t, err)
	back, err := s.client.Restore(t.Context(), "account", id, Wait(time.Second))
	must(t, err)
	if back.Item.Text("name") != "Acme" || back.Saved != "everywhere" {
		t.Errorf("%+v", back)
	}
	page, _, err := s.client.Page(t.Context(), "account", Query{})
	must(t, err)
	if page.Count == nil || *page.Count != 25 {
		t.Errorf("count %v", page.Count)
	}
}
