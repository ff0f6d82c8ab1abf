package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

var quiet = Env{Logger: slog.New(slog.DiscardHandler), Version: "v1-test"}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	must(tb, l.Close())
	return l.Addr().String()
}

// A running is a node that runs until stop.
type running struct {
	*Node
	api  *httpapi.Client
	stop func()
}

func run(t *testing.T, s Settings) *running {
	t.Helper()
	n, err := Open(s, quiet)
	must(t, err)
	token, err := n.AdminToken()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- errors.Join(n.Run(ctx), n.Close()) }()
	r := &running{Node: n, api: &httpapi.Client{BaseURL: "http://" + n.HTTPAddr(), Token: token}}
	var stopped bool
	r.stop = func() {
		if cancel(); !stopped {
			stopped = true
			must(t, <-done)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// eventually tries until fn returns nil.
func eventually(t *testing.T, fn func() error) {
	t.Helper()
	tick, limit := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

func settings(t *testing.T, dir string) Settings {
	t.Helper()
	s := DefaultSettings()
	s.Dir = dir
	s.Listen = Addresses{HTTP: freeAddress(t), Sync: freeAddress(t), Raft: freeAddress(t)}
	return s
}

// newPair runs a master and a branch's replica that is connected to it.
func newPair(t *testing.T) (master, replica *running) {
	t.Helper()
	ctx := t.Context()
	ms := settings(t, filepath.Join(t.TempDir(), "hq"))
	_, err := Init(ctx, InitOptions{Settings: ms, Site: "hq"}, quiet)
	must(t, err)
	master = run(t, ms)
	eventually(t, func() error {
		_, err := master.api.Create(ctx, "territory", httpapi.Fields{"code": "iberia", "name": "Iberia"}, 0)
		return err
	})
	_, err = master.api.Create(ctx, "site", httpapi.Fields{"name": "lisbon", "territories": []string{"iberia"}, "home_territory": "iberia"}, 0)
	must(t, err)
	token, err := master.api.CreateToken(ctx, "lisbon", "replica", time.Hour)
	must(t, err)
	rs := settings(t, filepath.Join(t.TempDir(), "lisbon"))
	_, err = Join(ctx, rs, auth.RoleReplica, token.Token, quiet)
	must(t, err)
	replica = run(t, rs)
	eventually(t, func() error {
		_, err := replica.api.Create(ctx, "account", httpapi.Fields{"name": "Acme"}, 0)
		return err
	})
	eventually(t, func() error {
		var s Status
		if err := replica.api.Status(ctx, &s); err != nil || !s.Connected || s.Outbox.Entries > 0 || s.Verified == 0 {
			return errors.Join(err, errors.New("the replica's edit is not decided and verified"))
		}
		return nil
	})
	return master, replica
}

func TestPair(t *testing.T) {
	master, replica := newPair(t)
	t.Run("Metrics", func(t *testing.T) {
		lintMetrics(t, master, "tradepost_raft_is_leader", "tradepost_raft_commit_duration_seconds", "tradepost_replication_sessions", "tradepost_conflict_unresolved", "tradepost_store_size_bytes")
		lintMetrics(t, replica, "tradepost_outbox_depth", "tradepost_outbox_oldest_age_seconds", "tradepost_replication_lag_seconds", "tradepost_replication_lag_entries",
			"tradepost_write_visible_seconds", "tradepost_wan_rtt_seconds", "tradepost_state_hash_mismatch_total")
	})
	t.Run("Status", func(t *testing.T) { testStatus(t, master, replica) })
	t.Run("Nodes", func(t *testing.T) { testNodes(t, replica) })
	t.Run("Unauthorized", func(t *testing.T) { testUnauthorized(t, replica) })
	replica.stop()
	master.stop()
	t.Run("CheckDir", func(t *testing.T) { testCheckDir(t, master.set.Dir, replica.set.Dir) })
	t.Run("WrongFiles", func(t *testing.T) { testWrongFiles(t, master.set, replica.set) })
}

// lintMetrics scrapes a node and judges the names of its metrics.
func lintMetrics(t *testing.T, n *running, names ...string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", n.api.BaseURL+"/metrics", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+n.api.Token)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	problems, err := promlint.New(strings.NewReader(string(body))).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s: %s", n.id.Role, p.Metric, p.Text)
	}
	var seen []string
	for line := range strings.Lines(string(body)) {
		name, ok := strings.CutPrefix(line, "# TYPE ")
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, " ")
		seen = append(seen, name)
		if !strings.HasPrefix(name, "tradepost_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s: %s has not the prefix tradepost_", n.id.Role, name)
		}
	}
	names = append(names, "tradepost_build_info", "tradepost_http_request_duration_seconds", "tradepost_query_duration_seconds", "tradepost_write_ack_duration_seconds",
		"tradepost_store_commit_duration_seconds", "tradepost_replication_applied_index")
	for _, name := range names {
		if !slices.Contains(seen, name) {
			t.Errorf("%s: no %s", n.id.Role, name)
		}
	}
}

func testStatus(t *testing.T, master, replica *running) {
	var m, r Status
	must(t, master.api.Status(t.Context(), &m))
	must(t, replica.api.Status(t.Context(), &r))
	if m.Role != "master" || m.ReplicaStatus != nil || !m.Ready || !m.Leads || m.Store.Bytes == 0 || m.Version != "v1-test" {
		t.Errorf("master %+v", m)
	}
	if r.Role != "replica" || r.MasterStatus != nil || !r.Ready || r.Seq != 1 || r.Decided != 1 || r.Site != "lisbon" || r.Cluster != m.Cluster || r.Cursor == 0 {
		t.Errorf("replica %+v", r)
	}
}

