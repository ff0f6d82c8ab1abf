package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// The words that the data set is made of.
var (
	regions    = []string{"EMEA-N", "EMEA-S", "EMEA-C", "DACH", "UKI", "NA-E", "NA-W", "LATAM", "APAC-N", "APAC-S", "ANZ", "MEA"}
	industries = []string{"Manufacturing", "Retail", "Healthcare", "Finance", "Education", "Energy", "Logistics", "Software", "Telecom", "Public"}
	stages     = []string{"prospecting", "qualification", "proposal", "negotiation", "won", "lost"}
	stageOdds  = []int{10, 25, 50, 75, 100, 0}
	statuses   = []string{"draft", "open", "confirmed", "shipped", "invoiced", "cancelled"}
	kinds      = []string{"call", "email", "meeting", "note", "task"}
	titles     = []string{"CEO", "CFO", "CTO", "Buyer", "Sales Manager", "Engineer", "Office Manager", "Procurement Lead", "Director", "Analyst"}
	forms      = []string{"GmbH", "Ltd", "Inc", "SA", "AB", "LLC"}
	firstNames = []string{"Anna", "Boris", "Chen", "Dana", "Emil", "Fatima", "Georg", "Hana", "Ivan", "Julia", "Karim", "Lena", "Marco", "Nadia", "Oscar", "Petra", "Quentin", "Rosa", "Sven", "Tanja", "Uma", "Viktor", "Wanda", "Xavier", "Yara", "Zoltan", "Zoë", "Łukasz", "Søren", "María"}
	nameHeads  = []string{"Ander", "Berg", "Carls", "Dom", "Eriks", "Fisch", "Garc", "Hoff", "Ivan", "Jans", "Kowal", "Lind", "Müll", "Nov", "Olss", "Peters", "Rossi", "Schmid", "Tana", "Vasil", "Weber", "Yama", "Zhang", "Öst"}
	nameTails  = []string{"son", "mann", "ski", "ova", "er", "ez", "ini", "sen", "ko", "ato", "berg", "strom", "a", "us"}
	cities     = []string{"Oslo", "Lisbon", "Vienna", "Berlin", "Leeds", "Boston", "Denver", "Lima", "Osaka", "Jakarta", "Perth", "Nairobi", "Zürich", "Malmö", "Gdańsk"}
	words      = []string{"quarterly", "renewal", "pricing", "delivery", "contract", "follow", "up", "site", "visit", "invoice", "question", "demo", "requested", "shipping", "delay", "budget", "approved", "meeting", "notes", "technical", "issue", "escalated", "resolved", "license", "extension", "discount", "offer", "sent", "customer", "happy", "waiting", "for", "legal", "review", "training", "scheduled"}
)

const (
	sellers  = 16   // of each region; owners are numbered from 1, region by region
	products = 2000 //
	bigOnes  = 90   // accounts 1 to bigOnes have the most contacts and activities
)

// start is second 0 of the data set, period how many seconds it covers.
var start = time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)

const period = 36 * 30 * 24 * 3600

type account struct {
	name, industry, city, phone, website, description       string
	region, revenue, employees, owner, createdAt, updatedAt int
}

type contact struct {
	account, owner, createdAt, updatedAt int
	first, last, email, phone, title     string
}

type opportunity struct {
	account, contact, stage, cents, owner, closeAt, createdAt, updatedAt int
	name                                                                 string
}

type order struct {
	account, contact, region, owner, at int
	cents                               int64
	number, status                      string
}

type line struct {
	order, number, product, quantity, discount int
	unit, cents                                int64
}

type activity struct {
	account, contact, opportunity, owner, at, done int
	kind, subject, body                            string
}

// A data set is a company's customers. Rows are numbered from 1; row 0 of a
// table is not there. Seed 42 at scale 1 always gives the same 20,000 accounts,
// 100,000 contacts, 50,000 opportunities, 100,000 orders with 299,691 lines and
// 300,000 activities.
type data struct {
	accounts      []account
	contacts      []contact
	opportunities []opportunity
	orders        []order
	lines         []line
	activities    []activity

	listed int // accounts of the list: the first are the data set's own
}

// A maker draws a data set. The order of the draws is part of the data set.
type maker struct {
	*data
	r      *rand.Rand
	people [][]int // the contacts of each account
}

// makeData draws the data set, and then so many further accounts without any
// records of theirs that there are listed accounts, for lists over many.
func makeData(seed uint64, scale float64, listed int) *data {
	m := &maker{data: &data{listed: listed}, r: rand.New(rand.NewPCG(seed, 1))}
	size := func(n int) int { return int(float64(n) * scale) }
	m.makeAccounts(size(20_000))
	m.makeContacts(size(100_000))
	m.makeOpportunities(size(50_000))
	m.makeOrders(size(100_000))
	m.makeActivities(size(300_000))
	m.r = rand.New(rand.NewPCG(seed, 2))
	for len(m.accounts) <= listed {
		m.accounts = append(m.accounts, m.account(len(m.accounts)))
	}
	return m.data
}

func (m *maker) pick(s []string) string { return s[m.r.IntN(len(s))] }

func (m *maker) sentence(least, most int) string {
	n := least + m.r.IntN(most-least+1)
	b := make([]byte, 0, n*9)
	for i := range n {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, m.pick(words)...)
	}
	return string(b)
}

