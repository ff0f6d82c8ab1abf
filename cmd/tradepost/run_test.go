package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// tradepost runs a command in memory against the desk, nil for none.
func tradepost(tb testing.TB, d *desk, stdin string, args ...string) result {
	tb.Helper()
	return runIn(tb, d, nil, stdin, args...)
}

func runIn(tb testing.TB, d *desk, edit func(*world), stdin string, args ...string) result {
	tb.Helper()
	var out, errs bytes.Buffer
	env := map[string]string{"TRADEPOST_DIR": "nowhere"}
	if d != nil {
		env["TRADEPOST_ADDR"], env["TRADEPOST_TOKEN_FILE"] = d.url, d.token
	}
	w := &world{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs, now: func() time.Time { return noon.Add(time.Minute) },
		lookup:   func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		open:     func(name string) (file, error) { return os.Open(name) },
		create:   func(name string) (file, error) { return os.Create(name) },
		extend:   func(name string) (file, error) { return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600) },
		readFile: os.ReadFile, rename: os.Rename, remove: os.Remove, exit: func(int) { tb.Error("the command ended the process") },
	}
	if edit != nil {
		edit(w)
	}
	code := run(context.Background(), w, args)
	return result{code, out.String(), errs.String()}
}

// ok demands that a command succeeded, and returns its output.
func ok(tb testing.TB, d *desk, args ...string) string {
	tb.Helper()
	r := tradepost(tb, d, "", args...)
	if r.code != exitOK {
		tb.Fatalf("tradepost %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}
