package sample

import (
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// A country is what names, addresses and prices of a country look like. Lists
// are joined by commas. Names are popular ones of the country; a name in another
// script than Latin is followed by | and its romanised form. In patterns # is a
// digit and % the name of a firm.
type country struct {
	code, name  string    // ISO 3166-1 alpha-2, English
	locale      string    // BCP 47
	zone        string    // IANA time zone
	currency    string    // ISO 4217
	rate        int64     // units of the currency for 1000 euros
	decimals    uint8     // of the currency
	phone       string    // E.164 pattern
	mobile      string    // likewise
	postal      string    // pattern of postal codes
	numberFirst bool      // house number before the street
	familyFirst bool      // in a person's whole name
	surnames    string    //
	womens      string    // surnames of women where they differ, in the order of surnames
	women, men  string    // first names
	cities      string    //
	streets     string    //
	and         string    // joins the names of two founders
	firms       []string  // one pattern per industry, in the order of industries
	salutations [2]string // of women, of men

	lists // filled in by ready
}

// lists are a country's lists, split.
type lists struct {
	surnameList, womensList, womenList, menList []word
	cityList, streetList                        []string
}

// A word is a name in its own script and in ASCII.
type word struct{ native, ascii string }

func words(list string) []word {
	var out []word
	for s := range strings.SplitSeq(list, ",") {
		native, roman, ok := strings.Cut(s, "|")
		if !ok {
			roman = native
		}
		out = append(out, word{native, slug(roman)})
	}
	return out
}

// slug keeps the ASCII letters and digits of the folded s.
func slug(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, crm.FoldText(s))
}

// findCountry returns the country with that code or English name, ready for
// use; Great Britain stands in for countries that are not in the table.
func findCountry(name string) *country {
	fallback := 0
	for i := range countries {
		if strings.EqualFold(countries[i].code, name) || strings.EqualFold(countries[i].name, name) {
			return countries[i].ready()
		}
		if countries[i].code == "GB" {
			fallback = i
		}
	}
	return countries[fallback].ready()
}

func (c country) ready() *country {
	c.lists = lists{surnameList: words(c.surnames), womensList: words(c.surnames), womenList: words(c.women), menList: words(c.men),
		cityList: strings.Split(c.cities, ","), streetList: strings.Split(c.streets, ",")}
	if c.womens != "" {
		c.womensList = words(c.womens)
	}
	return &c
}

// industries are what the firm patterns of every country stand for, in order.
var industries = [...]string{"Manufacturing", "Construction", "Food and drink", "Transport", "Hospitality", "Retail"}
