package syncproto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tradepost-crm/tradepost/crm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// samples returns one frame of each kind that the version has, with no field
// zero where that is allowed, and the shapes that a field decides.
func samples(version uint16) []Frame {
	frames := samples1()
	for _, f := range frames {
		switch f := f.(type) {
		case *Welcome:
			if f.Proto = version; version >= 2 {
				f.Lineage = []Fork{{Timeline: 7, Rev: 4000}, {Timeline: 1 << 63, Rev: 1 << 40}}
			}
			if version >= 3 {
				f.AgeMillis = 1500
				f.Trail = []crm.ChainHash{{1}, {2, 15: 3}}
			}
		case *Heartbeat:
			if version >= 3 {
				f.AgeMillis = 1500
			}
		case *Batch:
			if version >= 3 && f.Final {
				f.Repair = 3
				f.Sums = []BucketSums{{Territory: 17, Sums: [256 * BucketSum]byte{1, 255: 2, 2047: 3}}}
				f.Buckets = []WholeBuckets{{Territory: 17, Set: BucketSet{1, 31: 0x80}}}
				f.Nodes = []NodeState{{Node: 13, Incarnation: 2, LastSeq: 900, LastHash: crm.ChainHash{4, 15: 5}}}
				f.Trimmed = 200
				f.Items[2].Territory = 18
			}
		}
	}
	if version >= 3 {
		frames = append(frames, &Repair{Number: 3, Cursor: 299, Wants: []Want{{Territory: 17, Buckets: BucketSet{1, 31: 0x80}}}},
			&Reports{Reports: []Report{{Node: 13, Cursor: 250, LowBase: 200, SeenMillis: 1_760_000_000_123}}})
	}
	return frames
}

func samples1() []Frame {
	m := bytes.Repeat([]byte{7}, minMutation)
	chain := crm.ChainHash{1, 2, 3, 15: 16}
	id := crm.RecordID{0x01, 0x99, 15: 0xff}
	return []Frame{
		&Hello{ProtoMin: 1, ProtoMax: 2, Cluster: "acme", Node: 12, Incarnation: 3, NextSeq: 4001, Chain: chain, Timeline: 1,
			Cursor: 1 << 40, Staged: 1<<40 + 5, LowBase: 900, Schema: 40, Resend: []crm.TerritoryID{17, 300}, Bootstrap: true, Sent: 1_760_000_000_123},
		&Hello{NextSeq: 1},
		&Welcome{Proto: 1, Timeline: 1, Incarnation: 3, LastSeq: 4000, LastHash: chain, Head: 1 << 41, HelloSent: 1_760_000_000_123,
			Received: 1_760_000_000_223, Sent: 1_760_000_000_224, Backup: 77, Leader: true, Masters: []string{"oslo:7100", "[::1]:7100"}},
		&Push{First: 4001, Mutations: [][]byte{m, append(m, 1)}},
		&Pushed{Seq: 4002},
		&Batch{Timeline: 1, From: 5, To: 300, Final: true, Upto: 300, Decided: 4002,
			Outcomes: []crm.Outcome{{Node: 12, Seq: 4001, Rev: 299, Kind: crm.Rejected, Code: crm.CodeGuard, Message: "credit limit"}},
			Whole:    []crm.TerritoryID{17},
			Items: []Item{{Kind: ItemRecord, Partial: true, Entity: 20, ID: id, Body: []byte{1, 0}},
				{Kind: ItemDeleted, Entity: 20, ID: id, Body: []byte{1, 1}}, {Kind: ItemLeft, Entity: 300, ID: id, Rev: 299}},
			Digests: []TerritoryDigest{{17, [16]byte{9, 15: 9}}}},
		&Batch{},
		&Applied{Cursor: 300, LowBase: 5},
		&Busy{RetryAfterMillis: 1500, Reason: "the leader is behind"},
		&Gap{Expected: 4001},
		&Fenced{Incarnation: 4, Reason: "restored from an old image"},
		&Frozen{Reason: "two histories"},
		&Heartbeat{ID: 8, T1: 1_760_000_000_123, T2: 1_760_000_000_223, T3: 1_760_000_000_224, Head: 300, Reply: true},
		&Refused{Code: "protocol_version", Message: "upgrade the node: é"},
		&Join{TokenID: "00c0ffee", Secret: [16]byte{5, 15: 5}, CSR: []byte{0x30, 0}, Role: "replica", City: "Oslo", Sync: "a:1", HTTP: "a:2", Raft: "a:3"},
		&Joined{Cluster: "acme", Node: 12, Cert: []byte{0x30, 1}, CACert: []byte{0x30, 2}, CAKey: []byte{0x30, 3}, GossipKey: []byte{4},
			Masters: []string{"oslo:7100"}, Site: "bergen", Timeline: 1, RaftPeers: []RaftPeer{{1, "oslo:7101"}}},
		&Forward{ID: 9, Node: 12, Incarnation: 3, OffsetMillis: -1500, Mutations: [][]byte{m}},
		&Forwarded{ID: 9, LastSeq: 4002, RaftIndex: 1 << 33, Code: crm.CodeFrozen, Message: "two histories"},
		&Ask{ID: 10, What: AskBarrier},
		&Answer{ID: 10, Index: 1 << 33, Rev: 300, Code: crm.CodeNoLeader, Message: "try later"},
	}
}

