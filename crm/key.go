package crm

import (
	"encoding/binary"
	"math/bits"
)

// maxKeyText bounds the folded text in an index key, in bytes. Texts that
// agree that far are ordered by record id.
const maxKeyText = 96

// AppendKey appends the order-preserving index key of v: for values a and b of
// one kind bytes.Compare of their keys equals [Compare], except that text is
// compared by its folded form only (and its first 96 bytes). Keys are prefix-
// free, so that keys of several fields concatenate. Choices have one key per
// element; AppendKey writes the first.
func AppendKey(dst []byte, v Value) []byte {
	if v.IsNull() {
		return append(dst, 0)
	}
	dst = append(dst, byte(v.kind))
	switch v.kind {
	case Integer, Instant, Date:
		return appendOrdered(dst, v.num)
	case Bool:
		return append(dst, byte(v.num))
	case Decimal:
		return appendDecimalKey(dst, v)
	case Link:
		return append(dst, v.str...)
	case Choices:
		return appendTextKey(dst, v.set[0])
	case Phone:
		if e := v.E164(); e != "" {
			return appendTextKey(dst, e)
		}
		return appendTextKey(dst, digits(v.str))
	}
	return appendTextKey(dst, v.str)
}

func appendOrdered(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(n)^1<<63)
}

// appendDecimalKey scales every decimal to 9 digits, 128 bits wide, so that
// 1.5 and 1.50 share a key; the currency goes first because amounts of
// different currencies have no order.
func appendDecimalKey(dst []byte, v Value) []byte {
	if v.str == "" {
		dst = append(dst, 0)
	} else {
		dst = append(append(dst, 1), v.str...)
	}
	hi, lo := bits.Mul64(absU64(v.num), uint64(pow10[MaxScale-v.scale]))
	if v.num < 0 {
		lo, hi = -lo, ^hi
		if lo == 0 {
			hi++
		}
	}
	dst = binary.BigEndian.AppendUint64(dst, hi^1<<63)
	return binary.BigEndian.AppendUint64(dst, lo)
}

func absU64(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// appendTextKey appends the folded text and a 0 terminator; folding never
// yields a 0 byte because values hold no control characters.
func appendTextKey(dst []byte, s string) []byte {
	return append(append(dst, truncate(FoldText(s), maxKeyText)...), 0)
}

// AppendTextPrefix appends the key prefix shared by all texts of the kind that
// begin with s once folded.
func AppendTextPrefix(dst []byte, k Kind, s string) []byte {
	return append(append(dst, byte(k)), truncate(FoldText(s), maxKeyText)...)
}
