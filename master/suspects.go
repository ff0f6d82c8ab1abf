package master

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

const (
	suspectsName = "suspects" // the file, in the master's directory
	maxSuspects  = 64
	suspectSize  = 4 + 8 + 16 + 1 + 4
)

// Suspects are the Mutations during whose rehearsal this master's process has
// ended, in a file that outlives it:
//
//	under way ‖ 64 suspects    each node 4 ‖ seq 8 ‖ chain hash after it 16 ‖ times 1 ‖ crc32c 4, big-endian
//
// What is under way is written before the rehearsal and cleared after it. It is
// not synced, because a process that ends leaves what it wrote to the kernel, and
// a machine that loses its power says nothing against an edit. An entry that is
// torn or empty counts for nothing. Suspects belong to one goroutine at a time.
type suspects struct {
	file  *os.File
	known []suspect // oldest first
}

// A suspect is a Mutation and how often a process ended in its rehearsal.
type suspect struct {
	node  crm.NodeID
	seq   crm.Seq
	after crm.ChainHash
	times uint8
}

// is reports whether both are the same Mutation.
func (s suspect) is(o suspect) bool { return s.node == o.node && s.seq == o.seq && s.after == o.after }

func (s suspect) append(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, uint32(s.node)), uint64(s.seq))
	b = append(append(b, s.after[:]...), s.times)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// readSuspect reports whether b, of suspectSize bytes, holds a suspect.
func readSuspect(b []byte) (s suspect, ok bool) {
	s = suspect{node: crm.NodeID(binary.BigEndian.Uint32(b)), seq: crm.Seq(binary.BigEndian.Uint64(b[4:])), times: b[28]}
	copy(s.after[:], b[12:])
	return s, s.node != 0 && crc32.Checksum(b[:29], castagnoli) == binary.BigEndian.Uint32(b[29:])
}

// openSuspects reads the file, or makes it, and blames what was under way when
// the last process ended.
func openSuspects(dir string) (*suspects, error) {
	f, err := os.OpenFile(filepath.Join(dir, suspectsName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &suspects{file: f}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", f.Name(), err), f.Close())
	}
	return s, nil
}

func (s *suspects) load() error {
	b := make([]byte, (1+maxSuspects)*suspectSize)
	if _, err := s.file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for at := suspectSize; at < len(b); at += suspectSize {
		if k, ok := readSuspect(b[at : at+suspectSize]); ok {
			s.known = append(s.known, k)
		}
	}
	if last, ok := readSuspect(b[:suspectSize]); ok {
		s.blame(last)
	}
	return s.write()
}

// blame counts one more end of a process. The oldest suspect makes room.
func (s *suspects) blame(k suspect) {
	k.times = s.times(k)
	s.known = slices.DeleteFunc(s.known, k.is)
	k.times = min(k.times, 254) + 1
	s.known = append(s.known, k)
	s.known = s.known[max(0, len(s.known)-maxSuspects):]
}

func (s *suspects) write() error {
	b := make([]byte, suspectSize, (1+maxSuspects)*suspectSize)
	for _, k := range s.known {
		b = k.append(b)
	}
	if _, err := s.file.WriteAt(b[:cap(b)], 0); err != nil {
		return err
	}
	return s.file.Sync()
}

// times returns how often a process ended in the rehearsal of k.
func (s *suspects) times(k suspect) uint8 {
	for _, o := range s.known {
		if o.is(k) {
			return o.times
		}
	}
	return 0
}

// begin notes what is under way, instead of what was.
func (s *suspects) begin(k suspect) error {
	_, err := s.file.WriteAt(k.append(nil), 0)
	return err
}

// end notes that nothing is.
func (s *suspects) end() error {
	_, err := s.file.WriteAt(make([]byte, suspectSize), 0)
	return err
}

func (s *suspects) close() error { return s.file.Close() }
