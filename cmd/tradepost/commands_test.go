package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/node"
)

// wants demands pieces of an output.
func wants(t *testing.T, out string, pieces ...string) {
	t.Helper()
	for _, p := range pieces {
		if !strings.Contains(out, p) {
			t.Errorf("no %q in\n%s", p, out)
		}
	}
}

func TestRecordLife(t *testing.T) {
	d := newDesk(t)
	var w writtenText
	must(t, json.Unmarshal([]byte(ok(t, d, "record", "create", "account", "name=Acme", "billing_address.city=Oslo", "tags=a,b", "external_id=ACME", "-o", "json")), &w))
	id, token := w.Record.ID, w.Record.Token
	if w.Saved != "everywhere" || w.Outcome.Kind != "accepted" || w.Record.Text("tags") != "a;b" {
		t.Errorf("%+v", w)
	}
	ok(t, d, "record", "update", "account", id, "billing_address.country=Norway", "tags=", "number_of_employees=7", "--seen", token)
	if r := tradepost(t, d, "", "record", "update", "account", id, "tags=c", "--seen", "1204.0"); r.code != exitUsage || !strings.Contains(r.stderr, "earlier release") {
		t.Errorf("a token of an earlier release: exit %d\n%s", r.code, r.stderr)
	}
	out := ok(t, d, "record", "get", "account", id)
	wants(t, out, "Acme", "Oslo, Norway", "token")
	if strings.Contains(out, "a;b") {
		t.Errorf("tags= does not clear:\n%s", out)
	}
	ok(t, d, "record", "create", "contact", "last_name=Nansen", "account.external_id=ACME")
	wants(t, ok(t, d, "record", "list", "contact"), "Nansen", "Acme")
	wants(t, ok(t, d, "record", "list", "account", "--filter", `billing_address.city == "oslo"`, "--fields", "name"), "ID", "NAME", "Acme")
	r := tradepost(t, d, `{"name":"From JSON","tags":{"add":["x"]}}`, "record", "update", "account", id, "--json", "-")
	if r.code != exitOK {
		t.Errorf("--json: exit %d\n%s", r.code, r.stderr)
	}
	wants(t, ok(t, d, "search", "from", "--entity", "account"), "From JSON")
	ok(t, d, "record", "delete", "account", id, "--yes", "--wait", "decided")
	if r := tradepost(t, d, "", "record", "get", "account", id); r.code != exitFailed || !strings.Contains(r.stderr, "[deleted]") {
		t.Errorf("a deleted record: exit %d\n%s", r.code, r.stderr)
	}
	ok(t, d, "record", "restore", "account", id)
	wants(t, ok(t, d, "record", "get", "account", id), "From JSON")
}

func TestRecordListSaysThatThereIsMore(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"A", "B", "C"} {
		ok(t, d, "record", "create", "account", "name="+name)
	}
	r := tradepost(t, d, "", "record", "list", "account", "--limit", "2", "--fields", "name")
	if strings.Count(r.stdout, "\n") != 3 || !strings.Contains(r.stderr, "--all") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
	r = tradepost(t, d, "", "record", "list", "account", "--all", "--limit", "2", "--fields", "name")
	if strings.Count(r.stdout, "\n") != 4 || r.stderr != "" {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
}

func TestConfirm(t *testing.T) {
	d := newDesk(t)
	var w writtenText
	must(t, json.Unmarshal([]byte(ok(t, d, "record", "create", "account", "name=Acme", "-o", "json")), &w))
	atTerminal := func(w *world) { w.stdinTTY = true }
	if r := runIn(t, d, atTerminal, "n\n", "record", "delete", "account", w.Record.ID); r.code != exitUsage || !strings.Contains(r.stderr, "[y/N]") {
		t.Errorf("no: exit %d\n%s", r.code, r.stderr)
	}
	if r := runIn(t, d, atTerminal, "y\n", "record", "delete", "account", w.Record.ID, "--no-input"); r.code != exitUsage {
		t.Errorf("--no-input: exit %d", r.code)
	}
	if r := runIn(t, d, atTerminal, "y\n", "record", "delete", "account", w.Record.ID); r.code != exitOK {
		t.Errorf("yes: exit %d\n%s", r.code, r.stderr)
	}
}

