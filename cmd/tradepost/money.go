package main

import (
	"encoding/json"
	"math/big"
	"strings"
)

// minorUnits are ISO 4217's currencies whose minor unit is not the hundredth: how
// many decimals an amount has.
var minorUnits = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0,
	"RWF": 0, "UGX": 0, "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// moneyText returns an amount of a report for people: rounded half away from zero
// to the minor unit of its currency, with the digits grouped. It is not ok if raw
// is no amount with a currency.
func moneyText(raw json.RawMessage) (text string, ok bool) {
	var m struct{ Amount, Currency string }
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &m) != nil || m.Currency == "" {
		return "", false
	}
	amount, ok := new(big.Rat).SetString(m.Amount)
	if !ok {
		return "", false
	}
	decimals, ok := minorUnits[m.Currency]
	if !ok {
		decimals = 2
	}
	return grouped3(amount.FloatString(decimals)) + " " + m.Currency, true
}

// grouped3 puts a comma between groups of three digits before the point of a
// plain decimal number.
func grouped3(number string) string {
	sign, digits := "", number
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	out := sign
	for i, d := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			out += ","
		}
		out += string(d)
	}
	if fraction != "" {
		out += "." + fraction
	}
	return out
}
