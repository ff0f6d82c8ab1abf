package crm

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func genValue(k Kind) *rapid.Generator[Value] {
	text := rapid.StringMatching(`[a-zA-ZäöüÅéŁß0-9 ]{1,12}`)
	return rapid.Custom(func(t *rapid.T) Value {
		switch k {
		case Integer:
			return IntegerValue(rapid.Int64().Draw(t, "n"))
		case Decimal:
			return DecimalValue(rapid.Int64().Draw(t, "n"), rapid.Uint8Range(0, MaxScale).Draw(t, "scale"), rapid.SampledFrom([]string{"", "EUR", "USD"}).Draw(t, "currency"))
		case Bool:
			return BoolValue(rapid.Bool().Draw(t, "b"))
		case Date:
			return DateDays(rapid.Int64Range(-300000, 300000).Draw(t, "days"))
		case Instant:
			return InstantMillis(rapid.Int64Range(-1<<45, 1<<45).Draw(t, "ms"))
		case Choices:
			return ChoicesValue(rapid.SliceOfN(text, 1, 5).Draw(t, "set")...)
		case Link:
			id := RecordID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
			return LinkValue(id)
		case Address:
			return AddressValue(PostalAddress{Street: text.Draw(t, "street"), City: text.Draw(t, "city")})
		}
		return stringValue(k, text.Draw(t, "s"))
	})
}

func TestValue_CodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := genValue(Kind(rapid.IntRange(1, 13).Draw(t, "kind"))).Draw(t, "v")
		got, rest, err := DecodeValue(append(AppendValue(nil, v), "tail"...))
		if err != nil || string(rest) != "tail" || !got.Equal(v) || got.scale != v.scale {
			t.Fatalf("%v came back as %v, %q, %v", v, got, rest, err)
		}
	})
}

func TestKey_OrdersLikeCompare(t *testing.T) {
	for k := Integer; k <= Address; k++ {
		if k == Choices || k == Phone {
			continue
		}
		t.Run(k.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v, w := genValue(k).Draw(t, "v"), genValue(k).Draw(t, "w")
				got, want := bytes.Compare(AppendKey(nil, v), AppendKey(nil, w)), Compare(v, w)
				if got == 0 && FoldText(v.str) == FoldText(w.str) {
					return
				}
				if got != want {
					t.Fatalf("keys of %v and %v compare %d, the values %d", v, w, got, want)
				}
			})
		})
	}
}

func TestKey_NullFirstAndDecimalsByNumber(t *testing.T) {
	vals := []Value{{}, DecimalValue(-1500, 3, ""), DecimalValue(-1, 0, ""), DecimalValue(0, 2, ""), DecimalValue(15, 1, ""), DecimalValue(1501, 3, ""), DecimalValue(1<<62, 0, "")}
	for i := range vals[1:] {
		if bytes.Compare(AppendKey(nil, vals[i]), AppendKey(nil, vals[i+1])) >= 0 {
			t.Errorf("key of %v is not below that of %v", vals[i], vals[i+1])
		}
	}
	if !bytes.Equal(AppendKey(nil, DecimalValue(15, 1, "")), AppendKey(nil, DecimalValue(150, 2, ""))) {
		t.Error("1.5 and 1.50 have different keys")
	}
}

func TestFoldText(t *testing.T) {
	for in, want := range map[string]string{
		"Häusler": "hausler", "ŁÓDŹ": "lodz", "Straße": "strasse", "  Two   words ": "two words", "Ærø": "aero", "plain": "plain",
		"Αθήνα": "αθηνα", "Чайковский": "чаиковскии", "東京": "東京", "e\u0301te\u0301": "ete", "İstanbul": "istanbul", "": "",
	} {
		if got := FoldText(in); got != want {
			t.Errorf("FoldText(%q) = %q, want %q", in, got, want)
		}
		if got := FoldText(FoldText(in)); got != want {
			t.Errorf("folding %q twice gives %q", in, got)
		}
	}
	if got := Words("Müller & Söhne, Müller GmbH"); !slices.Equal(got, []string{"muller", "sohne", "gmbh"}) {
		t.Errorf("Words: %q", got)
	}
}

