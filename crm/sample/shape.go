package sample

// A shape is how much an account has of everything.
type shape struct {
	weight                                     int // 1000 is the mean account
	contacts, orders, deals, cases, activities int
}

// Most of each that one request creates, so that it stays under 48 KiB.
const (
	partContacts   = 16
	partOrders     = 6
	partDeals      = 4
	partCases      = 4
	partActivities = 16
)

// choose draws a shape. Weights follow Zipf's law, cut off at 38 times the
// mean: one account in a hundred makes a fifth of the business. The mean
// account has 3 contacts, 2 orders, 1 opportunity, 4 activities and 0.3 cases.
func (s *shape) choose(m *maker) {
	// 188,600 / (x+5000) integrated over x from 0 to a million is a million.
	s.weight = 188_600_000 / (m.rand.IntN(1_000_000) + 5_000)
	s.contacts = 1 + m.share(2*s.weight)
	s.orders = m.share(2 * s.weight)
	s.deals = m.share(s.weight)
	s.cases = m.share(s.weight * 3 / 10)
	s.activities = m.share(4 * s.weight)
}

// share rounds thousandths up or down by chance, so that the mean is kept.
func (m *maker) share(thousandths int) int { return (thousandths + m.rand.IntN(1000)) / 1000 }

// parts returns how many requests the account needs.
func (s *shape) parts() int {
	return max(pages(s.contacts, partContacts), pages(s.orders, partOrders), pages(s.deals, partDeals),
		pages(s.cases, partCases), pages(s.activities, partActivities))
}

func pages(n, size int) int { return (n + size - 1) / size }

// page returns how many of n the part-th request creates.
func page(n, size, part int) int { return max(0, min(n-part*size, size)) }
