package clustertest

import (
	"context"
	"fmt"
	"strings"
)

// A step is one command of a script.
type step struct {
	line  int      // from 1
	text  string   // as written, with the comments and blank lines before it
	words []string // without quotes
}

// parse reads a script. Lines of output are dropped: Run makes them anew.
func parse(script string) ([]step, error) {
	var steps []step
	var before strings.Builder
	for i, line := range strings.Split(strings.TrimRight(script, "\n"), "\n") {
		bare := strings.TrimSpace(line)
		if strings.HasPrefix(bare, "|") {
			continue
		}
		before.WriteString(line + "\n")
		if bare == "" || strings.HasPrefix(bare, "#") {
			continue
		}
		words, err := split(bare)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		steps = append(steps, step{line: i + 1, text: before.String(), words: words})
		before.Reset()
	}
	return steps, nil
}

// split cuts a command at blanks outside double quotes.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted, started := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted, started = !quoted, true
		case r == ' ' && !quoted:
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed in %q", line)
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

// Run plays a script with its nodes' directories in dir and returns the script
// with the output that it made. The error is about the script, or says that the
// cluster could not be stopped; what a command says about the cluster is output.
func Run(ctx context.Context, script, dir string, seed uint64) (transcript string, err error) {
	steps, err := parse(script)
	if err != nil {
		return "", err
	}
	w := newWorld(dir, seed)
	defer func() {
		if closing := w.close(); err == nil {
			err = closing
		}
	}()
	var out strings.Builder
	for _, s := range steps {
		out.WriteString(s.text)
		c, ok := Commands[s.words[0]]
		if !ok {
			return out.String(), fmt.Errorf("line %d: no command %q", s.line, s.words[0])
		}
		if len(s.words)-1 < c.least {
			return out.String(), fmt.Errorf("line %d: want %s %s", s.line, s.words[0], c.Usage)
		}
		if w.c == nil && s.words[0] != "cluster" {
			return out.String(), fmt.Errorf("line %d: there is no cluster yet", s.line)
		}
		w.printed.Reset()
		err := c.run(w, ctx, s.words[1:])
		if w.c == nil {
			return out.String(), fmt.Errorf("line %d: %w", s.line, err)
		}
		if err != nil {
			w.printf("error %s", w.problem(err))
		}
		if err := w.broken(); err != nil {
			return out.String(), fmt.Errorf("line %d: %w", s.line, err)
		}
		for line := range strings.Lines(w.printed.String()) {
			out.WriteString("| " + line)
		}
	}
	return out.String(), nil
}
