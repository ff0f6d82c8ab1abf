package crm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// invalid is the error of one field's value.
func (f *Field) invalid(format string, args ...any) error {
	return &Error{Code: CodeInvalid, Item: f.Name, Message: fmt.Sprintf(format, args...)}
}

// ParseText reads the value a person or a CSV cell wrote. Empty text is Null.
// Accepted besides the form [Value.String] writes: thousands separators that
// cannot be mistaken, a currency before or after an amount, yes/no, several
// date orders that start with the year, and labels of choices. Links are
// record ids here; looking others up is the caller's work.
func (f *Field) ParseText(s string) (Value, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return Value{}, nil
	}
	v, err := f.parseText(s)
	if err != nil {
		return Value{}, err
	}
	if err := f.Check(v); err != nil {
		return Value{}, err
	}
	return v, nil
}

func (f *Field) parseText(s string) (Value, error) {
	switch f.Kind {
	case Integer:
		n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
		if err != nil {
			return Value{}, f.invalid("%q is not a whole number", clip(s))
		}
		return IntegerValue(n), nil
	case Decimal:
		return f.parseDecimal(s)
	case Bool:
		return f.parseBool(s)
	case Date:
		return f.parseDate(s)
	case Instant:
		return f.parseInstant(s)
	case Choice:
		return ChoiceValue(f.option(s)), nil
	case Choices:
		return f.parseSet(strings.FieldsFunc(s, func(r rune) bool { return r == ';' || r == '|' })), nil
	case Link:
		id, err := ParseRecordID(s)
		if err != nil {
			return Value{}, f.invalid("%v", err)
		}
		return LinkValue(id), nil
	case Address:
		return AddressValue(PostalAddress{Street: s}), nil
	case URL:
		if !strings.Contains(s, "://") {
			s = "https://" + s
		}
		return URLValue(s), nil
	}
	return stringValue(f.Kind, s), nil
}

func (f *Field) parseSet(elems []string) Value {
	out := make([]string, 0, len(elems))
	for _, e := range elems {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, f.option(e))
		}
	}
	return ChoicesValue(out...)
}

// option returns the option that s names by value or label in any case, else s.
func (f *Field) option(s string) string {
	folded := FoldText(s)
	for _, o := range f.Options {
		if FoldText(o.Value) == folded || o.Label != "" && FoldText(o.Label) == folded {
			return o.Value
		}
	}
	return s
}

func (f *Field) parseBool(s string) (Value, error) {
	switch FoldText(s) {
	case "true", "yes", "y", "1", "on":
		return BoolValue(true), nil
	case "false", "no", "n", "0", "off":
		return BoolValue(false), nil
	}
	return Value{}, f.invalid("%q is not yes or no", clip(s))
}

var dateForms = []string{"2006-01-02", "2006/01/02", "20060102", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04:05.000", time.RFC3339}

func (f *Field) parseDate(s string) (Value, error) {
	for _, form := range dateForms {
		if t, err := time.Parse(form, s); err == nil && plausible(t) {
			return DateValue(t), nil
		}
	}
	return Value{}, f.invalid("%q is not a date; write it as 2026-11-21", clip(s))
}

func (f *Field) parseInstant(s string) (Value, error) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04:05.000", "2006-01-02"} {
		if t, err := time.Parse(form, s); err == nil && plausible(t) {
			return InstantValue(t), nil
		}
	}
	return Value{}, f.invalid("%q is not a date and time; write it as 2026-11-21T09:30:00Z", clip(s))
}

func plausible(t time.Time) bool { return t.Year() >= 1000 && t.Year() <= 9999 }

// parseDecimal reads "1265.5", "1,265.50", "1265.5 EUR", "EUR 1265.5" and
// "$12.50". A lone comma is refused: it may be a decimal or a thousands mark.
func (f *Field) parseDecimal(s string) (Value, error) {
	num, currency := splitCurrency(s)
	if strings.Contains(num, ",") {
		i := strings.LastIndex(num, ".")
		whole := num
		if i >= 0 {
			whole = num[:i]
		}
		groups := strings.Split(strings.TrimLeft(whole, "+-"), ",")
		if i < 0 && len(groups) == 2 || strings.Contains(num[max(i, 0):], ",") && i >= 0 || slices.ContainsFunc(groups[1:], func(g string) bool { return len(g) != 3 }) {
			return Value{}, f.invalid("%q: write the number with a point and without thousands marks, as 1265.50", clip(s))
		}
		num = strings.ReplaceAll(num, ",", "")
	}
	v, ok := parseDecimal(num, currency)
	if !ok {
		return Value{}, f.invalid("%q is not a number with at most %d decimals", clip(s), MaxScale)
	}
	return v, nil
}

func splitCurrency(s string) (num, currency string) {
	for sign, code := range map[string]string{"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"} {
		if rest, ok := strings.CutPrefix(s, sign); ok {
			return strings.TrimSpace(rest), code
		}
	}
	if isCurrency(s[max(0, len(s)-3):]) {
		return strings.TrimSpace(s[:len(s)-3]), s[len(s)-3:]
	}
	if isCurrency(s[:min(3, len(s))]) {
		return strings.TrimSpace(s[3:]), s[:3]
	}
	return s, ""
}

func isCurrency(s string) bool {
	return len(s) == 3 && strings.IndexFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) < 0
}

// ParseDecimal reads digits with an optional sign and point, at most MaxScale
// decimals, and nothing else.
func ParseDecimal(s string) (Value, bool) { return parseDecimal(s, "") }

