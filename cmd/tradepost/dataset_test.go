package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shared is where the public data sets lie that are no part of the repository.
const shared = "../../../shared/data"

// dataset copies a data set to a place where an import may leave its files.
func dataset(t *testing.T, name string) string {
	t.Helper()
	from, to := filepath.Join(shared, name), t.TempDir()
	if _, err := os.Stat(from); err != nil {
		t.Skipf("the data set %s is not beside the repository", name)
	}
	must(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

// commands returns the tradepost commands of a marked block of docs/import.md,
// so that what is documented is what is tested.
func commands(t *testing.T, heading string) [][]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/import.md")
	must(t, err)
	_, after, found := strings.Cut(string(b), "\n## "+heading+"\n")
	_, after, found2 := strings.Cut(after, "\n```sh\n")
	block, _, found3 := strings.Cut(after, "\n```")
	if !found || !found2 || !found3 {
		t.Fatalf("docs/import.md has no block of commands under %q", heading)
	}
	var out [][]string
	for line := range strings.SplitSeq(strings.ReplaceAll(block, "\\\n", " "), "\n") {
		words := shellWords(line)
		if len(words) > 0 && words[0] == "tradepost" {
			out = append(out, words[1:])
		}
	}
	return out
}

// shellWords cuts a line as a shell does that knows blanks and quotes only.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	quote, begun := rune(0), false
	for _, r := range line + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, begun = r, true
		case r == ' ' && (begun || word.Len() > 0):
			words = append(words, word.String())
			word.Reset()
			begun = false
		case r != ' ':
			word.WriteRune(r)
		}
	}
	return words
}

func runAll(t *testing.T, d *desk, dir string, list [][]string) {
	t.Helper()
	for _, args := range list {
		for i, a := range args {
			if strings.HasSuffix(a, ".csv") {
				args[i] = filepath.Join(dir, filepath.Base(a))
			}
		}
		r := tradepost(t, d, "", args...)
		t.Logf("tradepost %s\n%s", strings.Join(args, " "), r.stdout)
		if r.code != exitOK {
			t.Fatalf("exit %d\n%s", r.code, r.stderr)
		}
	}
}

func TestNorthwind(t *testing.T) {
	dir := dataset(t, "northwind")
	d := newDesk(t)
	list := commands(t, "Northwind")
	runAll(t, d, dir, list)
	for entity, n := range map[string]string{"account": "91", "contact": "91", "product": "77", "order": "830", "order_line": "2,155", "shipment": "809"} {
		if got := figures(t, d, "report", entity); got != n {
			t.Errorf("%s: %s records, want %s", entity, got, n)
		}
	}
	if got := figures(t, d, "report", "order_line", "--measure", "sum(quantity*unit_price*(1-discount)) as revenue"); got != "USD 1,265,793.04 USD" {
		t.Errorf("revenue: %s", got)
	}
	wants(t, ok(t, d, "report", "order_line", "--measure", "sum(quantity*unit_price*(1-discount)) as revenue", "-o", "json"), `"1265793.0395"`)
	for _, args := range list { // and again: nothing is made twice
		var again importText
		must(t, json.Unmarshal([]byte(ok(t, d, append(args, "-o", "json")...)), &again))
		if again.Created+again.Updated+again.Failed > 0 {
			t.Errorf("a second import: %+v", again)
		}
	}
}

// figures returns the cells of a report of one row.
func figures(t *testing.T, d *desk, args ...string) string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(ok(t, d, args...)), "\n")
	if len(lines) != 2 {
		t.Fatalf("not one row:\n%s", strings.Join(lines, "\n"))
	}
	return strings.Join(strings.Fields(lines[1]), " ")
}

func TestMaven(t *testing.T) {
	dir := dataset(t, "maven-crm")
	d := newDesk(t)
	runAll(t, d, dir, commands(t, "Maven CRM"))
	out := ok(t, d, "report", "opportunity", "--group", "stage")
	for _, piece := range []string{"Closed Won", "4,238", "Closed Lost", "2,473", "Qualification", "1,589", "Prospecting", "500", "8,800"} {
		if !strings.Contains(out, piece) {
			t.Errorf("no %s in\n%s", piece, out)
		}
	}
	if got := figures(t, d, "report", "opportunity", "--filter", "account == null"); got != "1,425" {
		t.Errorf("opportunities without an account: %s", got)
	}
}
