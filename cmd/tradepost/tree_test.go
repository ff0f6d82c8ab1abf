package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// walk calls fn with every command of the tree but cobra's own.
func walk(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, k := range cmd.Commands() {
		if !k.Hidden && k.Name() != "completion" {
			walk(k, fn)
		}
	}
}

func tree() *cobra.Command {
	return (&cli{world: &world{lookup: func(string) (string, bool) { return "", false }}}).root()
}

// TestHelp keeps what every command says of itself, so that a change of the
// command line is seen in review.
func TestHelp(t *testing.T) {
	walk(tree(), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())
		got := ok(t, nil, append(path[1:], "--help")...)
		golden := filepath.Join("testdata", "help", strings.Join(path, "-")+".txt")
		if *update {
			must(t, os.MkdirAll(filepath.Dir(golden), 0o755))
			must(t, os.WriteFile(golden, []byte(got), 0o644))
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Errorf("%s has no golden help: go test -run TestHelp -update", cmd.CommandPath())
			return
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s --help (go test -run TestHelp -update):\n%s", cmd.CommandPath(), diff)
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short help %q", cmd.CommandPath(), cmd.Short)
		}
	})
}

// TestTree holds the command tree: no verb comes or goes unseen.
func TestTree(t *testing.T) {
	var got []string
	walk(tree(), func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() || hasAnnotation(cmd) {
			got = append(got, strings.TrimPrefix(cmd.CommandPath(), "tradepost "))
		}
	})
	slices.Sort(got)
	want := strings.Split("backup,backup announce,backup verify,check,conflict list,conflict resolve,conflict show,dev,export,import,init,join,node list,node promote,node remove,"+
		"operator raft list-peers,operator raft remove-peer,operator raft transfer-leader,outbox list,promote,"+
		"record create,record delete,record get,record list,record restore,record update,report,restore,search,serve,site add,site list,status,"+
		"territory add,territory grant,territory list,territory revoke,token create,version,wan cut,wan heal,wan show", ",")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// newBusyDesk has one of everything that is listed or shown.
func newBusyDesk(t *testing.T) (d *desk, account, conflict string) {
	t.Helper()
	d = newDesk(t)
	ok(t, d, "territory", "add", "iberia", "--name", "Spain and Portugal")
	ok(t, d, "site", "add", "lisbon", "--city", "Lisbon", "--territories", "iberia", "--home", "iberia")
	var made writtenText
	must(t, json.Unmarshal([]byte(ok(t, d, "record", "create", "account", "name=Acme", "external_id=ACME", "phone=+351 21 000 0000", "-o", "json")), &made))
	account = made.Record.ID
	seen := made.Record.Token
	ok(t, d, "record", "update", "account", account, "phone=+351 21 111 1111")
	d.clash(account, seen)
	var list listing[httpapi.Attention]
	must(t, json.Unmarshal([]byte(ok(t, d, "conflict", "list", "-o", "json")), &list))
	if len(list.Items) != 1 {
		t.Fatalf("%d conflicts, want 1", len(list.Items))
	}
	return d, account, list.Items[0].ID
}

// clash edits the phone at another node whose author saw an older record.
func (d *desk) clash(account, seen string) {
	id, err := crm.ParseRecordID(account)
	must(d.tb, err)
	token, err := crm.ParseToken(seen)
	must(d.tb, err)
	e := d.schema().Entity("account")
	d.far(crm.Request{Actor: "bo", Intent: "account.patch", Ops: []crm.Op{{
		Kind: crm.OpPatch, Entity: e.ID, Record: id, Seen: token,
		Cells: []crm.Input{{Field: e.Field("phone").ID, Value: crm.PhoneValue("+351 21 222 2222")}},
	}}})
}

func (d *desk) schema() *crm.Schema {
	api := &httpapi.Client{BaseURL: d.url, Token: strings.TrimSpace(string(readFile(d.tb, d.token)))}
	s, err := api.Schema(context.Background())
	must(d.tb, err)
	return s
}

func readFile(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(name)
	must(tb, err)
	return b
}

// TestEveryListHasJSON walks the tree: whatever lists, shows or tells a state
// does so as JSON with a schema_version, and as YAML.
func TestEveryListHasJSON(t *testing.T) {
	d, account, conflict := newBusyDesk(t)
	args := map[string][]string{
		"record list": {"account"}, "record get": {"account", account}, "conflict show": {conflict},
		"report": {"account", "--group", "name"}, "search": {"acme"},
	}
	shows := []string{"list", "show", "get", "status", "check", "version", "report", "search", "list-peers"}
	count := 0
	walk(tree(), func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "tradepost ")
		if cmd.HasSubCommands() || !slices.Contains(shows, cmd.Name()) {
			return
		}
		count++
		line := append(strings.Fields(path), args[path]...)
		var v map[string]any
		out := ok(t, d, append(line, "-o", "json")...)
		if err := json.Unmarshal([]byte(out), &v); err != nil || v["schema_version"] != float64(schemaVersion) {
			t.Errorf("%s -o json: %v\n%s", path, err, out)
		}
		out = ok(t, d, append(line, "-o", "yaml")...)
		if err := yaml.Unmarshal([]byte(out), &v); err != nil || !strings.HasPrefix(out, "schema_version: 1\n") {
			t.Errorf("%s -o yaml: %v\n%s", path, err, out)
		}
		if out := ok(t, d, line...); strings.TrimSpace(out) == "" || strings.Contains(out, "{") {
			t.Errorf("%s as a table:\n%s", path, out)
		}
	})
	if count < 14 {
		t.Errorf("only %d commands show something", count)
	}
}
