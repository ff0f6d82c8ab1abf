package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Script is what is done to a cluster: who asks for what, and what breaks,
// when. It has a text form, which String writes and ParseScript reads:
//
//	seed 17
//	masters 3
//	replicas 5
//	0.512 edit r2 1 set account/a3 description
//	1.100 cut r2 m1
//
// A line is an instant in seconds, a verb and its words. The seed decides
// everything that a Script leaves open, such as how long a frame is under way.
type Script struct {
	Seed     uint64
	Masters  int
	Replicas int
	Steps    []Step // by time
}

// A Step is one line of a Script.
type Step struct {
	At    time.Duration
	Words []string // the verb and what it is about
}

// String writes the step's line.
func (s Step) String() string {
	return fmt.Sprintf("%.3f %s", s.At.Seconds(), strings.Join(s.Words, " "))
}

// Fault reports whether the step breaks something.
func (s Step) Fault() bool { return verbs[s.Words[0]].fault }

// String writes the Script.
func (s *Script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\nmasters %d\nreplicas %d\n", s.Seed, s.Masters, s.Replicas)
	for _, step := range s.Steps {
		fmt.Fprintln(&b, step)
	}
	return b.String()
}

// Edits counts the edits asked for.
func (s *Script) Edits() (n int) {
	for _, step := range s.Steps {
		if step.Words[0] == "edit" {
			n++
		}
	}
	return n
}

// ParseScript reads what String wrote. Blank lines and those that begin with #
// say nothing. Its error names the line.
func ParseScript(text string) (*Script, error) {
	s := &Script{Masters: 3, Replicas: 5}
	for i, line := range strings.Split(text, "\n") {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(line, "#") {
			if err := s.read(words); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
		}
	}
	if s.Masters < 1 || s.Masters > 7 || s.Replicas < 1 || s.Replicas > 20 {
		return nil, fmt.Errorf("%d masters and %d replicas: want 1 to 7 and 1 to 20", s.Masters, s.Replicas)
	}
	slices.SortStableFunc(s.Steps, func(a, b Step) int { return int(a.At - b.At) })
	return s, nil
}

func (s *Script) read(words []string) (err error) {
	if len(words) == 2 {
		switch words[0] {
		case "seed":
			s.Seed, err = strconv.ParseUint(words[1], 10, 64)
			return err
		case "masters":
			s.Masters, err = strconv.Atoi(words[1])
			return err
		case "replicas":
			s.Replicas, err = strconv.Atoi(words[1])
			return err
		}
	}
	at, err := strconv.ParseFloat(words[0], 64)
	if err != nil || at < 0 || len(words) < 2 {
		return fmt.Errorf("%q: want an instant in seconds and a verb, or seed, masters or replicas and a number", strings.Join(words, " "))
	}
	step := Step{At: time.Duration(at*1000+0.5) * time.Millisecond, Words: words[1:]}
	if err := step.check(); err != nil {
		return err
	}
	s.Steps = append(s.Steps, step)
	return nil
}

func (s Step) check() error {
	v, ok := verbs[s.Words[0]]
	if !ok {
		return fmt.Errorf("there is no verb %q", s.Words[0])
	}
	if n := len(s.Words) - 1; n < v.least {
		return fmt.Errorf("want %s %s", s.Words[0], v.usage)
	}
	return nil
}
