package lossyfs

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"
)

// An inode is a file or a directory.
type inode struct {
	number uint64
	mode   uint32 // type and permissions, as in stat(2)
	mtime  time.Time
	links  int
	parent *inode // where it was last given a name; nil for the root
	name   string

	*content                          // of a file
	entries, onDisk map[string]*inode // of a directory: as programs see it, and as the disk has it
}

func newDir(number uint64, mode uint32) *inode {
	return &inode{number: number, mode: mode, links: 1, mtime: time.Now(), entries: map[string]*inode{}, onDisk: map[string]*inode{}}
}

func newFile(number uint64, mode uint32) *inode {
	return &inode{number: number, mode: mode, mtime: time.Now(), content: newContent()}
}

func (i *inode) isDir() bool { return i.entries != nil }

// path is the inode's name from the root, "" for the root itself.
func (i *inode) path() string {
	if i.parent == nil {
		return ""
	}
	return path.Join(i.parent.path(), i.name)
}

// A nameOp changes names, all of its own or none.
type nameOp []naming

// A naming gives a name in a directory to an inode, or to none.
type naming struct {
	dir  *inode
	name string
	to   *inode
}

func (op nameOp) touches(dirs map[*inode]bool) bool {
	return slices.ContainsFunc(op, func(n naming) bool { return dirs[n.dir] })
}

// A volume is the names and files of a file system, and the operations on names
// that no sync has made durable.
type volume struct {
	root    *inode
	journal []nameOp
}

// do carries an operation out as programs see it, and keeps it for a sync.
func (v *volume) do(op nameOp) {
	for _, n := range op {
		if old := n.dir.entries[n.name]; old != nil {
			old.links--
		}
		delete(n.dir.entries, n.name)
		if n.to != nil {
			n.dir.entries[n.name] = n.to
			n.to.links++
			n.to.parent, n.to.name = n.dir, n.name
		}
		n.dir.mtime = time.Now()
	}
	v.journal = append(v.journal, op)
}

// syncDir makes the operations on a directory durable. One that touches another
// directory too takes that one's earlier operations with it, so that names change
// on disk in the order in which they were changed.
func (v *volume) syncDir(dir *inode) {
	dirs := map[*inode]bool{dir: true}
	var chosen, rest []nameOp
	for _, op := range slices.Backward(v.journal) {
		if !op.touches(dirs) {
			rest = append(rest, op)
			continue
		}
		chosen = append(chosen, op)
		for _, n := range op {
			dirs[n.dir] = true
		}
	}
	slices.Reverse(chosen)
	slices.Reverse(rest)
	v.commit(chosen)
	v.journal = rest
}

// syncAll makes all operations durable, as committing a journal does.
func (v *volume) syncAll() {
	v.commit(v.journal)
	v.journal = nil
}

func (v *volume) commit(ops []nameOp) {
	for _, op := range ops {
		for _, n := range op {
			delete(n.dir.onDisk, n.name)
			if n.to != nil {
				n.dir.onDisk[n.name] = n.to
			}
		}
	}
}

// afterCut is the volume that a cut leaves, of new inodes numbered by number. v
// is of no use afterwards.
func (v *volume) afterCut(tear *rand.Rand, number func() uint64) *volume {
	if tear != nil {
		v.commit(v.journal[:tear.IntN(len(v.journal)+1)])
	}
	left := map[*inode]*inode{}
	var visit func(old *inode) *inode
	visit = func(old *inode) *inode {
		if i, ok := left[old]; ok {
			return i
		}
		i := &inode{number: number(), mode: old.mode, mtime: old.mtime}
		left[old] = i
		if !old.isDir() {
			i.content = old.content.afterCut(tear)
			return i
		}
		i.entries = map[string]*inode{}
		for _, name := range slices.Sorted(maps.Keys(old.onDisk)) {
			child := visit(old.onDisk[name])
			child.parent, child.name = i, name
			child.links++
			i.entries[name] = child
		}
		i.onDisk = maps.Clone(i.entries)
		return i
	}
	return &volume{root: visit(v.root)}
}

// find returns what is at a path as programs see it, nil if there is nothing.
func (v *volume) find(name string) *inode {
	i := v.root
	if name == "" || name == "." {
		return i
	}
	for _, part := range splitPath(name) {
		if i = i.entries[part]; i == nil {
			return nil
		}
	}
	return i
}

func splitPath(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
}