func mustDecode(tb testing.TB, b []byte, version uint16) Frame {
	tb.Helper()
	f, err := DecodeFrame(b, version)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestFrame_RoundTrip(t *testing.T) {
	for version := MinVersion; version <= MaxVersion; version++ {
		seen := map[Kind]bool{}
		for _, f := range samples(version) {
			seen[f.Kind()] = true
			got := mustDecode(t, mustAppend(t, f, version), version)
			if diff := cmp.Diff(f, got, cmp.Transformer("plain", plain)); diff != "" {
				t.Errorf("%s of version %d (-sent +received):\n%s", f.Kind(), version, diff)
			}
		}
		for k := Kind(1); int(k) < len(kindNames); k++ {
			if f := newFrame(k); f == nil || f.Kind() != k || seen[k] != (k.since() <= version) {
				t.Errorf("version %d, kind %d: frame %v, sampled %t", version, k, f, seen[k])
			}
		}
	}
}

// plain keeps cmp from calling the String of frames with secrets.
func plain(f Frame) any { return reflect.ValueOf(f).Elem().Interface() }

func TestFrame_EncodingIsSame(t *testing.T) {
	for version := MinVersion; version <= MaxVersion; version++ {
		var b strings.Builder
		for _, f := range samples(version) {
			fmt.Fprintf(&b, "%s %x\n", f.Kind(), mustAppend(t, f, version))
		}
		golden(t, fmt.Sprintf("frames_v%d.hex", version), b.String())
	}
}

func TestFrame_DecodesGolden(t *testing.T) {
	for version := MinVersion; version <= MaxVersion; version++ {
		text, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("frames_v%d.hex", version)))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for i, f := range samples(version) {
			b, err := hex.DecodeString(strings.Fields(lines[i])[1])
			if err != nil {
				t.Fatal(err)
			}
			if got := mustDecode(t, b, version); !reflect.DeepEqual(got, f) {
				t.Errorf("version %d, line %d: got %+v, want %+v", version, i+1, plain(got), plain(f))
			}
		}
	}
}

// What an older version cannot say must not be lost in silence.
func TestFrame_AVersionHasItsFieldsOnly(t *testing.T) {
	for _, c := range []struct {
		f       Frame
		version uint16
		want    string
	}{
		{&Welcome{Proto: 1, Lineage: []Fork{{1, 2}}}, 1, "welcome.lineage: version 1 has no such field"},
		{&Batch{Trimmed: 1, To: 2}, 2, "batch.repair: version 2 has no such field"},
		{&Batch{Nodes: make([]NodeState, 1)}, 1, "batch.repair: version 1 has no such field"},
		{&Batch{Items: []Item{{Kind: ItemLeft, Territory: 1}}}, 2, "batch.items[0].territory: version 2 has no such field"},
		{&Heartbeat{AgeMillis: 1}, 2, "heartbeat.age_ms: version 2 has no such field"},
		{&Welcome{Proto: 2, AgeMillis: 1}, 2, "welcome.age_ms: version 2 has no such field"},
		{&Welcome{Proto: 2, Trail: make([]crm.ChainHash, 1)}, 2, "welcome.trail: version 2 has no such field"},
		{&Repair{Number: 1}, 2, "version 2 has no such frame"},
		{&Reports{}, 1, "version 1 has no such frame"},
	} {
		_, err := AppendFrame(nil, c.version, c.f)
		wantError(t, err, CodeFrame, c.want)
	}
	for _, f := range samples(3) {
		b := mustAppend(t, f, 3)
		if _, err := DecodeFrame(b, 2); err == nil != (f.Kind() != KindBatch && f.Kind() != KindHeartbeat && f.Kind() != KindRepair && f.Kind() != KindReports) {
			t.Errorf("%s of version 3, read as of version 2: %v", f.Kind(), err)
		}
	}
}

