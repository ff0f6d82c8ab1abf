package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// The territory and node of a desk.
const (
	deskTerritory = crm.FirstTerritory
	deskNode      = crm.NodeID(3)
	farNode       = crm.NodeID(9) // whose edits come from elsewhere
)

// deskLineage is that of a cluster whose masters were restored once.
var deskLineage = crm.Lineage{Timeline: 36, Forks: []crm.Fork{{Timeline: 35, Rev: 5}}} // "10" and "z"

// noon is the start of a desk's clock.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A desk is the smallest whole node: the real store and the real decision, with
// the master in the same process. While it is held, the master does not decide:
// edits wait in the journal's overlay, as at a branch whose line is cut.
type desk struct {
	tb      testing.TB
	base    *store.DB
	journal *store.Journal

	mu       sync.Mutex // protects what follows
	held     bool
	noLeader bool
	unready  error
	now      time.Time
	asOf     time.Time // while held
	seq      crm.Seq
	pending  []*crm.Mutation
	outcomes map[crm.Seq]crm.Outcome
	decided  chan struct{} // closed and replaced when outcomes come
	watchers map[chan crm.Change]bool
}

func newDesk(tb testing.TB) *desk {
	tb.Helper()
	dir := tb.TempDir()
	base, err := store.Open(filepath.Join(dir, "base.db"), store.Options{NoSync: true})
	must(tb, err)
	tb.Cleanup(func() { must(tb, base.Close()) })
	journal, err := store.OpenJournal(filepath.Join(dir, "journal.db"), store.Options{NoSync: true})
	must(tb, err)
	tb.Cleanup(func() { must(tb, journal.Close()) })
	d := &desk{tb: tb, base: base, journal: journal, now: noon, asOf: noon, outcomes: map[crm.Seq]crm.Outcome{},
		decided: make(chan struct{}), watchers: map[chan crm.Change]bool{}}
	must(tb, base.Update(func(tx *store.Tx) error { return tx.SetLineage(deskLineage) }))
	for _, req := range catalog.Requests("system") {
		d.mustCommit(req)
	}
	d.mustCommit(crm.Request{Actor: "system", Intent: "territory.create", Ops: []crm.Op{{Kind: crm.OpCreate, Entity: crm.EntityTerritory, Record: crm.RecordID{1},
		Cells: []crm.Input{{Field: crm.TerritoryCode, Value: crm.TextValue("lis")}, {Field: crm.TerritoryName, Value: crm.TextValue("Lisbon")}}}}})
	d.mustCommit(crm.Request{Actor: "system", Intent: "node.create", Ops: []crm.Op{{Kind: crm.OpCreate, Entity: crm.EntityNode, Record: crm.RecordID{2},
		Cells: []crm.Input{{Field: crm.NodeSite, Value: crm.TextValue("Lisbon")}, {Field: crm.NodeRole, Value: crm.ChoiceValue("replica")}, {Field: crm.NodeStatus, Value: crm.ChoiceValue("active")}}}}})
	return d
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (d *desk) mustCommit(req crm.Request) crm.Outcome {
	d.tb.Helper()
	receipt, err := d.Commit(context.Background(), req)
	must(d.tb, err)
	if receipt.Outcome.Kind == crm.Rejected {
		d.tb.Fatalf("%s: %+v", req.Intent, receipt.Outcome)
	}
	return *receipt.Outcome
}

// hold stops the master; settle lets it decide all that waits.
func (d *desk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = true
}

func (d *desk) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = false
	for _, m := range d.pending {
		must(d.tb, d.dropOverlay(m))
		_, err := d.decide(m)
		must(d.tb, err)
	}
	d.pending = nil
	close(d.decided)
	d.decided = make(chan struct{})
}

