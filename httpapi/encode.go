package httpapi

import (
	"encoding/json"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tradepost-crm/tradepost/crm"
)

// A page collects one answer. Pages are reused, because a point read is a few
// microseconds and would mostly allocate.
type page struct {
	body    []byte
	etag    []byte // without quotes; empty: none
	headers headerBlock
}

var pages = sync.Pool{New: func() any { return &page{body: make([]byte, 0, 4<<10)} }}

// maxKept is the largest body, in bytes, whose memory is reused.
const maxKept = 64 << 10

func newPage() *page { return pages.Get().(*page) }

func (p *page) free() {
	if cap(p.body) > maxKept {
		return
	}
	p.body, p.etag = p.body[:0], p.etag[:0]
	p.headers = headerBlock{p.headers.text[:0], p.headers.names[:0], p.headers.ends[:0]}
	pages.Put(p)
}

// appendRecord appends r as a flat object, which the package comment describes.
func appendRecord(dst []byte, e *crm.Entity, r *crm.Record, v *view) []byte {
	dst = append(dst, `{"id":"`...)
	dst = appendID(dst, r.ID)
	dst = append(dst, `","`...)
	dst = append(dst, entityKey(e)...)
	dst = append(dst, `":"`...)
	dst = append(dst, e.Name...)
	dst = append(dst, `","`...)
	dst = append(dst, tokenKey(e)...)
	dst = append(dst, `":"`...)
	dst = v.rd.Token(r).AppendTo(dst)
	dst = append(dst, '"')
	if v.fields == nil {
		dst = appendCells(dst, e, r, v)
	}
	for _, f := range v.fields {
		if f.ID != crm.FieldIDField {
			dst = appendField(dst, f, r.Value(f.ID), v)
		}
	}
	return append(dst, '}')
}

// appendCells appends every field that has a value, by field id, then the last change.
func appendCells(dst []byte, e *crm.Entity, r *crm.Record, v *view) []byte {
	for i := range r.Cells {
		if f := e.FieldByID(r.Cells[i].Field); f != nil && !r.Cells[i].Value.IsNull() {
			dst = appendField(dst, f, r.Cells[i].Value, v)
		}
	}
	dst = append(dst, `,"updated_at":"`...)
	dst = appendInstant(dst, r.Stamp.HLC.Millis())
	dst = append(dst, `","updated_by":`...)
	return appendString(dst, r.Stamp.Actor)
}

func appendField(dst []byte, f *crm.Field, value crm.Value, v *view) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, f.Name...)
	dst = append(dst, '"', ':')
	return v.appendValue(dst, f, value)
}

// appendValue appends a value of f, an expanded link with its title.
func (v *view) appendValue(dst []byte, f *crm.Field, value crm.Value) []byte {
	if f.Kind == crm.Link && !value.IsNull() && v.expands(f) {
		dst = append(dst, `{"id":"`...)
		dst = appendID(dst, value.Link())
		dst = append(dst, `","title":`...)
		dst = appendString(dst, v.title(f, value.Link()))
		return append(dst, '}')
	}
	return appendValue(dst, value)
}

// entityKey and tokenKey are where the record's entity and token stand: beside a
// field of that name, under a name with an underscore.
func entityKey(e *crm.Entity) string {
	if e.Field("entity") != nil {
		return "_entity"
	}
	return "entity"
}

func tokenKey(e *crm.Entity) string {
	if e.Field("token") != nil {
		return "_token"
	}
	return "token"
}

// appendValue appends v as crm.Value.MarshalJSON writes it; a test compares the two.
func appendValue(dst []byte, v crm.Value) []byte {
	if v.IsNull() {
		return append(dst, "null"...)
	}
	switch v.Kind() {
	case crm.Integer:
		return strconv.AppendInt(dst, v.Int(), 10)
	case crm.Bool:
		return strconv.AppendBool(dst, v.Bool())
	case crm.Decimal:
		return appendDecimal(dst, v)
	case crm.Instant:
		dst = append(dst, '"')
		return append(appendInstant(dst, v.Int()), '"')
	case crm.Date:
		dst = append(dst, '"')
		return append(v.Time().AppendFormat(dst, time.DateOnly), '"')
	case crm.Link:
		dst = append(dst, '"')
		return append(appendID(dst, v.Link()), '"')
	case crm.Choices:
		return appendStrings(dst, v.Set())
	case crm.Address:
		return appendAddress(dst, v.Address())
	}
	return appendString(dst, v.Str())
}

func appendDecimal(dst []byte, v crm.Value) []byte {
	if v.Currency() == "" {
		dst = append(dst, '"')
		return append(append(dst, v.Number()...), '"')
	}
	dst = append(dst, `{"amount":"`...)
	dst = append(dst, v.Number()...)
	dst = append(dst, `","currency":"`...)
	dst = append(dst, v.Currency()...)
	return append(dst, '"', '}')
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

func appendAddress(dst []byte, a crm.PostalAddress) []byte {
	dst = append(dst, '{')
	start := len(dst)
	for _, part := range [...]struct{ name, text string }{
		{"street", a.Street}, {"city", a.City}, {"state", a.State}, {"postal_code", a.PostalCode}, {"country", a.Country}} {
		if part.text == "" {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, part.name...)
		dst = append(dst, '"', ':')
		dst = appendString(dst, part.text)
	}
	return append(dst, '}')
}

func appendID(dst []byte, id crm.RecordID) []byte {
	const digits = "0123456789abcdef"
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
}

func appendInstant(dst []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
}

// plain marks the bytes that stand for themselves in a JSON string. Beside what
// JSON demands, < > & are escaped, so that an answer pasted into a page is inert.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendString appends s as a JSON string, in the form of encoding/json.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if plain[s[i]] {
			i++
			continue
		}
		size := 1
		if s[i] >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError && r != '\u2028' && r != '\u2029' {
				i += size
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscape(dst, s[i:i+size])
		i += size
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, char string) []byte {
	b, err := json.Marshal(char)
	if err != nil {
		panic("httpapi: a text does not encode: " + err.Error())
	}
	return append(dst, b[1:len(b)-1]...)
}
