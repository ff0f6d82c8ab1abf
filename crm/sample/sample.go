// Package sample makes up the data of a trading company with branches: products
// and users that every site holds, and accounts with their contacts, sales,
// orders, shipments, cases and activities, each account in the territory of its
// site. It is deterministic: equal arguments give equal requests, byte for byte.
//
// All names are fictitious combinations, mail and web addresses end in .example,
// and nothing here describes a real person or firm.
package sample

import (
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// usersPerSite is how many people work at a site.
const usersPerSite = 3

// span is how many days before the end the first events lie.
const span = 3 * 365

// A Site is a branch that gets customers.
type Site struct {
	Name      string // unique
	City      string // where most customers of the site are; "" is the first city known of the country
	Country   string // ISO 3166-1 alpha-2 or English name; an unknown one looks like Great Britain
	Territory string // code of the territory its accounts live in, which must exist
}

// Data is a made-up company. It holds no records: they are made when asked for,
// so any number of accounts costs no memory. Its methods may be called
// concurrently.
type Data struct {
	seed     uint64
	accounts int
	end      int64 // days since 1970-01-01
	sites    []branch
	products []item
	sheets   sheets
}

// New describes a company of so many accounts, spread evenly over the sites in
// turn. Events lie in the 36 months that end at the day of end. New panics if
// there are accounts and no site.
func New(seed uint64, accounts int, sites []Site, end time.Time) *Data {
	if accounts > 0 && len(sites) == 0 {
		panic("sample: accounts need a site")
	}
	d := &Data{seed: seed, accounts: accounts, end: crm.DateValue(end).Int(), sheets: newSheets()}
	m := d.draw(shared)
	d.products = m.items()
	domains := map[string]bool{}
	for i, s := range sites {
		b := m.branch(s)
		if b.domain == "" || domains[b.domain] {
			b.domain += "site" + strconv.Itoa(i+1)
		}
		domains[b.domain] = true
		d.sites = append(d.sites, b)
	}
	return d
}

// All yields every request: those of Shared, then those of every account. A
// request is one atomic Mutation of at most 48 KiB. The requests must be applied
// in this order.
func (d *Data) All() iter.Seq[crm.Request] {
	return func(yield func(crm.Request) bool) {
		for req := range d.Shared() {
			if !yield(req) {
				return
			}
		}
		for req := range d.Accounts(0, d.accounts) {
			if !yield(req) {
				return
			}
		}
	}
}

// Shared yields the products and users.
func (d *Data) Shared() iter.Seq[crm.Request] {
	return func(yield func(crm.Request) bool) {
		if !yield(crm.Request{Actor: "sample", Intent: "sample.products", Ops: d.productOps()}) {
			return
		}
		for i := range d.sites {
			if !yield(crm.Request{Actor: "sample", Intent: "sample.users", Ops: d.userOps(i)}) {
				return
			}
		}
	}
}

// Accounts yields the requests of the accounts from (inclusive) to (exclusive),
// within 0 and the number of accounts. Accounts do not refer to each other, so
// shares may be applied in any order or at the same time, after Shared.
func (d *Data) Accounts(from, to int) iter.Seq[crm.Request] {
	return func(yield func(crm.Request) bool) {
		for i := max(from, 0); i < min(to, d.accounts); i++ {
			m, s := d.draw(uint64(i)), shape{}
			s.choose(m)
			a := newCustomer(m, i, s)
			for part := range s.parts() {
				if !yield(a.request(part)) {
					return
				}
			}
		}
	}
}

// Len returns how many requests All yields.
func (d *Data) Len() int {
	n := 1 + len(d.sites)
	for i := range d.accounts {
		var s shape
		s.choose(d.draw(uint64(i)))
		n += s.parts()
	}
	return n
}

// A branch is a Site ready for use.
type branch struct {
	Site
	country *country
	code    string // in document numbers
	domain  string // under tradepost.example
	cities  []string
	users   []crm.RecordID
}

func (m *maker) branch(s Site) branch {
	b := branch{Site: s, country: findCountry(s.Country), domain: slug(s.Name)}
	if b.City == "" {
		b.City = b.country.cityList[0]
	}
	// Most customers are near.
	b.cities = append(slices.Repeat([]string{b.City}, len(b.country.cityList)), b.country.cityList...)
	b.code = strings.ToUpper(b.domain[:min(3, len(b.domain))])
	for range usersPerSite {
		b.users = append(b.users, m.newID())
	}
	return b
}

// shared numbers the draw of products and users, apart from those of accounts.
const shared = 1<<64 - 1

// firstID is the time in the ids of shared records; account i follows i+1
// milliseconds later, so that the ids of an account lie side by side.
var firstID = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A maker draws the random choices of one account, or of what all share.
type maker struct {
	*Data
	rand *rand.Rand
	born time.Time // in record ids
}

func (d *Data) draw(n uint64) *maker {
	return &maker{Data: d, rand: rand.New(rand.NewPCG(d.seed, n)), born: firstID.Add(time.Duration(n+1) * time.Millisecond)}
}

// newID makes the next record id.
func (m *maker) newID() crm.RecordID { return crm.NewRecordID(m.born, m) }

// Read fills p from the seeded generator; it is the randomness of record ids.
func (m *maker) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 8 {
		n := m.rand.Uint64()
		for j := i; j < min(i+8, len(p)); j++ {
			p[j] = byte(n)
			n >>= 8
		}
	}
	return len(p), nil
}

// n returns a number from lo to hi, both included.
func (m *maker) n(lo, hi int) int { return lo + m.rand.IntN(hi-lo+1) }

// chance is true so many times in a hundred.
func (m *maker) chance(percent int) bool { return m.rand.IntN(100) < percent }

func pick[T any](m *maker, list []T) T { return list[m.rand.IntN(len(list))] }

// day returns a day of the span that ends at the end, later ones more often.
func (m *maker) day() int64 {
	return m.end - int64(min(m.rand.IntN(span), m.rand.IntN(span*2)))
}

// digits replaces every # of the pattern by a digit, the first not by 0.
func (m *maker) digits(pattern string) string {
	b := []byte(pattern)
	low := 1
	for i, c := range b {
		if c == '#' {
			b[i] = byte('0' + m.n(low, 9))
			low = 0
		}
	}
	return string(b)
}
