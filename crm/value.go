package crm

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Kind says what a value is. Numbers are stored and sent: never renumber.
// 14 (sealed) and 15 (file) are reserved.
type Kind uint8

// The closed set of kinds.
const (
	Null    Kind = 0  // no value
	Text    Kind = 1  // UTF-8, no control characters but tab and newline
	Integer Kind = 2  // 64-bit signed
	Decimal Kind = 3  // exact: unscaled int64 × 10^-scale, scale 0..9, optional ISO 4217 currency
	Bool    Kind = 4  //
	Date    Kind = 5  // days since 1970-01-01
	Instant Kind = 6  // Unix milliseconds, UTC
	Choice  Kind = 7  // one of the field's choices
	Choices Kind = 8  // a set of choices
	Link    Kind = 9  // the id of a record of the field's target entity
	Email   Kind = 10 //
	Phone   Kind = 11 // as typed; E164 derives the dialable form
	URL     Kind = 12 // http or https
	Address Kind = 13 // street, city, state, postal code, country
)

var kindNames = [...]string{"null", "text", "integer", "decimal", "bool", "date", "instant", "choice", "choices", "link", "email", "phone", "url", "address"}

// String returns the kind's name as the schema and the API spell it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind(?)"
}

// ParseKind returns the kind that String names.
func ParseKind(name string) (Kind, bool) {
	i := slices.Index(kindNames[:], name)
	return Kind(max(i, 0)), i > 0
}

// MaxText is the longest text in bytes.
const MaxText = 32 << 10

// MaxScale is the largest number of digits after the decimal point.
const MaxScale = 9

// A Value is one immutable datum of a kind; the zero Value is Null. Values are
// comparable with [Value.Equal], not with ==.
type Value struct {
	kind  Kind
	scale uint8
	num   int64
	str   string // text; currency of a decimal; 16 bytes of a link; address parts joined by addressSep
	set   []string
}

const addressSep = "\x1f"

// PostalAddress is the content of an Address value.
type PostalAddress struct {
	Street     string `json:"street,omitempty"`
	City       string `json:"city,omitempty"`
	State      string `json:"state,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"`
}

// Constructors. They trust their argument; [Field.Parse] and [Field.Check]
// judge what comes from outside.

func TextValue(s string) Value       { return stringValue(Text, s) }
func ChoiceValue(s string) Value     { return stringValue(Choice, s) }
func EmailValue(s string) Value      { return stringValue(Email, s) }
func PhoneValue(s string) Value      { return stringValue(Phone, s) }
func URLValue(s string) Value        { return stringValue(URL, s) }
func IntegerValue(n int64) Value     { return Value{kind: Integer, num: n} }
func InstantValue(t time.Time) Value { return Value{kind: Instant, num: t.UnixMilli()} }
func InstantMillis(ms int64) Value   { return Value{kind: Instant, num: ms} }
func LinkValue(id RecordID) Value {
	if id.IsZero() {
		return Value{}
	}
	return Value{kind: Link, str: string(id[:])}
}

// BoolValue returns a Bool.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, num: 1}
	}
	return Value{kind: Bool}
}

