package mutanttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMutants prints a line a mutant: the table of docs/reliability.md.
func TestMutants(t *testing.T) {
	for _, m := range Mutants {
		t.Run(strings.ReplaceAll(m.Name, " ", "_"), func(t *testing.T) {
			start := time.Now()
			v, out, err := m.Run(t.Context(), root(t), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("mutant  %-44s %-8s by %s of %s in %.1f s\n", m.Name, v, m.Test, m.Package, time.Since(start).Seconds())
			switch v {
			case Survived:
				t.Errorf("%s does not notice it:\n%s", m.Test, out)
			case Skipped:
				t.Skipf("%s cannot run here:\n%s", m.Test, out)
			}
		})
	}
}

// TestMutants_PassagesAreThere is quick, so that whoever moves code learns at
// once which mutants must follow.
func TestMutants_PassagesAreThere(t *testing.T) {
	names := map[string]bool{}
	for _, m := range Mutants {
		if _, err := m.overlay(root(t), t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		if names[m.Name] || m.Old == m.New {
			t.Errorf("%s: its name is not its own, or it changes nothing", m.Name)
		}
		names[m.Name] = true
	}
}

func TestTable_IsInTheDocumentation(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), Table()) {
		t.Errorf("docs/reliability.md does not hold the table as it is now:\n%s", Table())
	}
}

func TestMutant_Judge(t *testing.T) {
	m := Mutant{Name: "x", Test: "TestX"}
	failed := errors.New("exit status 1")
	for _, c := range []struct {
		out  string
		err  error
		want Verdict
		bad  bool
	}{
		{"=== RUN   TestX\n--- FAIL: TestX (0.00s)\n", failed, Caught, false},
		{"=== RUN   TestX\npanic: boom\n", failed, Caught, false},
		{"=== RUN   TestX\n--- PASS: TestX (0.00s)\n", nil, Survived, false},
		{"=== RUN   TestX\n    x_test.go:1: no /dev/fuse\n--- SKIP: TestX (0.00s)\n", nil, Skipped, false},
		{"x.go:3: syntax error\nFAIL\n", failed, 0, true},
		{"testing: warning: no tests to run\n", nil, 0, true},
	} {
		got, err := m.judge([]byte(c.out), c.err)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q: %v, %v", c.out, got, err)
		}
	}
}
