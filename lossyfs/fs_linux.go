package lossyfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Config is how a file system behaves for as long as it is mounted.
type Config struct {
	Journal bool // a sync of anything makes all names durable, as ext4 does
}

// An FS is a mounted file system. It is safe for concurrent use.
type FS struct {
	dir     string
	cfg     Config
	server  *fuse.Server
	root    *node
	release func() bool  // of Mount's ctx
	close   func() error // unmount, once

	mu      sync.Mutex // protects what follows
	volume  *volume
	era     chan struct{} // closed by the next cut
	hurt    *hurt
	numbers uint64 // of inodes, given out so far
	counts  Counts
}

// Counts are what a file system has been asked to do.
type Counts struct {
	Writes       int   // of files, each at most 128 KiB
	BytesWritten int64 // by them
	FileSyncs    int   // fsyncs and fdatasyncs of files that succeeded
	DirSyncs     int   // fsyncs of directories that succeeded
	Failed       int   // reads, writes and fsyncs that a fault failed
	Cuts         int
}

// ErrUnavailable says that this machine cannot mount; the error around it says
// why. Tests skip on it.
var ErrUnavailable = errors.New("lossyfs: no file system can be mounted here")

// Mount shows an empty file system at dir, which must exist, until ctx ends or
// [FS.Close]. It needs /dev/fuse and the right to mount.
func Mount(ctx context.Context, dir string, cfg Config) (*FS, error) {
	if err := available(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	f := &FS{dir: dir, cfg: cfg, era: make(chan struct{}), hurt: newHurt(Faults{})}
	f.volume = &volume{root: newDir(f.number(), syscall.S_IFDIR|0o700)}
	f.root = &node{fs: f}
	none := time.Duration(0)
	server, err := fusefs.Mount(dir, f.root, &fusefs.Options{
		// The kernel asks for each name and size again, for a cut changes them unseen.
		EntryTimeout: &none, AttrTimeout: &none, NegativeTimeout: &none,
		MountOptions: fuse.MountOptions{
			Name: "lossyfs", FsName: "lossyfs", DirectMountStrict: true, DisableXAttrs: true,
			// Contents change only through the kernel, or by Flip, which says so.
			ExplicitDataCacheControl: true,
		},
	})
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: mount at %s: %w", ErrUnavailable, dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lossyfs: mount at %s: %w", dir, err)
	}
	f.server, f.close = server, sync.OnceValue(f.unmount)
	f.release = context.AfterFunc(ctx, func() { _ = f.Close() }) // who wants the error calls Close
	return f, nil
}

// available says why nothing can be mounted, as far as that can be told before.
func available() error {
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return device.Close()
}

// Close unmounts, once, and returns when it is done. The error says if a process
// still uses the file system; it is then unmounted when that ends.
func (f *FS) Close() error { return f.close() }

func (f *FS) unmount() error {
	f.release()
	f.PowerCut() // so that no fsync stalls and nobody can go on
	if err := f.server.Unmount(); err != nil {
		_ = syscall.Unmount(f.dir, syscall.MNT_DETACH)
		return fmt.Errorf("lossyfs: unmount %s: %w; end the processes that have files open there", f.dir, err)
	}
	f.server.Wait()
	return nil
}

// PowerCut forgets everything that is not durable. Files that are open answer EIO
// from now on; the mount shows what the disk has.
func (f *FS) PowerCut() { f.cut(nil) }

// TornPowerCut is a cut in which some of what is not durable survives, as the
// package comment says; equal states and seeds leave equal disks.
func (f *FS) TornPowerCut(seed uint64) { f.cut(rand.New(rand.NewPCG(seed, 0))) }

func (f *FS) cut(tear *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volume = f.volume.afterCut(tear, f.number)
	f.counts.Cuts++
	close(f.era)
	f.era = make(chan struct{})
}

// Spoil sets the faults from now on and ends the stalls of before. The error
// names the first value out of range, and then nothing changes.
func (f *FS) Spoil(faults Faults) error {
	if err := faults.check(); err != nil {
		return fmt.Errorf("lossyfs: spoil: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.hurt.over)
	f.hurt = newHurt(faults)
	return nil
}

// Flip turns over one bit, 0 to 7, of the byte at off in a file, named from the
// root of the mount: on the disk and, for the next who reads it, in the cache.
func (f *FS) Flip(name string, off int64, bit uint) error {
	if err := f.flip(name, off, bit); err != nil {
		return &fs.PathError{Op: "flip", Path: name, Err: err}
	}
	in := f.root.EmbeddedInode()
	for _, part := range splitPath(name) {
		if in = in.GetChild(part); in == nil {
			return nil // the kernel has nothing of it
		}
	}
	if errno := in.NotifyContent(off, 1); errno != 0 && errno != syscall.ENOENT {
		return &fs.PathError{Op: "flip", Path: name, Err: errno}
	}
	return nil
}

func (f *FS) flip(name string, off int64, bit uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.volume.find(name)
	switch {
	case i == nil:
		return fs.ErrNotExist
	case i.isDir() || bit > 7 || !i.flip(off, bit):
		return fs.ErrInvalid
	}
	return nil
}

// Counts returns what happened so far.
func (f *FS) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// number needs f.mu, or an f that nobody else knows.
func (f *FS) number() uint64 {
	f.numbers++
	return f.numbers
}

// stall waits as long as faults make an fsync of a file of this era take.
func (f *FS) stall(n *node) {
	f.mu.Lock()
	var d time.Duration
	if i, errno := n.inode(); errno == 0 {
		if fault := f.hurt.befall(opStall, i.path()); fault != nil {
			d = fault.Stall
		}
	}
	over, era := f.hurt.over, f.era
	f.mu.Unlock()
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
	case <-era:
	}
}