func (d *desk) dropOverlay(m *crm.Mutation) error {
	return d.base.View(func(tx *store.Tx) error {
		return d.journal.Update(func(j *store.JTx) error {
			for _, op := range m.Ops {
				if err := j.DropOverlay(tx.Schema(), op.Entity, op.Record); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// far commits an edit of another node, whose author had seen the given token.
func (d *desk) far(seen crm.Token, op crm.Op) crm.Outcome {
	d.tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	op.Seen = seen
	d.seq++
	m := crm.Request{Actor: "far", Intent: "far", Ops: []crm.Op{op}}.Mutation(farNode, deskLineage, true)
	m.Seq, m.HLC = d.seq, crm.NewHLC(d.now.UnixMilli())
	o, err := d.decide(m)
	must(d.tb, err)
	return o
}

func (d *desk) Commit(_ context.Context, req crm.Request) (crm.Receipt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(time.Second)
	m := req.Mutation(deskNode, deskLineage, true)
	m.Seq, m.HLC = d.seq+1, crm.NewHLC(d.now.UnixMilli())
	if len(crm.AppendMutation(nil, m)) > crm.MaxMutation {
		return crm.Receipt{}, &crm.Error{Code: crm.CodeTooLarge, Message: "the edit is over 64 KiB"}
	}
	receipt := crm.Receipt{Node: deskNode, Seq: m.Seq}
	if !d.held {
		o, err := d.decide(m)
		if err == nil {
			d.seq, receipt.Outcome = m.Seq, &o
		}
		return receipt, err
	}
	if err := d.overlay(m); err != nil {
		return crm.Receipt{}, err
	}
	d.seq = m.Seq
	d.pending = append(d.pending, m)
	return receipt, nil
}

// decide is the master's part.
func (d *desk) decide(m *crm.Mutation) (crm.Outcome, error) {
	var dec crm.Decision
	err := d.base.Update(func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err != nil {
			return err
		}
		dec, err = crm.Decide(tx, m, crm.Env{Rev: rev + 1, HLC: m.HLC, Home: deskTerritory, Admin: true, Lineage: deskLineage})
		if err != nil {
			return err
		}
		for _, r := range dec.Writes {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		for _, r := range dec.Refused {
			if err := tx.SetRefused(r.Record, r.Attention); err != nil {
				return err
			}
		}
		return tx.SetRev(rev + 1)
	})
	if m.Node == deskNode {
		d.outcomes[m.Seq] = dec.Outcome
	}
	d.publish(dec)
	return dec.Outcome, err
}

// overlay is the branch's part.
func (d *desk) overlay(m *crm.Mutation) error {
	var dec crm.Decision
	err := d.journal.Update(func(j *store.JTx) error {
		return d.base.View(func(tx *store.Tx) error {
			rd, err := store.NewReader(tx, j)
			if err != nil {
				return err
			}
			if dec, err = crm.Decide(rd, m, crm.Env{Rev: crm.Pending, HLC: m.HLC, Home: deskTerritory, Lineage: deskLineage}); err != nil {
				return err
			}
			if o := dec.Outcome; o.Kind == crm.Rejected {
				return &crm.Error{Code: o.Code, Message: o.Message}
			}
			for _, r := range dec.Writes {
				if err := j.PutOverlay(tx.Schema(), r); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err == nil {
		d.publish(dec)
	}
	return err
}

func (d *desk) publish(dec crm.Decision) {
	for _, r := range dec.Writes {
		for w := range d.watchers {
			select {
			case w <- crm.Change{Entity: r.Entity, Record: r.ID, Rev: r.Stamp.Rev, Deleted: r.Deleted}:
			default:
				close(w)
				delete(d.watchers, w)
			}
		}
	}
}

func (d *desk) Await(ctx context.Context, seq crm.Seq) (crm.Outcome, error) {
	for {
		d.mu.Lock()
		o, ok := d.outcomes[seq]
		decided := d.decided
		d.mu.Unlock()
		if ok {
			return o, nil
		}
		select {
		case <-decided:
		case <-ctx.Done():
			return o, ctx.Err()
		}
	}
}

func (d *desk) Read(_ context.Context, demand crm.Demand, fn func(*store.Reader) error) (crm.Freshness, error) {
	d.mu.Lock()
	f := crm.Freshness{Mark: crm.Mark{Timeline: deskLineage.Timeline, Node: deskNode, Seq: d.seq}, AsOf: d.now, Pending: len(d.pending), Connected: !d.held}
	if d.held {
		f.AsOf = d.asOf
	}
	now, noLeader := d.now, d.noLeader
	d.mu.Unlock()
	if demand.Level == crm.Leader && noLeader {
		return f, &crm.Error{Code: crm.CodeNoLeader, Message: "no master leads now"}
	}
	if demand.Level == crm.Bounded && now.Sub(f.AsOf) > demand.MaxStale {
		return f, &crm.Error{Code: crm.CodeStale, Message: "this node is too far behind"}
	}
	err := d.journal.View(func(j *store.JTx) error {
		return d.base.View(func(tx *store.Tx) error {
			var err error
			if f.Rev, err = tx.Rev(); err != nil {
				return err
			}
			if demand.Level == crm.Session && (demand.Session.Rev > f.Rev || demand.Session.Node == deskNode && demand.Session.Seq > f.Seq) {
				return &crm.Error{Code: crm.CodeStale, Message: "this node has not come that far"}
			}
			rd, err := store.NewReader(tx, j)
			if err != nil {
				return err
			}
			return fn(rd)
		})
	})
	return f, err
}

func (d *desk) Subscribe(ctx context.Context) <-chan crm.Change {
	w := make(chan crm.Change, 16)
	d.mu.Lock()
	d.watchers[w] = true
	d.mu.Unlock()
	context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.watchers[w] {
			close(w)
			delete(d.watchers, w)
		}
	})
	return w
}

func (d *desk) Ready() error { return d.unready }

// clock is the clock of the server.
func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now.Add(250 * time.Millisecond)
}

// A site is a desk behind a server.
type site struct {
	*desk
	server *Server
	url    string
	client *Client
	token  string
}

// newSite serves a desk; edit may change the server's Config.
func newSite(tb testing.TB, edit func(*Config)) *site {
	tb.Helper()
	d := newDesk(tb)
	tokens, err := auth.LoadTokens(tb.TempDir())
	must(tb, err)
	token, err := auth.NewBearer(constant{})
	must(tb, err)
	must(tb, tokens.Add("test", "ana", token, noon))
	cfg := Config{Node: d, Role: "replica", Registry: prometheus.NewRegistry(), Now: d.clock, Logger: slog.New(slog.DiscardHandler),
		Authenticate: func(h string) (string, error) { _, actor, err := tokens.Check(h); return actor, err },
		Status:       func(context.Context) (any, error) { return map[string]string{"site": "Lisbon"}, nil }}
	if edit != nil {
		edit(&cfg)
	}
	s, err := New(cfg)
	must(tb, err)
	ts := httptest.NewServer(s)
	tb.Cleanup(func() { s.stop(); ts.Close() })
	return &site{desk: d, server: s, url: ts.URL, client: &Client{BaseURL: ts.URL, Token: token, HTTP: ts.Client()}, token: token}
}

// constant is bad randomness for good tests.
type constant struct{}

func (constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 0xa5
	}
	return len(b), nil
}

// revOf and seqOf are what a token says, as decimal text and as a number.
func revOf(tb testing.TB, token string) string {
	tb.Helper()
	t, err := crm.ParseToken(token)
	must(tb, err)
	return strconv.FormatUint(uint64(t.Rev), 10)
}

func seqOf(tb testing.TB, token string) crm.Seq {
	tb.Helper()
	t, err := crm.ParseToken(token)
	must(tb, err)
	return t.Seq
}

// mustCreate makes a record through the API.
func (s *site) mustCreate(tb testing.TB, entity string, fields Fields) Edited {
	tb.Helper()
	out, err := s.client.Create(tb.Context(), entity, fields, 0)
	must(tb, err)
	return out
}

var errPlain = errors.New("the disk is on fire at /secret/path")

// panicky is a node that panics when read.
type panicky struct{ Node }

func (panicky) Read(context.Context, crm.Demand, func(*store.Reader) error) (crm.Freshness, error) {
	panic("boom")
}

// broken is a node that fails with err when read.
type broken struct {
	Node
	err error
}

func (b broken) Read(context.Context, crm.Demand, func(*store.Reader) error) (crm.Freshness, error) {
	return crm.Freshness{}, b.err
}

// waitFor waits until cond holds of the desk.
func (d *desk) waitFor(cond func() bool) {
	for {
		d.mu.Lock()
		ok := cond()
		d.mu.Unlock()
		if ok {
			return
		}
		runtime.Gosched()
	}
}
