package faultnet

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseScript(t *testing.T) {
	text := `# a day in Lisbon
at 2s lisbon blackhole 5s
at 1m30s * up delay 80ms 2s   # trailing

at 0s porto down rate 64kB
at 3s porto reset
`
	got, err := ParseScript(text)
	must(t, err)
	want := Script{
		{2 * time.Second, "lisbon", "", "blackhole", "", 5 * time.Second},
		{90 * time.Second, "*", "up", "delay", "80ms", 2 * time.Second},
		{0, "porto", "down", "rate", "64kB", 0},
		{3 * time.Second, "porto", "", "reset", "", 0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again, err := ParseScript(got.String())
	must(t, err)
	if diff := cmp.Diff(got, again); diff != "" {
		t.Errorf("its own text reads differently: %s", diff)
	}
}

func TestParseScript_SaysWhatToDo(t *testing.T) {
	for line, want := range map[string]string{
		"lisbon cut":                     `"lisbon cut" is no step; write "at TIME LINK`,
		"at 2s lisbon":                   "is no step",
		"at soon lisbon cut":             `"soon" is no time; write it as 1.5s`,
		"at -1s lisbon cut":              `"-1s" is no time`,
		"at 2s lisbon up":                `the fault is missing after "up"; give one of blackhole, cut,`,
		"at 2s lisbon flood":             `there is no fault "flood"; give one of blackhole, cut, delay,`,
		"at 2s lisbon delay":             `delay needs a value; write "delay 80ms"`,
		"at 2s lisbon delay 80":          `delay: "80" is no time; write it as 1.5s or 20ms; write "delay 80ms"`,
		"at 2s lisbon loss 0.3":          `"0.3" is no percentage`,
		"at 2s lisbon loss 130%":         `"130%" is no percentage`,
		"at 2s lisbon rate fast":         `"fast" is no number of bytes such as 1500, 64kB or 2MB`,
		"at 2s lisbon rate 99999999MB":   "is no number of bytes",
		"at 2s lisbon cut 5":             `"5" is no time`,
		"at 2s lisbon cut 0s":            "leave 0 out to let it last",
		"at 2s lisbon cut 5s 6s":         `"6s" is too much after cut; write "cut 5s"`,
		"at 2s lisbon heal 5s":           `"5s" is too much after heal`,
		"at 2s lisbon up reset":          `leave "up" out`,
		"at 2s lisbon truncate 1kB 2s 3": `"3" is too much after truncate`,
	} {
		_, err := ParseScript("\n" + line)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line 2: ") {
			t.Errorf("%q: got %v, want %q", line, err, want)
		}
	}
}

func TestScript_UnknownLink(t *testing.T) {
	s := Script{{Link: "oslo", Fault: "cut"}}
	err := s.Run(t.Context(), map[string]*Proxy{"lisbon": nil, "porto": nil})
	if err == nil || !strings.Contains(err.Error(), `no link is called oslo; use * or one of lisbon, porto`) {
		t.Errorf("got %v", err)
	}
}

// FuzzParseScript: whatever parses reads the same from its own text.
func FuzzParseScript(f *testing.F) {
	f.Add("at 2s lisbon blackhole 5s\nat 0s * up loss 30% # x")
	f.Add("at 1h a down truncate 1.5kB 3ns")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScript(text)
		if err != nil {
			return
		}
		again, err := ParseScript(s.String())
		if err != nil || !cmp.Equal(s, again) {
			t.Fatalf("%q reads as %v (%v)", s, again, err)
		}
	})
}
