package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
)

// codesOf returns the constants of type Code that a package declares.
func codesOf(t *testing.T, dir, typeName string) map[string]crm.Code {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	must(t, err)
	out := map[string]crm.Code{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		must(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 || len(v.Names) != 1 || !strings.HasPrefix(v.Names[0].Name, "Code") || typeString(v.Type) != typeName {
				return true
			}
			lit, ok := v.Values[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			s, err := strconv.Unquote(lit.Value)
			must(t, err)
			out[v.Names[0].Name] = crm.Code(s)
			return true
		})
	}
	return out
}

func typeString(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return typeString(x.X) + "." + x.Sel.Name
	}
	return ""
}

func TestEveryCodeHasAnExitCode(t *testing.T) {
	all := codesOf(t, "../../crm", "Code")
	for name, code := range codesOf(t, "../../httpapi", "crm.Code") {
		all[name] = code
	}
	if len(all) < 25 {
		t.Fatalf("only %d codes were found", len(all))
	}
	for name, code := range all {
		if _, ok := exitCodes[code]; !ok {
			t.Errorf("%s (%s) has no exit code", name, code)
		}
		if got := exitCode(fmt.Errorf("wrapped: %w", &crm.Error{Code: code})); got != exitCodes[code] {
			t.Errorf("%s: exit %d, want %d", code, got, exitCodes[code])
		}
	}
}

func TestExitCodes(t *testing.T) {
	unreachable := &crm.Error{Code: crm.CodeUnavailable, Err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}}
	slow := &crm.Error{Code: crm.CodeUnavailable, Err: &url.Error{Op: "Get", Err: context.DeadlineExceeded}}
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("a bug"), exitFailed},
		{attention(true), exitAttention},
		{attention(false), exitOK},
		{usage("--flag", "wrong"), exitUsage},
		{&auth.Error{Code: auth.CodeJoinStringDamaged, Msg: "mistyped"}, exitUsage},
		{&auth.Error{Code: auth.CodeCertExpired, Msg: "last year"}, exitFailed},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, exitFailed}, // an errno is a net.Error too
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, exitUsage},
		{unreachable, exitUnavailable},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, exitUnavailable},
		{&crm.Error{Code: crm.CodeNoLeader}, exitUnavailable},
		{slow, exitDeadline},
		{context.DeadlineExceeded, exitDeadline},
		{context.Canceled, exitDeadline},
		{&crm.Error{Code: crm.CodeTimeout}, exitDeadline},
		{&crm.Error{Code: crm.CodeUnauthorized}, exitDenied},
		{&crm.Error{Code: crm.CodeForbidden}, exitDenied},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit %d, want %d", c.err, got, c.want)
		}
	}
}