func TestBucketSet(t *testing.T) {
	var s BucketSet
	for _, b := range []byte{0, 9, 255, 9} {
		s.Add(b)
	}
	if s.Len() != 3 || !s.Has(0) || !s.Has(9) || !s.Has(255) || s.Has(1) || s[1] != 2 || s.IsEmpty() {
		t.Errorf("%v", s)
	}
	if got := slices.Collect(s.All()); !slices.Equal(got, []byte{0, 9, 255}) {
		t.Errorf("yields %v", got)
	}
	u := BucketSet{2}
	if s.Covers(u) || !s.Or(u).Covers(s) || s.Or(u).Len() != 4 || AllBuckets().Len() != 256 || !AllBuckets().Covers(s) || !s.Covers(BucketSet{}) {
		t.Error("or, covers")
	}
}

func TestBucketSums(t *testing.T) {
	var a, b BucketSums
	for i := range 256 {
		a.Set(byte(i), []byte("bucket"))
		b.Set(byte(i), []byte("bucket"))
	}
	if d := a.Differ(&b); !d.IsEmpty() {
		t.Errorf("equal ones differ in %v", d)
	}
	b.Set(7, []byte("Bucket"))
	b.Set(255, nil)
	if got := slices.Collect(a.Differ(&b).All()); !slices.Equal(got, []byte{7, 255}) {
		t.Errorf("they differ in %v", got)
	}
	if got := hex.EncodeToString(b.Of(255)); got != "e3b0c44298fc1c14" { // SHA-256 of nothing
		t.Errorf("cut to %s", got)
	}
}

func TestTables(t *testing.T) { golden(t, "frames.golden", Tables()) }

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", name, diff)
	}
}

func wantError(tb testing.TB, err error, code crm.Code, text string) {
	tb.Helper()
	if crm.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), text) {
		tb.Errorf("error %v, want code %q and %q", err, code, text)
	}
}

func TestDecodeFrame_Refuses(t *testing.T) {
	valid := mustAppend(t, &Pushed{Seq: 1}, MaxVersion)
	tests := []struct {
		name, want string
		code       crm.Code
		b          []byte
	}{
		{"nothing", "length: 0 is not 1 to 2097152", CodeFrame, nil},
		{"too long", "length: 2097153 is not", CodeFrame, make([]byte, MaxFrame+1)},
		{"kind 0", "frame kind 0 is not part of version 3", CodeVersion, []byte{0}},
		{"kind 21", "frame kind 21 is not part of version 3", CodeVersion, []byte{21}},
		{"kind 42", "frame kind 42 is not part of version 3", CodeVersion, []byte{42, 1}},
		{"rest", "pushed: 1 bytes left over", CodeFrame, append(valid, 0)},
		{"long number", "pushed.seq: bad number", CodeFrame, []byte{4, 0x81, 0}},
		{"huge number", "pushed.seq: bad number", CodeFrame, append([]byte{4}, bytes.Repeat([]byte{0xff}, 11)...)},
		{"pending rev", "applied.cursor: 9223372036854775807 is over", CodeFrame, append([]byte{6}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0)},
		{"retry", "busy.retry_after_ms: 3600001 is over 3600000", CodeFrame, []byte{7, 0x81, 0xdd, 0xdb, 0x01, 0}},
		{"short text", "busy.reason: 9 bytes wanted, 1 there", CodeFrame, []byte{7, 1, 9, 'x'}},
		{"long text", "frozen.reason: 4097 is over 4096", CodeFrame, []byte{10, 0x81, 0x20}},
		{"not UTF-8", "frozen.reason: text is not UTF-8", CodeFrame, []byte{10, 1, 0xff}},
		{"bool", "heartbeat.reply: 2 is neither 0 nor 1", CodeFrame, []byte{11, 1, 0, 0, 0, 0, 2}},
		{"question", "ask.what: 3 is not 1 to 2", CodeFrame, []byte{17, 1, 3}},
		{"count", "push.mutations: count 2 is more than 35 bytes can hold", CodeFrame, append([]byte{3, 1, 2}, make([]byte, 35)...)},
		{"huge count", "push.mutations: 1048576 is over", CodeFrame, []byte{3, 1, 0x80, 0x80, 0x40}},
		{"short mutation", "push.mutations[0].encoding: 1 bytes is under 33", CodeFrame, append([]byte{3, 1, 1, 1}, make([]byte, 40)...)},
		{"outcome", "batch.outcomes[0].outcome: damaged encoding", CodeFrame, append([]byte{5, 1, 0, 9, 1, 9, 0, 1}, make([]byte, 6)...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DecodeFrame(tt.b, MaxVersion)
			wantError(t, err, tt.code, tt.want)
		})
	}
}

