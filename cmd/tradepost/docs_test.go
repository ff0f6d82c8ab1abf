package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// pages are those whose blocks of commands people copy.
var pages = []string{"../../README.md", "../../docs/import.md", "../../docs/restore.md", "../../docs/relays.md"}

// TestDocumentedCommands: every line of the pages that runs tradepost, and every
// example of the help, names a command, flags and arguments that exist.
func TestDocumentedCommands(t *testing.T) {
	count := 0
	for _, page := range pages {
		lines := commandLines(fenced(string(readFile(t, page))))
		count += len(lines)
		for _, line := range lines {
			accepts(t, page, line)
		}
	}
	walk(tree(), func(cmd *cobra.Command) {
		lines := commandLines(cmd.Example)
		if cmd.Example != "" && len(lines) == 0 {
			t.Errorf("%s: an example without a command", cmd.CommandPath())
		}
		for _, line := range lines {
			accepts(t, cmd.CommandPath()+" --help", line)
		}
	})
	if count < 25 {
		t.Errorf("only %d lines were found", count)
	}
}

// fenced returns the blocks of shell commands of a page.
func fenced(page string) string {
	var out strings.Builder
	for _, m := range regexp.MustCompile("(?s)\n```sh\n(.*?)\n```").FindAllStringSubmatch(page, -1) {
		out.WriteString(m[1] + "\n")
	}
	return out.String()
}

// commandLines returns the words after tradepost of each command in a block,
// without redirections and comments.
func commandLines(block string) [][]string {
	var out [][]string
	for line := range strings.SplitSeq(strings.ReplaceAll(block, "\\\n", " "), "\n") {
		line, _, _ = strings.Cut(line, " # ")
		var words []string
		for _, w := range append(shellWords(line), "|") {
			switch {
			case w == "tradepost":
				words = []string{}
			case w != "|" && !strings.HasPrefix(w, ">"):
				if words != nil {
					words = append(words, w)
				}
			case words != nil:
				out = append(out, words)
				words = nil
			}
		}
	}
	return out
}

// accepts demands that the command tree takes a command line.
func accepts(t *testing.T, where string, words []string) {
	t.Helper()
	line := "tradepost " + strings.Join(words, " ")
	if r := tradepost(t, nil, "", append(slices.Clone(words), "--help")...); r.code != exitOK {
		t.Errorf("%s: %s: %s", where, line, r.stderr)
		return
	}
	cmd, rest, err := tree().Find(words)
	if err != nil || cmd.HasSubCommands() && !hasAnnotation(cmd) {
		t.Errorf("%s: %s: no such command, %v", where, line, err)
		return
	}
	must(t, cmd.ParseFlags(rest)) // as --help did
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("%s: %s: %v", where, line, err)
	}
}

// hasAnnotation reports whether the command runs though it has others below.
func hasAnnotation(cmd *cobra.Command) bool {
	_, ok := cmd.Annotations[runsAlone]
	return ok
}

// mention matches a command in a sentence.
var mention = regexp.MustCompile("`tradepost ([a-z][^`]*)`")

// TestMentionedCommands: what a message, a comment or a page tells people to run
// exists, arguments or none.
func TestMentionedCommands(t *testing.T) {
	count := 0
	must(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || len(d.Name()) > 2 && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" && filepath.Ext(path) != ".md" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range mention.FindAllStringSubmatch(string(b), -1) {
			count++
			cmd, rest, err := tree().Find(strings.Fields(m[1]))
			if err != nil || cmd.HasSubCommands() && len(rest) > 0 && !(hasAnnotation(cmd) && strings.HasPrefix(rest[0], "-")) {
				t.Errorf("%s: `tradepost %s`: no such command, %v", path, m[1], err)
			}
		}
		return nil
	}))
	if count < 15 {
		t.Errorf("only %d commands are mentioned", count)
	}
}
