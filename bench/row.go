package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// A row is one line of the result.
type row struct {
	operation string
	clients   int
	ours      string
	sqlite    string
	postgres  string
	ratio     string
	budget    string // DESIGN.md §9; "" has none
	met       bool
}

const header = "| operation | clients | ours | SQLite | PostgreSQL | ours : best peer | budget | met |\n|---|---|---|---|---|---|---|---|\n"

// String writes the row as a line of a table in Markdown.
func (r row) String() string {
	met := "-"
	if r.budget != "" {
		met = map[bool]string{true: "yes", false: "**no**"}[r.met]
	}
	clients := "-"
	if r.clients > 0 {
		clients = fmt.Sprint(r.clients)
	}
	cells := []string{r.operation, clients, r.ours, cmp.Or(r.sqlite, "-"), cmp.Or(r.postgres, "-"), cmp.Or(r.ratio, "-"), cmp.Or(r.budget, "-"), met}
	return "| " + strings.Join(cells, " | ") + " |"
}

// markdown writes the whole result.
func (b *bench) markdown() string {
	var w strings.Builder
	fmt.Fprintf(&w, "# Bench of %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	for _, line := range b.machine {
		fmt.Fprintf(&w, "- %s\n", line)
	}
	fmt.Fprintf(&w, "- medians of %d rounds in which the engines take turns, %v each; rate, p50 / p99\n\n%s", b.rounds, b.slice, header)
	for _, r := range b.rows {
		fmt.Fprintln(&w, r)
	}
	if len(b.notes) > 0 {
		fmt.Fprintln(&w)
	}
	for _, line := range b.notes {
		fmt.Fprintf(&w, "- %s\n", line)
	}
	return w.String()
}

// span writes a duration with three digits.
func span(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < time.Millisecond:
		return digits(float64(d)/1e3) + " µs"
	case d < time.Second:
		return digits(float64(d)/1e6) + " ms"
	}
	return digits(d.Seconds()) + " s"
}

func digits(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// grouped writes a whole number with commas.
func grouped(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
