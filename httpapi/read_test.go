package httpapi

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/tradepost-crm/tradepost/crm"
)

func TestConsistency(t *testing.T) {
	s := newSite(t, nil)
	s.mustCreate(t, "account", Fields{"name": "Acme"})
	get := func(name, level, session string, status int, code string) {
		h := map[string]string{}
		if level != "" {
			h[headerConsistency] = level
		}
		if session != "" {
			h[headerSession] = session
		}
		s.run(t, scenario{name: name, method: "GET", path: "/api/v1/account", header: h, status: status, code: code})
	}
	get("local", "local", "", 200, "")
	get("leader", "leader", "", 200, "")
	get("bounded", "bounded;max=5s", "", 200, "")
	get("bounded with a blank", "bounded; max=5s", "", 200, "")
	get("session", "session", "1.1.3.1", 200, "")
	get("session by its mark", "", "1.1.3.1", 200, "")
	get("session ahead", "session", "1.99999.3.1", 503, "stale")
	get("session of an edit to come", "", "1.1.3.99999", 503, "stale")
	get("local in spite of a mark", "local", "1.99999.3.1", 200, "")
	for _, bad := range []string{"strong", "bounded", "bounded;max=", "bounded;max=0s", "bounded;max=-1s", "bounded;max=48h", "bounded;max=5", "local;max=5s", "session"} {
		get("bad "+bad, bad, "", 400, "invalid")
	}
	for _, bad := range []string{"1", "1.2.3", "1.2.3.4.5", "1.2.3.x", "1.2.99999999999.4", "-1.2.3.4", "1..3.4"} {
		get("bad mark "+bad, "", bad, 400, "invalid")
	}
	s.hold()
	s.mu.Lock()
	s.now = s.asOf.Add(time.Minute)
	s.noLeader = true
	s.mu.Unlock()
	get("too far behind", "bounded;max=5s", "", 503, "stale")
	get("far enough", "bounded;max=5m", "", 200, "")
	get("no leader", "leader", "", 503, "no_leader")
	s.run(t, scenario{name: "says how stale it is", method: "GET", path: "/api/v1/account", status: 200, wantHeader: map[string]string{headerStaleness: "60.250", headerConnected: "false"}})
	s.run(t, scenario{name: "counts", method: "GET", path: "/metrics", status: 200, want: []string{"tradepost_read_bounded_rejected_total 1\n"}})
}

func TestMetrics_Lint(t *testing.T) {
	s := newSite(t, nil)
	made := s.mustCreate(t, "account", Fields{"name": "Acme"})
	for _, path := range []string{"/api/v1/account", "/api/v1/account/" + made.Item.ID, "/api/v1/search?q=acme", "/api/v1/attention", "/api/v1/reports?entity=account", "/nowhere"} {
		s.send(t, scenario{method: "GET", path: path})
	}
	families, err := s.server.cfg.Registry.Gather()
	must(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	seen := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.Metric {
			if h := m.GetHistogram(); h != nil {
				seen[f.GetName()] += h.GetSampleCount()
				if h.GetSchema() == 0 && h.GetSampleCount() > 0 && len(h.GetPositiveSpan()) == 0 {
					t.Errorf("%s has no native histogram", f.GetName())
				}
			}
		}
	}
	for name, want := range map[string]uint64{"tradepost_http_request_duration_seconds": 7, "tradepost_http_request_size_bytes": 1, "tradepost_query_duration_seconds": 5,
		"tradepost_query_rows_scanned": 5, "tradepost_report_duration_seconds": 1, "tradepost_read_staleness_seconds": 6} {
		if seen[name] != want {
			t.Errorf("%s has %d samples, want %d", name, seen[name], want)
		}
	}
}

// Every code that package crm declares has a status, and an answer with it.
func TestProblem_EveryCode(t *testing.T) {
	codes := declaredCodes(t)
	if len(codes) < 28 {
		t.Fatalf("found %d codes only", len(codes))
	}
	for _, code := range append(codes, CodeMethod, CodeMediaType, "site_has_replica") {
		status, ok := statuses[code]
		if !ok {
			t.Errorf("%s has no status", code)
			continue
		}
		p := problemOf(&crm.Error{Code: code, Op: "op", Item: "item", Message: "message"})
		if p.Status != status || p.Code != code || p.Title == "" || p.Type != "/docs/errors#"+string(code) {
			t.Errorf("%s: %+v", code, p)
		}
		if code == crm.CodeInternal {
			if strings.Contains(p.Detail, "message") || p.Item != "" {
				t.Errorf("internal matters are told: %+v", p)
			}
			continue
		}
		back, ok := errors.AsType[*crm.Error](p.err())
		if !ok || *back != (crm.Error{Code: code, Op: "op", Item: "item", Message: "message"}) {
			t.Errorf("%s comes back as %+v", code, back)
		}
	}
}

