package faultnet

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseScript reads the text form of a script. The error names the line and says
// what would be right.
func ParseScript(text string) (Script, error) {
	var s Script
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		step, err := parseStep(words)
		if err != nil {
			return nil, fmt.Errorf("faultnet: script line %d: %w", n, err)
		}
		s = append(s, step)
	}
	return s, nil
}

const stepForm = "at TIME LINK [up|down] FAULT [VALUE] [DURATION]"

func parseStep(words []string) (Step, error) {
	if words[0] != "at" || len(words) < 4 {
		return Step{}, fmt.Errorf("%q is no step; write %q, for example %q", strings.Join(words, " "), stepForm, "at 2s lisbon blackhole 5s")
	}
	at, err := parseTime(words[1])
	if err != nil {
		return Step{}, err
	}
	s := Step{At: at, Link: words[2]}
	words = words[3:]
	if words[0] == "up" || words[0] == "down" {
		s.Way, words = words[0], words[1:]
	}
	if len(words) == 0 {
		return s, fmt.Errorf("the fault is missing after %q; give one of %s", s.Way, faultNames())
	}
	s.Fault, words = words[0], words[1:]
	return s, s.parseRest(words)
}

// parseRest reads the value and the duration that the fault allows.
func (s *Step) parseRest(words []string) error {
	kind, ok := faultKinds[s.Fault]
	if !ok {
		return fmt.Errorf("there is no fault %q; give one of %s", s.Fault, faultNames())
	}
	if s.Way != "" && s.Fault == "reset" {
		return fmt.Errorf("a reset is seen at both ends; leave %q out", s.Way)
	}
	if kind.value != "" {
		if len(words) == 0 {
			return fmt.Errorf("%s needs a value; write %q", s.Fault, kind.example)
		}
		s.Value, words = words[0], words[1:]
	}
	if len(words) > 0 && !kind.once {
		d, err := parseTime(words[0])
		if err != nil {
			return err
		}
		if d == 0 {
			return fmt.Errorf("%s for no time has no effect; leave 0 out to let it last", s.Fault)
		}
		s.For, words = d, words[1:]
	}
	if len(words) > 0 {
		return fmt.Errorf("%q is too much after %s; write %q", strings.Join(words, " "), s.Fault, kind.example)
	}
	_, _, err := s.change()
	return err
}

// A faultKind is a fault that a script can name.
type faultKind struct {
	value   string // kind of its value: "time", "bytes", "share", "" for none
	example string
	once    bool                 // happens and is over
	set     func(*Line, float64) // value in nanoseconds, bytes, or from 0 to 1
	clear   func(*Line)          // takes the fault back
}

var faultKinds = map[string]faultKind{
	"delay":     {"time", "delay 80ms", false, func(l *Line, v float64) { l.Delay = time.Duration(v) }, func(l *Line) { l.Delay = 0 }},
	"jitter":    {"time", "jitter 20ms", false, func(l *Line, v float64) { l.Jitter = time.Duration(v) }, func(l *Line) { l.Jitter = 0 }},
	"rate":      {"bytes", "rate 64kB", false, func(l *Line, v float64) { l.Rate = int(v) }, func(l *Line) { l.Rate = 0 }},
	"loss":      {"share", "loss 30%", false, func(l *Line, v float64) { l.Loss = v }, func(l *Line) { l.Loss = 0 }},
	"duplicate": {"share", "duplicate 5%", false, func(l *Line, v float64) { l.Duplicate = v }, func(l *Line) { l.Duplicate = 0 }},
	"reorder":   {"time", "reorder 50ms", false, func(l *Line, v float64) { l.Reorder, l.ReorderBy = 0.5, time.Duration(v) }, func(l *Line) { l.Reorder, l.ReorderBy = 0, 0 }},
	"truncate":  {"bytes", "truncate 10kB", false, func(l *Line, v float64) { l.End, l.After = Truncate, int64(v) }, func(l *Line) { l.End, l.After = Endless, 0 }},
	"cut":       {"", "cut 5s", false, func(l *Line, _ float64) { l.Flow = Cut }, func(l *Line) { l.Flow = Clear }},
	"blackhole": {"", "blackhole 5s", false, func(l *Line, _ float64) { l.Flow = BlackHole }, func(l *Line) { l.Flow = Clear }},
	"heal":      {"", "heal", true, func(l *Line, _ float64) { *l = Line{} }, nil},
	"reset":     {"", "reset", true, nil, nil},
}

func faultNames() string { return strings.Join(slices.Sorted(maps.Keys(faultKinds)), ", ") }

// change returns the fault and what it does to a line; nil for a reset.
func (s Step) change() (faultKind, func(*Line), error) {
	kind, ok := faultKinds[s.Fault]
	if !ok {
		return kind, nil, fmt.Errorf("there is no fault %q; give one of %s", s.Fault, faultNames())
	}
	v, err := kind.parse(s.Value)
	if err != nil {
		return kind, nil, fmt.Errorf("%s: %w; write %q", s.Fault, err, kind.example)
	}
	if kind.set == nil {
		return kind, nil, nil
	}
	return kind, func(l *Line) { kind.set(l, v) }, nil
}

// parse reads a value as its fault wants it.
func (k faultKind) parse(text string) (float64, error) {
	switch k.value {
	case "time":
		d, err := parseTime(text)
		return float64(d), err
	case "bytes":
		return parseBytes(text)
	case "share":
		number, percent := strings.CutSuffix(text, "%")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !percent || !(v >= 0 && v <= 100) {
			return 0, fmt.Errorf("%q is no percentage from 0%% to 100%%", text)
		}
		return v / 100, nil
	}
	return 0, nil
}

func parseTime(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time; write it as 1.5s or 20ms", text)
	}
	return d, nil
}

func parseBytes(text string) (float64, error) {
	number, unit := text, 1.0
	for suffix, size := range map[string]float64{"kB": 1e3, "MB": 1e6} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = n, size
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v >= 0) || v*unit > math.MaxInt32 {
		return 0, fmt.Errorf("%q is no number of bytes such as 1500, 64kB or 2MB", text)
	}
	return v * unit, nil
}