// What a peer would refuse is refused by the sender, in the same words.
func TestAppendFrame_Refuses(t *testing.T) {
	big := make([]byte, crm.MaxMutation)
	tests := []struct {
		want string
		f    Frame
	}{
		{"hello.next_seq: 0 is no number", &Hello{}},
		{"hello.cluster: 256 is over 255", &Hello{Cluster: strings.Repeat("x", 256), NextSeq: 1}},
		{"hello.cluster: text is not UTF-8", &Hello{Cluster: "\xff", NextSeq: 1}},
		{"hello.sent: 18446744073709551615 is over", &Hello{NextSeq: 1, Sent: -1}},
		{"hello.cursor: 9223372036854775807 is over", &Hello{NextSeq: 1, Cursor: crm.Pending}},
		{"welcome.masters: 65 is over 64", &Welcome{Masters: make([]string, 65)}},
		{"push.mutations: no mutation", &Push{First: 1}},
		{"push.mutations[0].encoding: 65537 is over 65536", &Push{Mutations: [][]byte{append(big, 0)}}},
		{"push.mutations[4].encoding: 327680 bytes of mutations are over 262144", &Push{Mutations: [][]byte{big, big, big, big, big}}},
		{"batch.to: 1 is below from 2", &Batch{From: 2, To: 1}},
		{"batch.to: 1 is below from 0 or upto 2", &Batch{Upto: 2, To: 1}},
		{"batch.items[0].kind: 4 is not 1 to 3", &Batch{Items: []Item{{Kind: 4}}}},
		{"batch.items[0].body (record, deleted): 0 bytes is under 1", &Batch{Items: []Item{{Kind: ItemRecord}}}},
		{"batch.items[0].territory: only a record that left", &Batch{Items: []Item{{Kind: ItemRecord, Body: []byte{1}, Territory: 1}}}},
		{"batch.items[1].partial: a record that left", &Batch{Items: []Item{{Kind: ItemLeft}, {Kind: ItemLeft, Partial: true}}}},
		{"batch: 2949202 bytes is more than 2097152", &Batch{Items: []Item{{Kind: 1, Body: make([]byte, MaxBody)}, {Kind: 1, Body: make([]byte, MaxBody)}, {Kind: 1, Body: make([]byte, MaxBody)}}}},
		{"forward.offset_ms: -281474976710656 is beyond", &Forward{OffsetMillis: -1 << 48}},
		{"ask.what: 0 is not", &Ask{}},
	}
	for _, tt := range tests {
		dst, err := AppendFrame([]byte("kept"), MaxVersion, tt.f)
		wantError(t, err, CodeFrame, tt.want)
		if string(dst) != "kept" {
			t.Errorf("%s: %d bytes stand after the failure", tt.want, len(dst))
		}
	}
}

