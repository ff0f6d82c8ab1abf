package master

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	bolt "go.etcd.io/bbolt"
)

// A logStore keeps Raft's log and its few durable variables. None tolerates a
// gap, so Raft drops the whole log when it installs a snapshot; keeping old
// entries below a gap can make it retry for ever (hashicorp/raft issue 697).
type logStore interface {
	raft.LogStore
	raft.MonotonicLogStore
	raft.StableStore
	io.Closer
}

// openLogStore opens the kind of log that cfg asks for in dir.
func openLogStore(cfg ledgerConfig, dir string) (logStore, error) {
	if cfg.OpenLog != nil {
		return cfg.OpenLog(dir)
	}
	switch cfg.Log {
	case logWAL:
		if err := finishRotation(dir); err != nil {
			return nil, err
		}
		w, err := wal.Open(dir, wal.WithLogger(newRaftLogger(cfg.Logger)))
		if errors.Is(err, wal.ErrCorrupt) {
			return nil, fmt.Errorf("open raft log %s: %w: %w", dir, errDamaged, err)
		}
		if err != nil {
			return nil, fmt.Errorf("open raft log %s: %w", dir, err)
		}
		return w, nil
	case logBolt:
		return openBoltLog(filepath.Join(dir, "log.db"))
	case logMemory:
		if cfg.Memory == nil {
			cfg.Memory = raft.NewInmemStore()
		}
		return memoryLog{cfg.Memory}, nil
	}
	return nil, fmt.Errorf("raft log %q is neither wal nor bbolt", cfg.Log)
}

// A memoryLog is for simulations: what a process that restarts finds is what
// the caller kept.
type memoryLog struct{ *raft.InmemStore }

func (memoryLog) Close() error      { return nil }
func (memoryLog) IsMonotonic() bool { return true }

var (
	bucketLogs   = []byte("logs")   // index, 8 bytes -> term 8 ‖ type 1 ‖ appended Unix ns 8 ‖ extensions length 4 ‖ extensions ‖ data
	bucketStable = []byte("stable") // name -> bytes; numbers are 8 bytes; all big-endian
)

// A boltLog is the log in a bbolt file: half as fast as raft-wal, and simple.
type boltLog struct{ db *bolt.DB }

func openBoltLog(path string) (*boltLog, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, InitialMmapSize: 1 << 28,
	})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err1 := tx.CreateBucketIfNotExists(bucketLogs)
		_, err2 := tx.CreateBucketIfNotExists(bucketStable)
		return errors.Join(err1, err2)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log %s: %w", path, err), db.Close())
	}
	return &boltLog{db}, nil
}

func (l *boltLog) Close() error { return l.db.Close() }

// IsMonotonic tells Raft that StoreLogs refuses gaps.
func (l *boltLog) IsMonotonic() bool { return true }

// FirstIndex returns the index of the first entry, 0 if there is none.
func (l *boltLog) FirstIndex() (uint64, error) { return l.end((*bolt.Cursor).First) }

// LastIndex returns the index of the last entry, 0 if there is none.
func (l *boltLog) LastIndex() (uint64, error) { return l.end((*bolt.Cursor).Last) }

func (l *boltLog) end(seek func(*bolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		index = endOf(tx.Bucket(bucketLogs), seek)
		return nil
	})
	return index, err
}

func endOf(b *bolt.Bucket, seek func(*bolt.Cursor) ([]byte, []byte)) uint64 {
	k, _ := seek(b.Cursor())
	if k == nil {
		return 0
	}
	return binary.BigEndian.Uint64(k)
}

// GetLog reads one entry; the error is raft.ErrLogNotFound if there is none.
func (l *boltLog) GetLog(index uint64, log *raft.Log) error {
	return l.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketLogs).Get(indexKey(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		return decodeLog(index, v, log)
	})
}

// StoreLog appends an entry.
func (l *boltLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries whose indices follow each other and the last one.
func (l *boltLog) StoreLogs(logs []*raft.Log) error {
	return l.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLogs)
		b.FillPercent = 1 // entries are only appended
		last := endOf(b, (*bolt.Cursor).Last)
		for _, log := range logs {
			if last != 0 && log.Index != last+1 {
				return fmt.Errorf("append entry %d after %d: not the next one", log.Index, last)
			}
			if err := b.Put(indexKey(log.Index), encodeLog(log)); err != nil {
				return err
			}
			last = log.Index
		}
		return nil
	})
}

