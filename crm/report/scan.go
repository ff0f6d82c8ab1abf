package report

import (
	"fmt"
	"iter"
	"strings"

	"github.com/tradepost-crm/tradepost/crm/query"
)

// A scanner cuts a comma-separated text into its parts.
type scanner struct {
	op  string // for errors
	src string
}

// A part is a piece of the text without blanks around it, at a byte offset.
type part struct {
	text string
	at   int
}

func (s *scanner) fail(at int, format string, args ...any) error {
	return query.ErrorAt(s.op, s.src, at, fmt.Sprintf(format, args...))
}

// parts yields the parts; text of blanks only has none.
func (s *scanner) parts() iter.Seq[part] {
	return func(yield func(part) bool) {
		if strings.TrimSpace(s.src) == "" {
			return
		}
		at := 0
		for text := range strings.SplitSeq(s.src, ",") {
			lead := len(text) - len(strings.TrimLeft(text, " \t\r\n"))
			if !yield(part{strings.TrimSpace(text), at + lead}) {
				return
			}
			at += len(text) + 1
		}
	}
}

// alias cuts "as name" off the end of p.
func (s *scanner) alias(p part) (rest part, name string, err error) {
	fields := strings.Fields(p.text)
	n := len(fields)
	if n < 2 || fields[n-2] != "as" {
		return p, "", nil
	}
	name = fields[n-1]
	at := strings.LastIndex(p.text, name)
	for i := range len(name) {
		if !isNameByte(name[i]) || name[i] < 'a' && i == 0 {
			return p, "", s.fail(p.at+at, "a name is lower-case letters, digits and _, not %q", name)
		}
	}
	body := strings.TrimRight(p.text[:at], " \t\r\n")
	return part{strings.TrimRight(strings.TrimSuffix(body, "as"), " \t\r\n"), p.at}, name, nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_'
}
