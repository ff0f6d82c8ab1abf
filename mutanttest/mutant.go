package mutanttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A Mutant is one bug and the test that must find it.
type Mutant struct {
	Name    string
	File    string // from the repository's root
	Old     string // the passage, in the file exactly once
	New     string // what stands there in the mutant
	Package string // of the test, from the repository's root
	Test    string // name of the test
	Args    string // for the test binary, split at spaces
}

// Table returns the Markdown that docs/reliability.md shows of the mutants.
func Table() string {
	var b strings.Builder
	b.WriteString("| mutant | where | the test that must fail |\n|---|---|---|\n")
	for _, m := range Mutants {
		fmt.Fprintf(&b, "| %s | `%s` | `%s` of `%s` |\n", m.Name, m.File, m.Test, m.Package)
	}
	return b.String()
}

// A Verdict is what became of a mutant.
type Verdict int

// The verdicts.
const (
	Survived Verdict = iota // the test passed: it proves nothing about this bug
	Caught                  // the test failed, as it should
	Skipped                 // the test cannot run here and says why in the output
)

var verdictNames = [...]string{"survived", "caught", "skipped"}

// String returns the verdict in one word.
func (v Verdict) String() string { return verdictNames[v] }

// patience bounds a test with a mutant in it, which may well hang: that is
// noticed too.
const patience = "60s"

// Run builds the test with the mutant in it and runs it, with temporary files in
// dir. The output is the test's. An error says that nothing was learned: the
// passage is not there, or the mutant does not compile.
func (m Mutant) Run(ctx context.Context, root, dir string) (v Verdict, output string, err error) {
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return Survived, "", fmt.Errorf("mutant %q: %w", m.Name, err)
	}
	args := []string{"test", "-vet=off", "-count=1", "-timeout", patience, "-v", "-run", "^" + m.Test + "$", "./" + m.Package}
	if m.Args != "" {
		args = append(append(args, "-args"), strings.Fields(m.Args)...)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-overlay="+overlay) // holds for what the test itself builds, too
	out, err := cmd.CombinedOutput()
	v, err = m.judge(out, err)
	return v, string(out), err
}

// judge reads what `go test` printed. A test that the mutant brings down with a
// panic counts as failed.
func (m Mutant) judge(out []byte, failure error) (Verdict, error) {
	began := bytes.Contains(out, []byte("=== RUN   "+m.Test+"\n"))
	switch {
	case !began:
		return Survived, fmt.Errorf("mutant %q: %s of %s did not run: %w\n%s", m.Name, m.Test, m.Package, errors.Join(failure, errNoRun), out)
	case failure != nil:
		return Caught, nil
	case skipped.Match(out):
		return Skipped, nil
	}
	return Survived, nil
}

var (
	skipped  = regexp.MustCompile(`(?m)^--- SKIP: `)
	errNoRun = errors.New("the mutant does not compile, or there is no such test")
)

// overlay writes the mutant file and the list that puts it in place of the real
// one, and returns the list's path.
func (m Mutant) overlay(root, dir string) (string, error) {
	path := filepath.Join(root, filepath.FromSlash(m.File))
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), m.Old); n != 1 {
		return "", fmt.Errorf("%s has the passage %d times, not once: put the mutant where the code went\n%s", m.File, n, m.Old)
	}
	mutated := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(source), m.Old, m.New, 1)), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, list, 0o600)
}
