package crm

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// sameFields fails unless the Raw shows what the Record does: fields set, fields
// not set and those that are no cells.
func sameFields(t interface {
	Helper()
	Fatalf(string, ...any)
}, raw *Raw, r *Record) {
	t.Helper()
	fields := []FieldID{FieldUpdatedAt, FieldUpdatedBy, FieldIDField, 1, 40, 1<<16 - 1}
	for _, c := range r.Cells {
		fields = append(fields, c.Field, c.Field+1, c.Field-1)
	}
	for _, f := range fields {
		got, want := raw.Value(f), r.Value(f)
		if !bytes.Equal(AppendValue(nil, got), AppendValue(nil, want)) {
			t.Fatalf("field %d is %v, want %v", f, got, want)
		}
	}
	if raw.Deleted() != r.Deleted {
		t.Fatalf("deleted is %v", raw.Deleted())
	}
	if err := raw.Err(); err != nil {
		t.Fatalf("%v", err)
	}
}

// genRecord makes records of up to 12 fields under up to 3 stamps.
func genRecord() *rapid.Generator[*Record] {
	return rapid.Custom(func(t *rapid.T) *Record {
		var stamps []Stamp
		for i := range rapid.IntRange(1, 3).Draw(t, "stamps") {
			stamps = append(stamps, Stamp{Rev: Rev(rapid.Uint64Range(0, 1<<40).Draw(t, "rev")), HLC: HLC(rapid.Uint64().Draw(t, "hlc")), Node: 3, Seq: Seq(i), Actor: rapid.SampledFrom([]string{"", "ann", "bo"}).Draw(t, "actor")})
		}
		stamp := func() Stamp { return rapid.SampledFrom(stamps).Draw(t, "stamp") }
		r := &Record{Entity: 17, ID: rid(1), Territory: 20, Schema: 4, Entered: 9, Stamp: stamp(), Deleted: rapid.Bool().Draw(t, "deleted")}
		r.Root = rapid.SampledFrom([]RecordID{{}, rid(1), rid(2)}).Draw(t, "root")
		for _, f := range rapid.SliceOfNDistinct(rapid.Uint16Range(1, 400), 0, 12, rapid.ID).Draw(t, "fields") {
			c := Cell{Field: FieldID(f), Stamp: stamp()}
			if k := Kind(rapid.IntRange(0, 13).Draw(t, "kind")); k != Null {
				c.Value = genValue(k).Draw(t, "value")
			}
			for range c.Value.Set() {
				c.Elems = append(c.Elems, stamp())
			}
			r.set(c)
		}
		return r
	})
}

func TestRaw_ShowsWhatTheRecordShows(t *testing.T) {
	var raw Raw // reused, as in a scan
	rapid.Check(t, func(t *rapid.T) {
		r := genRecord().Draw(t, "record")
		b := AppendRecord(nil, r)
		if err := raw.Reset(r.Entity, r.ID, b); err != nil {
			t.Fatal(err)
		}
		clear(b) // what was read must not need it
		sameFields(t, &raw, r)
	})
}

func TestRaw_Damage(t *testing.T) {
	r := &Record{ID: rid(1), Cells: []Cell{{Field: 16, Value: TextValue("Acme")}, {Field: 17, Value: IntegerValue(4)}}}
	whole := AppendRecord(nil, r)
	var raw Raw
	for n := range whole {
		if raw.Reset(16, rid(1), whole[:n]) == nil {
			t.Errorf("the first %d of %d bytes were taken for a record", n, len(whole))
		}
		if v := raw.Value(16); !v.IsNull() {
			t.Errorf("a record that cannot be read has the value %v", v)
		}
	}
	bad := bytes.Replace(whole, []byte("Acme"), []byte("Ac\xffe"), 1)
	if err := raw.Reset(16, rid(1), bad); err != nil {
		t.Fatal(err)
	}
	if v := raw.Value(17); v.Int() != 4 || raw.Err() != nil {
		t.Errorf("the whole field is %v, %v", v, raw.Err())
	}
	if v := raw.Value(16); !v.IsNull() || raw.Err() == nil {
		t.Errorf("the damaged field is %v, and the error nil", v)
	}
	if err := raw.Reset(16, rid(1), whole); err != nil || raw.Err() != nil {
		t.Errorf("the damage outlives Reset: %v, %v", err, raw.Err())
	}
}

func FuzzRaw(f *testing.F) {
	b := newBook(f)
	b.decide(f, 1, 1, create(16, rid(1), txt(16, "Acme"), Input{19, ChoicesValue("x", "y")}))
	b.decide(f, 2, 2, patch(16, rid(1), 1, Input{18, PhoneValue("12345")}))
	f.Add(AppendRecord(nil, b.records[rid(1)]))
	f.Fuzz(func(t *testing.T, in []byte) {
		var raw Raw
		rawErr := raw.Reset(16, rid(1), in)
		r, err := DecodeRecord(16, rid(1), in)
		if err == nil {
			if rawErr != nil {
				t.Fatalf("a good record is refused: %v", rawErr)
			}
			sameFields(t, &raw, r)
			return
		}
		for _, c := range slices.Clone(raw.cells) {
			raw.Value(c.field)
		}
	})
}

func BenchmarkRaw(b *testing.B) {
	r, buf := benchRecord(b)
	b.ReportAllocs()
	var raw Raw
	for b.Loop() {
		if err := raw.Reset(r.Entity, r.ID, buf); err != nil {
			b.Fatal(err)
		}
		raw.Value(17)
		raw.Value(30)
	}
}
