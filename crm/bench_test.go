package crm

import "testing"

func benchRecord(b *testing.B) (*Record, []byte) {
	b.Helper()
	r := &Record{Entity: 17, ID: rid(1), Territory: 17, Root: rid(2), Schema: 9, Entered: 4, Stamp: Stamp{Rev: 40, HLC: NewHLC(1700000000000), Node: 4, Seq: 7, Actor: "ann"}}
	for f := FieldID(16); f < 41; f++ {
		r.Cells = append(r.Cells, Cell{Field: f, Value: TextValue("a value of some length"), Stamp: r.Stamp})
	}
	return r, AppendRecord(nil, r)
}

func BenchmarkEncodeRecord(b *testing.B) {
	r, buf := benchRecord(b)
	for b.Loop() {
		buf = AppendRecord(buf[:0], r)
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	r, buf := benchRecord(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRecord(r.Entity, r.ID, buf); err != nil {
			b.Fatal(err)
		}
	}
}