func TestMessage_IsCutNotRefused(t *testing.T) {
	long := strings.Repeat("é", maxMessage) // the cut falls inside no rune
	got := mustDecode(t, mustAppend(t, &Frozen{Reason: "x" + long + "\xff"}, 1), 1).(*Frozen).Reason
	if want := "x" + long[:maxMessage-2]; got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

func TestFrame_EveryTruncationIsAnError(t *testing.T) {
	for _, f := range samples(MaxVersion) {
		b := mustAppend(t, f, MaxVersion)
		for n := range b {
			if _, err := DecodeFrame(b[:n], MaxVersion); err == nil {
				t.Errorf("%s: %d of %d bytes decoded", f.Kind(), n, len(b))
			}
		}
	}
}

func TestSecretsStayOutOfLogs(t *testing.T) {
	for _, f := range []Frame{&Join{TokenID: "t", Secret: [16]byte([]byte("sixteen secrets!"))}, &Joined{CAKey: []byte("secret")}} {
		if s := fmt.Sprintf("%v %+v", f, f); strings.Contains(s, "115 101 99") || strings.Contains(s, "secret") {
			t.Errorf("%s shows its secret: %s", f.Kind(), s)
		}
	}
}

func TestBatch_SizeBoundsEncoding(t *testing.T) {
	e := newEdits()
	_, b := e.group(300)
	b.Outcomes = []crm.Outcome{{Node: 1<<32 - 1, Seq: 1<<64 - 1, Rev: crm.Pending - 1, Kind: crm.Parked, Code: crm.CodeGuard, Message: strings.Repeat("m", 300)}}
	b.Whole = []crm.TerritoryID{1<<32 - 1}
	if got, most := len(mustAppend(t, b, MaxVersion)), b.Size(); got > most || most > got+300*16+200 {
		t.Errorf("%d bytes, Size says %d", got, most)
	}
	full := &Batch{Items: []Item{{Kind: ItemRecord, Body: make([]byte, MaxBody)}}, Digests: make([]TerritoryDigest, 3000)}
	for full.Size() < BatchBudget {
		full.Items = append(full.Items, Item{Kind: ItemRecord, Body: make([]byte, 1000)})
	}
	full.Items = append(full.Items, Item{Kind: ItemRecord, Body: make([]byte, MaxBody)})
	mustAppend(t, full, MaxVersion)
}

func TestFrame_EncodeDecodeIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := anyFrame(t)
		b, err := AppendFrame(nil, MaxVersion, f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeFrame(b, MaxVersion)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, f) {
			t.Fatalf("sent %+v, received %+v", plain(f), plain(got))
		}
	})
}

// anyFrame draws a valid frame by filling every field by its type.
func anyFrame(t *rapid.T) Frame {
	f := newFrame(Kind(rapid.IntRange(1, len(kindNames)-1).Draw(t, "kind")))
	fill(t, reflect.ValueOf(f).Elem(), "")
	switch f := f.(type) {
	case *Hello:
		f.NextSeq++
	case *Welcome:
		f.Proto = MaxVersion
	case *Batch:
		f.To = max(f.From, f.Upto, f.To)
	case *Busy:
		f.RetryAfterMillis %= maxBusy
	case *Ask:
		f.What = f.What%2 + 1
	case *Repair:
		f.Number = max(1, f.Number)
	}
	return f
}

func fill(t *rapid.T, v reflect.Value, name string) {
	switch v.Interface().(type) {
	case Item:
		it := Item{Kind: ItemKind(rapid.IntRange(1, 3).Draw(t, "item")), Entity: 20, ID: crm.RecordID{1}}
		if it.Kind == ItemLeft {
			it.Rev, it.Territory = 7, crm.TerritoryID(rapid.IntRange(0, 300).Draw(t, "territory"))
		} else {
			it.Partial, it.Body = rapid.Bool().Draw(t, "partial"), rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "body")
		}
		v.Set(reflect.ValueOf(it))
		return
	case crm.OutcomeKind:
		v.SetUint(uint64(rapid.IntRange(1, 4).Draw(t, "outcome")))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), v.Type().Field(i).Name)
		}
	case reflect.Slice:
		fillSlice(t, v, name)
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(rapid.Byte().Draw(t, name)))
		}
	case reflect.String:
		v.SetString(rapid.StringN(0, 20, 200).Draw(t, name))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, name))
	case reflect.Int64:
		v.SetInt(rapid.Int64Range(0, maxMillis).Draw(t, name))
	default:
		v.SetUint(rapid.Uint64Max(min(1<<62, uint64(1)<<v.Type().Bits()-1)).Draw(t, name))
	}
}

func fillSlice(t *rapid.T, v reflect.Value, name string) {
	least, most := 0, 3
	switch name {
	case "Mutations":
		least = 1
	case "Mutation":
		least, most = minMutation, 100
	case "CSR", "Cert", "CACert":
		least, most = 1, 100
	}
	n := rapid.IntRange(least, most).Draw(t, name)
	if n == 0 {
		return // decoded, an empty list is nil
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range n {
		fill(t, v.Index(i), strings.TrimSuffix(name, "s"))
	}
}

func FuzzDecodeFrame(f *testing.F) {
	for version := MinVersion; version <= MaxVersion; version++ {
		for _, s := range samples(version) {
			f.Add(mustAppend(f, s, version), version)
		}
	}
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x07}, MaxVersion)
	f.Fuzz(func(t *testing.T, b []byte, version uint16) {
		frame, err := DecodeFrame(b, version)
		if err != nil {
			if _, ok := errors.AsType[*crm.Error](err); !ok {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		again, err := AppendFrame(nil, version, frame)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x was decoded and encoded to %x, %v", b, again, err)
		}
	})
}
