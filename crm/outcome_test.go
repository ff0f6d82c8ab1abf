package crm

import (
	"runtime"
	"testing"
)

// TestDecodeOutcome: outcomes are read one after the other, and what is cut off
// anywhere is refused.
func TestDecodeOutcome(t *testing.T) {
	want := []Outcome{
		{Node: 7, Seq: 1, Rev: 300, Kind: Accepted},
		{Node: 7, Seq: 1 << 40, Rev: 1 << 50, Kind: Rejected, Code: CodeForbidden, Message: "this site may not change it"},
		{Node: 1 << 20, Seq: 2, Rev: 3, Kind: Parked, Code: CodeTransition, Message: "the order is shipped"},
	}
	var b []byte
	for _, o := range want {
		b = AppendOutcome(b, o)
	}
	rest := b
	for _, o := range want {
		got, after, err := DecodeOutcome(rest)
		if err != nil || got != o {
			t.Fatalf("got %+v, %v, want %+v", got, err, o)
		}
		rest = after
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes left over", len(rest))
	}
	last := AppendOutcome(nil, want[1])
	for n := range last {
		if o, _, err := DecodeOutcome(last[:n]); err == nil {
			t.Errorf("%d of %d bytes make %+v", n, len(last), o)
		}
	}
}

// TestDecodeOutcome_CopiesOnlyItself: a frame of n outcomes takes n steps to
// read, not n².
func TestDecodeOutcome_CopiesOnlyItself(t *testing.T) {
	const times, behind = 100, 1 << 20
	b := append(AppendOutcome(nil, Outcome{Node: 1, Seq: 2, Rev: 3, Kind: Merged, Message: "merged"}), make([]byte, behind)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		if _, rest, err := DecodeOutcome(b); err != nil || len(rest) != behind {
			t.Fatalf("%d bytes left, %v", len(rest), err)
		}
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > behind {
		t.Errorf("%d outcomes took %d bytes", times, took)
	}
}
