package crm

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sampleMutation has no field zero and one of each shape of op.
func sampleMutation(timeline uint64) *Mutation {
	seen := Token{Timeline: uint32(timeline), Node: 12, Rev: 1204, Seq: 4000}
	return &Mutation{Timeline: timeline, Node: 12, Incarnation: 3, Seq: 4001, Prev: ChainHash{1, 2, 3, 15: 16}, HLC: NewHLC(1_760_000_000_123) + 7,
		Actor: "u-anna", Schema: 40, Intent: "opportunity.update", Ops: []Op{
			{Kind: OpCreate, Entity: 16, Record: rid(1), Seen: Token{Timeline: uint32(timeline)}, Cells: []Input{txt(16, "Häusler & Söhne"), {19, ChoicesValue("new", "vip")}}},
			{Kind: OpPatch, Entity: 16, Record: rid(2), Seen: seen, Cells: []Input{{18, PhoneValue("+351 21 000 000")}, {21, Value{}}}},
			{Kind: OpDelete, Entity: 17, Record: rid(3), Seen: Token{Timeline: uint32(timeline), Rev: 1 << 40}},
			{Kind: OpTransition, Entity: 19, Record: rid(4), Seen: seen, Cells: []Input{{17, ChoiceValue("draft")}, {17, ChoiceValue("open")}}}},
		Guards: []Guard{{Kind: GuardAtLeast, Entity: 16, Record: rid(1), Field: 20, Value: IntegerValue(-5)}, {Kind: GuardAbsent, Entity: 16, Record: rid(9)}}}
}

const sampleTimeline = 1<<62 + 77

// golden returns what a file of testdata holds as hex, one value in all.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMutation_KeepsItsBytes: what a released version wrote is read, and written
// the same, so that chain hashes hold. mutation_v1.hex was written by the code
// that knew no other version.
func TestMutation_KeepsItsBytes(t *testing.T) {
	for name, want := range map[string]*Mutation{"mutation_v1.hex": sampleMutation(0), "mutation_v2.hex": sampleMutation(sampleTimeline)} {
		raw := golden(t, name)
		got, err := DecodeMutation(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got, cmp.Comparer(Value.Equal)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if again := AppendMutation(nil, got); !bytes.Equal(again, raw) {
			t.Errorf("%s is written as %x", name, again)
		}
	}
}

func TestMutation_RefusesDamage(t *testing.T) {
	for _, timeline := range []uint64{0, sampleTimeline} {
		good := AppendMutation(nil, sampleMutation(timeline))
		for i := range good {
			if m, err := DecodeMutation(good[:i]); err == nil {
				t.Fatalf("cut to %d bytes it became %+v", i, m)
			}
		}
	}
	for name, bad := range map[string][]byte{
		"a version of the future": append([]byte{3}, AppendMutation(nil, sampleMutation(0))[1:]...),
		"version 2 of timeline 0": append([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0}, AppendMutation(nil, sampleMutation(0))[1:]...),
		"a withheld one":          AppendWithheld(nil, sampleWithheld),
		"a node over 32 bits":     append([]byte{1, 0x8c, 0x80, 0x80, 0x80, 0x10}, AppendMutation(nil, sampleMutation(0))[2:]...),
	} {
		if _, err := DecodeMutation(bad); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

var sampleLineage = Lineage{Timeline: sampleTimeline, Forks: []Fork{{7, 100}, {1<<62 + 9, 1 << 40}}}

func TestLineage_KeepsItsBytes(t *testing.T) {
	raw := golden(t, "lineage.hex")
	got, err := DecodeLineage(raw)
	if d := cmp.Diff(sampleLineage, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if again := AppendLineage(nil, got); !bytes.Equal(again, raw) {
		t.Errorf("it is written as %x", again)
	}
}

// FuzzDecodeLineage: every lineage has one encoding, and none is read that a
// restore could not have made.
func FuzzDecodeLineage(f *testing.F) {
	f.Add(AppendLineage(nil, Lineage{}))
	f.Add(AppendLineage(nil, sampleLineage))
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := DecodeLineage(in)
		if err != nil {
			return
		}
		if !bytes.Equal(AppendLineage(nil, l), in) || l.check() != nil || len(l.Forks) > MaxForks {
			t.Fatalf("%x is read as %+v", in, l)
		}
	})
}
