package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var (
	seed   = flag.Uint64("seed", 1, "first seed of the simulated histories")
	seeds  = flag.Int("seeds", 10, "how many of them are played")
	events = flag.Bool("events", false, "print every event of the seeds; use it with one")
	logs   = flag.Bool("nodelog", false, "print what nodes log; use it with one seed")
	out    = flag.String("out", "", "directory for the scripts of failing seeds; the system's for temporary files if empty")
)

// TestSeeds plays histories and prints what they came to. A failing one is
// shortened and written to a file, which can be put into testdata/seeds.
func TestSeeds(t *testing.T) {
	tpl := mustTemplate(t)
	var o Options
	if *events {
		o.Trace = os.Stdout
	}
	if *logs {
		o.Log = os.Stdout
	}
	s, err := tpl.Sweep(*seed, *seeds, DefaultSize, o)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Print(s)
	for i, r := range s.Failed {
		t.Errorf("seed %d: %v", r.Script.Seed, r.Err)
		if i < 3 && !*events {
			short, why := Shrink(r.Script, r.Err, DefaultEffort, func(s *Script) error { return mustPlay(t, tpl, s).Err })
			t.Errorf("%d of %d steps are enough; see %s", len(short.Steps), len(r.Script.Steps), writeFailure(t, short, why))
		}
	}
}

func mustPlay(t testing.TB, tpl *Template, s *Script) *Result {
	t.Helper()
	r, err := tpl.Play(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// writeFailure writes a Script under the words that its failure is described
// with.
func writeFailure(t *testing.T, s *Script, why error) string {
	t.Helper()
	dir := *out
	if dir == "" {
		dir = os.TempDir()
	}
	text := s.String()
	for _, line := range strings.Split(why.Error(), "\n")[:1] {
		text = "# " + line + "\n" + text
	}
	path := filepath.Join(dir, fmt.Sprintf("seed-%d.txt", s.Seed))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFixedSeeds plays the scripts of failures that were mended.
func TestFixedSeeds(t *testing.T) {
	paths, err := filepath.Glob("testdata/seeds/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("scripts: %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ParseScript(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if r := mustPlay(t, mustTemplate(t), s); r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
}

// TestPlay_IsDeterministic plays seeds twice: the traces must be the same, event
// for event.
func TestPlay_IsDeterministic(t *testing.T) {
	tpl := mustTemplate(t)
	for seed := range uint64(3) {
		first := mustPlay(t, tpl, Generate(seed, DefaultSize))
		again := mustPlay(t, tpl, Generate(seed, DefaultSize))
		if first.Hash != again.Hash || first.Events != again.Events {
			t.Errorf("seed %d: %d events %s, then %d events %s", seed, first.Events, first.Hash[:8], again.Events, again.Hash[:8])
		}
		if other := mustPlay(t, tpl, Generate(seed+100, DefaultSize)); other.Hash == first.Hash {
			t.Errorf("seeds %d and %d have one trace", seed, seed+100)
		}
	}
}

var script = flag.String("script", "", "a script to be played instead of seeds, with every event printed")

// TestScript plays one script.
func TestScript(t *testing.T) {
	if *script == "" {
		t.Skip("no -script")
	}
	text, err := os.ReadFile(*script)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseScript(string(text))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Trace: os.Stdout}
	if *logs {
		o.Log = os.Stdout
	}
	r, err := mustTemplate(t).Play(s, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Err != nil {
		t.Error(r.Err)
	}
}