func declaredCodes(t *testing.T) []crm.Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "crm", "error.go"), nil, 0)
	must(t, err)
	var out []crm.Code
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Code") {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			must(t, err)
			out = append(out, crm.Code(text))
		}
		return true
	})
	return out
}

// What is internal is logged, not told.
func TestFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		node   func(Node) Node
		status int
		code   string
		after  bool
	}{
		"panic":     {func(n Node) Node { return panicky{n} }, 500, "internal", false},
		"plain":     {func(n Node) Node { return broken{n, errPlain} }, 500, "internal", false},
		"disk full": {func(n Node) Node { return broken{n, &crm.Error{Code: crm.CodeDiskFull, Message: "no room"}} }, 507, "disk_full", false},
		"no data":   {func(n Node) Node { return broken{n, &crm.Error{Code: crm.CodeUnavailable, Message: "no data yet"}} }, 503, "unavailable", true},
		"corrupt":   {func(n Node) Node { return broken{n, &crm.Error{Code: crm.CodeCorrupt, Message: "checksum"}} }, 500, "corrupt", false},
	} {
		var log strings.Builder
		s := newSite(t, func(c *Config) { c.Node, c.Logger = tc.node(c.Node), logTo(&log) })
		resp, body := s.send(t, scenario{method: "GET", path: "/api/v1/account"})
		if resp.StatusCode != tc.status || strings.Contains(body, "/secret") || strings.Contains(body, "boom") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		checkProblem(t, resp, body, tc.code)
		if got := resp.Header.Get("Retry-After") != ""; got != tc.after {
			t.Errorf("%s: Retry-After %v", name, got)
		}
		if _, body := s.send(t, scenario{method: "GET", path: "/metrics"}); !strings.Contains(body, "tradepost_http_requests_in_flight 1\n") {
			t.Errorf("%s: requests stay in flight", name)
		}
		if (tc.status == 500) != (log.Len() > 0) {
			t.Errorf("%s: log %q", name, log.String())
		}
	}
}

func TestNew_RefusesHalfAConfig(t *testing.T) {
	for _, cut := range []func(*Config){
		func(c *Config) { c.Node = nil }, func(c *Config) { c.Role = "boss" }, func(c *Config) { c.Authenticate = nil },
		func(c *Config) { c.Status = nil }, func(c *Config) { c.Registry = nil },
	} {
		cfg := newSite(t, nil).server.cfg
		cut(&cfg)
		if _, err := New(cfg); err == nil {
			t.Error("a Config that lacks something is taken")
		}
	}
}

// Point reads cost little more than a bare handler. Compare the two with
// benchstat; the budget is a ratio of 0.6.
func BenchmarkPointRead(b *testing.B) {
	s := newSite(b, nil)
	made := s.mustCreate(b, "account", Fields{"name": "Acme", "rating": "hot", "phone": "+351 21 000 000", "tags": []string{"a", "b"}, "annual_revenue": "1000.50 EUR", "number_of_employees": 12,
		"website": "https://example.com", "email": "x@example.com", "description": "A customer of ours", "billing_address": map[string]string{"city": "Lisboa", "country": "PT"}})
	b.Run("tradepost", func(b *testing.B) { fetch(b, s.url+"/api/v1/account/"+made.Item.ID, s.token) })
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(made.Record)
	}))
	defer bare.Close()
	b.Run("bare", func(b *testing.B) { fetch(b, bare.URL, "") })
	b.Run("handler", func(b *testing.B) {
		r := httptest.NewRequest("GET", "/api/v1/account/"+made.Item.ID, nil)
		r.Header.Set("Authorization", "Bearer "+s.token)
		b.ReportAllocs()
		for b.Loop() {
			s.server.ServeHTTP(discard{http.Header{}}, r)
		}
	})
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
