package sample

import (
	"strconv"

	"github.com/tradepost-crm/tradepost/crm"
)

// A person has a name that is common in a country.
type person struct {
	woman       bool
	first, last word
}

func (m *maker) person(c *country) person {
	p := person{woman: m.chance(50)}
	if p.woman {
		p.first = pick(m, c.womenList)
	} else {
		p.first = pick(m, c.menList)
	}
	p.surname(c, m.rand.IntN(len(c.surnameList)))
	return p
}

func (p *person) surname(c *country, i int) {
	p.last = c.surnameList[i]
	if p.woman {
		p.last = c.womensList[i]
	}
}

// shown returns the whole name in the order of the country.
func (p *person) shown(c *country) string {
	if c.familyFirst {
		return p.last.native + " " + p.first.native
	}
	return p.first.native + " " + p.last.native
}

func (p *person) mail(domain string) string { return p.first.ascii + "." + p.last.ascii + "@" + domain }

func (p *person) salutation(c *country) string {
	if p.woman {
		return c.salutations[0]
	}
	return c.salutations[1]
}

func (m *maker) newAddress(c *country, city string) crm.Value {
	street, number := pick(m, c.streetList), strconv.Itoa(m.n(1, 180))
	if c.numberFirst {
		street = number + " " + street
	} else {
		street += " " + number
	}
	return crm.AddressValue(crm.PostalAddress{Street: street, City: city, PostalCode: m.digits(c.postal), Country: c.name})
}
