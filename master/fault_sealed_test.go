package master

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// TestSealedLog_IsALog: with seals, a log of any kind is a log.
func TestSealedLog_IsALog(t *testing.T) {
	eachLog(t, func(t *testing.T, log logStore, _ func() logStore) {
		s := &sealedLog{logStore: log}
		want := []*raft.Log{
			{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: []byte("servers")},
			{Index: 2, Term: 1, Type: raft.LogNoop},
			{Index: 3, Term: 2, Type: raft.LogCommand, Data: mustEncode(t, TrimEntry{7}), Extensions: []byte("sum")},
		}
		if err := s.StoreLogs(want); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			var got raft.Log
			if err := s.GetLog(w.Index, &got); err != nil {
				t.Fatal(err)
			}
			if len(got.Data) == 0 {
				got.Data = nil
			}
			if d := cmp.Diff(*w, got); d != "" {
				t.Errorf("entry %d (-want +got):\n%s", w.Index, d)
			}
		}
		var none raft.Log
		if err := s.GetLog(4, &none); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("an entry that is not there: %v", err)
		}
	})
}

// TestSealedLog_ReadsEntriesWithoutSeals: those of earlier releases.
func TestSealedLog_ReadsEntriesWithoutSeals(t *testing.T) {
	log := memoryLog{raft.NewInmemStore()}
	for _, l := range []*raft.Log{{Index: 1, Term: 1, Data: mustEncode(t, TrimEntry{7})}, {Index: 2, Term: 1, Type: raft.LogNoop}} {
		if err := log.StoreLog(l); err != nil {
			t.Fatal(err)
		}
		var got raft.Log
		if err := (&sealedLog{logStore: log}).GetLog(l.Index, &got); err != nil || got.Term != 1 || got.Type != l.Type {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestSealedLog_FindsEveryFlippedBit flips each bit of an entry on raft-wal: what
// is read is the entry or an error.
func TestSealedLog_FindsEveryFlippedBit(t *testing.T) {
	want := &raft.Log{Index: 1, Term: 3, Type: raft.LogCommand, Data: mustEncode(t, TrimEntry{7}), Extensions: []byte("sum")}
	found := 0
	for n := range uint64(400) {
		disk := newFaultDisk()
		base, err := disk.open("", nil)
		if err != nil {
			t.Fatal(err)
		}
		log := &sealedLog{logStore: base}
		if err := log.StoreLog(want); err != nil {
			t.Fatal(err)
		}
		disk.flip(rand.New(rand.NewPCG(n, 1)))
		var got raft.Log
		err = log.GetLog(1, &got)
		got.AppendedAt = want.AppendedAt // of no consequence: neither sealed nor acted upon
		switch {
		case errors.Is(err, errDamaged):
			found++
		case err != nil:
			t.Errorf("flip %d: %v", n, err)
		case !cmp.Equal(*want, got):
			t.Errorf("flip %d was read as %+v", n, got)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	if found < 100 {
		t.Errorf("%d of 400 flips were found", found)
	}
}