func TestCodesOfTheMachine(t *testing.T) {
	for _, c := range []struct {
		err  error
		want crm.Code
	}{
		{fmt.Errorf("init: %w", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}), crm.CodeDiskFull},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, crm.CodeInvalid},
		{&auth.Error{Code: auth.CodeCertMissing}, auth.CodeCertMissing},
		{&net.DNSError{Name: "hq1"}, crm.CodeUnavailable},
	} {
		if got := codeOf(c.err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
}

// TestOnlyMainTouchesTheProcess keeps the commands testable in memory.
func TestOnlyMainTouchesTheProcess(t *testing.T) {
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, name := range files {
		if name == "main.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		must(t, err)
		for _, imp := range f.Imports {
			if imp.Path.Value == `"os"` || imp.Path.Value == `"os/signal"` {
				t.Errorf("%s imports %s: reach the process through the world", name, imp.Path.Value)
			}
		}
	}
}

func TestUsageErrors(t *testing.T) {
	d := newDesk(t)
	file := filepath.Join(t.TempDir(), "a.csv")
	must(t, os.WriteFile(file, []byte("name,nonsense\nAcme,1\n"), 0o600))
	for _, c := range []struct {
		args, want string
	}{
		{"recrod list", "did you mean \"record\"?"},
		{"record lits account", "did you mean \"list\"?"},
		{"record list account --fliter x", "did you mean \"--filter\"?"},
		{"record list", "ENTITY: this argument is missing"},
		{"record list acount", "acount: no such entity"},
		{"record list account extra", "extra: one argument too many"},
		{"record list account --limit 0", "--limit: 0 is not 1 or more"},
		{"record list account --limit many", "invalid argument"},
		{"record list account --filter name=", "filter 1:5"},
		{"record list account -o xml", `--output: "xml" is not table, json or yaml`},
		{"record list account --timeout -1s", "--timeout"},
		{"record list account --token-file /does/not/exist", "--token-file"},
		{"record get account nonsense", "nonsense"},
		{"record create account", "FIELD=VALUE"},
		{"record create account name", "want FIELD=VALUE"},
		{"record create account naem=Acme", "did you mean \"name\"?"},
		{"record create account name=Acme name=Bolt", "name is given twice"},
		{`record create account --json {"name":"Acme"}`, "name a file"},
		{"record list account --token-file " + file, "holds no token"},
		{"report order --limit -1", "--limit"},
		{"search acme --limit 0", "--limit"},
		{"search acme --limit 101", "--limit"},
		{"node remove seven", "number of a node"},
		{"node remove 7", "--yes"},
		{"node remove 7 --yes", "no such node"},
		{"record create account created_at=2026-01-01", "set by the system"},
		{"record create account billing_address.town=Oslo", `no part "town"`},
		{"record create account name=Acme --wait forever", "--wait"},
		{"record create account name=Acme parent=ACME", "no account whose external_id"},
		{"record create account name=Acme --json -", "not both"},
		{"record delete account 01890f3e-7c5a-7d2b-8e4f-0123456789ab", "--yes"},
		{"territory revoke lisbon iberia", "--yes"},
		{"territory grant nowhere iberia", "iberia: no such territory"},
		{"conflict resolve 01890f3e-7c5a-7d2b-8e4f-0123456789ab --take losst", "did you mean \"lost\"?"},
		{"import account " + file, `--map "nonsense=field"`},
		{"import account " + file + " --map nonsens=name", "did you mean \"nonsense\"?"},
		{"import account " + file + " --map nonsense=naem", "did you mean \"name\"?"},
		{"import account " + file + " --map nonsense=name", "both mean name"},
		{"import account " + file + " --map nonsense=parent.naem", "did you mean \"name\"?"},
		{"import account " + file + " --map nonsense=billing_address.town", "no part"},
		{"import account " + file + " --map nonsense", "Header=field"},
		{"import account " + file + " --ignore-unmapped --mode replace", "--mode"},
		{"import account " + file + " --ignore-unmapped --mode update", "--key"},
		{"import account " + file + " --ignore-unmapped --key name", "not unique"},
		{"import account " + file + " --ignore-unmapped --currency euro", "ISO 4217"},
		{"import account " + file + " --ignore-unmapped --encoding klingon", "no encoding known"},
		{"import account " + file + " --ignore-unmapped --delimiter ;;", "--delimiter"},
		{"import account " + file + " --ignore-unmapped --resume", "--resume"},
		{"import account " + file + " --ignore-unmapped --resume --dry-run", "--resume"},
		{"import account /does/not/exist.csv", "no such file"},
		{"export account -o yaml", "JSON lines"},
		{"export account --fields naem", "did you mean \"name\"?"},
		{"export account --safe --raw", "safe raw"},
		{"report order --measure sum(nonsense)", "nonsense"},
		{"token create", "--site"},
		{"token create --site lisbon --role clerk", "role"},
		{"init", "--site"},
		{"dev --sites 0", "--sites"},
		{"init --site Head_Office!", "site"},
		{"init --site hq --preset lan", "preset"},
		{"init --site hq --http nonsense", "listen.http"},
		{"init --site hq --config /does/not/exist.yaml", "exist.yaml"},
		{"join", "JOINSTRING"},
		{"join tpj1.nonsense", "join"},
		{"join x --file y", "twice"},
		{"join x --role clerk", "--role"},
		{"serve --dir /does/not/exist", "no node lives here"},
		{"check --dir /does/not/exist", "no node lives here"},
		{"wan cut", "SITE: this argument is missing"},
	} {
		r := tradepost(t, d, "", strings.Fields(c.args)...)
		lines := strings.Split(r.stderr, "\n")
		if r.code != exitUsage && r.code != exitFailed {
			t.Errorf("tradepost %s: exit %d\n%s", c.args, r.code, r.stderr)
		}
		if !strings.HasPrefix(lines[0], "tradepost: ") || !strings.HasSuffix(lines[0], "]") || !strings.Contains(lines[0], c.want) {
			t.Errorf("tradepost %s: want %q in one line, got\n%s", c.args, c.want, r.stderr)
		}
		if r.stdout != "" {
			t.Errorf("tradepost %s: data beside an error:\n%s", c.args, r.stdout)
		}
	}
}

func TestUnreachable(t *testing.T) {
	r := tradepost(t, nil, "", "status", "--addr", "127.0.0.1:1")
	if r.code != exitUnavailable || !strings.Contains(r.stderr, "[unavailable]") || !strings.Contains(r.stderr, "TRADEPOST_ADDR") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if strings.Count(r.stderr, "is it running") != 1 {
		t.Errorf("told twice:\n%s", r.stderr)
	}
	d := newDesk(t)
	d.failAt = d.commits + 1
	if r := tradepost(t, d, "", "record", "create", "account", "name=Acme"); r.code != exitUnavailable || strings.Contains(r.stderr, "TRADEPOST_ADDR") {
		t.Errorf("a node that answers is told from one that does not: exit %d\n%s", r.code, r.stderr)
	}
	if r := tradepost(t, d, "", "record", "list", "account", "--filter", strings.Repeat("true || ", 20_000)+"true"); r.code != exitFailed || !strings.Contains(r.stderr, "[too_large]") {
		t.Errorf("a filter that no request carries: exit %d\n%s", r.code, r.stderr)
	}
	r = runIn(t, nil, nil, "", "status", "--addr", d.url)
	if r.code != exitDenied || !strings.Contains(r.stderr, "--token-file") {
		t.Errorf("without a token: exit %d\n%s", r.code, r.stderr)
	}
	if r := tradepost(t, d, "", "status", "--timeout", "1ns"); r.code != exitDeadline {
		t.Errorf("a passed deadline: exit %d\n%s", r.code, r.stderr)
	}
}