// testNodes: without gossip a replica knows its own master, and says what it does
// not know.
func testNodes(t *testing.T, replica *running) {
	list, err := replica.api.Nodes(t.Context())
	must(t, err)
	if len(list) != 2 || list[0].Self || list[0].State != "alive" || list[0].Since != nil || !list[1].Self || list[1].RTTMillis != 0 || list[1].State != "" {
		t.Errorf("%+v", list)
	}
}

// testUnauthorized: whoever is refused is told what is wrong with the token.
func testUnauthorized(t *testing.T, n *running) {
	for token, want := range map[string]string{"": auth.CodeTokenMissing, "nonsense": auth.CodeTokenMalformed, "tp_" + strings.Repeat("A", 43): auth.CodeTokenUnknown} {
		api := &httpapi.Client{BaseURL: n.api.BaseURL, Token: token}
		_, err := api.Nodes(t.Context())
		e, ok := errors.AsType[*crm.Error](err)
		if !ok || e.Code != crm.CodeUnauthorized || e.Item != want {
			t.Errorf("token %q: %v", token, err)
		}
	}
}

func testCheckDir(t *testing.T, master, replica string) {
	for _, dir := range []string{master, replica} {
		found, err := CheckDir(t.Context(), dir, t.TempDir())
		if err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", dir, found, err)
		}
	}
	before := files(t, replica)
	// The site's name in node.json decides which territories may lie here: a
	// check of the store alone would not notice.
	other := clone(t, replica)
	must(t, writeIdentity(other, Identity{Cluster: mustIdentity(t, replica).Cluster, Role: auth.RoleReplica, Site: "hq", Node: mustIdentity(t, replica).Node}))
	found, err := CheckDir(t.Context(), other, t.TempDir())
	if err != nil || !slices.ContainsFunc(found, func(f httpapi.Finding) bool { return f.Kind == "base/live" && f.Item == "iberia" }) {
		t.Errorf("a territory that is not the site's: %v, %v", found, err)
	}
	for _, name := range []string{"base.db", "journal.db"} {
		gone := clone(t, replica)
		must(t, os.Remove(filepath.Join(gone, name)))
		if _, err := CheckDir(t.Context(), gone, t.TempDir()); crm.CodeOf(err) != crm.CodeCorrupt || !strings.Contains(err.Error(), name) {
			t.Errorf("%s missing: %v", name, err)
		}
		cut := clone(t, replica)
		must(t, os.Truncate(filepath.Join(cut, name), 20_000))
		if _, err := CheckDir(t.Context(), cut, t.TempDir()); crm.CodeOf(err) != crm.CodeCorrupt {
			t.Errorf("%s cut off: %v", name, err)
		}
		if after := files(t, cut); after[name] != 20_000 {
			t.Errorf("a check changed %s", name)
		}
	}
	if after := files(t, replica); len(after) != len(before) || after["base.db"] != before["base.db"] {
		t.Errorf("a check changed files: %v, before %v", after, before)
	}
}

// testWrongFiles: a directory whose files do not belong together is refused.
func testWrongFiles(t *testing.T, master, replica Settings) {
	for name, c := range map[string]struct {
		of   Settings
		edit func(dir string) error
		code crm.Code
		want string
	}{
		"IdentityOfOtherNode": {replica, func(dir string) error {
			id := mustIdentity(t, dir)
			id.Node = 77
			return writeIdentity(dir, id)
		}, crm.CodeInvalid, "files of two nodes"},
		"IdentityWithoutRole": {replica, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "node.json"), []byte(`{"format":1,"cluster":"c","site":"s","node":1}`), 0o600)
		}, crm.CodeCorrupt, "neither master nor replica"},
		"IdentityCutOff": {replica, func(dir string) error { return os.Truncate(filepath.Join(dir, "node.json"), 10) }, crm.CodeCorrupt, "put back the saved copy"},
		"FormatZero": {replica, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "node.json"), []byte(`{"format":0}`), 0o600)
		}, crm.CodeCorrupt, "format 0 does not exist"},
		"OtherRaftLog": {master, func(string) error { return nil }, crm.CodeInvalid, "--raft-log wal"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.of
			s.Dir = clone(t, s.Dir)
			if name == "OtherRaftLog" {
				s.RaftLog = "bbolt"
			}
			must(t, c.edit(s.Dir))
			before := files(t, s.Dir)
			n, err := Open(s, quiet)
			if err == nil {
				must(t, n.Close())
			}
			if crm.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q [%s]", err, c.want, c.code)
			}
			if after := files(t, s.Dir); len(after) != len(before) {
				t.Errorf("refused, and yet files were made: %v", after)
			}
		})
	}
}

func mustIdentity(t *testing.T, dir string) Identity {
	t.Helper()
	id, err := ReadIdentity(dir)
	must(t, err)
	return id
}

func clone(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "clone")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	for _, name := range []string{"node.key", "ca.key", "tokens.json", "admin.token"} { // CopyFS keeps no modes
		if path := filepath.Join(to, name); !missing(path) {
			must(t, os.Chmod(path, 0o600))
		}
	}
	return to
}

// files returns the sizes of a directory's files.
func files(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			name, _ := filepath.Rel(dir, path)
			out[name] = info.Size()
		}
		return err
	}))
	return out
}
