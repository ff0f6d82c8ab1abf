package crm

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

//go:generate go run fold_gen.go

// FoldText returns s as searches and indexes compare it: lower case, without
// accents, ligatures opened, runs of white space as one blank, trimmed. Häusler
// folds to "hausler" and Łódź to "lodz". Scripts without case or accents stay
// as they are.
func FoldText(s string) string {
	if folded(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for _, r := range s {
		if unicode.IsSpace(r) {
			space = b.Len() > 0
			continue
		}
		if unicode.Is(unicode.Mn, r) {
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		foldRune(&b, r)
	}
	return b.String()
}

// folded reports whether s is ASCII that folding would leave alone, so that the
// common case allocates nothing.
func folded(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf || c >= 'A' && c <= 'Z' || c < ' ' {
			return false
		}
		if c == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			return false
		}
	}
	return true
}

func foldRune(b *strings.Builder, r rune) {
	if r < utf8.RuneSelf {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		b.WriteByte(byte(r))
		return
	}
	if s, ok := foldTable[r]; ok {
		b.WriteString(s)
		return
	}
	b.WriteRune(unicode.ToLower(r))
}

// Words returns the folded words of s for the search index: runs of letters
// and digits, each at most 40 bytes, without repeats, in order of appearance.
func Words(s string) []string {
	var out []string
	seen := map[string]bool{}
	for w := range strings.FieldsFuncSeq(FoldText(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		w = truncate(w, 40)
		if !seen[w] {
			seen[w] = true
			out = append(out, w)
		}
	}
	return out
}

// truncate cuts s to at most n bytes at a rune boundary.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