// skewed draws from 0 to n-1 by a power law: low numbers are big customers.
func (m *maker) skewed(n int) int { return int(float64(n) * math.Pow(m.r.Float64(), 2.5)) }

func (m *maker) phone() string { return fmt.Sprintf("+%d%09d", 1+m.r.IntN(98), m.r.IntN(1e9)) }

func (m *maker) makeAccounts(n int) {
	m.accounts = make([]account, 1, max(n, m.listed)+1)
	for k := 1; k <= n; k++ {
		m.accounts = append(m.accounts, m.account(k))
	}
}

func (m *maker) account(k int) (a account) {
	a.region = m.r.IntN(len(regions))
	a.owner = 1 + a.region*sellers + m.r.IntN(sellers)
	a.createdAt = m.r.IntN(period / 3)
	a.name = m.pick(nameHeads) + m.pick(nameTails) + " " + m.pick(forms) + fmt.Sprintf(" %d", k)
	a.industry = m.pick(industries)
	a.city = m.pick(cities)
	a.phone = m.phone()
	a.website = fmt.Sprintf("https://a%d.example.com", k)
	a.revenue = m.r.IntN(1e9)
	a.employees = 1 + m.r.IntN(20000)
	a.updatedAt = a.createdAt + m.r.IntN(period-a.createdAt)
	a.description = m.sentence(8, 24)
	return a
}

// customer draws the number of an account of the data set.
func (m *maker) customer() int { return 1 + m.skewed(len(m.accounts)-1) }

func (m *maker) makeContacts(n int) {
	m.data.contacts = make([]contact, 1, n+1)
	m.people = make([][]int, len(m.accounts))
	for k := 1; k <= n; k++ {
		c := contact{account: m.customer()}
		m.people[c.account] = append(m.people[c.account], k)
		c.owner = m.accounts[c.account].owner
		c.first = m.pick(firstNames)
		c.last = m.pick(nameHeads) + m.pick(nameTails)
		c.createdAt = m.r.IntN(period)
		c.email = fmt.Sprintf("c%d@a%d.example.com", k, c.account)
		c.phone = m.phone()
		c.title = m.pick(titles)
		c.updatedAt = c.createdAt + m.r.IntN(period-c.createdAt)
		m.data.contacts = append(m.data.contacts, c)
	}
}

// contactOf draws a contact of the account, or any if it has none.
func (m *maker) contactOf(account int) int {
	if list := m.people[account]; len(list) > 0 {
		return list[m.r.IntN(len(list))]
	}
	return 1 + m.r.IntN(len(m.data.contacts)-1)
}

func (m *maker) makeOpportunities(n int) {
	m.opportunities = make([]opportunity, 1, n+1)
	for range n {
		o := opportunity{account: m.customer()}
		o.owner = m.accounts[o.account].owner
		o.stage = m.r.IntN(len(stages))
		o.createdAt = m.r.IntN(period)
		o.contact = m.contactOf(o.account)
		o.name = m.sentence(2, 5)
		o.cents = 10_000 + m.r.IntN(50_000_000)
		o.closeAt = o.createdAt + m.r.IntN(180*86400)
		o.updatedAt = o.createdAt + m.r.IntN(30*86400)
		m.opportunities = append(m.opportunities, o)
	}
}

func (m *maker) makeOrders(n int) {
	m.orders, m.lines = make([]order, 1, n+1), make([]line, 1, n*3+1)
	for k := 1; k <= n; k++ {
		o := order{account: m.customer(), number: fmt.Sprintf("SO-%07d", k), status: "invoiced"}
		for j := range 1 + m.r.IntN(5) {
			l := line{order: k, number: j + 1, product: m.skewed(products), quantity: 1 + m.r.IntN(20), discount: m.r.IntN(4) * 5}
			l.unit = int64(100 + m.r.IntN(100_000))
			l.cents = int64(l.quantity) * l.unit * int64(100-l.discount) / 100
			o.cents += l.cents
			m.lines = append(m.lines, l)
		}
		if x := m.r.IntN(100); x < 30 {
			o.status = statuses[x%len(statuses)]
		}
		o.at = m.r.IntN(period)
		o.contact = m.contactOf(o.account)
		o.region, o.owner = m.accounts[o.account].region, m.accounts[o.account].owner
		m.orders = append(m.orders, o)
	}
}

func (m *maker) makeActivities(n int) {
	m.activities = make([]activity, 1, n+1)
	for range n {
		a := activity{account: m.customer()}
		a.owner = m.accounts[a.account].owner
		a.contact = m.contactOf(a.account)
		a.opportunity = m.r.IntN(len(m.opportunities))
		a.kind = m.pick(kinds)
		a.subject = m.sentence(3, 7)
		a.body = m.sentence(10, 30)
		a.at = m.r.IntN(period)
		a.done = m.r.IntN(2)
		m.activities = append(m.activities, a)
	}
}

// sold reports whether an order counts as revenue.
func sold(status string) bool { return status == "shipped" || status == "invoiced" }

func at(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }

func stamp(second int) string { return at(second).Format("2006-01-02T15:04:05Z") }

func day(second int) string { return at(second).Format("2006-01-02") }
