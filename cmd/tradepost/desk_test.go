package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/store"
)

// deskLineage is that of a cluster whose masters were never restored.
var deskLineage = crm.Lineage{Timeline: 1}

// deskNode is the node that a desk is.
const deskNode = crm.NodeID(3)

// farNode takes the edits that a desk did not see.
const farNode = crm.NodeID(9)

// noon is the start of a desk's clock.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// A desk is the smallest whole node: the real store, the real decision and the
// real API, with no other node about.
type desk struct {
	tb    testing.TB
	base  *store.DB
	url   string
	token string // file

	mu      sync.Mutex // protects what follows
	now     time.Time
	seq     crm.Seq
	commits int
	failAt  int // the commit, counted from 1, that is refused as by a node that went away; 0: none
	unready error
	links   []httpapi.WanLink
}

func newDesk(tb testing.TB) *desk {
	tb.Helper()
	base, err := store.Open(filepath.Join(tb.TempDir(), "base.db"), store.Options{NoSync: true})
	must(tb, err)
	tb.Cleanup(func() { must(tb, base.Close()) })
	d := &desk{tb: tb, base: base, now: noon}
	must(tb, base.Update(func(tx *store.Tx) error { return tx.SetLineage(deskLineage) }))
	for _, req := range catalog.Requests("system") {
		d.mustCommit(req)
	}
	d.mustCommit(crm.Request{Actor: "system", Intent: "node.create", Ops: []crm.Op{{
		Kind: crm.OpCreate, Entity: crm.EntityNode, Record: crm.RecordID{2},
		Cells: []crm.Input{{Field: crm.NodeSite, Value: crm.TextValue("lisbon")}, {Field: crm.NodeRole, Value: crm.ChoiceValue("replica")}, {Field: crm.NodeStatus, Value: crm.ChoiceValue("active")}},
	}}})
	d.serve()
	return d
}

func (d *desk) serve() {
	tokens, err := auth.LoadTokens(d.tb.TempDir())
	must(d.tb, err)
	token, err := auth.NewBearer(rand.Reader)
	must(d.tb, err)
	must(d.tb, tokens.Add("test", "ana", token, noon))
	d.token = filepath.Join(d.tb.TempDir(), "token")
	must(d.tb, os.WriteFile(d.token, []byte(token+"\n"), 0o600))
	s, err := httpapi.New(httpapi.Config{
		Node: d, Self: deskNode, Role: "replica", Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Now: d.clock,
		Authenticate: func(h string) (string, error) { _, actor, err := tokens.Check(h); return actor, err },
		Status: func(context.Context) (any, error) {
			s := node.Status{Role: "replica", Site: "lisbon", Node: deskNode, Ready: true, Head: 12, ReplicaStatus: &node.ReplicaStatus{Connected: true, Master: "hq:7400", RTTMillis: 80, Cursor: 12, Verified: 12}}
			if err := d.Ready(); err != nil {
				s.Ready, s.NotReady = false, err.Error()
			}
			return s, nil
		},
		Outbox: func(context.Context) ([]httpapi.OutboxEntry, error) {
			return []httpapi.OutboxEntry{{Seq: 7, At: noon, Actor: "ana", Intent: "account.patch", Bytes: 120, Ops: []crm.OpText{{Op: "patch", Entity: "account"}}}}, nil
		},
		Check: func(ctx context.Context) (found []httpapi.Finding, err error) {
			err = d.base.View(func(tx *store.Tx) error {
				list, err := tx.Check(ctx)
				for _, f := range list {
					found = append(found, httpapi.Finding{Kind: f.Bucket, Item: f.Item, Message: f.Detail})
				}
				return err
			})
			return found, err
		},
		CreateToken: func(_ context.Context, site, role string, ttl time.Duration) (httpapi.JoinToken, error) {
			return httpapi.JoinToken{Token: "tpj1.secret", Site: site, Role: role, Expires: noon.Add(ttl)}, nil
		},
		Peers: &httpapi.Peers{
			List: func(context.Context) ([]httpapi.Peer, error) {
				return []httpapi.Peer{{ID: "1", Address: "10.0.0.1:7401", Suffrage: "voter", Leader: true}}, nil
			},
			Remove:   func(context.Context, string) error { return nil },
			Transfer: func(context.Context, string) error { return nil },
		},
		Wan: &httpapi.Wan{Links: d.wan, Cut: d.cut(true), Heal: d.cut(false)},
	})
	must(d.tb, err)
	ts := httptest.NewServer(s)
	d.tb.Cleanup(ts.Close)
	d.url = ts.URL
	d.links = []httpapi.WanLink{{A: "lisbon", B: "tokyo", RTTMillis: 255.5, Bytes: 1024}}
}