// DateValue returns the calendar date of t in t's location.
func DateValue(t time.Time) Value {
	y, m, d := t.Date()
	return DateDays(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// DateDays returns the date that many days after 1970-01-01.
func DateDays(days int64) Value { return Value{kind: Date, num: days} }

// DecimalValue returns unscaled × 10^-scale, plain (currency "") or money.
func DecimalValue(unscaled int64, scale uint8, currency string) Value {
	return Value{kind: Decimal, num: unscaled, scale: scale, str: currency}
}

// ChoicesValue returns a set; order and repeats of its argument do not matter.
func ChoicesValue(elems ...string) Value {
	s := slices.Clone(elems)
	slices.Sort(s)
	return Value{kind: Choices, set: slices.Compact(s)}
}

// AddressValue returns an Address.
func AddressValue(a PostalAddress) Value {
	if a == (PostalAddress{}) {
		return Value{}
	}
	return Value{kind: Address, str: strings.Join([]string{a.Street, a.City, a.State, a.PostalCode, a.Country}, addressSep)}
}

func stringValue(k Kind, s string) Value {
	if s == "" {
		return Value{}
	}
	return Value{kind: k, str: s}
}

// Kind returns the value's kind.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether there is no value. An empty set is null.
func (v Value) IsNull() bool { return v.kind == Null || v.kind == Choices && len(v.set) == 0 }

// Str returns the text of a Text, Choice, Email, Phone or URL, else "".
func (v Value) Str() string {
	switch v.kind {
	case Text, Choice, Email, Phone, URL:
		return v.str
	}
	return ""
}

// Int returns an Integer's number, a Date's days, an Instant's milliseconds, a
// Bool's 0 or 1 and a Decimal's unscaled number.
func (v Value) Int() int64 { return v.num }

// Bool reports whether the value is a true Bool.
func (v Value) Bool() bool { return v.kind == Bool && v.num != 0 }

// Scale returns the digits after a Decimal's point.
func (v Value) Scale() uint8 { return v.scale }

// Currency returns the ISO 4217 code of a money Decimal, else "".
func (v Value) Currency() string {
	if v.kind == Decimal {
		return v.str
	}
	return ""
}

// Link returns a Link's target, else the zero id.
func (v Value) Link() RecordID {
	var id RecordID
	if v.kind == Link {
		copy(id[:], v.str)
	}
	return id
}

// Set returns a Choices' elements, sorted. The caller must not change it.
func (v Value) Set() []string { return v.set }

// Time returns a Date's midnight or an Instant, in UTC.
func (v Value) Time() time.Time {
	if v.kind == Date {
		return time.Unix(v.num*86400, 0).UTC()
	}
	return time.UnixMilli(v.num).UTC()
}

// Address returns an Address's parts.
func (v Value) Address() PostalAddress {
	p := strings.Split(v.str, addressSep)
	if v.kind != Address || len(p) != 5 {
		return PostalAddress{}
	}
	return PostalAddress{Street: p[0], City: p[1], State: p[2], PostalCode: p[3], Country: p[4]}
}

// E164 returns the dialable form of a Phone typed with a leading + or 00
// (ITU-T E.164: at most 15 digits), else "".
func (v Value) E164() string {
	s := strings.TrimSpace(v.str)
	if v.kind != Phone {
		return ""
	}
	rest, ok := strings.CutPrefix(s, "+")
	if !ok {
		if rest, ok = strings.CutPrefix(s, "00"); !ok {
			return ""
		}
	}
	d := digits(rest)
	if len(d) < 7 || len(d) > 15 {
		return ""
	}
	return "+" + d
}

func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
}

// Equal reports whether the two are the same datum. Decimals are equal if
// their numbers and currencies are (1.50 equals 1.5); nulls of all kinds are
// equal.
func (v Value) Equal(w Value) bool {
	if v.IsNull() || w.IsNull() {
		return v.IsNull() && w.IsNull()
	}
	return v.kind == w.kind && Compare(v, w) == 0 && v.str == w.str
}

// Compare orders values of one kind: numbers and times by size, money by
// currency first, text by its folded form and then by its bytes, null before
// everything. Values of different kinds are ordered by kind.
func Compare(v, w Value) int {
	switch {
	case v.IsNull() || w.IsNull():
		return cmp.Compare(b2i(!v.IsNull()), b2i(!w.IsNull()))
	case v.kind != w.kind:
		return cmp.Compare(v.kind, w.kind)
	}
	switch v.kind {
	case Integer, Bool, Date, Instant:
		return cmp.Compare(v.num, w.num)
	case Decimal:
		return cmp.Or(cmp.Compare(v.str, w.str), compareDecimal(v, w))
	case Choices:
		return slices.Compare(v.set, w.set)
	case Link:
		return cmp.Compare(v.str, w.str)
	}
	return cmp.Or(cmp.Compare(FoldText(v.str), FoldText(w.str)), cmp.Compare(v.str, w.str))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareDecimal(v, w Value) int {
	if v.scale == w.scale {
		return cmp.Compare(v.num, w.num)
	}
	return v.Rat().Cmp(w.Rat())
}

// Rat returns an Integer's or Decimal's exact number, nil for other kinds.
func (v Value) Rat() *big.Rat {
	switch v.kind {
	case Integer:
		return new(big.Rat).SetInt64(v.num)
	case Decimal:
		return new(big.Rat).SetFrac(big.NewInt(v.num), big.NewInt(pow10[v.scale]))
	}
	return nil
}

var pow10 = [...]int64{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}
