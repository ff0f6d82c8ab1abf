package sample

import (
	"strconv"

	"github.com/tradepost-crm/tradepost/crm"
)

// product picks from the price list, the upper lines more often.
func (m *maker) product() *item {
	n := len(m.products)
	return &m.products[min(m.rand.IntN(n), m.rand.IntN(n))]
}

// chances of the open stages in percent, in the order of a sale.
var openStages = []struct {
	name     string
	chance   int64
	forecast string
}{{"Prospecting", 10, "Pipeline"}, {"Qualification", 20, "Pipeline"}, {"Needs Analysis", 25, "Pipeline"}, {"Value Proposition", 30, "Pipeline"},
	{"Id. Decision Makers", 40, "BestCase"}, {"Perception Analysis", 50, "BestCase"}, {"Proposal/Price Quote", 65, "MostLikely"}, {"Negotiation/Review", 80, "Forecast"}}

// deal adds an opportunity: closed if its time is over, else at some open stage.
func (a *customer) deal() {
	id, p := a.newID(), a.product()
	engaged := a.day()
	closes := engaged + int64(a.n(30, 180))
	stage, chance, forecast, lost := "Closed Won", int64(100), "Closed", ""
	switch {
	case closes > a.end:
		s := pick(a.maker, openStages)
		stage, chance, forecast = s.name, s.chance, s.forecast
	case a.chance(37):
		stage, chance, forecast = "Closed Lost", 0, "Omitted"
		lost = pick(a.maker, []string{"Price", "Delivery time", "Bought elsewhere", "No budget", "No answer"})
	}
	next := ""
	if closes > a.end {
		next = pick(a.maker, []string{"Send quotation", "Call back", "Visit with samples", "Agree on terms", "Wait for budget"})
	}
	a.deals = append(a.deals, id)
	a.add(a.sheets.deal, id,
		cell{"owner", crm.LinkValue(a.owner)}, cell{"name", crm.TextValue(a.name + ": " + p.name)}, cell{"account", crm.LinkValue(a.id)},
		cell{"contact", crm.LinkValue(pick(a.maker, a.contacts))}, cell{"product", crm.LinkValue(p.id)},
		cell{"amount", money(a.local(p.cents*int64(a.n(8, 120))), a.country)}, cell{"close_date", crm.DateDays(closes)}, cell{"stage", crm.ChoiceValue(stage)},
		cell{"probability", crm.DecimalValue(chance, 0, "")}, cell{"forecast_category", crm.ChoiceValue(forecast)}, cell{"next_step", crm.TextValue(next)},
		cell{"type", crm.ChoiceValue(pick(a.maker, []string{"New Business", "Existing Business"}))}, cell{"lead_source", crm.ChoiceValue(pick(a.maker, sources))},
		cell{"engage_date", crm.DateDays(engaged)}, cell{"lost_reason", crm.TextValue(lost)}, cell{"pipeline", crm.TextValue("Sales")})
}

// order adds an order with its lines and, once it has left, its shipment.
func (a *customer) order() {
	id, ordered := a.newID(), a.day()
	status, shipped, delivered := a.progress(ordered)
	to := a.shippingAddress()
	freight := money(a.local(int64(a.n(490, 4900))), a.country)
	a.orders = append(a.orders, id)
	at := len(a.ops)
	a.ops = append(a.ops, crm.Op{})
	total := a.lines(id)
	number := "ORD-" + a.site.code + "-S" + strconv.Itoa(a.index+1) + "-" + strconv.Itoa(len(a.orders))
	a.ops[at] = a.sheets.order.create(id,
		cell{"owner", crm.LinkValue(a.owner)}, cell{"number", crm.TextValue(number)}, cell{"account", crm.LinkValue(a.id)},
		cell{"contact", crm.LinkValue(pick(a.maker, a.contacts))}, cell{"status", crm.ChoiceValue(status)}, cell{"order_date", crm.DateDays(ordered)},
		cell{"required_date", crm.DateDays(ordered + int64(a.n(7, 28)))}, cell{"shipped_date", dayOrNone(shipped)}, cell{"ship_name", crm.TextValue(a.name)},
		cell{"shipping_address", to}, cell{"freight", freight}, cell{"currency", crm.TextValue(a.country.currency)}, cell{"total", money(total, a.country)},
		cell{"region", crm.TextValue(a.site.City)})
	if shipped != 0 {
		a.shipment(id, shipped, delivered, to, freight)
	}
}

// progress returns how far an order has come by the end, with the days of
// shipping and delivery, 0 if not yet.
func (a *customer) progress(ordered int64) (status string, shipped, delivered int64) {
	if a.chance(4) {
		return "cancelled", 0, 0
	}
	shipped = ordered + int64(a.n(1, 14))
	delivered = shipped + int64(a.n(1, 7))
	switch {
	case shipped > a.end:
		return pick(a.maker, []string{"draft", "open", "open", "confirmed", "confirmed", "on_hold"}), 0, 0
	case delivered > a.end:
		return "shipped", shipped, 0
	case delivered+10 > a.end:
		return "delivered", shipped, delivered
	}
	return "invoiced", shipped, delivered
}

func dayOrNone(day int64) crm.Value {
	if day == 0 {
		return crm.Value{}
	}
	return crm.DateDays(day)
}

// lines adds one to five lines and returns their sum in the smallest unit of the
// account's currency.
func (a *customer) lines(order crm.RecordID) (total int64) {
	for i := range a.n(1, 5) {
		p, quantity := a.product(), int64(a.n(1, 24))
		price := a.local(p.cents)
		discount := pick(a.maker, []int64{0, 0, 0, 5, 10, 15}) // percent
		total += (price*quantity*(100-discount) + 50) / 100
		a.add(a.sheets.line, a.newID(),
			cell{"order", crm.LinkValue(order)}, cell{"product", crm.LinkValue(p.id)}, cell{"line_number", crm.IntegerValue(int64(i + 1))},
			cell{"quantity", crm.DecimalValue(quantity, 0, "")}, cell{"unit_price", money(price, a.country)},
			cell{"discount", crm.DecimalValue(discount, 2, "")}, cell{"description", crm.TextValue(p.name)})
	}
	return total
}

func (a *customer) shipment(order crm.RecordID, shipped, delivered int64, to, freight crm.Value) {
	status := "in_transit"
	if delivered != 0 {
		status = "delivered"
	}
	a.add(a.sheets.shipment, a.newID(),
		cell{"owner", crm.LinkValue(a.owner)}, cell{"order", crm.LinkValue(order)}, cell{"carrier", crm.TextValue(pick(a.maker, []string{"Northern Parcel", "Harbour Freight Lines", "Blue Crane Express"}))},
		cell{"tracking_number", crm.TextValue(a.digits("TP############"))}, cell{"status", crm.ChoiceValue(status)}, cell{"shipped_date", crm.DateDays(shipped)},
		cell{"delivered_date", dayOrNone(delivered)}, cell{"ship_name", crm.TextValue(a.name)}, cell{"shipping_address", to}, cell{"freight", freight},
		cell{"weight", crm.DecimalValue(int64(a.n(500, 400_000)), 3, "")}, cell{"packages", crm.IntegerValue(int64(a.n(1, 12)))})
}