func TestConflicts(t *testing.T) {
	d, account, conflict := newBusyDesk(t)
	wants(t, ok(t, d, "record", "get", "account", account), "+351 21 222 2222", conflict)
	wants(t, ok(t, d, "conflict", "show", conflict), "account Acme", "field    Phone (phone)", "stands   +351 21 222 2222, by bo, at node 9, 21 November 2026",
		"lost     +351 21 111 1111, by ana, at ", "--take lost|kept|dismiss")
	if r := tradepost(t, d, "", "conflict", "list", "--detailed-exitcode"); r.code != exitAttention || r.stderr != "" {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	ok(t, d, "conflict", "resolve", conflict, "--take", "lost")
	wants(t, ok(t, d, "record", "get", "account", account), "+351 21 111 1111")
	ok(t, d, "conflict", "list", "--detailed-exitcode")
	wants(t, ok(t, d, "conflict", "list", "--status", "all"), conflict, "resolved lost")
	if r := tradepost(t, d, "", "conflict", "resolve", conflict, "--take", "lost"); r.code != exitFailed {
		t.Errorf("resolved twice: exit %d", r.code)
	}
}

func TestGrants(t *testing.T) {
	d, _, _ := newBusyDesk(t)
	ok(t, d, "territory", "add", "nordic")
	ok(t, d, "territory", "grant", "lisbon", "nordic")
	wants(t, ok(t, d, "site", "list"), "iberia;nordic", "Lisbon")
	ok(t, d, "territory", "revoke", "lisbon", "iberia", "--yes")
	if out := ok(t, d, "site", "list"); strings.Contains(out, "iberia;") {
		t.Errorf("revoked, and still there:\n%s", out)
	}
	wants(t, ok(t, d, "territory", "list"), "Spain and Portugal")
	if r := tradepost(t, d, "", "territory", "grant", "porto", "iberia"); r.code != exitFailed || !strings.Contains(r.stderr, "porto: no such site") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}

func TestOperatorCommands(t *testing.T) {
	d := newDesk(t)
	if out := ok(t, d, "token", "create", "--site", "lisbon"); out != "tpj1.secret\n" {
		t.Errorf("not only the join string: %q", out)
	}
	wants(t, ok(t, d, "operator", "raft", "list-peers"), "10.0.0.1:7401", "voter")
	ok(t, d, "operator", "raft", "remove-peer", "2", "--yes")
	ok(t, d, "operator", "raft", "transfer-leader")
	ok(t, d, "wan", "cut", "tokyo")
	wants(t, ok(t, d, "wan", "show"), "255.5 ms", "cut")
	ok(t, d, "wan", "heal")
	wants(t, ok(t, d, "wan", "show"), "up")
	wants(t, ok(t, d, "status"), "ready", "yes", "replica 3 at lisbon", "80.0 ms")
	d.mu.Lock()
	d.unready = errors.New("no master was heard yet")
	d.mu.Unlock()
	r := tradepost(t, d, "", "status", "--detailed-exitcode")
	if r.code != exitAttention || !strings.Contains(r.stdout, "no: no master was heard yet") {
		t.Errorf("exit %d\n%s", r.code, r.stdout)
	}
	wants(t, ok(t, d, "outbox", "list"), "account.patch", "1m0s")
	wants(t, ok(t, d, "check"), "every invariant holds")
	wants(t, ok(t, d, "node", "list"), "lisbon", "unmeasured", "nothing")
}

func TestNodeRemove(t *testing.T) {
	d := newDesk(t) // which has a replica, node 1
	d.mustCommit(crm.Request{Actor: "system", Intent: "node.create", Ops: []crm.Op{{
		Kind: crm.OpCreate, Entity: crm.EntityNode, Record: crm.RecordID{8},
		Cells: []crm.Input{{Field: crm.NodeSite, Value: crm.TextValue("hq")}, {Field: crm.NodeRole, Value: crm.ChoiceValue("master")}, {Field: crm.NodeStatus, Value: crm.ChoiceValue("active")}},
	}}})
	ok(t, d, "node", "remove", "1", "--yes")
	wants(t, ok(t, d, "node", "list"), "removed")
	if r := tradepost(t, d, "", "node", "remove", "1", "--yes"); r.code != exitFailed || !strings.Contains(r.stderr, "removed already") {
		t.Errorf("twice: exit %d\n%s", r.code, r.stderr)
	}
	if r := tradepost(t, d, "", "node", "remove", "2", "--yes"); r.code != exitUsage || !strings.Contains(r.stderr, "remove-peer node-2") {
		t.Errorf("a master: exit %d\n%s", r.code, r.stderr)
	}
}

// TestStatusPage holds what a page of either role looks like.
func TestStatusPage(t *testing.T) {
	common := node.Status{Node: 2, Site: "hq", City: "London", Cluster: "tp-1", Version: "v1", Ready: true, Head: 587, AsOf: noon, LagSeconds: 1.25, Seq: 9}
	m, r := common, common
	m.Role, r.Role = "master", "replica"
	m.MasterStatus = &node.MasterStatus{Leader: 1, Sessions: 3, Raft: master.RaftStatus{State: "Follower", Term: "2", Last: "105", Applied: "104", Contact: "19ms"},
		Store: node.StoreStatus{Bytes: 34263040, Commits: 87, MeanCommitMillis: 32.6, MaxCommitMillis: 361.7}}
	r.Ready, r.NotReady = false, "the base is empty"
	r.ReplicaStatus = &node.ReplicaStatus{Master: "hq1:7400", Trouble: "session with hq1:7400: connection refused, and a long story of what was tried after that", Code: crm.CodeUnavailable,
		Cursor: 500, Verified: 480, Outbox: node.OutboxStatus{Entries: 2, Bytes: 2048, Oldest: noon.Add(-3 * time.Minute)}}
	bad := r
	bad.ReplicaStatus = &node.ReplicaStatus{Connected: true, Master: "hq1:7400", Cursor: 500, Verified: 480, Suspect: []crm.TerritoryID{1, 17}, SuspectSince: noon.Add(-90 * time.Second), SuspectBuckets: 3, Stuck: true,
		Repaired: 2, RepairedRecords: 5, Damage: "scrub: outbox: 0000000000000007: checksum does not match"}
	for golden, s := range map[string]node.Status{"status-master.txt": m, "status-replica.txt": r, "status-suspect.txt": bad} {
		var got bytes.Buffer
		statusGrid(s, noon).render(&got)
		path := filepath.Join("testdata", golden)
		if *update {
			must(t, os.WriteFile(path, got.Bytes(), 0o644))
		}
		if want := string(readFile(t, path)); got.String() != want {
			t.Errorf("%s (go test -run TestStatusPage -update):\n%s", golden, got.String())
		}
	}
}

// TestNextCommand: what was said of a node when it was made is said again when it
// is run, as its directory does not keep it.
func TestNextCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a node")
	r := tradepost(t, nil, "", "init", "--site", "hq", "--dir", dir, "--sync", "hq1.example:7400", "--city", "São Paulo", "--open-metrics")
	want := "Next: tradepost serve --dir '" + dir + "' --city 'São Paulo' --open-metrics --sync hq1.example:7400\n"
	if r.code != exitOK || !strings.HasSuffix(r.stderr, want) {
		t.Errorf("exit %d\n%s, want\n%s", r.code, r.stderr, want)
	}
}

