package master

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

func TestAuthor_NonsenseCostsNoRound(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		r.awaitHead(m)
		before := m.ledger.stats()["last_log_index"]
		_, err := m.Commit(t.Context(), crm.Request{Actor: "boss", Intent: "account.create", Ops: []crm.Op{createAccount(newID(), "", "north")}})
		wantCode(t, err, crm.CodeRequired)
		_, err = m.Commit(t.Context(), crm.Request{Actor: "boss", Ops: []crm.Op{createNote(newID(), newID(), "of nobody")}})
		wantCode(t, err, crm.CodeNotFound)
		if after := m.ledger.stats()["last_log_index"]; after != before {
			t.Errorf("the log went from %s to %s", before, after)
		}
	})
}

func TestAuthor_AnEditMayRestOnOneDecidedAMomentAgo(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		for range 20 {
			id := newID()
			r.commit(m, createAccount(id, "Fjord AS", "north"))
			r.commit(m, createNote(newID(), id, "not in bbolt yet"))
		}
	})
}

func TestAuthor_TooLarge(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		var ops []crm.Op
		id := newID()
		r.commit(m, createAccount(id, "Fjord AS", "north"))
		for range 3 {
			ops = append(ops, createNote(newID(), id, strings.Repeat("x", 30<<10)))
		}
		_, err := m.Commit(t.Context(), crm.Request{Actor: "boss", Ops: ops})
		wantCode(t, err, crm.CodeTooLarge)
		r.commit(m, ops[0], ops[1])
	})
}

func TestAuthor_CallerThatLeavesIsTold(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.Commit(ctx, crm.Request{Actor: "boss", Ops: []crm.Op{createAccount(newID(), "x", "north")}})
		if code := crm.CodeOf(err); code != crm.CodeUnavailable && code != crm.CodeTimeout {
			t.Errorf("code %s (%v)", code, err)
		}
		m.stop()
		_, err = m.author.commit(t.Context(), crm.Request{Actor: "boss"})
		wantCode(t, err, crm.CodeUnavailable)
	})
}

func TestAuthor_NumbersDocuments(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		order := &crm.Entity{ID: 18, Name: "order", Label: "Order", Plural: "Orders", Home: crm.HomeHeadOffice, Title: []string{"number"}, Fields: []*crm.Field{
			{ID: 16, Name: "number", Label: "Number", Kind: crm.Text, Series: "ORD", Unique: true}, {ID: 17, Name: "memo", Label: "Memo", Kind: crm.Text}}}
		r.commit(m, crm.MetadataOps(order)...)
		r.awaitHead(m)
		var got []string
		for _, typed := range []string{"", "ORD-HQ-000002", "", ""} {
			id := newID()
			r.commit(m, crm.Op{Kind: crm.OpCreate, Entity: 18, Record: id, Cells: []crm.Input{{Field: 16, Value: crm.TextValue(typed)}}})
			r.awaitHead(m)
			r.read(m, func(tx *store.Tx) error {
				rec, err := tx.Record(18, id)
				got = append(got, rec.Value(16).Str())
				return err
			})
		}
		if s := strings.Join(got, " "); s != "ORD-HQ-000001 ORD-HQ-000002 ORD-HQ-000003 ORD-HQ-000004" {
			t.Errorf("numbers %s", s)
		}
	})
}

// Concurrent callers share entries, in real time and with real disks.
func TestAuthor_ManyCallers(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures")
	}
	m := realMaster(t)
	const callers, each = 64, 50
	var running sync.WaitGroup
	var failed atomic.Int64
	first := m.ledger.stats()["last_log_index"]
	start := time.Now()
	for range callers {
		running.Go(func() {
			for range each {
				got, err := m.Commit(t.Context(), crm.Request{Actor: "clerk", Ops: []crm.Op{createAccount(newID(), "busy", "north")}})
				if err != nil || got.Outcome.Kind != crm.Accepted {
					failed.Add(1)
				}
			}
		})
	}
	running.Wait()
	took := time.Since(start)
	t.Logf("%d edits of %d callers in %v, %.0f/s; log from %s to %s", callers*each, callers, took, callers*each/took.Seconds(), first, m.ledger.stats()["last_log_index"])
	if n := failed.Load(); n != 0 {
		t.Errorf("%d failed", n)
	}
	o, err := m.Await(t.Context(), callers*each)
	if err != nil || o.Kind != crm.Accepted {
		t.Errorf("last outcome %+v, %v", o, err)
	}
}

// realMaster runs one master outside a bubble, on the loopback interface.
func realMaster(t *testing.T) *Master {
	t.Helper()
	ca, err := auth.NewCA("c1", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ca: ca}
	ports := map[string]net.Listener{}
	for _, kind := range []string{ListenSync, ListenRaft} {
		if ports[kind], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	d := &net.Dialer{}
	m, err := Open(Config{Dir: t.TempDir(), Node: r.sign(auth.Identity{Cluster: "c1", Role: auth.RoleMaster, Site: "hq", Node: 1}), CA: ca,
		Listen: func(kind string) (net.Listener, error) { return ports[kind], nil }, Dial: func(ctx context.Context, a string) (net.Conn, error) { return d.DialContext(ctx, "tcp", a) },
		SyncAddress: ports[ListenSync].Addr().String(), RaftAddress: ports[ListenRaft].Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	rm := &rigMaster{Master: m}
	r.run(rm)
	err = m.Bootstrap(t.Context(), Initial{Catalogue: testCatalogue(), Territories: []InitialTerritory{{"north", "North"}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOpen_Refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := auth.NewCA("c1", time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, ca: ca}
		good := Config{Dir: t.TempDir(), Node: r.sign(auth.Identity{Cluster: "c1", Role: auth.RoleMaster, Site: "hq", Node: 1}), CA: ca,
			Listen: func(string) (net.Listener, error) { return nil, errors.New("no port") }, Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("no way") },
			SyncAddress: "m1:1", RaftAddress: "m1:2"}
		for name, edit := range map[string]func(*Config){
			"Dir": func(c *Config) { c.Dir = "" }, "CA": func(c *Config) { c.CA = nil }, "Listen": func(c *Config) { c.Listen = nil },
			"SyncAddress": func(c *Config) { c.SyncAddress = "" }, "no port": func(*Config) {},
			"replica": func(c *Config) {
				c.Node = r.sign(auth.Identity{Cluster: "c1", Role: auth.RoleReplica, Site: "hq", Node: 1})
			},
		} {
			c := good
			edit(&c)
			if _, err := Open(c); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestMetrics_AreWellNamed(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	m.conflicts.WithLabelValues("account", "conflict").Inc()
	m.ack.WithLabelValues("cluster").Observe(0.1)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "tradepost_") || f.GetHelp() == "" {
			t.Errorf("metric %q lacks its prefix or help", f.GetName())
		}
	}
}

func TestPush_AFullSubmissionFitsAnEntry(t *testing.T) {
	for _, size := range []int{39, 1000, crm.MaxMutation} {
		var mutations [][]byte
		for room := session.Room; room >= size+session.RoomHead; room -= size + session.RoomHead {
			mutations = append(mutations, make([]byte, size))
		}
		e := PushOf(session.Submission{Node: 1<<32 - 1, Incarnation: 1<<32 - 1, OffsetMillis: -maxMillis, Mutations: mutations}, maxMillis)
		if _, err := EncodeEntry(e); err != nil {
			t.Errorf("%d mutations of %d bytes: %v", len(mutations), size, err)
		}
	}
}
