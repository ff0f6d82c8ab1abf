package syncproto

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"

	"github.com/tradepost-crm/tradepost/crm"
)

// A codec walks the fields of a frame. Each frame names its fields once, in
// order, in its fields method; the mode decides whether the walk writes, reads
// or draws them, so that the three cannot disagree. The bounds hold in both
// directions. The first failure sticks; reading after it yields zeros.
type codec struct {
	mode    mode
	version uint16 // of the protocol; describing: the newest
	kind    Kind
	b       []byte // encoding: what is written; decoding: what is left to read
	list    string // the list being walked, "" outside of one; lists do not nest
	index   int    // the element being walked
	rows    []row  // describing: the table so far
	err     error
}

type mode uint8

const (
	encoding mode = iota
	decoding
	describing
)

// A row of a frame's table in docs/protocol.md.
type row struct{ field, form, bound string }

// fail names frame and field; it never costs anything while all is well.
func (c *codec) fail(name, format string, args ...any) {
	if c.err != nil || c.mode == describing {
		return
	}
	item := c.kind.String() + "." + name
	if c.list != "" {
		item = fmt.Sprintf("%s.%s[%d].%s", c.kind, c.list, c.index, name)
	}
	op := "encode frame"
	if c.mode == decoding {
		op, c.b = "decode frame", nil
	}
	c.err = badFrame(op, item, fmt.Sprintf(format, args...), nil)
}

// since reports whether the version at hand has the fields that follow, which
// came with the given one. To leave out one that is set would be to lose it.
func (c *codec) since(version uint16, set bool, name string) bool {
	if c.mode == describing || c.version >= version {
		return true
	}
	if c.mode == encoding && set {
		c.fail(name, "version %d has no such field, it came with %d", c.version, version)
	}
	return false
}

func (c *codec) draw(name, form, bound string) {
	if c.list != "" {
		name = c.list + "[]." + name
	}
	c.rows = append(c.rows, row{name, form, bound})
}

// take returns the next n bytes of the input, nil if it has fewer.
func (c *codec) take(name string, n int) []byte {
	if n > len(c.b) {
		c.fail(name, "%d bytes wanted, %d there", n, len(c.b))
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *codec) readUvarint(name string) uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || n > 1 && c.b[n-1] == 0 {
		c.fail(name, "bad number")
		return 0
	}
	c.b = c.b[n:]
	return v
}

// uvarint writes v, or reads a number in its place, of at most the given size.
func (c *codec) uvarint(name string, v, most uint64) uint64 {
	if c.mode == decoding {
		v = c.readUvarint(name)
	}
	if v > most {
		c.fail(name, "%d is over %d", v, most)
		return 0
	}
	if c.mode == encoding {
		c.b = binary.AppendUvarint(c.b, v)
	}
	return v
}

// number is a field of a count, an id or a position, in its whole range.
func number[T ~uint16 | ~uint32 | ~uint64](c *codec, name string, v *T) {
	atMost(c, name, v, ^T(0))
}

func atMost[T ~uint16 | ~uint32 | ~uint64](c *codec, name string, v *T, most T) {
	if c.mode == describing {
		c.draw(name, "uvarint", numbers(uint64(most)))
		return
	}
	n := c.uvarint(name, uint64(*v), uint64(most))
	if c.mode == decoding {
		*v = T(n)
	}
}

// numbers draws the bound of a number.
func numbers(most uint64) string {
	switch {
	case most == uint64(crm.Pending-1):
		return "a decided Rev, below 2^63 - 1"
	case most&(most+1) == 0:
		return fmt.Sprintf("%d bits", bits.Len64(most))
	}
	return fmt.Sprintf("at most %d", most)
}

// rev is a Rev that a master decided: never Pending.
func (c *codec) rev(name string, v *crm.Rev) { atMost(c, name, v, crm.Pending-1) }

// maxMillis bounds times to what an HLC can hold.
const maxMillis = 1<<48 - 1

// time is a field of Unix milliseconds.
func (c *codec) time(name string, v *int64) {
	if c.mode == describing {
		c.draw(name, "uvarint", "Unix milliseconds, below 2^48")
		return
	}
	n := c.uvarint(name, uint64(*v), maxMillis)
	if c.mode == decoding {
		*v = int64(n)
	}
}

func (c *codec) signed(name string, v *int64) {
	switch c.mode {
	case describing:
		c.draw(name, "zigzag uvarint", "")
	case encoding:
		c.b = binary.AppendVarint(c.b, *v)
	case decoding:
		u := c.readUvarint(name)
		*v = int64(u>>1) ^ -int64(u&1)
	}
}