func TestReportHasTotals(t *testing.T) {
	d := newDesk(t)
	counted(t, d, exitOK, "account", csvIn(t, "external_id,name\nA,Acme\nB,Bolt\n"))
	counted(t, d, exitOK, "order", csvIn(t, "external_id,order_date,freight,account\n1,2026-01-05,10 EUR,A\n2,2026-01-31,2.50 EUR,A\n3,2026-02-01,1 EUR,B\n"))
	out := ok(t, d, "report", "order", "--group", "order_date:month,account.name", "--measure", "count, sum(freight) as freight")
	wants(t, out, "2026-01", "12.50 EUR", "Acme", "total", "13.50 EUR")
}

// TestReportNamesLinks: people read titles, scripts get ids.
func TestReportNamesLinks(t *testing.T) {
	d := newDesk(t)
	counted(t, d, exitOK, "account", csvIn(t, "external_id,name\nA,Acme\n"))
	counted(t, d, exitOK, "order", csvIn(t, "external_id,order_date,freight,account\n1,2026-01-05,10 EUR,A\n"))
	wants(t, ok(t, d, "report", "order", "--group", "account"), "Acme")
	if out := ok(t, d, "report", "order", "--group", "account", "-o", "json"); strings.Contains(out, "Acme") {
		t.Errorf("a link that is no id:\n%s", out)
	}
}

// TestReportOfSeveralCurrencies has no line of totals, as there is nothing to add up.
func TestReportOfSeveralCurrencies(t *testing.T) {
	d := newDesk(t)
	counted(t, d, exitOK, "account", csvIn(t, "external_id,name\nA,Acme\n"))
	counted(t, d, exitOK, "order", csvIn(t, "external_id,order_date,freight,account\n1,2026-01-05,10 EUR,A\n2,2026-01-31,250 JPY,A\n"))
	out := ok(t, d, "report", "order", "--measure", "sum(freight) as freight")
	wants(t, out, "10.00 EUR", "250 JPY")
	if strings.Contains(out, "total") {
		t.Errorf("a total of nothing:\n%s", out)
	}
}

