package master

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tradepost-crm/tradepost/crm"
)

var sampleEntries = []struct {
	name  string
	entry Entry
}{
	{"push", PushEntry{Node: 7, Incarnation: 2, ReceivedMillis: 1_700_000_000_000, OffsetMillis: -1200, Mutations: [][]byte{{1, 2, 3}, {4}}}},
	{"push nothing", PushEntry{Node: 1, Incarnation: 1}},
	{"admit", AdmitEntry{Node: 300, Nonce: [16]byte{0: 0xaa, 15: 0xbb}, Reason: "rolled back"}},
	{"state mark", StateEntry{}},
	{"state votes", StateEntry{RaftIndex: 900, Rev: 12345, Votes: []StateVote{{1, Accumulator{0: 1}}, {2, Accumulator{31: 2}}}}},
	{"activate", ActivateEntry{Level: 3}},
	{"reports", ReportsEntry{Reports: []NodeReport{{7, 100, 90, 1_700_000_000_000}, {8, 0, 0, 0}}}},
	{"trim", TrimEntry{Rev: 4096}},
	{"freeze", FreezeEntry{Node: 9, Reason: "stolen"}},
	{"unfreeze", FreezeEntry{Node: 9}},
	{"backup", BackupEntry{Timeline: 1 << 63, Rev: 4096, RaftIndex: 5000, TakenMillis: 1_700_000_000_000, Size: 1 << 20, Sum: [32]byte{0: 0xaa, 31: 0xbb}}},
	{"timeline", TimelineEntry{Timeline: 1 << 63, Cluster: "c1", Node: 1, ReceivedMillis: 5, Site: "hq", City: "Lisboa", Country: "PT", Raft: "m1:7400", Sync: "m1:7401", HTTP: "m1:80"}},
}

func mustEncode(tb testing.TB, e Entry) []byte {
	tb.Helper()
	b, err := EncodeEntry(e)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestEntry_KeepsItsBytes compares with what released versions wrote.
func TestEntry_KeepsItsBytes(t *testing.T) {
	var got strings.Builder
	for _, s := range sampleEntries {
		fmt.Fprintf(&got, "%s\n\t%s\n", s.name, hex.EncodeToString(mustEncode(t, s.entry)))
	}
	path := filepath.Join("testdata", "entries.txt")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("entries of an older log would not be read (-want +got):\n%s", d)
	}
}

func TestEntry_RoundTrips(t *testing.T) {
	for _, s := range sampleEntries {
		got, err := DecodeEntry(mustEncode(t, s.entry))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if d := cmp.Diff(s.entry, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, d)
		}
	}
}

func TestEntry_RefusesDamage(t *testing.T) {
	for _, s := range sampleEntries {
		good := mustEncode(t, s.entry)
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 0x10
			if e, err := DecodeEntry(bad); err == nil {
				t.Fatalf("%s with byte %d changed became %+v", s.name, i, e)
			}
			if e, err := DecodeEntry(good[:i]); err == nil {
				t.Fatalf("%s cut to %d bytes became %+v", s.name, i, e)
			}
		}
	}
}

func TestEntry_IsBounded(t *testing.T) {
	_, err := EncodeEntry(PushEntry{Mutations: [][]byte{make([]byte, MaxEntry)}})
	if crm.CodeOf(err) != crm.CodeTooLarge {
		t.Errorf("too large an entry: %v", err)
	}
}

func FuzzEntry(f *testing.F) {
	for _, s := range sampleEntries {
		b := mustEncode(f, s.entry)
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return
		}
		r := reader{b: body[1:]}
		e := r.entry(body[0])
		if r.err != nil || len(r.b) > 0 {
			return
		}
		if again := e.appendBody(nil); !bytes.Equal(again, body) {
			t.Errorf("%x and %x are one entry", body, again)
		}
	})
}
