package master

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/store"
)

// snapshotsOf returns the snapshot store of a bench whose state is committed.
func snapshotsOf(b *bench) *snapshots {
	b.t.Helper()
	if err := b.close(); err != nil {
		b.t.Fatal(err)
	}
	return &snapshots{fsm: b.fsm, dir: b.t.TempDir()}
}

// mustRead returns the state as a leader would send it.
func mustRead(t *testing.T, s *snapshots) (*raft.SnapshotMeta, []byte) {
	t.Helper()
	meta, r, err := s.Open(snapshotState)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sent, err := io.ReadAll(r)
	if err != nil || int64(len(sent)) != meta.Size {
		t.Fatalf("%d bytes of %d, %v", len(sent), meta.Size, err)
	}
	return meta, sent
}

// receive writes a snapshot as Raft does.
func receive(s *snapshots, meta *raft.SnapshotMeta, sent []byte) (raft.SnapshotSink, error) {
	sink, err := s.Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(sink, bytes.NewReader(sent)); err != nil {
		return nil, err
	}
	return sink, sink.Close()
}

func TestSnapshots_CarryTheState(t *testing.T) {
	from, to := newBench(t), newBench(t)
	c := first()
	from.accept(c, territoryOp("a"))
	meta, sent := mustRead(t, snapshotsOf(from))
	s := snapshotsOf(to)
	sink, err := receive(s, meta, sent)
	if err != nil {
		t.Fatal(err)
	}
	_, r, err := s.Open(sink.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := to.Restore(r); err != nil {
		t.Fatal(err)
	}
	if to.sum() != from.sum() || to.published().at != from.published().at || to.evaluated.Load() != 2 {
		t.Errorf("installed %+v of %+v", to.published(), from.published())
	}
	to.index = from.index
	to.accept(c, territoryOp("b"))
}

func TestSnapshots_RefuseABadFile(t *testing.T) {
	from, to := newBench(t), newBench(t)
	from.accept(first(), territoryOp("a"))
	meta, sent := mustRead(t, snapshotsOf(from))
	s, before := snapshotsOf(to), to.sum()
	if err := to.close(); err != nil {
		t.Fatal(err)
	}
	other := *meta
	other.Index++
	for name, x := range map[string]struct {
		meta *raft.SnapshotMeta
		sent []byte
	}{
		"cut off":       {meta, sent[:len(sent)/2]},
		"another file":  {meta, bytes.Repeat([]byte("no bbolt"), 4096)},
		"another index": {&other, sent},
	} {
		if _, err := receive(s, x.meta, x.sent); err == nil {
			t.Errorf("%s: it was taken", name)
		}
		if _, err := os.Stat(s.path()); !os.IsNotExist(err) {
			t.Errorf("%s: the file is left behind, %v", name, err)
		}
	}
	if to.sum() != before {
		t.Error("the state has changed")
	}
}

func TestSnapshots_CancelLeavesNothing(t *testing.T) {
	b := newBench(t)
	s := snapshotsOf(b)
	sink, err := s.Create(1, 9, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := sink.Cancel(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.path()); !os.IsNotExist(err) {
		t.Errorf("the file is left behind, %v", err)
	}
}

// TestSnapshots_WitnessRaftsOwnEntries: a snapshot may end with an entry that
// the FSM never sees, and a restart must not look for it in the log.
func TestSnapshots_WitnessRaftsOwnEntries(t *testing.T) {
	b := newBench(t)
	s := snapshotsOf(b)
	conf := raft.Configuration{Servers: []raft.Server{{ID: "node-1", Address: "m1:7400"}}}
	sink, err := s.Create(1, 5, 2, conf, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	b.crash()
	list, err := (&snapshots{fsm: b.fsm}).List()
	if err != nil || len(list) != 1 || list[0].Index != 5 || list[0].Term != 2 || list[0].ConfigurationIndex != 4 || len(list[0].Configuration.Servers) != 1 {
		t.Errorf("after a restart: %+v, %v", list, err)
	}
}

func TestSnapshots_ANewFileHasNone(t *testing.T) {
	data, err := store.Open(t.TempDir()+"/master.db", store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	f, err := newFSM(ledgerConfig{}.withDefaults(), data, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := (&snapshots{fsm: f}).List(); err != nil || len(list) != 0 {
		t.Errorf("listed %v, %v", list, err)
	}
}

// TestSnapshots_CloseStopsTheCopy: a follower that goes away must not keep a
// read transaction open.
func TestSnapshots_CloseStopsTheCopy(t *testing.T) {
	b := newBench(t)
	_, r, err := snapshotsOf(b).Open(snapshotState)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n := b.data.Stats().OpenReads; n != 0 {
		t.Errorf("%d read transactions are open", n)
	}
}
