package lossyfs

import (
	"context"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A node is a file or directory as the kernel knows it. It serves its inode as
// long as no cut has come between; the root serves that of each era.
type node struct {
	fusefs.Inode
	fs   *FS
	of   *inode // nil for the root
	born <-chan struct{}
}

var (
	_ fusefs.NodeLookuper  = (*node)(nil)
	_ fusefs.NodeReaddirer = (*node)(nil)
	_ fusefs.NodeGetattrer = (*node)(nil)
	_ fusefs.NodeSetattrer = (*node)(nil)
	_ fusefs.NodeCreater   = (*node)(nil)
	_ fusefs.NodeMkdirer   = (*node)(nil)
	_ fusefs.NodeLinker    = (*node)(nil)
	_ fusefs.NodeUnlinker  = (*node)(nil)
	_ fusefs.NodeRmdirer   = (*node)(nil)
	_ fusefs.NodeRenamer   = (*node)(nil)
	_ fusefs.NodeOpener    = (*node)(nil)
	_ fusefs.NodeReader    = (*node)(nil)
	_ fusefs.NodeWriter    = (*node)(nil)
	_ fusefs.NodeAllocater = (*node)(nil)
	_ fusefs.NodeFsyncer   = (*node)(nil)
	_ fusefs.NodeStatfser  = (*node)(nil)
)

// inode needs fs.mu. The error is EIO if a cut has come between.
func (n *node) inode() (*inode, syscall.Errno) {
	if n.of == nil {
		return n.fs.volume.root, 0
	}
	if n.born != n.fs.era {
		return nil, syscall.EIO
	}
	return n.of, 0
}

// locked runs do on the inode while nothing else changes.
func (n *node) locked(do func(*inode) syscall.Errno) syscall.Errno {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	i, errno := n.inode()
	if errno != 0 {
		return errno
	}
	return do(i)
}

// show makes an inode known to the kernel. It needs fs.mu.
func (n *node) show(ctx context.Context, i *inode, out *fuse.EntryOut) *fusefs.Inode {
	i.stat(&out.Attr)
	return n.NewInode(ctx, &node{fs: n.fs, of: i, born: n.fs.era}, fusefs.StableAttr{Mode: i.mode & syscall.S_IFMT, Ino: i.number})
}

func (i *inode) stat(a *fuse.Attr) {
	a.Ino, a.Mode, a.Nlink, a.Blksize = i.number, i.mode, uint32(i.links), pageSize
	a.SetTimes(nil, &i.mtime, &i.mtime)
	if !i.isDir() {
		a.Size, a.Blocks = uint64(i.size), uint64(len(i.pages))*pageSize/512
	}
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (child *fusefs.Inode, errno syscall.Errno) {
	errno = n.locked(func(dir *inode) syscall.Errno {
		i := dir.entries[name]
		if i == nil {
			return syscall.ENOENT
		}
		child = n.show(ctx, i, out)
		return 0
	})
	return child, errno
}

func (n *node) Readdir(context.Context) (fusefs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	errno := n.locked(func(dir *inode) syscall.Errno {
		for name, i := range dir.entries {
			list = append(list, fuse.DirEntry{Name: name, Mode: i.mode & syscall.S_IFMT, Ino: i.number})
		}
		return 0
	})
	return fusefs.NewListDirStream(list), errno
}

func (n *node) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.locked(func(i *inode) syscall.Errno {
		i.stat(&out.Attr)
		return 0
	})
}

func (n *node) Setattr(_ context.Context, _ fusefs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.locked(func(i *inode) syscall.Errno {
		if size, ok := in.GetSize(); ok {
			i.truncate(int64(size))
			i.mtime = time.Now()
		}
		if mode, ok := in.GetMode(); ok {
			i.mode = i.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
		}
		if mtime, ok := in.GetMTime(); ok {
			i.mtime = mtime
		}
		i.stat(&out.Attr)
		return 0
	})
}

func (n *node) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	child, errno := n.make(ctx, name, out, func() *inode { return newFile(n.fs.number(), syscall.S_IFREG|mode&^syscall.S_IFMT) })
	return child, nil, fuse.FOPEN_KEEP_CACHE, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	return n.make(ctx, name, out, func() *inode { return newDir(n.fs.number(), syscall.S_IFDIR|mode&^syscall.S_IFMT) })
}

// Link gives an inode one more name.
func (n *node) Link(ctx context.Context, target fusefs.InodeEmbedder, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	old := target.(*node)
	if old.of == nil || old.born != n.era() {
		return nil, syscall.EIO
	}
	return n.make(ctx, name, out, func() *inode { return old.of })
}

func (n *node) era() <-chan struct{} {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	return n.fs.era
}

