package store

import (
	"slices"
	"sort"
	"sync"
)

// maxChanges bounds what a changeLog remembers, 32 bytes each.
const maxChanges = 1 << 16

// A changeLog remembers which records the last commits of a file changed: in the
// base records and tombstones, in the journal the overlay. It is a hint kept in
// memory, for those who keep something derived from the records and would rather
// read few of them again than all; who comes too late reads all.
//
// A commit is entered before it is durable, so that whoever can see it finds it
// here. One that fails stays, and names records that did not change.
type changeLog struct {
	mu      sync.Mutex // protects the rest
	epoch   int        // of the numbers below: another file in place counts anew
	since   int        // every later commit is in changes
	changes []change   // by commit
}

type change struct {
	commit int // number of the bbolt transaction
	key    RecordKey
}

// A version names a committed state of a file. The zero version is no file.
type version struct {
	file          *file
	epoch, commit int
}

// note remembers that the transaction changes the record.
func (t *transaction) note(k RecordKey) {
	if len(t.changed) <= maxChanges {
		t.changed = append(t.changed, k)
	}
}

// version returns which state a read transaction shows.
func (t *transaction) version() version {
	l := &t.f.changes
	l.mu.Lock()
	defer l.mu.Unlock()
	return version{t.f, l.epoch, t.bolt.ID()}
}

func (l *changeLog) add(commit int, keys []RecordKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(keys) > maxChanges {
		l.since, l.changes = commit, nil
		return
	}
	for _, k := range keys {
		l.changes = append(l.changes, change{commit, k})
	}
	if drop := len(l.changes) - maxChanges; drop > maxChanges {
		l.since = l.changes[drop-1].commit
		l.changes = slices.Clone(l.changes[drop:])
	}
}

// restart forgets everything, because another file takes this one's place.
func (l *changeLog) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.since, l.changes = 0, nil
}

// between returns the records that may differ between two states, whichever is
// the older, with repeats; ok is false if the log does not know.
func (v version) between(w version) (changes []change, ok bool) {
	if v.file != w.file || v.epoch != w.epoch {
		return nil, false
	}
	if v.commit == w.commit {
		return nil, true
	}
	return v.file.changes.span(min(v.commit, w.commit), max(v.commit, w.commit))
}

// span returns the changes of the commits above low, up to and with high.
func (l *changeLog) span(low, high int) ([]change, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if low < l.since {
		return nil, false
	}
	above := func(commit int) int {
		return sort.Search(len(l.changes), func(i int) bool { return l.changes[i].commit > commit })
	}
	return slices.Clone(l.changes[above(low):above(high)]), true
}
