package tradepost

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDocs_Drawings: the pages that draw formats hold what the code prints.
func TestDocs_Drawings(t *testing.T) {
	for page, golden := range map[string]string{
		"docs/format.md":   "store/testdata/keys.golden",
		"docs/protocol.md": "syncproto/testdata/frames.golden",
	} {
		if !strings.Contains(read(t, page), strings.TrimSpace(read(t, golden))) {
			t.Errorf("%s does not hold %s as it is now", page, golden)
		}
	}
}

// codeLine matches a constant of type crm.Code, or one of package auth.
var codeLine = regexp.MustCompile(`(?m)^\s*(?:const )?[cC]ode\w+\s+(?:(?:crm\.)?Code\s+= "([a-z_]+)"|= "(auth/[a-z_]+)")`)

// TestDocs_Errors: every code an error can carry has a row, and no row names a
// code that does not exist.
func TestDocs_Errors(t *testing.T) {
	page := read(t, "docs/errors.md")
	codes := map[string]bool{}
	sources(t, func(file, _ string) {
		for _, m := range codeLine.FindAllStringSubmatch(read(t, file), -1) {
			codes[m[1]+m[2]] = true
		}
	})
	if len(codes) < 40 {
		t.Fatalf("found only %d codes in the source", len(codes))
	}
	for code := range codes {
		if !strings.Contains(page, "| `"+code+"` |") {
			t.Errorf("docs/errors.md has no row for %s", code)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(page, -1) {
		if !codes[m[1]] {
			t.Errorf("docs/errors.md has a row for %s, which no code carries", m[1])
		}
	}
}
