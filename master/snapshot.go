package master

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/store"
)

const (
	// snapshotState is the id of the only snapshot there is: the FSM's own file.
	snapshotState = "state"
	// snapshotIncoming is the id of a file that the leader sent, until it is
	// installed.
	snapshotIncoming = "incoming"
)

// snapshots is a raft.SnapshotStore that copies nothing: the FSM's file holds
// the state at every moment. To take a snapshot is to commit. To send one is to
// stream the file from a read transaction. One that is received is written
// beside the file and swapped in, so that a crash leaves the old file or the new.
type snapshots struct {
	fsm     *fsm
	dir     string
	observe observer

	mu       sync.Mutex        // protects incoming
	incoming raft.SnapshotMeta // of the file at path
}

func (s *snapshots) path() string { return filepath.Join(s.dir, "incoming.db") }

// List returns the committed state, if there is any.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	p := s.fsm.published()
	if p.at.index == 0 {
		return nil, nil
	}
	return []*raft.SnapshotMeta{stateMeta(p.at, p.servers, 0)}, nil
}

func stateMeta(at position, s servers, size int64) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, ID: snapshotState, Index: at.index, Term: at.term,
		Configuration: s.Configuration, ConfigurationIndex: s.index, Size: size}
}

// Open returns the state as it is committed now, or the file that was received.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if id == snapshotState {
		return s.openState()
	}
	s.mu.Lock()
	meta := s.incoming
	s.mu.Unlock()
	file, err := os.Open(s.path())
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	return &meta, &incoming{file}, nil
}

func (s *snapshots) openState() (*raft.SnapshotMeta, io.ReadCloser, error) {
	tx, err := s.fsm.data.Begin(false)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	at, err1 := appliedIn(tx)
	conf, err2 := serversIn(tx)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open snapshot: %w", err), tx.Rollback())
	}
	return stateMeta(at, conf, tx.Size()), s.stream(tx), nil
}

// A streaming reads the file as one read transaction sees it.
type streaming struct {
	*io.PipeReader
	done chan struct{} // closed when the transaction has ended
}

func (s *snapshots) stream(tx *store.Tx) *streaming {
	r, w := io.Pipe()
	out := &streaming{r, make(chan struct{})}
	start := time.Now()
	go func() {
		defer close(out.done)
		_, err := tx.WriteTo(w)
		w.CloseWithError(errors.Join(err, tx.Rollback()))
		s.took(start)
	}()
	return out
}

// Close stops the copy and waits for it.
func (s *streaming) Close() error {
	err := s.PipeReader.Close()
	<-s.done
	return err
}

func (s *snapshots) took(start time.Time) {
	if s.observe.Snapshot != nil {
		s.observe.Snapshot(time.Since(start))
	}
}

// Create begins a snapshot: an incoming one if it is written to, else one of the
// own state.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	meta := stateMeta(position{index, term}, servers{confIndex, conf}, 0)
	meta.Version = version
	return &sink{store: s, meta: *meta, start: time.Now()}, nil
}

// A sink takes a snapshot.
type sink struct {
	store *snapshots
	meta  raft.SnapshotMeta
	start time.Time
	file  *os.File // nil for the own state
}

// ID returns the id to open the snapshot with.
func (k *sink) ID() string { return k.meta.ID }

// Write takes a piece of a file that the leader sends.
func (k *sink) Write(b []byte) (n int, err error) {
	if k.file == nil {
		k.meta.ID = snapshotIncoming
		if k.file, err = os.Create(k.store.path()); err != nil {
			return 0, err
		}
	}
	n, err = k.file.Write(b)
	k.meta.Size += int64(n)
	return n, err
}

// Close completes the snapshot.
func (k *sink) Close() error {
	defer k.store.took(k.start)
	if k.file == nil {
		return k.store.fsm.witness(k.meta)
	}
	if err := errors.Join(k.file.Sync(), k.file.Close()); err != nil {
		return errors.Join(err, os.Remove(k.store.path()))
	}
	if err := k.check(); err != nil {
		return errors.Join(err, os.Remove(k.store.path()))
	}
	k.store.mu.Lock()
	defer k.store.mu.Unlock()
	k.store.incoming = k.meta
	return nil
}

// check opens the file that was received, which reads all of its structure.
func (k *sink) check() error {
	db, err := store.Open(k.store.path(), store.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	err = db.View(func(tx *store.Tx) error {
		at, err := appliedIn(tx)
		switch {
		case err != nil:
			return err
		case at.index != k.meta.Index:
			return fmt.Errorf("the snapshot holds raft index %d, announced was %d", at.index, k.meta.Index)
		case at.index < k.store.fsm.published().at.index:
			return fmt.Errorf("the snapshot holds raft index %d, and this master is further; the leader sends a newer one next", at.index)
		}
		return nil
	})
	return errors.Join(err, db.Close())
}

// Cancel drops what was received.
func (k *sink) Cancel() error {
	if k.file == nil {
		return nil
	}
	return errors.Join(k.file.Close(), os.Remove(k.store.path()))
}

// incoming is the reader of a received file. Restore takes the file itself.
type incoming struct{ *os.File }

// Snapshot makes sure that everything evaluated is in the file.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return nil, errHalted
	}
	return ownState{}, f.commit()
}

// ownState is the FSM's file as a snapshot: there is nothing to copy.
type ownState struct{}

func (ownState) Persist(raft.SnapshotSink) error { return nil }
func (ownState) Release()                        {}

// witness notes that entries up to the snapshot's index are in the file. The
// last of them may be Raft's own, which the FSM never sees: without the note a
// restart would look for them in a log that is truncated by then.
func (f *fsm) witness(m raft.SnapshotMeta) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return errHalted
	}
	if m.ConfigurationIndex > f.servers.index {
		f.servers = servers{m.ConfigurationIndex, m.Configuration}
	}
	if m.Index <= f.at.index {
		return nil
	}
	f.at = position{m.Index, m.Term}
	if err := f.begin(); err != nil {
		return err
	}
	return f.commit()
}

// Restore swaps in the file that the leader sent.
func (f *fsm) Restore(r io.ReadCloser) error {
	for {
		w, ok := r.(raft.ReadCloserWrapper)
		if !ok {
			break
		}
		r = w.WrappedReadCloser()
	}
	in, ok := r.(*incoming)
	if !ok {
		return errors.New("restore: only a snapshot from the leader can be installed")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return errHalted
	}
	if err := f.commit(); err != nil { // frees the file; the old state stays whole if the new one fails
		f.fail(err)
		return err
	}
	if err := f.data.Replace(in.Name()); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	f.marks = nil
	return f.load()
}
