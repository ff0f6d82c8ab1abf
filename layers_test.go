package tradepost

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tradepost-crm/tradepost/"

// layers lists the packages bottom up. A package may import only packages on
// earlier lines; packages that share a line are strangers to each other.
var layers = [][]string{
	{"crm"},
	{"crm/query", "crm/catalog", "syncproto"},
	{"crm/report", "crm/sample"},
	{"store", "auth", "gossip"},
	{"session"},
	{"replica", "master"},
	{"httpapi", "wansim"}, // replica and master can never import wansim
	{"node"},
	{"devcluster", "faultnet", "lossyfs"}, // a node can never import what spoils it
	{"cmd/tradepost", "clustertest", "processtest", "sim", "mutanttest"},
}

func layer(pkg string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, pkg) })
}

// sources yields the repository's Go files that are not tests, as slash paths.
func sources(t *testing.T, each func(file, pkg string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "tools" || d.Name() == "bench" || d.Name() == "tradepost-dev") {
			return fs.SkipDir
		}
		if strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go") {
			each(p, path.Dir(filepath.ToSlash(p)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLayers parses the files rather than asking go list, so that the test cache
// sees what it read.
func TestLayers(t *testing.T) {
	seen := map[string]bool{}
	sources(t, func(file, pkg string) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name == "main" && ignored(f.Comments) || pkg == "." {
			return
		}
		seen[pkg] = true
		from := layer(pkg)
		if from < 0 {
			t.Errorf("%s: package %s has no line in layers", file, pkg)
		}
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			if dep, ok := strings.CutPrefix(imp, module); ok && layer(dep) >= from {
				t.Errorf("%s imports %s, which is not below it", file, dep)
			}
			if pkg == "crm" && strings.Contains(imp, ".") {
				t.Errorf("%s imports %s: crm imports the standard library only", file, imp)
			}
		}
	})
	for _, l := range layers {
		for _, pkg := range l {
			if !seen[pkg] {
				t.Errorf("package %s has a line in layers but no file", pkg)
			}
		}
	}
}

// TestPackageDocs asks for exactly one package comment a package.
func TestPackageDocs(t *testing.T) {
	docs := map[string][]string{}
	sources(t, func(file, pkg string) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if ignored(f.Comments) {
			return
		}
		docs[pkg] = append(docs[pkg], nil...)
		if f.Doc != nil {
			docs[pkg] = append(docs[pkg], file)
		}
	})
	for pkg, files := range docs {
		if len(files) != 1 {
			t.Errorf("package %s has %d package comments (%s), want 1", pkg, len(files), strings.Join(files, ", "))
		}
	}
}

// ignored reports a file that only go run sees.
func ignored(comments []*ast.CommentGroup) bool {
	return len(comments) > 0 && strings.HasPrefix(comments[0].List[0].Text, "//go:build ignore")
}
