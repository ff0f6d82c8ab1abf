package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"time"
)

// A Trace is what happened in a run, a line an event: when, where, what. It is
// kept as its SHA-256.
type Trace struct {
	sum    hash.Hash
	out    io.Writer // nil: lines are not written
	Events int
}

func newTrace(out io.Writer) *Trace { return &Trace{sum: sha256.New(), out: out} }

// Note adds an event. Arguments must print alike in every run.
func (t *Trace) Note(at time.Duration, node, format string, args ...any) {
	t.Events++
	line := fmt.Appendf(nil, "%.6f %s ", at.Seconds(), node)
	line = append(fmt.Appendf(line, format, args...), '\n')
	t.sum.Write(line)
	if t.out != nil {
		t.out.Write(line)
	}
}

// Hash returns the SHA-256 of all events so far, in hex.
func (t *Trace) Hash() string { return hex.EncodeToString(t.sum.Sum(nil)) }
