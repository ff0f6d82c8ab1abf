package syncproto

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradepost-crm/tradepost/crm"
)

func stampAt(rev crm.Rev) crm.Stamp {
	return crm.Stamp{Rev: rev, HLC: crm.NewHLC(int64(rev)), Node: 2, Seq: crm.Seq(rev), Actor: "u-1"}
}

func textCell(f crm.FieldID, text string, rev crm.Rev) crm.Cell {
	return crm.Cell{Field: f, Value: crm.TextValue(text), Stamp: stampAt(rev)}
}

func TestDelta(t *testing.T) {
	r := &crm.Record{Entity: 20, ID: crm.RecordID{1}, Territory: 17, Stamp: stampAt(30), Entered: 10,
		Cells: []crm.Cell{textCell(16, "a", 10), textCell(17, "b", 20), textCell(18, "c", 30),
			{Field: 19, Value: crm.Value{}, Stamp: stampAt(10), Elems: []crm.Stamp{stampAt(25)}}}}
	tests := []struct {
		after   crm.Rev
		partial bool
		fields  []crm.FieldID
	}{
		{9, false, []crm.FieldID{16, 17, 18, 19}},
		{10, true, []crm.FieldID{17, 18, 19}},
		{20, true, []crm.FieldID{18, 19}},
		{25, true, []crm.FieldID{18}},
		{30, true, nil},
	}
	for _, tt := range tests {
		part, partial := Delta(r, tt.after)
		var fields []crm.FieldID
		for _, c := range part.Cells {
			fields = append(fields, c.Field)
		}
		if partial != tt.partial || !slices.Equal(fields, tt.fields) || part.Stamp != r.Stamp || part.Entered != r.Entered {
			t.Errorf("after %d: partial %t, fields %v", tt.after, partial, fields)
		}
	}
	young := &crm.Record{Entered: 5, Cells: []crm.Cell{textCell(16, "a", 10)}}
	if part, partial := Delta(young, 5); partial || part != young {
		t.Error("a record whose every cell is new was called partial")
	}
}

func TestMergePartial_WithoutBase(t *testing.T) {
	if got := MergePartial(nil, &crm.Record{}); got != nil {
		t.Errorf("merged onto nothing: %+v", got)
	}
}

// What a replica at any Cursor makes of the delta is the master's record, byte
// for byte, and what it held is not changed.
func TestDelta_MergesToTheMastersRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &crm.Record{Entity: 20, ID: crm.RecordID{1}, Territory: 17, Stamp: stampAt(1), Entered: 1}
		var prefixes [][]byte // prefixes[i] is the record at Rev i+1
		for rev := crm.Rev(1); rev <= crm.Rev(rapid.IntRange(1, 12).Draw(t, "revs")); rev++ {
			change(t, r, rev)
			prefixes = append(prefixes, crm.AppendRecord(nil, r))
		}
		want := prefixes[len(prefixes)-1]
		cursor := crm.Rev(rapid.IntRange(1, len(prefixes)).Draw(t, "cursor"))
		base := mustRecord(t, prefixes[cursor-1])
		part, partial := Delta(r, cursor)
		part = mustRecord(t, crm.AppendRecord(nil, part))
		if partial {
			part = MergePartial(base, part)
		}
		if got := crm.AppendRecord(nil, part); !bytes.Equal(got, want) {
			t.Fatalf("at cursor %d, partial %t:\n got %x\nwant %x", cursor, partial, got, want)
		}
		if !bytes.Equal(crm.AppendRecord(nil, base), prefixes[cursor-1]) {
			t.Fatal("the base was changed")
		}
	})
}

func mustRecord(t *rapid.T, b []byte) *crm.Record {
	r, err := crm.DecodeRecord(20, crm.RecordID{1}, b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// change edits one to three fields, deletes, restores or moves the record.
func change(t *rapid.T, r *crm.Record, rev crm.Rev) {
	r.Stamp, r.Schema = stampAt(rev), rev/3
	switch rapid.IntRange(0, 9).Draw(t, "change") {
	case 0:
		r.Deleted = !r.Deleted
	case 1:
		r.Territory, r.Entered = r.Territory+1, rev
	}
	for range rapid.IntRange(1, 3).Draw(t, "cells") {
		cell := textCell(crm.FieldID(rapid.IntRange(16, 22).Draw(t, "field")), rapid.StringMatching("[a-z]{1,5}").Draw(t, "text"), rev)
		i, found := slices.BinarySearchFunc(r.Cells, cell.Field, func(c crm.Cell, f crm.FieldID) int { return int(c.Field) - int(f) })
		if found {
			r.Cells[i] = cell
		} else {
			r.Cells = slices.Insert(r.Cells, i, cell)
		}
	}
}
