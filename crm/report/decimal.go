package report

import (
	"math/big"
	"math/bits"

	"github.com/tradepost-crm/tradepost/crm"
)

var pow10 = func() (p [19]int64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

func bigPow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// mul returns a·b and whether it fits.
func mul(a, b int64) (int64, bool) {
	const half = 1 << 31
	if uint64(a+half) < 2*half && uint64(b+half) < 2*half {
		return a * b, true
	}
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	if (a < 0) != (b < 0) {
		return -int64(lo), hi == 0 && lo <= 1<<63
	}
	return int64(lo), hi == 0 && lo < 1<<63
}

// add returns a+b and whether it fits.
func add(a, b int64) (int64, bool) {
	c := a + b
	return c, (a^c)&(b^c) >= 0
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// halfEven returns n/d rounded to the nearest integer, ties to the even one; d > 0.
func halfEven(n, d *big.Int) *big.Int {
	q, r := new(big.Int).DivMod(n, d, new(big.Int)) // 0 <= r < d
	switch c := r.Lsh(r, 1).Cmp(d); {
	case c > 0, c == 0 && q.Bit(0) == 1:
		q.Add(q, big.NewInt(1))
	}
	return q
}

// decimalValue returns n·10^-scale as shorten does, rounded half to even where a
// Value cannot hold it exactly. It reports false if the whole part alone does
// not fit.
func decimalValue(n *big.Int, scale int, digits uint8, currency string) (crm.Value, bool) {
	for keep := min(scale, crm.MaxScale); keep >= 0; keep-- {
		if q := halfEven(n, bigPow10(scale-keep)); q.IsInt64() {
			return shorten(q.Int64(), uint8(keep), digits, currency), true
		}
	}
	return crm.Value{}, false
}

// shorten returns n·10^-scale with digits decimals, more where it needs them,
// and fewer where they do not fit.
func shorten(n int64, scale, digits uint8, currency string) crm.Value {
	for scale > digits && n%10 == 0 {
		n, scale = n/10, scale-1
	}
	for scale < digits {
		longer, fits := mul(n, 10)
		if !fits {
			break
		}
		n, scale = longer, scale+1
	}
	return crm.DecimalValue(n, scale, currency)
}

// Round returns a Decimal with at most digits decimals, rounded half to even;
// other values as they are.
func Round(v crm.Value, digits uint8) crm.Value {
	if v.Kind() != crm.Decimal || v.Scale() <= digits {
		return v
	}
	n := halfEven(big.NewInt(v.Int()), bigPow10(int(v.Scale()-digits)))
	return crm.DecimalValue(n.Int64(), digits, v.Currency())
}