// octet writes v, or reads one byte in its place.
func (c *codec) octet(name string, v byte) byte {
	if c.mode == encoding {
		c.b = append(c.b, v)
	} else if b := c.take(name, 1); b != nil {
		return b[0]
	}
	return v
}

// choice is a one-byte field with the values 1 to last.
func choice[T ~uint8](c *codec, name string, v *T, last T) {
	if c.mode == describing {
		c.draw(name, "1 byte", fmt.Sprintf("1 to %d", last))
		return
	}
	n := T(c.octet(name, byte(*v)))
	if n < 1 || n > last {
		c.fail(name, "%d is not 1 to %d", n, last)
	}
	if c.mode == decoding {
		*v = n
	}
}

func (c *codec) flag(name string, v *bool) {
	if c.mode == describing {
		c.draw(name, "1 byte", "0 or 1")
		return
	}
	n := byte(0)
	if *v {
		n = 1
	}
	if n = c.octet(name, n); n > 1 {
		c.fail(name, "%d is neither 0 nor 1", n)
	}
	if c.mode == decoding {
		*v = n == 1
	}
}

// fixed is a field of exactly len(v) bytes.
func (c *codec) fixed(name string, v []byte) {
	switch c.mode {
	case describing:
		c.draw(name, fmt.Sprintf("%d bytes", len(v)), "")
	case encoding:
		c.b = append(c.b, v...)
	case decoding:
		copy(v, c.take(name, len(v)))
	}
}

// bytes is a field of least to most bytes. Decoded, it shares the input's array.
func (c *codec) bytes(name string, v *[]byte, least, most int) {
	if c.mode == describing {
		c.draw(name, "uvarint length, bytes", sizes(least, most))
		return
	}
	n := int(c.uvarint(name, uint64(len(*v)), uint64(most)))
	if n < least {
		c.fail(name, "%d bytes is under %d", n, least)
	}
	if c.mode == encoding {
		c.b = append(c.b, *v...)
	} else if *v = nil; n > 0 {
		*v = c.take(name, n)
	}
}

func sizes(least, most int) string {
	if least > 0 {
		return fmt.Sprintf("%d to %d bytes", least, most)
	}
	return fmt.Sprintf("at most %d bytes", most)
}

// text is a field of UTF-8.
func (c *codec) text(name string, v *string, most int) {
	if c.mode == describing {
		c.draw(name, "uvarint length, UTF-8", sizes(0, most))
		return
	}
	n := int(c.uvarint(name, uint64(len(*v)), uint64(most)))
	if c.mode == encoding {
		c.b = append(c.b, *v...)
	} else {
		*v = string(c.take(name, n))
	}
	if !utf8.ValidString(*v) {
		c.fail(name, "text is not UTF-8")
	}
}

// message is a text for people. One that is too long or no UTF-8 is cut or
// mended when written: a session must not fail over how an error is worded.
func (c *codec) message(name string, v *string) {
	if c.mode == encoding {
		s := *v
		if len(s) > maxMessage {
			s = s[:maxMessage]
		}
		s = strings.ToValidUTF8(s, "")
		v = &s
	}
	c.text(name, v, maxMessage)
}

// code is the stable name of an error.
func (c *codec) code(name string, v *crm.Code) {
	s := string(*v)
	c.text(name, &s, maxName)
	if c.mode == decoding {
		*v = crm.Code(s)
	}
}

// each is a field of a list: its count, then the fields of every element. size
// is the least an element can take, in bytes, and bounds the count by the input.
func each[T any](c *codec, name string, v *[]T, most, size int, element func(*T)) {
	if c.mode == describing {
		c.draw(name, "uvarint count, elements", fmt.Sprintf("at most %d", most))
		c.list = name
		element(new(T))
		c.list = ""
		return
	}
	n := int(c.uvarint(name, uint64(len(*v)), uint64(most)))
	if c.mode == decoding {
		if n > len(c.b)/size {
			c.fail(name, "count %d is more than %d bytes can hold", n, len(c.b))
		}
		if *v = nil; n > 0 && c.err == nil {
			*v = make([]T, n)
		}
	}
	c.list = name
	for i := range *v {
		if c.index = i; c.err == nil {
			element(&(*v)[i])
		}
	}
	c.list = ""
}

// outcome is a crm.Outcome in crm's own encoding, which bounds it.
func (c *codec) outcome(name string, v *crm.Outcome) {
	switch c.mode {
	case describing:
		c.draw(name, "outcome", "docs/format.md")
	case encoding:
		c.b = crm.AppendOutcome(c.b, *v)
	case decoding:
		o, rest, err := crm.DecodeOutcome(c.b)
		if err != nil {
			c.fail(name, "%v", err)
			return
		}
		*v, c.b = o, rest
	}
}