func TestField_ParseText(t *testing.T) {
	money := &Field{Name: "amount", Kind: Decimal, Money: true}
	for _, c := range []struct {
		f        *Field
		in, want string
		code     Code
	}{
		{money, "1265.50", "1265.50", ""}, {money, "1,265.50", "1265.50", ""}, {money, "$ 12.5", "12.5 USD", ""}, {money, "EUR 3", "3 EUR", ""},
		{money, "-0.05 GBP", "-0.05 GBP", ""}, {money, "1,265", "", CodeInvalid}, {money, "12.", "", CodeInvalid}, {money, "1.0000000001", "", CodeInvalid},
		{money, "1e3", "", CodeInvalid}, {money, "abc", "", CodeInvalid}, {money, "99999999999999999999", "", CodeInvalid}, {money, "1,26,500", "", CodeInvalid},
		{&Field{Name: "rate", Kind: Decimal}, "5 EUR", "", CodeInvalid},
		{&Field{Name: "n", Kind: Integer}, "-7", "-7", ""}, {&Field{Name: "n", Kind: Integer}, "7.0", "", CodeInvalid},
		{&Field{Name: "d", Kind: Date}, "1996-07-04 00:00:00.000", "1996-07-04", ""}, {&Field{Name: "d", Kind: Date}, "04/07/1996", "", CodeInvalid},
		{&Field{Name: "at", Kind: Instant}, "2026-11-21T09:30:00+01:00", "2026-11-21T08:30:00.000Z", ""},
		{&Field{Name: "b", Kind: Bool}, "Yes", "true", ""}, {&Field{Name: "b", Kind: Bool}, "maybe", "", CodeInvalid},
		{&Field{Name: "e", Kind: Email}, "a@b.example", "a@b.example", ""}, {&Field{Name: "e", Kind: Email}, "a b@c", "", CodeInvalid},
		{&Field{Name: "u", Kind: URL}, "example.com", "https://example.com", ""}, {&Field{Name: "u", Kind: URL}, "javascript://x", "", CodeInvalid},
		{&Field{Name: "c", Kind: Choice, Options: []Option{{Value: "won", Label: "Closed Won"}}}, "closed won", "won", ""},
		{&Field{Name: "c", Kind: Choice, Options: []Option{{Value: "won"}}}, "win", "", CodeInvalid},
		{&Field{Name: "t", Kind: Text}, "nul\x00", "", CodeInvalid}, {&Field{Name: "t", Kind: Text}, "\xff", "", CodeInvalid},
		{&Field{Name: "t", Kind: Text, Max: 3}, "long", "", CodeTooLarge}, {&Field{Name: "s", Kind: Choices}, "b; a;b", "a;b", ""},
		{&Field{Name: "l", Kind: Link}, "nonsense", "", CodeInvalid}, {money, "", "", ""},
	} {
		v, err := c.f.ParseText(c.in)
		if CodeOf(err) != c.code || v.String() != c.want {
			t.Errorf("%s %q: got %q, %v; want %q, code %q", c.f.Kind, c.in, v, err, c.want, c.code)
		}
	}
}

func TestValue_JSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := Kind(rapid.SampledFrom([]int{1, 2, 3, 4, 5, 6, 7, 9, 13}).Draw(t, "kind"))
		v := genValue(k).Draw(t, "v")
		if v.Kind() == Text && strings.TrimSpace(v.Str()) != v.Str() || k == Choice && strings.TrimSpace(v.Str()) != v.Str() {
			t.Skip("parsing trims")
		}
		if k == Date && (v.Time().Year() < 1000 || v.Time().Year() > 9999) || k == Instant && v.Time().Year() < 1000 {
			t.Skip("outside the years people write")
		}
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		f := &Field{Name: "f", Kind: k, Money: true}
		got, err := f.ParseJSON(raw)
		if err != nil || !got.Equal(v) && k != Address {
			t.Fatalf("%s came back as %v, %v", raw, got, err)
		}
	})
}

func TestPhone_E164(t *testing.T) {
	for in, want := range map[string]string{"+351 21 000 0000": "+351210000000", "0049 (30) 12345": "+493012345", "030 12345": "", "+1": ""} {
		if got := PhoneValue(in).E164(); got != want {
			t.Errorf("E164(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRecordID(t *testing.T) {
	at := time.UnixMilli(0x0123456789ab)
	id := NewRecordID(at, bytes.NewReader(bytes.Repeat([]byte{0xff}, 10)))
	if got, want := id.String(), "01234567-89ab-7fff-bfff-ffffffffffff"; got != want {
		t.Fatalf("id %s, want %s", got, want)
	}
	back, err := ParseRecordID(strings.ToUpper(id.String()))
	if err != nil || back != id {
		t.Fatalf("%v %v", back, err)
	}
	for _, bad := range []string{"", "x", id.String()[:35] + "g", strings.ReplaceAll(id.String(), "-", "_")} {
		if _, err := ParseRecordID(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	b := newBook(f)
	b.decide(f, 1, 1, create(16, rid(1), txt(16, "Acme"), Input{19, ChoicesValue("x", "y")}))
	b.decide(f, 2, 2, patch(16, rid(1), 1, Input{18, PhoneValue("12345")}))
	f.Add(AppendRecord(nil, b.records[rid(1)]))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := DecodeRecord(16, rid(1), in)
		if err != nil {
			return
		}
		again, err := DecodeRecord(16, rid(1), AppendRecord(nil, r))
		if err != nil || !bytes.Equal(AppendRecord(nil, again), AppendRecord(nil, r)) {
			t.Fatalf("re-encoding changed the record: %v", err)
		}
	})
}

func FuzzDecodeMutation(f *testing.F) {
	f.Add(AppendMutation(nil, sampleMutation(0)))
	f.Add(AppendMutation(nil, sampleMutation(sampleTimeline)))
	f.Add(AppendMutation(nil, &Mutation{Node: 3, Incarnation: 1, Seq: 7, Actor: "ann", Intent: "x", Ops: []Op{patch(16, rid(1), 4, txt(16, "a"))},
		Guards: []Guard{{Kind: GuardExists, Entity: 16, Record: rid(1)}}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := DecodeMutation(in)
		if err == nil && !bytes.Equal(AppendMutation(nil, m), in) {
			t.Fatal("two encodings of one mutation: the chain hash would differ")
		}
	})
}
