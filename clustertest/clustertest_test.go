package clustertest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

var (
	update = flag.Bool("update", false, "write what the scripts print into them")
	seed   = flag.Uint64("seed", 1, "first seed of the random histories")
	seeds  = flag.Int("seeds", 5, "how many random histories are played")
)

// inBubble calls play in virtual time, with a context that ends with it.
func inBubble(t *testing.T, play func(t *testing.T, ctx context.Context)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		play(t, ctx)
	})
}

func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("scripts: %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			var got string
			inBubble(t, func(t *testing.T, ctx context.Context) {
				if got, err = Run(ctx, string(want), dir, 1); err != nil {
					t.Fatalf("%v after\n%s", err, got)
				}
			})
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", path, diff)
			}
		})
	}
}

func TestHistories(t *testing.T) {
	for i := range *seeds {
		n := *seed + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) {
			dir := t.TempDir()
			inBubble(t, func(t *testing.T, ctx context.Context) {
				tale, err := History(ctx, dir, n)
				t.Logf("%+v", tale)
				if err != nil {
					t.Fatalf("%v\nplay it again with -seed %d -seeds 1", err, n)
				}
				if tale.Acked == 0 {
					t.Error("no edit was acknowledged")
				}
			})
		})
	}
}

func TestScript_BadLines(t *testing.T) {
	for script, want := range map[string]string{
		"frobnicate":        "line 1: no command \"frobnicate\"",
		"\n# a\nshow":       "line 3: want show NODE RECORD FIELD …",
		"settle":            "line 1: there is no cluster yet",
		`list lisbon "acc`:  "line 1: a quote is not closed",
		"settle \"a\" b \"": "line 1: a quote is not closed",
	} {
		if _, err := Run(t.Context(), script, t.TempDir(), 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("script %q: error %v, want %s", script, err, want)
		}
	}
}
