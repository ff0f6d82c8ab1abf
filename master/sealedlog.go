package master

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// A sealedLog gives each entry a checksum of all that Raft acts upon, and checks
// it when the entry is read. No log store does: raft-wal looks at the last write
// before a crash only, and a bit that flips later in the term of an entry, say,
// would be sent on as if it were the entry. It can be read while it is closed,
// and when it is damaged in a way that makes its reader panic.
//
// A sealed entry is stored with 0x80 added to its type, and with crc32c of
// index 8 ‖ term 8 ‖ type 1 ‖ extensions ‖ data behind its data, 4 bytes; all
// big-endian. Entries of releases that did not seal lack both.
type sealedLog struct {
	logStore

	mu     sync.RWMutex // protects closed; held while reading
	closed bool
}

const sealed = 0x80

var errChecksum = errors.New("checksum does not match")

func seal(l *raft.Log) uint32 {
	head := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 17), l.Index), l.Term)
	sum := crc32.Checksum(append(head, byte(l.Type)), castagnoli)
	return crc32.Update(crc32.Update(sum, castagnoli, l.Extensions), castagnoli, l.Data)
}

// StoreLog appends an entry.
func (s *sealedLog) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends copies of the entries, with their seals.
func (s *sealedLog) StoreLogs(logs []*raft.Log) error {
	out := make([]*raft.Log, len(logs))
	for i, log := range logs {
		l := *log
		l.Data = binary.BigEndian.AppendUint32(append(make([]byte, 0, len(log.Data)+4), log.Data...), seal(log))
		l.Type |= sealed
		out[i] = &l
	}
	return s.logStore.StoreLogs(out)
}

// GetLog reads one entry. The error is raft.ErrLogNotFound if there is none, and
// wraps errDamaged if it is not as it was stored.
func (s *sealedLog) GetLog(index uint64, log *raft.Log) error {
	err := s.read(func() error { return s.logStore.GetLog(index, log) })
	if err == nil {
		err = unseal(index, log)
	}
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, wal.ErrClosed) {
		return err
	}
	if _, io := errors.AsType[syscall.Errno](err); io {
		return fmt.Errorf("entry %d of the raft log: %w", index, err)
	}
	return fmt.Errorf("%w: entry %d of the raft log: %w", errDamaged, index, err)
}

// unseal checks and removes the seal of an entry.
func unseal(index uint64, log *raft.Log) error {
	if log.Index != index {
		return fmt.Errorf("it says that it is entry %d", log.Index)
	}
	if log.Type&sealed == 0 {
		if log.Type == raft.LogCommand && !intact(log.Data) {
			return errChecksum
		}
		return nil
	}
	end := len(log.Data) - 4
	if end < 0 {
		return errChecksum
	}
	sum := binary.BigEndian.Uint32(log.Data[end:])
	log.Type &^= sealed
	if log.Data = log.Data[:end:end]; seal(log) != sum {
		return errChecksum
	}
	return nil
}

// FirstIndex returns the index of the first entry, 0 if there is none.
func (s *sealedLog) FirstIndex() (index uint64, err error) {
	err = s.read(func() error {
		index, err = s.logStore.FirstIndex()
		return err
	})
	return index, err
}

func (s *sealedLog) read(do func() error) (err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return wal.ErrClosed
	}
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("panic: %v", what)
		}
	}()
	return do()
}

// Close waits for readers and closes the log.
func (s *sealedLog) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.logStore.Close()
}
