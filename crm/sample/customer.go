package sample

import (
	"strconv"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// A customer is an account in the making: what its later records refer to.
type customer struct {
	*maker
	size     shape
	index    int // of the account, from 0
	site     *branch
	country  *country
	id       crm.RecordID
	owner    crm.RecordID // user
	actor    string
	name     string
	domain   string
	city     string
	address  crm.Value
	contacts []crm.RecordID // created so far
	deals    []crm.RecordID
	orders   []crm.RecordID
	tickets  int      // cases created so far
	ops      []crm.Op // of the current request
}

func newCustomer(m *maker, index int, s shape) *customer {
	b := &m.sites[index%len(m.sites)]
	a := &customer{maker: m, size: s, index: index, site: b, country: b.country, id: m.newID(), owner: pick(m, b.users)}
	a.actor = a.owner.String()
	a.city = pick(m, b.cities)
	a.address = m.newAddress(a.country, a.city)
	return a
}

// request creates the part-th slice of the account's records, parents first.
func (a *customer) request(part int) crm.Request {
	a.ops = make([]crm.Op, 0, 48)
	if part == 0 {
		a.account()
	}
	for range page(a.size.contacts, partContacts, part) {
		a.contact()
	}
	for range page(a.size.deals, partDeals, part) {
		a.deal()
	}
	for range page(a.size.orders, partOrders, part) {
		a.order()
	}
	for range page(a.size.cases, partCases, part) {
		a.ticket()
	}
	for range page(a.size.activities, partActivities, part) {
		a.activity()
	}
	return crm.Request{Actor: a.actor, Intent: "sample.account", Ops: a.ops}
}

func (a *customer) add(s *sheet, id crm.RecordID, cells ...cell) {
	a.ops = append(a.ops, s.create(id, cells...))
}

func (a *customer) account() {
	line := a.rand.IntN(len(industries))
	founder := a.firm(line)
	kind, rating := "Customer", "warm"
	switch {
	case a.size.orders == 0:
		kind, rating = "Prospect", "cold"
	case a.size.weight > 3000:
		rating = "hot"
	}
	c := a.country
	a.add(a.sheets.account, a.id,
		cell{"external_id", crm.TextValue("S-" + strconv.Itoa(a.index+1))}, cell{"owner", crm.LinkValue(a.owner)}, cell{"name", crm.TextValue(a.name)},
		cell{"account_number", crm.TextValue(a.site.code + strconv.Itoa(10001+a.index))}, cell{"legal_name", crm.TextValue(a.name)},
		cell{"type", crm.ChoiceValue(kind)}, cell{"industry", crm.ChoiceValue(industries[line])}, cell{"rating", crm.ChoiceValue(rating)},
		cell{"annual_revenue", money(a.local(int64(a.size.weight)*int64(a.n(40_000, 90_000))), c)},
		cell{"number_of_employees", crm.IntegerValue(int64(2 + a.size.weight*a.n(5, 40)/1000))},
		cell{"phone", crm.PhoneValue(a.digits(c.phone))}, cell{"email", crm.EmailValue("info@" + a.domain)}, cell{"website", crm.URLValue("https://www." + a.domain)},
		cell{"billing_address", a.address}, cell{"shipping_address", a.shippingAddress()}, cell{"tags", a.tags(founder)},
		cell{"territory", crm.TextValue(a.site.Territory)}, cell{"currency", crm.TextValue(c.currency)},
		cell{"payment_terms", crm.TextValue(pick(a.maker, []string{"Net 14", "Net 30", "Net 30", "Net 60"}))})
}

// firm names the account after its founders and perhaps its city, and reports
// whether it still bears one founder's name only.
func (a *customer) firm(line int) (family bool) {
	founder := pick(a.maker, a.country.surnameList)
	stem := founder.native
	switch n := a.rand.IntN(10); {
	case n < 5:
		stem += a.country.and + pick(a.maker, a.country.surnameList).native
	case n < 8 && a.country.familyFirst:
		stem = a.city + stem
	case n < 8:
		stem += " " + a.city
	default:
		family = true
	}
	a.name = strings.Replace(a.country.firms[line], "%", stem, 1)
	a.domain = founder.ascii + "-" + strconv.FormatInt(int64(a.index+1), 36) + ".example"
	return family
}

func (a *customer) tags(family bool) crm.Value {
	var tags []string
	if family {
		tags = append(tags, "family firm")
	}
	if a.size.weight > 5000 {
		tags = append(tags, "key account")
	}
	if a.chance(12) {
		tags = append(tags, pick(a.maker, []string{"newsletter", "framework contract", "trade fair", "slow payer"}))
	}
	return crm.ChoicesValue(tags...)
}

// shippingAddress is another one than the billing address now and then.
func (a *customer) shippingAddress() crm.Value {
	if a.chance(80) {
		return a.address
	}
	return a.newAddress(a.country, a.city)
}

// local converts euro cents to the smallest unit of the account's currency.
func (a *customer) local(cents int64) int64 {
	n := cents * a.country.rate / 1000
	if a.country.decimals == 0 {
		n /= 100
	}
	return n
}

var jobs = []struct{ title, department string }{{"Managing director", "Management"}, {"Head of purchasing", "Purchasing"}, {"Buyer", "Purchasing"},
	{"Office manager", "Administration"}, {"Accountant", "Finance"}, {"Warehouse manager", "Logistics"}, {"Site manager", "Operations"}}

func (a *customer) contact() {
	id, c, p := a.newID(), a.country, a.person(a.country)
	job := pick(a.maker, jobs)
	var boss crm.RecordID
	if len(a.contacts) > 0 && a.chance(30) {
		boss = a.contacts[0]
	}
	mailing := crm.Value{}
	if a.chance(25) {
		mailing = a.address
	}
	a.contacts = append(a.contacts, id)
	a.add(a.sheets.contact, id,
		cell{"owner", crm.LinkValue(a.owner)}, cell{"account", crm.LinkValue(a.id)}, cell{"salutation", crm.TextValue(p.salutation(c))},
		cell{"first_name", crm.TextValue(p.first.native)}, cell{"last_name", crm.TextValue(p.last.native)},
		cell{"title", crm.TextValue(job.title)}, cell{"department", crm.TextValue(job.department)}, cell{"email", crm.EmailValue(p.mail(a.domain))},
		cell{"phone", crm.PhoneValue(a.digits(c.phone))}, cell{"mobile_phone", crm.PhoneValue(a.digits(c.mobile))}, cell{"mailing_address", mailing},
		cell{"lead_source", crm.ChoiceValue(pick(a.maker, sources))}, cell{"has_opted_out_of_email", crm.BoolValue(a.chance(8))},
		cell{"reports_to", crm.LinkValue(boss)}, cell{"points", crm.IntegerValue(int64(a.n(0, 40) * 10))}, cell{"locale", crm.TextValue(c.locale)})
}

var sources = []string{"Web", "Phone Inquiry", "Trade Show", "Partner Referral", "Word of mouth", "Purchased List"}
