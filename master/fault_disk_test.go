package master

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// A faultDisk is the disk of one master's Raft log, which outlives its
// processes. A raft-wal on it writes to memory, where what is not synced is known
// apart; a bbolt log writes to a real file. On either a write can hang or fail.
type faultDisk struct {
	mu       sync.Mutex // protects the rest
	files    map[string]*diskFile
	state    types.PersistentState
	stable   map[string][]byte
	hangs    chan struct{} // writes wait until it is closed; nil: they do not
	fails    error         // of writes; nil: they succeed
	lies     bool          // what is synced is not
	swap     func(*raft.Log)
	deleting func()        // called before entries are deleted; may be nil
	ended    chan struct{} // closed when the process that has the disk open is ended
}

// A diskFile is a file as a process sees it and as it is after a crash.
type diskFile struct {
	seen, kept []byte
	low, high  int // what differs, at most
}

func newFaultDisk() *faultDisk {
	return &faultDisk{files: map[string]*diskFile{}, stable: map[string][]byte{}}
}

// open opens a raft-wal of small segments on the disk, or a bbolt log at path.
func (d *faultDisk) open(path string, panicked func(error)) (logStore, error) {
	d.ended = make(chan struct{})
	if path != "" {
		b, err := openBoltLog(path)
		if err != nil {
			return nil, err
		}
		b.db.NoSync = true
		return &faultLog{b, d, panicked}, nil
	}
	log, err := wal.Open("wal", wal.WithMetaStore(metaOn{d}), wal.WithSegmentFiler(segment.NewFiler("wal", filesOn{d})),
		wal.WithSegmentSize(8<<10), wal.WithLogger(newRaftLogger(ledgerConfig{}.withDefaults().Logger)))
	if err != nil {
		return nil, err
	}
	return &faultLog{log, d, panicked}, nil
}

// stall makes writes hang until the func it returns is called.
func (d *faultDisk) stall() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hangs := make(chan struct{})
	d.hangs = hangs
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.hangs == hangs {
			d.hangs = nil
		}
		close(hangs)
	})
}

// fail makes writes fail with err, or succeed again with nil.
func (d *faultDisk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = err
}

// lie makes the disk forget in a crash whatever is written from now on.
func (d *faultDisk) lie(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lies = on
}

// alter has every entry changed on its way to the disk, which seals what it gets.
func (d *faultDisk) alter(how func(*raft.Log)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.swap = how
}

// crash loses what was not synced, or keeps a part of it, up to any byte.
func (d *faultDisk) crash(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = nil
	for _, name := range d.names() {
		f := d.files[name]
		if f.high > f.low {
			cut := f.low + rng.IntN(f.high-f.low+1)
			copy(f.kept[f.low:cut], f.seen[f.low:cut])
		}
		copy(f.seen, f.kept)
		f.low, f.high = 0, 0
	}
}

func (d *faultDisk) names() (names []string) {
	for name := range d.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// flip inverts one bit of what is written, and reports whether there was any.
func (d *faultDisk) flip(rng *rand.Rand) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	type place struct {
		file *diskFile
		at   int
	}
	var places []place
	for _, name := range d.names() {
		f := d.files[name]
		for at, b := range f.kept {
			if b != 0 {
				places = append(places, place{f, at})
			}
		}
	}
	if len(places) == 0 {
		return false
	}
	p, bit := places[rng.IntN(len(places))], byte(1)<<rng.IntN(8)
	p.file.kept[p.at] ^= bit
	p.file.seen[p.at] ^= bit
	return true
}

// write waits while the disk hangs and says whether it fails.
func (d *faultDisk) write() error {
	d.mu.Lock()
	hangs := d.hangs
	d.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fails
}

// A faultLog is a log on a faultDisk.
type faultLog struct {
	logStore
	disk     *faultDisk
	panicked func(error)
}