func TestMoneyText(t *testing.T) {
	for raw, want := range map[string]string{
		`{"amount":"1265793.0395","currency":"USD"}`: "1,265,793.04 USD",
		`{"amount":"1234567.5","currency":"JPY"}`:    "1,234,568 JPY",
		`{"amount":"-1234.5675","currency":"KWD"}`:   "-1,234.568 KWD",
		`{"amount":"-0.005","currency":"EUR"}`:       "-0.01 EUR",
		`{"amount":"999","currency":"EUR"}`:          "999.00 EUR",
		`{"amount":"5","currency":""}`:               "",
		`"5"`:                                        "", `null`: "", ``: "", `{"amount":"x","currency":"EUR"}`: "",
	} {
		if got, ok := moneyText(json.RawMessage(raw)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %t, want %q", raw, got, ok, want)
		}
	}
}

// What data holds must not steer the terminal that shows it.
func TestTablesAreInert(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mb": "a\ufffd[31mb", "a\nb\tc": "a b c", "\u202eevil": "\ufffdevil", "\u009b31m": "\ufffd31m", " é ": "é",
		strings.Repeat("x", 100): strings.Repeat("x", maxCell-1) + "…",
	} {
		if got := cell(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	d := newDesk(t)
	with := func(name, value string) func(*world) {
		return func(w *world) {
			old := w.lookup
			w.lookup = func(n string) (string, bool) {
				if n == name {
					return value, true
				}
				return old(n)
			}
		}
	}
	if r := runIn(t, d, with("TRADEPOST_OUTPUT", "json"), "", "version"); !strings.HasPrefix(r.stdout, "{") {
		t.Errorf("the environment is not heard: %s", r.stdout)
	}
	if r := runIn(t, d, with("TRADEPOST_OUTPUT", "json"), "", "version", "-o", "table"); strings.HasPrefix(r.stdout, "{") {
		t.Errorf("the environment beats the flag: %s", r.stdout)
	}
	if r := runIn(t, d, with("TRADEPOST_TIMEOUT", "soon"), "", "version"); r.code != exitUsage || !strings.Contains(r.stderr, "TRADEPOST_TIMEOUT") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	dir := t.TempDir()
	must(t, os.Rename(d.token, filepath.Join(dir, "admin.token")))
	noFile := func(w *world) {
		with("TRADEPOST_DIR", dir)(w)
		with("TRADEPOST_TOKEN_FILE", "")(w)
	}
	if r := runIn(t, d, noFile, "", "status"); r.code != exitOK {
		t.Errorf("admin.token is not found: exit %d\n%s", r.code, r.stderr)
	}
}

func TestCompletion(t *testing.T) {
	d, _, _ := newBusyDesk(t)
	for _, c := range []struct{ args, want string }{
		{"record list ac", "account"},
		{"record create account na", "name="},
		{"record update account x bill", "billing_address="},
		{"record list account --fields na", "name"},
		{"territory grant li", "lisbon"},
		{"territory grant lisbon ib", "iberia"},
		{"token create --site l", "lisbon"},
		{"import accou", "account"},
		{"record list account -o y", "yaml"},
		{"import account --mode up", "upsert"},
	} {
		out := ok(t, d, append([]string{"__complete"}, strings.Fields(c.args)...)...)
		if !strings.Contains(out, c.want+"\n") {
			t.Errorf("%s: no %s in\n%s", c.args, c.want, out)
		}
	}
	r := tradepost(t, nil, "", "__complete", "--addr", "127.0.0.1:1", "record", "list", "a")
	if r.code != exitOK || strings.Contains(r.stdout, "account") || strings.Contains(r.stderr, "tradepost:") {
		t.Errorf("without a node: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	wants(t, ok(t, nil, "completion", "bash"), "__start_tradepost")
}

func TestLookUpsQuoteWhatTheyAskFor(t *testing.T) {
	d := newDesk(t)
	hostile := "a\"b\\c\n<&>' || true"
	raw, err := json.Marshal(httpapi.Fields{"name": "Acme", "external_id": hostile})
	must(t, err)
	if r := tradepost(t, d, string(raw), "record", "create", "account", "--json", "-"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	ok(t, d, "record", "create", "contact", "last_name=Nansen", "account.external_id="+hostile)
	wants(t, ok(t, d, "record", "list", "contact"), "Nansen", "Acme")
}
