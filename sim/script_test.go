package sim

import (
	"strings"
	"testing"
	"time"
)

func TestScript_TextIsReadBack(t *testing.T) {
	for seed := range uint64(20) {
		s := Generate(seed, DefaultSize)
		again, err := ParseScript("# a comment\n\n" + s.String())
		if err != nil {
			t.Fatal(err)
		}
		if s.String() != again.String() {
			t.Fatalf("seed %d is read back otherwise", seed)
		}
	}
}

func TestParseScript_BadLines(t *testing.T) {
	for text, want := range map[string]string{
		"seed x":                 "invalid syntax",
		"masters 9":              "want 1 to 7",
		"1.0":                    "want an instant in seconds and a verb",
		"\nsoon cut r1 m1":       "line 2: \"soon cut r1 m1\"",
		"1 frobnicate r1":        "there is no verb",
		"1 trap r1 any torn":     "want trap NODE FILE",
		"1 edit r1 x set a b":    "is no number of an edit",
		"1 edit r1 1 sing a b":   "is nothing to ask for",
		"1 edit r1 1 old=z":      "is no age of a page",
		"1 look r1":              "want look REPLICA",
		"1 clock r1 1h":          "no number of milliseconds",
		"1 log doomed":           "no fate",
		"1 trap r1 any softly 0": "no way to die",
	} {
		s, err := ParseScript(text)
		if err == nil {
			err = mustPlay(t, mustTemplate(t), s).Err
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("script %q: %v, want %q", text, err, want)
		}
	}
}

func TestGenerate_HoldsWhatWasAskedFor(t *testing.T) {
	verbsSeen, opsSeen := map[string]int{}, map[string]int{}
	size := DefaultSize
	size.Relays, size.Restores = 2, 2
	for seed := range uint64(150) {
		s := Generate(seed, size)
		if s.Edits() < size.Edits {
			t.Errorf("seed %d has %d edits, want %d", seed, s.Edits(), size.Edits)
		}
		faults := 0
		for i, step := range s.Steps {
			verbsSeen[step.Words[0]]++
			if step.Fault() {
				faults++
			}
			if i > 0 && step.At < s.Steps[i-1].At || step.At > size.Length*3/2 {
				t.Errorf("seed %d: step %d is at %v", seed, i, step.At)
			}
			if step.Words[0] == "edit" {
				v, err := parseWish(step.Words[2:])
				if err != nil {
					t.Fatal(err)
				}
				for _, op := range v.ops {
					opsSeen[op[0]]++
				}
			}
		}
		if faults < size.Faults*8/10 {
			t.Errorf("seed %d has %d faults, want about %d", seed, faults, size.Faults)
		}
	}
	for verb := range verbs {
		if verbsSeen[verb] == 0 {
			t.Errorf("no seed says %s", verb)
		}
	}
	for op := range wants {
		if opsSeen[op] == 0 {
			t.Errorf("no seed asks to %s", op)
		}
	}
}

// TestShrink_KeepsWhatIsNeeded hides a failure behind two steps of many.
func TestShrink_KeepsWhatIsNeeded(t *testing.T) {
	s := Generate(3, DefaultSize)
	needed := []string{s.Steps[40].String(), s.Steps[200].String()}
	plays := 0
	play := func(s *Script) error {
		plays++
		for _, step := range needed {
			if !strings.Contains(s.String(), step+"\n") {
				return nil
			}
		}
		return errString("at 3s: I05, something")
	}
	short, why := Shrink(s, play(s), Effort{Plays: 200, Time: time.Minute}, play)
	if len(short.Steps) != 2 || why == nil || plays > 201 {
		t.Errorf("%d steps are left after %d plays: %v", len(short.Steps), plays, short.Steps)
	}
	other := func(*Script) error { return errString("I06, something else") }
	if short, _ := Shrink(s, errString("I05, something"), Effort{Plays: 30, Time: time.Minute}, other); len(short.Steps) != len(s.Steps) {
		t.Errorf("another failure was taken for the one looked for: %d steps", len(short.Steps))
	}
}

type errString string

func (e errString) Error() string { return string(e) }
