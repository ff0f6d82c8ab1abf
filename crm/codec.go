package crm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// AppendValue appends the canonical encoding of v: its kind and its content,
// drawn in docs/format.md.
func AppendValue(dst []byte, v Value) []byte {
	if v.IsNull() {
		return append(dst, byte(Null))
	}
	dst = append(dst, byte(v.kind))
	switch v.kind {
	case Integer, Date, Instant:
		return binary.AppendVarint(dst, v.num)
	case Bool:
		return append(dst, byte(v.num))
	case Decimal:
		dst = append(dst, v.scale)
		return binary.AppendVarint(appendString(dst, v.str), v.num)
	case Choices:
		dst = binary.AppendUvarint(dst, uint64(len(v.set)))
		for _, s := range v.set {
			dst = appendString(dst, s)
		}
		return dst
	case Link:
		return append(dst, v.str...)
	}
	return appendString(dst, v.str)
}

// DecodeValue decodes one value and returns the bytes after it.
func DecodeValue(b []byte) (Value, []byte, error) {
	d := decoder{b: b}
	v := d.value()
	return v, d.b, d.err
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

var errDamaged = errors.New("damaged encoding")

// A decoder reads canonical encodings. The first failure sticks and every later
// read returns zero, so that callers check once, in finish.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
		d.b = nil
	}
}

func (d *decoder) finish() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes left over", len(d.b))
	}
	return d.err
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail("%d bytes wanted, %d there", n, len(d.b))
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint accepts the shortest form only: two encodings of one number would be
// two digests of one record.
func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads a length and refuses one that the bytes left cannot hold, at
// size bytes an item at least.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail("count %d is more than %d bytes can hold", n, len(d.b))
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	b := d.take(d.count(1))
	if !utf8.Valid(b) {
		d.fail("text is not UTF-8")
	}
	return string(b)
}

func (d *decoder) id() RecordID {
	var id RecordID
	copy(id[:], d.take(len(id)))
	return id
}

func (d *decoder) value() Value {
	v := Value{kind: Kind(d.byte())}
	switch v.kind {
	case Null:
	case Integer, Date, Instant:
		v.num = d.varint()
	case Bool:
		if v.num = int64(d.byte()); v.num > 1 {
			d.fail("bool %d", v.num)
		}
	case Decimal:
		v.scale, v.str, v.num = d.byte(), d.string(), d.varint()
		if v.scale > MaxScale || len(v.str) != 0 && len(v.str) != 3 {
			d.fail("decimal of scale %d, currency %q", v.scale, v.str)
		}
	case Choices:
		v.set = d.strings()
	case Link:
		v.str = string(d.take(16))
	case Text, Choice, Email, Phone, URL, Address:
		if v.str = d.string(); v.str == "" {
			d.fail("empty text")
		}
	default:
		d.fail("kind %d", v.kind)
	}
	if d.err != nil {
		return Value{}
	}
	return v
}

func (d *decoder) strings() []string {
	n := d.count(1)
	out := make([]string, 0, n)
	for range n {
		out = append(out, d.string())
	}
	if n == 0 || !slices.IsSorted(out) || len(slices.Compact(slices.Clone(out))) != n {
		d.fail("set is not sorted, or empty")
	}
	return out
}
