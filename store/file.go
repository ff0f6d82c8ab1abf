package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tradepost-crm/tradepost/crm"
)

// Options of a file; the zero value is right for a node.
type Options struct {
	Logger      *slog.Logger      // nil: silent
	ReadOnly    bool              // shares the file with other read-only users; the file must exist
	InitialMmap int               // bytes of address space mapped at once; growing past it waits for readers. 0: 1 GiB base, 64 MiB journal
	MaxSize     int               // bytes the file may grow to; 0: no limit
	NoSync      bool              // no fsync: for tests, and for a bulk load into a file that a crash may cost
	OnCommit    func(CommitStats) // called after each commit, in the committing goroutine
	OnDoubt     func(error)       // called in the writing goroutine when a sync fails whose write can be seen, and with nil when that is durable
	Disk        *Disk             // sees and spoils what is written, for tests; nil in production
}

// lockTimeout bounds the wait for another process to let go of the file.
const lockTimeout = time.Second

// A file is an open bbolt file of either kind.
type file struct {
	path string
	kind kind
	opts Options

	swapped func() // called while the exchanged file is not yet visible; nil: nothing to do

	writer sync.Mutex   // held by the writable transaction, and while the file is exchanged
	broken error        // why no more writes are taken, nil: they are; protected by writer
	swap   sync.RWMutex // held shared by each transaction, exclusively while bolt changes
	bolt   *bolt.DB     // nil once closed

	inDoubt atomic.Bool // broken != nil, but for a Disk that panicked; for who does not hold writer

	statsMu sync.Mutex // protects stats
	stats   Stats      // the commit counters

	changes changeLog
}

func openFile(path string, k kind, o Options) (*file, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.InitialMmap == 0 {
		o.InitialMmap = 64 << 20
		if k == baseFile {
			o.InitialMmap = 1 << 30
		}
	}
	f := &file{path: path, kind: k, opts: o}
	found := true
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !o.ReadOnly {
		if err := o.Disk.around(DiskCreate, path, f.create); err != nil {
			return nil, f.failure("create", err)
		}
		found = false
	}
	if err := f.verify(path); err != nil {
		return nil, err
	}
	db, err := f.open(path)
	if err != nil {
		return nil, err
	}
	f.bolt = db
	if o.ReadOnly {
		return f, nil
	}
	if found {
		if err := f.complete(f.settle); err != nil {
			return nil, err
		}
	}
	f.sweep()
	return f, nil
}

// complete runs a last step of opening. Unless it succeeds the file is closed:
// nobody else can, also after the panic of a Disk.
func (f *file) complete(step func() error) (err error) {
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := step(); err != nil {
		return f.failure("open", err)
	}
	done = true
	return nil
}

// settle makes durable what the open file holds. A process that was killed between
// writing and syncing a commit, or between renaming a file and syncing the
// directory, and one whose sync failed, left something that can be seen but may
// not last.
func (f *file) settle() error {
	if err := errors.Join(f.rewriteHeads(), f.sync(f.path)); err != nil {
		return err
	}
	return f.sync(filepath.Dir(f.path))
}

// sweep removes what a crash may have left of create and Compact.
func (f *file) sweep() {
	for _, path := range []string{f.path + ".new", f.path + ".compact"} {
		if err := os.Remove(path); err == nil {
			f.opts.Logger.Info("left-over file removed", "path", path)
		}
	}
}

// create makes the file under another name first, so that a crash never leaves
// an empty one that looks like a lost one.
func (f *file) create() error {
	path := f.path + ".new"
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	o := f.options(false)
	o.NoSync = true
	db, err := bolt.Open(path, 0o600, o)
	if err != nil {
		return err
	}
	if err := errors.Join(db.Update(f.initialise), db.Close()); err != nil {
		return err
	}
	if err := f.sync(path); err != nil {
		return err
	}
	return f.publish(path)
}

func (f *file) initialise(tx *bolt.Tx) error {
	for _, b := range layout[f.kind] {
		if _, err := tx.CreateBucket(b.top()); err != nil {
			return err
		}
	}
	b := tx.Bucket(bucketFormat.top())
	return errors.Join(b.Put([]byte("kind"), []byte(f.kind)), b.Put([]byte("format"), binary.BigEndian.AppendUint32(nil, formatVersion)))
}

func (f *file) options(readOnly bool) *bolt.Options {
	return &bolt.Options{
		Timeout:         lockTimeout,
		ReadOnly:        readOnly,
		NoFreelistSync:  true, // a commit after a large purge costs 0.5 ms instead of 5
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: f.opts.InitialMmap,
		MaxSize:         f.opts.MaxSize,
		NoSync:          f.opts.NoSync || f.opts.syncs(),
		NoGrowSync:      f.opts.syncs(),
	}
}

// open opens the file at path, which must have been verified: bbolt trusts
// every page it maps, and a bad page would end the process.
func (f *file) open(path string) (*bolt.DB, error) {
	var db *bolt.DB
	err := f.guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, f.options(f.opts.ReadOnly))
		return err
	})
	if err == nil {
		if info, serr := os.Stat(path); serr == nil {
			release(db, info.Size())
		}
	}
	return db, f.failure("open", err)
}

// verify checks the page structure and the format of the file at path while
// holding its lock shared.
func (f *file) verify(path string) error {
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		return f.corrupt("file", errors.New("it is empty"))
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	switch {
	case errors.Is(err, berrors.ErrTimeout), errors.Is(err, os.ErrPermission), errors.Is(err, os.ErrNotExist):
		return f.failure("open", err)
	case err != nil:
		return f.corrupt("file", err)
	}
	defer db.Close()
	return f.guard(func() error {
		if err := checkFile(path); err != nil {
			return f.corrupt("file", err)
		}
		return db.View(f.checkFormat)
	})
}

func (f *file) checkFormat(tx *bolt.Tx) error {
	refuse := func(format string, args ...any) error {
		return &crm.Error{Code: crm.CodeFormat, Op: "open", Item: f.path, Message: fmt.Sprintf(format, args...)}
	}
	b := tx.Bucket(bucketFormat.top())
	if b == nil {
		return refuse("this is a bbolt file of another program; give another path")
	}
	if k := kind(b.Get([]byte("kind"))); k != f.kind {
		return refuse("this is a %q file, not a %s file; give another path", string(k), f.kind)
	}
	v := b.Get([]byte("format"))
	if len(v) != 4 {
		return f.corrupt("format", errors.New("no version"))
	}
	if n := binary.BigEndian.Uint32(v); n != formatVersion {
		return refuse("its format is version %d and this program knows %d; upgrade tradepost", n, formatVersion)
	}
	for _, want := range layout[f.kind] {
		if tx.Bucket(want.top()) == nil {
			return f.corrupt("format", fmt.Errorf("bucket %s is missing", want.top()))
		}
	}
	return nil
}

// Path returns the path of the file.
func (f *file) Path() string { return f.path }
