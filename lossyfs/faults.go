package lossyfs

import (
	"fmt"
	"path"
	"slices"
	"time"
)

// Faults are what a file system suffers besides cuts. The zero value is a sound
// disk of unlimited size.
type Faults struct {
	Full  bool  // there is no room but Room: what needs more fails with ENOSPC
	Room  int64 // bytes, in whole pages of 4 KiB, that can still be allocated when Full is set
	Files []FileFault
}

// A FileFault is what befalls some files.
type FileFault struct {
	Match string // pattern as of path.Match, of the path from the root or of the last name; "" for all

	Read  bool          // reads fail with EIO
	Write bool          // writes fail with EIO
	Sync  bool          // fsyncs fail with EIO
	Lie   bool          // fsyncs succeed and make nothing durable
	Stall time.Duration // fsyncs take this much longer, or until the faults are set again

	Spare int // how many reads, writes and fsyncs it lets pass first
	Times int // how many it befalls in all after those; 0: each
}

// An operation is what a FileFault can befall.
type operation int

const (
	opRead operation = iota
	opWrite
	opSync
	opStall
	opLie
)

func (f *FileFault) befalls(op operation) bool {
	return [...]bool{opRead: f.Read, opWrite: f.Write, opSync: f.Sync, opStall: f.Stall > 0, opLie: f.Lie}[op]
}

// matches needs a pattern that check has seen.
func (f *FileFault) matches(name string) bool {
	whole, _ := path.Match(f.Match, name)
	last, _ := path.Match(f.Match, path.Base(name))
	return f.Match == "" || whole || last
}

// check says what is wrong with the faults.
func (f Faults) check() error {
	if f.Room < 0 {
		return fmt.Errorf("room is %d bytes; give 0 or more", f.Room)
	}
	for _, file := range f.Files {
		if _, err := path.Match(file.Match, ""); err != nil {
			return fmt.Errorf("%q is no pattern: %w", file.Match, err)
		}
		if file.Stall < 0 || file.Times < 0 || file.Spare < 0 {
			return fmt.Errorf("stall, spare or times of %q is negative; give 0 or more", file.Match)
		}
	}
	return nil
}

// A hurt is the faults as they are used up.
type hurt struct {
	Faults
	used []int // how often each of Files has befallen, or spared
	over chan struct{}
}

func newHurt(f Faults) *hurt {
	f.Files = slices.Clone(f.Files)
	return &hurt{Faults: f, used: make([]int, len(f.Files)), over: make(chan struct{})}
}

// befall returns the fault that an operation on a file meets, nil if none.
func (h *hurt) befall(op operation, name string) *FileFault {
	for n := range h.Files {
		f := &h.Files[n]
		if !f.befalls(op) || !f.matches(name) || f.Times > 0 && h.used[n] >= f.Spare+f.Times {
			continue
		}
		if h.used[n]++; h.used[n] > f.Spare {
			return f
		}
	}
	return nil
}

// take allocates a page.
func (h *hurt) take() bool {
	if !h.Full {
		return true
	}
	if h.Room < pageSize {
		return false
	}
	h.Room -= pageSize
	return true
}
