package query

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tradepost-crm/tradepost/crm"
)

// ErrorAt returns the error of op, with code invalid, that stands at the byte
// offset at of text. Its Item is "line:column", both from 1, columns in
// characters.
func ErrorAt(op, text string, at int, message string) *crm.Error {
	return (&mistake{code: crm.CodeInvalid, text: message}).at(op, text, at)
}

func (m *mistake) at(op, text string, at int) *crm.Error {
	return &crm.Error{Code: m.code, Op: op, Item: position(text, at), Message: m.text}
}

func position(text string, at int) string {
	before := text[:min(at, len(text))]
	line := strings.Count(before, "\n")
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return fmt.Sprintf("%d:%d", line+1, column+1)
}

// Suggest returns `; did you mean "x"?` for the nearest of the names, or "" if
// none is near: at most two edits and fewer than half of the characters.
func Suggest(name string, names []string) string {
	best, found := 3, ""
	for _, n := range names {
		if d := distance(crm.FoldText(clip(name)), crm.FoldText(n), best); d < best && 2*d < utf8.RuneCountInString(n) {
			best, found = d, n
		}
	}
	if found == "" {
		return ""
	}
	return "; did you mean " + quote(found) + "?"
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that make b of a (restricted Damerau-Levenshtein), or limit if the
// lengths alone need as many.
func distance(a, b string, limit int) int {
	s, t := []rune(a), []rune(b)
	if len(s)-len(t) >= limit || len(t)-len(s) >= limit {
		return limit
	}
	two, one, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one, row = one, row, two
	}
	return one[len(t)]
}

// clip shortens what a message quotes.
func clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	n := 57
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// quote writes s as a text literal of the filter language.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
