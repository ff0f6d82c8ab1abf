package lossyfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A tree is a volume with operations by path.
type tree struct {
	*volume
	n uint64
}

func newTree() *tree { return &tree{volume: &volume{root: newDir(1, 0)}, n: 1} }

func (v *tree) number() uint64 { v.n++; return v.n }

func (v *tree) at(path string) (*inode, string) {
	i := strings.LastIndexByte(path, '/')
	return v.find(path[:max(i, 0)]), path[i+1:]
}

func (v *tree) mkdir(path string)  { d, n := v.at(path); v.do(nameOp{{d, n, newDir(v.number(), 0)}}) }
func (v *tree) create(path string) { d, n := v.at(path); v.do(nameOp{{d, n, newFile(v.number(), 0)}}) }
func (v *tree) unlink(path string) { d, n := v.at(path); v.do(nameOp{{d, n, nil}}) }
func (v *tree) rename(from, to string) {
	d, n := v.at(from)
	e, m := v.at(to)
	v.do(nameOp{{d, n, nil}, {e, m, v.find(from)}})
}
func (v *tree) sync(path string) { v.syncDir(v.find(path)) }

func list(i *inode) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(i.entries)) {
		child := i.entries[name]
		names = append(names, child.path())
		names = append(names, list(child)...)
	}
	return names
}

func (v *tree) wantCut(t *testing.T, want ...string) {
	t.Helper()
	if got := list(v.afterCut(nil, v.number).root); !slices.Equal(got, want) {
		t.Errorf("a cut leaves %v, want %v", got, want)
	}
}

func TestNames_NeedTheirDirectorySynced(t *testing.T) {
	v := newTree()
	v.mkdir("d")
	v.create("d/f")
	v.create("g")
	v.wantCut(t)
	v.sync("d")
	v.wantCut(t) // d itself is not there
	v.sync("")
	v.wantCut(t, "d", "d/f", "g")
	v.unlink("d/f")
	v.rename("g", "h")
	v.wantCut(t, "d", "d/f", "g")
	v.sync("d")
	v.wantCut(t, "d", "g")
	v.sync("")
	v.wantCut(t, "d", "h")
}

// TestNames_RenameBetweenDirectories is durable in both once it is in one.
func TestNames_RenameBetweenDirectories(t *testing.T) {
	for _, synced := range []string{"a", "b"} {
		v := newTree()
		v.mkdir("a")
		v.mkdir("b")
		v.sync("")
		v.create("a/f")
		v.rename("a/f", "b/f")
		v.create("a/later")
		v.create("b/later")
		v.wantCut(t, "a", "b")
		v.sync(synced)
		want := []string{"a", "b", "b/f", "b/later"}
		if synced == "a" {
			want = []string{"a", "a/later", "b", "b/f"}
		}
		v.wantCut(t, want...)
	}
}

func TestNames_RenameReplaces(t *testing.T) {
	v := newTree()
	v.create("f")
	v.find("f").put("old", 0)
	v.find("f").sync()
	v.sync("")
	v.create("f.new")
	v.find("f.new").put("new", 0)
	v.rename("f.new", "f")
	if left := v.afterCut(nil, v.number); string(left.find("f").all()) != "old" {
		t.Error("an unsynced rename took the old file")
	}
	v.sync("")
	if left := v.afterCut(nil, v.number); string(left.find("f").all()) != "" {
		t.Error("contents that nobody synced are there") // the empty file that forgetting an fsync leaves
	}
}

// TestNames_Torn: a torn cut leaves the names as after some of the operations, in
// their order.
func TestNames_Torn(t *testing.T) {
	v := newTree()
	want := map[string]bool{"[]": true}
	for seed := range uint64(200) {
		v = newTree()
		for _, step := range []func(){
			func() { v.create("a") }, func() { v.create("b") }, func() { v.rename("a", "c") }, func() { v.unlink("b") },
		} {
			step()
			if seed == 0 {
				want[fmt.Sprint(list(v.root))] = true
			}
		}
		got := fmt.Sprint(list(v.afterCut(rand.New(rand.NewPCG(seed, 0)), v.number).root))
		if _, ok := want[got]; !ok {
			t.Fatalf("seed %d leaves %v, which never was", seed, got)
		}
		want[got] = false
	}
	for state, missed := range want {
		if missed {
			t.Errorf("no seed leaves %v", state)
		}
	}
}

// TestNames_HardLinks: two names of one file are so after a cut.
func TestNames_HardLinks(t *testing.T) {
	v := newTree()
	v.create("a")
	v.do(nameOp{{v.root, "b", v.find("a")}})
	v.sync("")
	left := v.afterCut(nil, v.number)
	if left.find("a") != left.find("b") || left.find("a").links != 2 {
		t.Error("the links are separate files")
	}
}