// DeleteRange removes the entries from low to high, both included.
func (l *boltLog) DeleteRange(low, high uint64) error {
	return l.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLogs)
		if low <= endOf(b, (*bolt.Cursor).First) && endOf(b, (*bolt.Cursor).Last) <= high {
			if err := tx.DeleteBucket(bucketLogs); err != nil {
				return err
			}
			_, err := tx.CreateBucket(bucketLogs)
			return err
		}
		return deleteRange(b, low, high)
	})
}

// deleteRange seeks for every entry, because a cursor that has deleted does not
// say reliably what comes next.
func deleteRange(b *bolt.Bucket, low, high uint64) error {
	c := b.Cursor()
	for {
		k, _ := c.Seek(indexKey(low))
		if k == nil || binary.BigEndian.Uint64(k) > high {
			return nil
		}
		if err := b.Delete(k); err != nil {
			return err
		}
	}
}

// Set stores a variable durably.
func (l *boltLog) Set(key, val []byte) error {
	return l.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketStable).Put(key, val) })
}

// Get returns a variable, nil if it was never set.
func (l *boltLog) Get(key []byte) (val []byte, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		val = append(val, tx.Bucket(bucketStable).Get(key)...)
		return nil
	})
	return val, err
}

// SetUint64 stores a number durably.
func (l *boltLog) SetUint64(key []byte, val uint64) error { return l.Set(key, indexKey(val)) }

// GetUint64 returns a number, 0 if it was never set.
func (l *boltLog) GetUint64(key []byte) (uint64, error) {
	v, err := l.Get(key)
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("raft variable %s: %d bytes are no number", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

func indexKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

const logHeader = 8 + 1 + 8 + 4

func encodeLog(log *raft.Log) []byte {
	b := make([]byte, 0, logHeader+len(log.Extensions)+len(log.Data))
	b = append(binary.BigEndian.AppendUint64(b, log.Term), byte(log.Type))
	appended := int64(0)
	if !log.AppendedAt.IsZero() {
		appended = log.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(appended))
	b = binary.BigEndian.AppendUint32(b, uint32(len(log.Extensions)))
	return append(append(b, log.Extensions...), log.Data...)
}

// decodeLog copies: v is only valid inside its transaction.
func decodeLog(index uint64, v []byte, log *raft.Log) error {
	if len(v) < logHeader || uint64(len(v)-logHeader) < uint64(binary.BigEndian.Uint32(v[17:])) {
		return fmt.Errorf("raft log entry %d: %w", index, errEntry)
	}
	ext, rest := int(binary.BigEndian.Uint32(v[17:])), append([]byte(nil), v[logHeader:]...)
	*log = raft.Log{Index: index, Term: binary.BigEndian.Uint64(v), Type: raft.LogType(v[8]), Data: rest[ext:]}
	if ext > 0 {
		log.Extensions = rest[:ext:ext]
	}
	if ns := int64(binary.BigEndian.Uint64(v[9:])); ns != 0 {
		log.AppendedAt = time.Unix(0, ns)
	}
	return nil
}

// Names that hashicorp/raft gives its variables.
const (
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
)

// A voteStore writes a vote in one step. Raft writes its term and then its
// candidate; a crash in between would leave the new term with the old candidate
// (hashicorp/raft issue 661).
type voteStore struct {
	raft.StableStore
	watch *watchdog

	mu   sync.Mutex // protects term
	term uint64     // of the vote whose candidate Raft is about to set
}

// SetUint64 keeps the term of a vote for the Set of its candidate.
func (s *voteStore) SetUint64(key []byte, val uint64) error {
	if string(key) != keyVoteTerm {
		defer s.watch.watch("a write of Raft's term")()
		return s.StableStore.SetUint64(key, val)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = val
	return nil
}

// Set stores a candidate as term, 8 bytes big-endian ‖ candidate.
func (s *voteStore) Set(key, val []byte) error {
	if string(key) != keyVoteCandidate {
		return s.StableStore.Set(key, val)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.watch.watch("a write of Raft's vote")()
	return s.StableStore.Set(key, append(indexKey(s.term), val...))
}

// GetUint64 reads the term of the last complete vote from the candidate's value.
func (s *voteStore) GetUint64(key []byte) (uint64, error) {
	if string(key) != keyVoteTerm {
		return s.StableStore.GetUint64(key)
	}
	v, err := s.StableStore.Get([]byte(keyVoteCandidate))
	if err != nil || len(v) < 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

// Get reads the candidate of the last complete vote.
func (s *voteStore) Get(key []byte) ([]byte, error) {
	v, err := s.StableStore.Get(key)
	if string(key) != keyVoteCandidate || err != nil || len(v) < 8 {
		return v, err
	}
	return v[8:], nil
}
