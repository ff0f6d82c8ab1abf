package crm

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	d := decoder{s: string(b)}
	v := d.value()
	return v, b[len(b)-len(d.s):], d.err
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

var errDamaged = errors.New("damaged encoding")

// A decoder reads canonical encodings. The first failure sticks and every later
// read returns zero, so that callers check once, in finish. It reads a string so
// that the texts of a record are slices of one copy, not copies each.
type decoder struct {
	s   string
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
		d.s = ""
	}
}

func (d *decoder) finish() error {
	if d.err == nil && len(d.s) > 0 {
		d.fail("%d bytes left over", len(d.s))
	}
	return d.err
}

func (d *decoder) take(n int) string {
	if n < 0 || n > len(d.s) {
		d.fail("%d bytes wanted, %d there", n, len(d.s))
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *decoder) byte() byte {
	if len(d.s) == 0 {
		d.fail("a byte wanted, none there")
		return 0
	}
	b := d.s[0]
	d.s = d.s[1:]
	return b
}

func (d *decoder) uint64() uint64 {
	b := d.take(8)
	if len(b) < 8 {
		return 0
	}
	return uint64(b[7]) | uint64(b[6])<<8 | uint64(b[5])<<16 | uint64(b[4])<<24 |
		uint64(b[3])<<32 | uint64(b[2])<<40 | uint64(b[1])<<48 | uint64(b[0])<<56
}

// uvarint accepts the shortest form only: two encodings of one number would be
// two digests of one record.
func (d *decoder) uvarint() uint64 {
	if len(d.s) > 0 && d.s[0] < 0x80 {
		b := d.s[0]
		d.s = d.s[1:]
		return uint64(b)
	}
	return d.longUvarint()
}

func (d *decoder) longUvarint() uint64 {
	var n uint64
	for i := 0; i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		b := d.s[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b >= 0x80 {
			continue
		}
		if i > 0 && b == 0 || i == binary.MaxVarintLen64-1 && b > 1 {
			break
		}
		d.s = d.s[i+1:]
		return n
	}
	d.fail("bad number")
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads a length and refuses one that the bytes left cannot hold, at
// size bytes an item at least.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.s)/size) {
		d.fail("count %d is more than %d bytes can hold", n, len(d.s))
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	s := d.take(d.count(1))
	if !utf8.ValidString(s) {
		d.fail("text is not UTF-8")
	}
	return s
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
		v.str = d.take(16)
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
	for i := range n {
		out = append(out, d.string())
		if i > 0 && out[i-1] >= out[i] {
			d.fail("set is not sorted")
		}
	}
	if n == 0 {
		d.fail("set is empty")
	}
	return out
}
