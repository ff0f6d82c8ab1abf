package crm

import (
	"bytes"
	"strings"
	"testing"
)

var sampleWithheld = Withheld{Node: 12, Incarnation: 3, Seq: 4001, Prev: ChainHash{1, 2, 3, 15: 16}, After: ChainHash{9, 15: 8}}

func TestWithheld_KeepsItsBytes(t *testing.T) {
	raw := golden(t, "withheld.hex")
	got, err := DecodeWithheld(raw)
	if err != nil || got != sampleWithheld || !IsWithheld(raw) {
		t.Errorf("%+v, %v", got, err)
	}
	if again := AppendWithheld(nil, got); !bytes.Equal(again, raw) {
		t.Errorf("it is written as %x", again)
	}
	for i := range raw {
		if w, err := DecodeWithheld(raw[:i]); err == nil {
			t.Errorf("cut to %d bytes it became %+v", i, w)
		}
	}
	for name, bad := range map[string][]byte{
		"a mutation":  AppendMutation(nil, sampleMutation(0)),
		"of no node":  AppendWithheld(nil, Withheld{Seq: 1}),
		"of no Seq":   AppendWithheld(nil, Withheld{Node: 1}),
		"with a tail": append(bytes.Clone(raw), 0),
	} {
		if _, err := DecodeWithheld(bad); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	if IsWithheld(nil) || IsWithheld(AppendMutation(nil, sampleMutation(0))) {
		t.Error("a mutation is taken for a withheld one")
	}
}

// A withheld Mutation takes its number and its place in the chain, and ends as a
// rejection that tells a person what happened.
func TestDecideWithheld(t *testing.T) {
	b := newBook(t)
	a := rid(1)
	b.decide(t, 1, 1, create(16, a, txt(16, "Acme")))
	w := sampleWithheld
	d, err := DecideWithheld(b, w, Env{Rev: 2, HLC: 9, Home: south})
	if err != nil {
		t.Fatal(err)
	}
	o := d.Outcome
	if o.Node != w.Node || o.Seq != w.Seq || o.Rev != 2 || o.Kind != Rejected || o.Code != CodeWithheld || !strings.Contains(o.Message, "make the edit anew") {
		t.Errorf("outcome %+v", o)
	}
	if len(d.Refused) != 0 || len(d.Writes) != 1 {
		t.Fatalf("it writes %v and refuses %v", d.Writes, d.Refused)
	}
	n := d.Writes[0]
	if n.Entity != EntityAttention || n.Territory != south || n.Value(AttentionKind).Str() != "rejected" || n.Value(AttentionStatus).Str() != "open" ||
		n.Value(AttentionCode).Str() != string(CodeWithheld) || n.Value(AttentionNode).Int() != int64(w.Node) || n.Value(AttentionSeq).Int() != int64(w.Seq) ||
		n.Stamp != (Stamp{Rev: 2, HLC: 9, Node: w.Node, Seq: w.Seq}) {
		t.Errorf("note %+v", n)
	}
	if _, err := DecodeRecord(n.Entity, n.ID, AppendRecord(nil, n)); err != nil {
		t.Errorf("the note cannot be stored: %v", err)
	}
	again, err := DecideWithheld(b, w, Env{Rev: 2, HLC: 9, Home: south})
	if err != nil || again.Writes[0].ID != n.ID {
		t.Errorf("two masters make the notes %s and %s, %v", n.ID, again.Writes[0].ID, err)
	}
}

// FuzzDecodeWithheld: every withheld Mutation has one encoding.
func FuzzDecodeWithheld(f *testing.F) {
	f.Add(AppendWithheld(nil, sampleWithheld))
	f.Fuzz(func(t *testing.T, in []byte) {
		w, err := DecodeWithheld(in)
		if err == nil && (!bytes.Equal(AppendWithheld(nil, w), in) || !IsWithheld(in)) {
			t.Fatalf("%x is read as %+v", in, w)
		}
	})
}
