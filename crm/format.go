package crm

import (
	"encoding/json"
	"strconv"
	"strings"
)

// String returns the value as people and CSV files write it: a decimal with
// its point and, for money, its currency ("12.50 EUR"); dates and instants in
// ISO 8601; a set joined by ";"; an address in one line.
func (v Value) String() string {
	switch v.kind {
	case Integer:
		return strconv.FormatInt(v.num, 10)
	case Decimal:
		if v.str != "" {
			return v.Number() + " " + v.str
		}
		return v.Number()
	case Bool:
		return strconv.FormatBool(v.num != 0)
	case Date:
		return v.Time().Format("2006-01-02")
	case Instant:
		return v.Time().Format("2006-01-02T15:04:05.000Z")
	case Choices:
		return strings.Join(v.set, ";")
	case Link:
		return v.Link().String()
	case Address:
		return v.Address().line()
	}
	return v.str
}

func (a PostalAddress) line() string {
	var parts []string
	for _, p := range []string{a.Street, strings.TrimSpace(a.PostalCode + " " + a.City), a.State, a.Country} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ", ")
}

// Number returns an Integer's or Decimal's digits without a currency.
func (v Value) Number() string {
	if v.kind != Decimal || v.scale == 0 {
		return strconv.FormatInt(v.num, 10)
	}
	s := strconv.FormatUint(absU64(v.num), 10)
	if pad := int(v.scale) + 1 - len(s); pad > 0 {
		s = strings.Repeat("0", pad) + s
	}
	s = s[:len(s)-int(v.scale)] + "." + s[len(s)-int(v.scale):]
	if v.num < 0 {
		return "-" + s
	}
	return s
}

type moneyJSON struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

// MarshalJSON writes the value as the API shows it: null, numbers as numbers,
// decimals as strings so that no reader makes floats of them, money as
// {"amount","currency"}, sets as arrays, addresses as objects.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.IsNull() {
		return []byte("null"), nil
	}
	switch v.kind {
	case Integer, Bool:
		return []byte(v.String()), nil
	case Decimal:
		if v.str != "" {
			return json.Marshal(moneyJSON{v.Number(), v.str})
		}
		return json.Marshal(v.Number())
	case Choices:
		return json.Marshal(v.set)
	case Address:
		return json.Marshal(v.Address())
	}
	return json.Marshal(v.String())
}