func (d *desk) wan(context.Context) ([]httpapi.WanLink, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]httpapi.WanLink(nil), d.links...), nil
}

func (d *desk) cut(cut bool) func(context.Context, string) error {
	return func(_ context.Context, site string) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		for i := range d.links {
			if l := &d.links[i]; site == "" || l.A == site || l.B == site {
				l.Cut = cut
			}
		}
		return nil
	}
}

func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *desk) mustCommit(req crm.Request) {
	d.tb.Helper()
	_, err := d.Commit(context.Background(), req)
	must(d.tb, err)
}

// Commit takes an edit as a node does: what breaks a rule is refused at once.
func (d *desk) Commit(_ context.Context, req crm.Request) (crm.Receipt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.commits++; d.commits == d.failAt {
		return crm.Receipt{}, &crm.Error{Code: crm.CodeUnavailable, Message: "this node is stopping"}
	}
	o, err := d.decide(deskNode, req)
	return crm.Receipt{Node: deskNode, Seq: d.seq, Outcome: &o}, err
}

// far takes an edit whose author had not seen what this desk shows.
func (d *desk) far(req crm.Request) crm.Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.decide(farNode, req)
	must(d.tb, err)
	return o
}

func (d *desk) decide(node crm.NodeID, req crm.Request) (crm.Outcome, error) {
	d.now = d.now.Add(time.Second)
	m := req.Mutation(node, deskLineage, true)
	m.Seq, m.HLC = d.seq+1, crm.NewHLC(d.now.UnixMilli())
	if n := len(crm.AppendMutation(nil, m)); n > crm.MaxMutation {
		return crm.Outcome{}, &crm.Error{Code: crm.CodeTooLarge, Message: "the edit is over 64 KiB"}
	}
	var dec crm.Decision
	err := d.base.Update(func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err != nil {
			return err
		}
		if dec, err = crm.Decide(tx, m, crm.Env{Rev: rev + 1, HLC: m.HLC, Home: crm.FirstTerritory, Admin: true, Lineage: deskLineage}); err != nil {
			return err
		}
		if o := dec.Outcome; o.Kind == crm.Rejected {
			return &crm.Error{Code: o.Code, Message: o.Message}
		}
		for _, r := range dec.Writes {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return tx.SetRev(rev + 1)
	})
	if err == nil {
		d.seq = m.Seq
	}
	return dec.Outcome, err
}

func (d *desk) Await(context.Context, crm.Seq) (crm.Outcome, error) {
	panic("a desk decides before Commit returns")
}

func (d *desk) Read(_ context.Context, _ crm.Demand, fn func(*store.Reader) error) (crm.Freshness, error) {
	f := crm.Freshness{Mark: crm.Mark{Timeline: deskLineage.Timeline, Node: deskNode}, AsOf: d.clock(), Connected: true}
	err := d.base.View(func(tx *store.Tx) error {
		rd, err := store.NewReader(tx, nil)
		if err != nil {
			return err
		}
		return fn(rd)
	})
	return f, err
}

func (d *desk) Subscribe(ctx context.Context) <-chan crm.Change {
	ch := make(chan crm.Change)
	context.AfterFunc(ctx, func() { close(ch) })
	return ch
}

func (d *desk) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unready
}

// A result is what a command did.
type result struct {
	code           int
	stdout, stderr string
}
