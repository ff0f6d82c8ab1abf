package crm

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// MaxForks bounds a Lineage, in forks.
const MaxForks = 64

// A Lineage says what a Rev of an earlier timeline means now. A restore of the
// masters from a backup begins a new timeline: up to the Rev that the backup
// held the two are one, above it the same Rev is another decision. It is decided
// state: every master has the same one at the same Rev.
type Lineage struct {
	Timeline uint64 // the one that Revs count in now; 0: none yet
	Forks    []Fork // of its ancestors, oldest first, at most MaxForks; their Revs never fall
}

// A Fork is where a timeline was left for the next one.
type Fork struct {
	Timeline uint64
	Rev      Rev // the last one that both have
}

// Restored returns the lineage after a restore from a backup that holds l's
// timeline up to rev: the new timeline is the given one. Where there are more
// than MaxForks, the oldest is forgotten and its Revs count for nothing.
//
// The error, of code invalid, says that rev is below the last fork, or that the
// timeline cannot be told from one of l by its low 32 bits: draw another.
func (l Lineage) Restored(rev Rev, timeline uint64) (Lineage, error) {
	next := Lineage{Timeline: timeline, Forks: append(slices.Clone(l.Forks), Fork{l.Timeline, rev})}
	if len(next.Forks) > MaxForks {
		next.Forks = slices.Delete(next.Forks, 0, 1)
	}
	if err := next.check(); err != nil {
		return Lineage{}, &Error{Code: CodeInvalid, Op: "begin a timeline", Item: fmt.Sprint(timeline), Message: err.Error()}
	}
	return next, nil
}

// NewLineage returns the lineage that a peer tells of. The error, of code invalid,
// says why no restores could have made it.
func NewLineage(timeline uint64, forks []Fork) (Lineage, error) {
	l := Lineage{Timeline: timeline, Forks: forks}
	if err := l.check(); err != nil {
		return Lineage{}, &Error{Code: CodeInvalid, Op: "read lineage", Item: fmt.Sprint(timeline), Message: err.Error()}
	}
	return l, nil
}

// Common returns the last Rev of l's timeline that means the same in m's: all of
// them if m's is a later timeline of the same line, or else where the two parted;
// 0 if they have nothing in common that both know of.
func (l Lineage) Common(m Lineage) Rev {
	if l.Timeline == 0 || m.Timeline == 0 {
		return 0
	}
	common, _ := m.shared(l.Timeline)
	if l.Timeline == m.Timeline {
		return common
	}
	for _, f := range l.Forks {
		if rev, known := m.shared(f.Timeline); known {
			common = max(common, min(rev, f.Rev))
		}
	}
	if rev, known := l.shared(m.Timeline); known {
		common = max(common, rev)
	}
	return common
}

func (l Lineage) check() error {
	if l.Timeline == 0 && len(l.Forks) == 0 {
		return nil
	}
	if len(l.Forks) > MaxForks {
		return fmt.Errorf("%d forks are more than %d", len(l.Forks), MaxForks)
	}
	names := map[uint32]bool{0: true}
	for i, f := range append(slices.Clone(l.Forks), Fork{l.Timeline, Pending}) {
		if names[uint32(f.Timeline)] {
			return fmt.Errorf("timeline %d has the low 32 bits of another, or none", f.Timeline)
		}
		if i > 0 && f.Rev < l.Forks[i-1].Rev {
			return fmt.Errorf("timeline %d ends at %d, before it began at %d", f.Timeline, f.Rev, l.Forks[i-1].Rev)
		}
		names[uint32(f.Timeline)] = true
	}
	return nil
}

// shared returns the last Rev of the timeline that means the same in l's, and
// whether l knows the timeline. 0 stands for a timeline that was not named. Once
// there is a fork it may be any, even one that l does not descend from: one that
// was left for an older backup. Not even a Rev below the first fork is then safe.
func (l Lineage) shared(timeline uint64) (Rev, bool) {
	switch {
	case timeline == l.Timeline, timeline == 0 && len(l.Forks) == 0:
		return Pending, true
	case timeline == 0:
		return 0, true
	}
	for _, f := range l.Forks {
		if f.Timeline == timeline {
			return f.Rev, true
		}
	}
	return 0, false
}

// Clamp returns what is left in l's timeline of what a reader saw in the given
// one: all of it if that is l's own, Revs up to the fork if it is an ancestor,
// nothing if l does not know it. A node's Seqs go on through a restore, so an
// ancestor's keep their meaning. Timeline 0 is that of a Mutation of version 1,
// which does not say: its Revs count until the masters are first restored.
//
// To take too little costs an extra conflict; to take too much would overwrite
// an edit silently.
func (l Lineage) Clamp(seen Token, timeline uint64) Token {
	rev, known := l.shared(timeline)
	if !known {
		return Token{Timeline: uint32(l.Timeline)}
	}
	seen.Timeline, seen.Rev = uint32(l.Timeline), min(seen.Rev, rev)
	return seen
}

// vouch returns what node, whose base is of l's timeline, can say of a token's
// reader. Of edits that were pending at another node it knows nothing.
func (l Lineage) vouch(t Token, node NodeID) Token {
	if t.Node != node || t.Seq == 0 {
		t.Node, t.Seq = 0, 0
	}
	timeline, known := l.named(t.Timeline)
	if !known {
		return Token{Timeline: uint32(l.Timeline)}
	}
	return l.Clamp(t, timeline)
}

// named returns the timeline of l that a token names; 0 if it names none.
func (l Lineage) named(name uint32) (timeline uint64, known bool) {
	if name == 0 {
		return 0, true
	}
	if name == uint32(l.Timeline) {
		return l.Timeline, true
	}
	for _, f := range l.Forks {
		if name == uint32(f.Timeline) {
			return f.Timeline, true
		}
	}
	return 0, false
}

// AppendLineage appends the encoding of l, drawn in docs/format.md.
func AppendLineage(dst []byte, l Lineage) []byte {
	dst = binary.BigEndian.AppendUint64(dst, l.Timeline)
	dst = binary.AppendUvarint(dst, uint64(len(l.Forks)))
	for _, f := range l.Forks {
		dst = binary.BigEndian.AppendUint64(dst, f.Timeline)
		dst = binary.AppendUvarint(dst, uint64(f.Rev))
	}
	return dst
}

// DecodeLineage decodes what AppendLineage wrote. It never panics on damaged
// input and returns no lineage that Restored could not have made.
func DecodeLineage(b []byte) (Lineage, error) {
	d := decoder{s: string(b)}
	l := Lineage{Timeline: d.uint64()}
	for range min(d.count(9), MaxForks+1) {
		l.Forks = append(l.Forks, Fork{d.uint64(), Rev(d.uvarint())})
	}
	if err := l.check(); err != nil {
		d.fail("%v", err)
	}
	if err := d.finish(); err != nil {
		return Lineage{}, fmt.Errorf("lineage: %w", err)
	}
	return l, nil
}
