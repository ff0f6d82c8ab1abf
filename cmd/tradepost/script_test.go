package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tradepost-crm/tradepost/httpapi"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tradepost": func() { os.Exit(mainCode()) }})
}

// TestScripts runs real nodes as processes.
func TestScripts(t *testing.T) {
	data, err := filepath.Abs(shared)
	must(t, err)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SHARED", data)
			for _, name := range []string{"HTTP1", "SYNC1", "RAFT1", "HTTP2"} {
				addr, err := freeAddress()
				if err != nil {
					return err
				}
				e.Setenv(name, addr)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ready": ready},
	})
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// ready waits until the node at an address can serve and holds an entity:
// ready ADDRESS TOKEN-FILE ENTITY.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ready ADDRESS TOKEN-FILE ENTITY")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		api := &httpapi.Client{BaseURL: "http://" + args[0], HTTP: &http.Client{Timeout: time.Second}}
		c := &cli{world: &world{readFile: os.ReadFile}, tokenFile: ts.MkAbs(args[1])}
		var err error
		if api.Token, err = c.token(); err == nil {
			err = api.Ready(ctx)
		}
		if err == nil {
			if _, _, err = entityOf(ctx, api, args[2]); err == nil {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s is not ready: %v", args[0], err)
		}
	}
}
