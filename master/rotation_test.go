package master

import (
	"errors"
	"testing"

	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// A dyingStore is raft-wal's metadata on a machine whose power fails before the
// second segment has a name.
type dyingStore struct{ metadb.BoltMetaDB }

func (m *dyingStore) CommitState(s types.PersistentState) error {
	if len(s.Segments) < 2 {
		return m.BoltMetaDB.CommitState(s)
	}
	return errors.New("the power has failed")
}

// TestLogStore_CrashBetweenSegments: a log whose last segment was sealed before
// its successor had a name takes entries again.
func TestLogStore_CrashBetweenSegments(t *testing.T) {
	dir := t.TempDir()
	before, err := wal.Open(dir, wal.WithSegmentSize(4<<10), wal.WithMetaStore(new(dyingStore)))
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for err == nil {
		if err = before.StoreLogs(someLogs(last+1, last+1)); err == nil {
			last++
		}
	}
	if !errors.Is(err, wal.ErrSealed) {
		t.Fatalf("append %d: %v, want a full segment", last+1, err)
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}

	cfg := ledgerConfig{Log: logWAL}.withDefaults()
	for range 2 { // the second time there is nothing left to do
		log, err := openLogStore(cfg, dir)
		if err != nil {
			t.Fatal(err)
		}
		mustHold(t, log, 1, last)
		last++
		if err := log.StoreLogs(someLogs(last, last)); err != nil {
			t.Fatalf("append %d after the crash: %v", last, err)
		}
		mustHold(t, log, 1, last)
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