func parseDecimal(s, currency string) (Value, bool) {
	whole, frac, point := strings.Cut(s, ".")
	if point && frac == "" || len(frac) > MaxScale || strings.ContainsAny(frac, "+-_") {
		return Value{}, false
	}
	if strings.HasPrefix(s, ".") || whole == "-" || whole == "+" {
		return Value{}, false
	}
	n, err := strconv.ParseInt(whole+frac, 10, 64)
	if err != nil {
		return Value{}, false
	}
	return DecimalValue(n, uint8(len(frac)), currency), true
}

// ParseJSON reads the value as the API carries it; null clears. It refuses
// fractions in JSON numbers for decimals only where they lost digits: write
// them as strings.
func (f *Field) ParseJSON(raw json.RawMessage) (Value, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return Value{}, nil
	}
	v, err := f.parseJSON(raw)
	if err != nil {
		return Value{}, err
	}
	if err := f.Check(v); err != nil {
		return Value{}, err
	}
	return v, nil
}

func (f *Field) parseJSON(raw json.RawMessage) (Value, error) {
	switch {
	case raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return Value{}, f.invalid("%v", err)
		}
		return f.ParseText(s)
	case raw[0] == '{' && f.Kind == Decimal:
		var m moneyJSON
		if err := strictJSON(raw, &m); err != nil {
			return Value{}, f.invalid("want {\"amount\":\"12.50\",\"currency\":\"EUR\"}: %v", err)
		}
		v, ok := parseDecimal(m.Amount, m.Currency)
		if !ok {
			return Value{}, f.invalid("amount %q is not a number with at most %d decimals", clip(m.Amount), MaxScale)
		}
		return v, nil
	case raw[0] == '{' && f.Kind == Address:
		var a PostalAddress
		if err := strictJSON(raw, &a); err != nil {
			return Value{}, f.invalid("want an address object: %v", err)
		}
		return AddressValue(a), nil
	case raw[0] == '[' && f.Kind == Choices:
		var elems []string
		if err := json.Unmarshal(raw, &elems); err != nil {
			return Value{}, f.invalid("want a list of texts: %v", err)
		}
		return f.parseSet(elems), nil
	case (raw[0] == 't' || raw[0] == 'f') && f.Kind == Bool, f.Kind == Integer || f.Kind == Decimal:
		return f.parseText(string(raw))
	}
	return Value{}, f.invalid("%s does not fit a field of kind %s", clip(string(raw)), f.Kind)
}

func strictJSON(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// Check judges whether v may stand in the field: kind, length, choice,
// currency, shape. It does not judge Required.
func (f *Field) Check(v Value) error {
	if v.IsNull() {
		return nil
	}
	if v.kind != f.Kind {
		return f.invalid("a value of kind %s does not fit a field of kind %s", v.kind, f.Kind)
	}
	limit := f.Max
	if limit == 0 {
		limit = MaxText
	}
	if len(v.str) > limit && v.kind != Decimal {
		return &Error{Code: CodeTooLarge, Item: f.Name, Message: fmt.Sprintf("%d bytes; at most %d fit", len(v.str), limit)}
	}
	if err := f.checkText(v); err != nil {
		return err
	}
	return f.checkShape(v)
}

func (f *Field) checkText(v Value) error {
	if v.kind == Link || v.kind == Decimal {
		return nil
	}
	for _, s := range append([]string{strings.ReplaceAll(v.str, addressSep, "")}, v.set...) {
		if !utf8.ValidString(s) {
			return f.invalid("the text is not UTF-8; save the file as UTF-8")
		}
		if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f }); i >= 0 {
			return f.invalid("control character %#x at byte %d", s[i], i)
		}
	}
	return nil
}

func (f *Field) checkShape(v Value) error {
	switch v.kind {
	case Choice:
		return f.checkOption(v.str)
	case Choices:
		if len(v.set) > 256 {
			return &Error{Code: CodeTooLarge, Item: f.Name, Message: "a set holds at most 256 elements"}
		}
		for _, e := range v.set {
			if err := f.checkOption(e); err != nil {
				return err
			}
		}
	case Decimal:
		if v.scale > MaxScale || v.str != "" && !isCurrency(v.str) {
			return f.invalid("currency %q is not an ISO 4217 code such as EUR", clip(v.str))
		}
		if v.str != "" && !f.Money {
			return f.invalid("the field takes a plain number, without %s", v.str)
		}
	case Email:
		return f.checkEmail(v.str)
	case URL:
		u, err := url.Parse(v.str)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return f.invalid("%q is not a web address such as https://example.com", clip(v.str))
		}
	case Phone:
		if len(digits(v.str)) < 3 {
			return f.invalid("%q is not a phone number", clip(v.str))
		}
	}
	return nil
}

func (f *Field) checkOption(s string) error {
	if len(f.Options) == 0 || slices.ContainsFunc(f.Options, func(o Option) bool { return o.Value == s }) {
		return nil
	}
	names := make([]string, len(f.Options))
	for i, o := range f.Options {
		names[i] = o.Value
	}
	return f.invalid("%q is not one of: %s", clip(s), strings.Join(names, ", "))
}

// checkEmail asks for what every deliverable address has (RFC 5321 §4.1.2
// without quoted local parts): one @ with text around it and no blanks.
func (f *Field) checkEmail(s string) error {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || strings.ContainsAny(s, " \t\r\n<>,;\"") || strings.Contains(domain, "@") ||
		strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || len(local) > 64 {
		return f.invalid("%q is not an e-mail address", clip(s))
	}
	return nil
}

// clip shortens what a message quotes.
func clip(s string) string {
	if len(s) > 60 {
		return truncate(s, 57) + "…"
	}
	return s
}