func (l *faultLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

func (l *faultLog) StoreLogs(logs []*raft.Log) error {
	l.disk.mu.Lock()
	swap := l.disk.swap
	l.disk.mu.Unlock()
	if swap != nil {
		logs = slices.Clone(logs)
		for i, log := range logs {
			other := *log
			if err := unseal(log.Index, &other); err != nil {
				return err
			}
			swap(&other)
			other.Data = binary.BigEndian.AppendUint32(slices.Clone(other.Data), seal(&other))
			other.Type |= sealed
			logs[i] = &other
		}
	}
	if err := l.disk.write(); err != nil {
		return err
	}
	return l.logStore.StoreLogs(logs)
}

func (l *faultLog) DeleteRange(low, high uint64) error {
	l.disk.mu.Lock()
	deleting := l.disk.deleting
	l.disk.mu.Unlock()
	if deleting != nil {
		deleting()
	}
	if err := l.disk.write(); err != nil {
		return err
	}
	return l.logStore.DeleteRange(low, high)
}

func (l *faultLog) Set(key, val []byte) error {
	if err := l.disk.write(); err != nil {
		return err
	}
	return l.logStore.Set(key, val)
}

// SetUint64 stores Raft's term. Raft panics when that fails, which ends a process:
// here the caller waits until the process is ended.
func (l *faultLog) SetUint64(key []byte, val uint64) error {
	if err := l.disk.write(); err != nil {
		l.panicked(fmt.Errorf("panic: failed to save current term: %w", err))
		<-l.disk.ended
	}
	return l.logStore.SetUint64(key, val)
}

// filesOn are raft-wal's segments on a faultDisk.
type filesOn struct{ d *faultDisk }

func (v filesOn) ListDir(string) ([]string, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	return v.d.names(), nil
}

func (v filesOn) Create(_, name string, size uint64) (types.WritableFile, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	if v.d.files[name] != nil {
		return nil, os.ErrExist
	}
	v.d.files[name] = &diskFile{seen: make([]byte, size), kept: make([]byte, size)}
	return handle{v.d, v.d.files[name]}, nil
}

func (v filesOn) Delete(_, name string) error {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	delete(v.d.files, name)
	return nil
}

func (v filesOn) OpenReader(dir, name string) (types.ReadableFile, error) {
	return v.OpenWriter(dir, name)
}

func (v filesOn) OpenWriter(_, name string) (types.WritableFile, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	if v.d.files[name] == nil {
		return nil, os.ErrNotExist
	}
	return handle{v.d, v.d.files[name]}, nil
}

// A handle is an open file.
type handle struct {
	d *faultDisk
	f *diskFile
}

func (h handle) Close() error { return nil }

func (h handle) ReadAt(p []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if at >= int64(len(h.f.seen)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.seen[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h handle) WriteAt(p []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	end := int(at) + len(p)
	if more := end - len(h.f.seen); more > 0 {
		h.f.seen = append(h.f.seen, make([]byte, more)...)
		h.f.kept = append(h.f.kept, make([]byte, more)...)
	}
	copy(h.f.seen[at:], p)
	if h.f.low == h.f.high {
		h.f.low, h.f.high = int(at), end
	} else {
		h.f.low, h.f.high = min(h.f.low, int(at)), max(h.f.high, end)
	}
	return len(p), nil
}

func (h handle) Sync() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.lies {
		return nil
	}
	copy(h.f.kept[h.f.low:h.f.high], h.f.seen[h.f.low:h.f.high])
	h.f.low, h.f.high = 0, 0
	return nil
}

// metaOn are raft-wal's variables on a faultDisk. Raft-wal keeps them in bbolt,
// which writes them whole or not at all.
type metaOn struct{ d *faultDisk }

func (m metaOn) Load(string) (types.PersistentState, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	return types.PersistentState{NextSegmentID: m.d.state.NextSegmentID, Segments: slices.Clone(m.d.state.Segments)}, nil
}

func (m metaOn) CommitState(s types.PersistentState) error {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	m.d.state = types.PersistentState{NextSegmentID: s.NextSegmentID, Segments: slices.Clone(s.Segments)}
	return nil
}

func (m metaOn) GetStable(key []byte) ([]byte, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	return slices.Clone(m.d.stable[string(key)]), nil
}

func (m metaOn) SetStable(key, val []byte) error {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	m.d.stable[string(key)] = slices.Clone(val)
	return nil
}

func (m metaOn) Close() error { return nil }
