package catalog

import (
	"strings"
	"unicode"

	"github.com/tradepost-crm/tradepost/crm"
)

// MatchHeader returns the field of e that a column header means: one whose
// name, label or alias equals it once case, accents, blanks and punctuation are
// dropped. System fields are not matched: an "Id" column of another program is
// its key, the external id.
func MatchHeader(e *crm.Entity, header string) (*crm.Field, bool) {
	want := squeeze(header)
	for _, f := range e.Fields {
		if want != "" && spells(f, want) {
			return f, true
		}
	}
	return nil, false
}

func spells(f *crm.Field, squeezed string) bool {
	if squeeze(f.Name) == squeezed || squeeze(f.Label) == squeezed {
		return true
	}
	for _, a := range f.Aliases {
		if squeeze(a) == squeezed {
			return true
		}
	}
	return false
}

// squeeze folds s and keeps its letters and digits only.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, crm.FoldText(s))
}

// A Part names one part of a postal address, spelled as in its JSON.
type Part string

// The parts of an address.
const (
	Street     Part = "street"
	City       Part = "city"
	State      Part = "state"
	PostalCode Part = "postal_code"
	Country    Part = "country"
)

// Put sets the part of a to s. A second street line is added below the first.
func (p Part) Put(a *crm.PostalAddress, s string) {
	switch p {
	case Street:
		a.Street = strings.Trim(a.Street+"\n"+s, "\n")
	case City:
		a.City = s
	case State:
		a.State = s
	case PostalCode:
		a.PostalCode = s
	case Country:
		a.Country = s
	}
}

// partSpellings are squeezed endings of headers; of two that end a header alike
// the longer comes first.
var partSpellings = []struct {
	ending string
	part   Part
}{
	{"streetaddress", Street}, {"addressline1", Street}, {"addressline2", Street}, {"addressline", Street}, {"street", Street}, {"line1", Street}, {"line2", Street},
	{"city", City}, {"town", City}, {"locality", City}, {"ville", City}, {"ort", City},
	{"stateregion", State}, {"stateprovince", State}, {"state", State}, {"province", State}, {"region", State}, {"county", State},
	{"postalcode", PostalCode}, {"zipcode", PostalCode}, {"postcode", PostalCode}, {"zip", PostalCode}, {"plz", PostalCode},
	{"countryregion", Country}, {"countrycode", Country}, {"country", Country}, {"pays", Country},
}

// MatchPart returns the address field of e and the part of it that a column
// header means: BillingCity, ship_postal_code, Mailing State/Region. A header
// without a prefix, such as City, means the entity's first address, and a
// header that names a whole address means its street.
func MatchPart(e *crm.Entity, header string) (*crm.Field, Part, bool) {
	want := squeeze(header)
	if f, ok := MatchHeader(e, header); ok {
		return f, Street, f.Kind == crm.Address
	}
	for _, s := range partSpellings {
		rest, ok := strings.CutSuffix(want, s.ending)
		if !ok {
			continue
		}
		if f := addressOf(e, rest); f != nil {
			return f, s.part, true
		}
	}
	return nil, "", false
}

func addressOf(e *crm.Entity, prefix string) *crm.Field {
	for _, f := range e.Fields {
		if f.Kind == crm.Address && (prefix == "" || spells(f, prefix)) {
			return f
		}
	}
	return nil
}