// make gives a new name to what is made.
func (n *node) make(ctx context.Context, name string, out *fuse.EntryOut, what func() *inode) (child *fusefs.Inode, errno syscall.Errno) {
	errno = n.locked(func(dir *inode) syscall.Errno {
		if dir.entries[name] != nil {
			return syscall.EEXIST
		}
		if !n.fs.hurt.take() {
			return syscall.ENOSPC
		}
		i := what()
		n.fs.volume.do(nameOp{{dir, name, i}})
		child = n.show(ctx, i, out)
		return 0
	})
	return child, errno
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno { return n.remove(name) }
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno  { return n.remove(name) }

// remove needs no check of the type: the kernel has made it.
func (n *node) remove(name string) syscall.Errno {
	return n.locked(func(dir *inode) syscall.Errno {
		i := dir.entries[name]
		switch {
		case i == nil:
			return syscall.ENOENT
		case len(i.entries) > 0:
			return syscall.ENOTEMPTY
		}
		n.fs.volume.do(nameOp{{dir, name, nil}})
		return 0
	})
}

func (n *node) Rename(_ context.Context, name string, parent fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.locked(func(from *inode) syscall.Errno {
		to, errno := parent.(*node).inode()
		if errno != 0 {
			return errno
		}
		const noReplace = 1 // RENAME_NOREPLACE of renameat2(2)
		i, old := from.entries[name], to.entries[newName]
		switch {
		case i == nil:
			return syscall.ENOENT
		case flags&^noReplace != 0:
			return syscall.EINVAL
		case old != nil && flags&noReplace != 0:
			return syscall.EEXIST
		case old != nil && len(old.entries) > 0:
			return syscall.ENOTEMPTY
		case old == i:
			return 0
		}
		n.fs.volume.do(nameOp{{from, name, nil}, {to, newName, i}})
		return 0
	})
}

// Open keeps the cache, which is right as long as the kernel makes all changes.
func (n *node) Open(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, n.locked(func(*inode) syscall.Errno { return 0 })
}

func (n *node) Read(_ context.Context, _ fusefs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	errno := n.locked(func(i *inode) syscall.Errno {
		if n.fs.fails(opRead, i) {
			return syscall.EIO
		}
		dest = dest[:i.readAt(dest, off)]
		return 0
	})
	return fuse.ReadResultData(dest), errno
}

func (n *node) Write(_ context.Context, _ fusefs.FileHandle, data []byte, off int64) (written uint32, errno syscall.Errno) {
	errno = n.locked(func(i *inode) syscall.Errno {
		if n.fs.fails(opWrite, i) {
			return syscall.EIO
		}
		done := i.writeAt(data, off, n.fs.hurt.take)
		if done == 0 && len(data) > 0 {
			return syscall.ENOSPC
		}
		i.mtime = time.Now()
		written = uint32(done)
		n.fs.counts.Writes++
		n.fs.counts.BytesWritten += int64(done)
		return 0
	})
	return written, errno
}

// Allocate knows fallocate(2) without flags and with FALLOC_FL_KEEP_SIZE, which
// has no effect here.
func (n *node) Allocate(_ context.Context, _ fusefs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	const keepSize = 1
	if mode == keepSize {
		return 0
	}
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	return n.locked(func(i *inode) syscall.Errno {
		if !i.allocate(int64(off), int64(size), n.fs.hurt.take) {
			return syscall.ENOSPC
		}
		return 0
	})
}

// Fsync is of files and directories.
func (n *node) Fsync(context.Context, fusefs.FileHandle, uint32) syscall.Errno {
	n.fs.stall(n)
	return n.locked(func(i *inode) syscall.Errno {
		failed := n.fs.fails(opSync, i)
		switch {
		case failed && i.isDir():
			return syscall.EIO
		case failed:
			i.settle()
			return syscall.EIO
		case n.fs.hurt.befall(opLie, i.path()) != nil:
			return 0
		case i.isDir():
			n.fs.volume.syncDir(i)
			n.fs.counts.DirSyncs++
		default:
			i.sync()
			n.fs.counts.FileSyncs++
		}
		if n.fs.cfg.Journal {
			n.fs.volume.syncAll()
		}
		return 0
	})
}

// fails needs f.mu.
func (f *FS) fails(op operation, i *inode) bool {
	if f.hurt.befall(op, i.path()) == nil {
		return false
	}
	f.counts.Failed++
	return true
}

// Statfs says that half of 1 GiB is free, or nothing.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	const blocks = 1 << 30 / pageSize
	*out = fuse.StatfsOut{Blocks: blocks, Bfree: blocks / 2, Bavail: blocks / 2, Files: 1 << 20, Ffree: 1 << 19, Bsize: pageSize, Frsize: pageSize, NameLen: 255}
	if n.fs.hurt.Full {
		room := uint64(n.fs.hurt.Room / pageSize)
		out.Bfree, out.Bavail = room, room
	}
	return 0
}
