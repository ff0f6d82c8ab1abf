package query

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	end tokenKind = iota
	name
	number
	text
	symbol
)

// A token is a piece of the filter. val is the name, digits or symbol, or the
// text that a text literal stands for.
type token struct {
	kind tokenKind
	val  string
	at   int // byte offset
}

func (t token) is(s string) bool { return t.kind == symbol && t.val == s }

// shown is the token as an error message names it.
func (t token) shown() string {
	switch t.kind {
	case end:
		return "the end"
	case text:
		return quote(clip(t.val))
	}
	return clip(t.val)
}

// lex splits src; a negative offset means success.
func lex(src string) (tokens []token, message string, at int) {
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case isLetter(c):
			tokens, i = lexRun(tokens, src, i, name, func(c byte) bool { return isLetter(c) || isDigit(c) })
		case isDigit(c):
			tokens, i = lexNumber(tokens, src, i)
			if i < len(src) && (isLetter(src[i]) || src[i] == '.') {
				return nil, "a number is digits with an optional point, as 1265.50", i
			}
		case c == '"' || c == '\'':
			s, next, wrong := lexText(src, i)
			if wrong != "" {
				return nil, wrong, next
			}
			tokens = append(tokens, token{text, s, i})
			i = next
		default:
			s := lexSymbol(src[i:])
			if s == "" {
				return nil, wrongSymbol(src[i:]), i
			}
			tokens = append(tokens, token{symbol, s, i})
			i += len(s)
		}
	}
	return append(tokens, token{kind: end, at: len(src)}), "", -1
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func lexRun(tokens []token, src string, i int, k tokenKind, in func(byte) bool) ([]token, int) {
	j := i
	for j < len(src) && in(src[j]) {
		j++
	}
	return append(tokens, token{k, src[i:j], i}), j
}

func lexNumber(tokens []token, src string, i int) ([]token, int) {
	j := i
	for j < len(src) && isDigit(src[j]) {
		j++
	}
	if j+1 < len(src) && src[j] == '.' && isDigit(src[j+1]) {
		for j++; j < len(src) && isDigit(src[j]); j++ {
		}
	}
	return append(tokens, token{number, src[i:j], i}), j
}

var symbols = []string{"==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-"}

func lexSymbol(s string) string {
	for _, sym := range symbols {
		if strings.HasPrefix(s, sym) {
			return sym
		}
	}
	return ""
}

func wrongSymbol(s string) string {
	switch s[0] {
	case '=':
		return "write == to compare"
	case '&':
		return "write && for and"
	case '|':
		return "write || for or"
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n <= 1 {
		return "the filter is not UTF-8"
	}
	return quote(string(r)) + " has no meaning here"
}

// lexText reads the literal that starts at src[i], a quote character. Escapes
// are those of CEL that have a use here.
func lexText(src string, i int) (s string, next int, wrong string) {
	var b strings.Builder
	for j := i + 1; j < len(src); {
		switch c := src[j]; {
		case c == src[i]:
			return b.String(), j + 1, ""
		case c == '\n' || c == '\r':
			return "", i, `the text does not end; a line break inside is written \n`
		case c == '\\':
			r, n := escape(src[j:])
			if n == 0 {
				return "", j, `unknown escape; write \\ for a backslash`
			}
			b.WriteRune(r)
			j += n
		default:
			r, n := utf8.DecodeRuneInString(src[j:])
			if r == utf8.RuneError && n <= 1 {
				return "", j, "the filter is not UTF-8"
			}
			b.WriteRune(r)
			j += n
		}
	}
	return "", i, "the text does not end"
}

// escape reads the escape at the start of s; 0 bytes if it is none.
func escape(s string) (rune, int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch c := s[1]; c {
	case '\\', '"', '\'':
		return rune(c), 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		if len(s) < 6 {
			return 0, 0
		}
		n, err := strconv.ParseUint(s[2:6], 16, 32)
		if err != nil || !utf8.ValidRune(rune(n)) {
			return 0, 0
		}
		return rune(n), 6
	}
	return 0, 0
}
