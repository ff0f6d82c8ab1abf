package master

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metrics"
	"github.com/hashicorp/raft-wal/verifier"
)

// A verifiedLog proves that what the masters have in their logs is what the
// leader logged. The leader seals each range between two marks with a checksum,
// which it takes before it writes them and keeps in the extensions of the second
// mark; every master reads the range back from its own disk and compares; see
// raft-wal's verifier. Any other outcome is told to failed.
//
// The verifier adds up what is stored and does not notice when some of that is
// replaced, so each time the end of the log is cut off another one begins, and
// what the former still says does not count.
type verifiedLog struct {
	logStore
	leads   func() bool
	failed  func(error)
	checked func()

	mu      sync.Mutex // protects current; not held while reading or writing
	current *verifier.LogStore
}

// newVerifiedLog verifies what goes into log. The caller closes it.
func newVerifiedLog(log logStore, leads func() bool, checked func(), failed func(error)) *verifiedLog {
	v := &verifiedLog{logStore: log, leads: leads, checked: checked, failed: failed}
	v.begin()
	return v
}

// begin starts a verifier that has added up nothing yet.
func (v *verifiedLog) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current != nil {
		v.current.Close() // ends its goroutine when that is through; it cannot close the log
	}
	var next *verifier.LogStore
	next = verifier.NewLogStore(struct{ raft.LogStore }{v.logStore}, v.isCheckpoint,
		func(r verifier.VerificationReport) { v.report(next, r) }, &metrics.NoOpCollector{})
	v.current = next
}

func (v *verifiedLog) now() *verifier.LogStore {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.current
}

// isCheckpoint recognizes marks. A mark without a checksum that comes from the
// leader is of a release that had no verifier: only a leader may seal.
func (v *verifiedLog) isCheckpoint(log *raft.Log) (bool, error) {
	mark := log.Type == raft.LogCommand && len(log.Data) > 1 && log.Data[0] == kindState && log.Data[1] == 0
	return mark && (len(log.Extensions) > 0 || v.leads()), nil
}

// StoreLog appends an entry.
func (v *verifiedLog) StoreLog(log *raft.Log) error { return v.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries and has a range verified behind each mark.
func (v *verifiedLog) StoreLogs(logs []*raft.Log) error { return v.now().StoreLogs(logs) }

// DeleteRange drops entries.
func (v *verifiedLog) DeleteRange(low, high uint64) error {
	last, err := v.LastIndex()
	if err != nil {
		return err
	}
	if high >= last {
		v.begin()
	}
	return v.logStore.DeleteRange(low, high)
}

// Close ends the verifier and closes the log.
func (v *verifiedLog) Close() error {
	return errors.Join(v.now().Close(), v.logStore.Close())
}

// report passes on what a verifier found. It cannot verify what is truncated by
// then, or what the log that closes will not read any more.
func (v *verifiedLog) report(by *verifier.LogStore, r verifier.VerificationReport) {
	mismatch := verifier.ErrChecksumMismatch("")
	switch {
	case by != v.now():
	case r.Err == nil:
		v.checked()
	case errors.As(r.Err, &mismatch):
		v.failed(fmt.Errorf("%w: %w", errDamaged, r.Err))
	case errors.Is(r.Err, verifier.ErrRangeMismatch), errors.Is(r.Err, raft.ErrLogNotFound), errors.Is(r.Err, wal.ErrClosed):
	default:
		v.failed(r.Err)
	}
}
