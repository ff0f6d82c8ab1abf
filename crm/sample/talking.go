package sample

import (
	"strconv"

	"github.com/tradepost-crm/tradepost/crm"
)

const dayMillis = 24 * 60 * 60 * 1000

// officeHour returns an instant between 8 and 18 o'clock UTC of the day.
func (m *maker) officeHour(day int64) crm.Value {
	return crm.InstantMillis(day*dayMillis + int64(m.n(8*60, 18*60-1))*60_000)
}

var topics = []struct{ kind, direction, subject, body string }{
	{"call", "in", "Asked about delivery", "Wants the next delivery before noon. Promised to check with the warehouse."},
	{"call", "in", "Price enquiry", "Compares our list price with a competitor's; would sign for a year at five percent less."},
	{"call", "out", "Not reached", "Left a message to call back."},
	{"email", "out", "Quotation sent", "Sent the quotation for the quantities agreed on the phone, valid for 30 days."},
	{"email", "out", "Order confirmation", "Confirmed the order and the delivery date."},
	{"email", "out", "Reminder of payment", "Reminded of the open invoice; payment is on its way."},
	{"meeting", "", "Visit at the customer", "Walked through the stores together. Shelves and packaging are the next topics."},
	{"meeting", "", "Yearly review", "Went over volumes and complaints of the year. Content with service, wants fewer shipments."},
	{"letter", "out", "Catalogue posted", "Posted the printed catalogue and the price list."},
	{"fax", "in", "Order by fax", "Signed order form received by fax."},
	{"web_form", "in", "Request from the web site", "Asked for samples through the contact form."},
	{"chat", "in", "Question about stock", "Asked whether the article is in stock; it is."},
	{"note", "", "Change of warehouse", "Moves to a new warehouse in spring; check the shipping address before each order."},
	{"task", "", "Follow up", "Call and ask whether the offer arrived."},
	{"task", "", "Prepare framework contract", "Draft terms for twelve months."},
}

func (a *customer) activity() {
	t, day := pick(a.maker, topics), a.day()
	var due crm.Value
	done := true
	if t.kind == "task" {
		last := day + int64(a.n(3, 30))
		due, done = crm.DateDays(last), last < a.end-7 || a.chance(20)
	}
	var about crm.RecordID
	if len(a.deals) > 0 && a.chance(30) {
		about = pick(a.maker, a.deals)
	}
	a.add(a.sheets.activity, a.newID(),
		cell{"owner", crm.LinkValue(a.owner)}, cell{"kind", crm.ChoiceValue(t.kind)}, cell{"subject", crm.TextValue(t.subject)}, cell{"body", crm.TextValue(t.body)},
		cell{"at", a.officeHour(day)}, cell{"account", crm.LinkValue(a.id)}, cell{"contact", crm.LinkValue(pick(a.maker, a.contacts))},
		cell{"opportunity", crm.LinkValue(about)}, cell{"done", crm.BoolValue(done)}, cell{"direction", crm.ChoiceValue(t.direction)}, cell{"due_date", due})
}

var complaints = []struct{ subject, kind, text string }{
	{"Goods damaged in transit", "Complaint", "Two packages arrived crushed; photographs attached to the e-mail."},
	{"Wrong quantity delivered", "Complaint", "The delivery note says ten, the box held eight."},
	{"Invoice does not match order", "Billing", "The discount agreed for the order is missing on the invoice."},
	{"Delivery is late", "Complaint", "The required date has passed and the tracking number shows no movement."},
	{"Question about a data sheet", "Question", "Needs the safety data sheet in the local language."},
	{"Return of unused goods", "Return", "Wants to send back one unopened case."},
}

// ticket adds a case; recent ones are still open.
func (a *customer) ticket() {
	t, day := pick(a.maker, complaints), a.day()
	status, closed := "closed", a.officeHour(day+int64(a.n(0, 12)))
	if day+20 > a.end {
		status, closed = pick(a.maker, []string{"new", "assigned", "pending"}), crm.Value{}
	}
	var order crm.RecordID
	if len(a.orders) > 0 {
		order = pick(a.maker, a.orders)
	}
	a.tickets++
	number := "CS-" + a.site.code + "-S" + strconv.Itoa(a.index+1) + "-" + strconv.Itoa(a.tickets)
	a.add(a.sheets.ticket, a.newID(),
		cell{"owner", crm.LinkValue(a.owner)}, cell{"number", crm.TextValue(number)}, cell{"subject", crm.TextValue(t.subject)}, cell{"status", crm.ChoiceValue(status)},
		cell{"priority", crm.ChoiceValue(pick(a.maker, []string{"low", "normal", "normal", "normal", "high", "urgent"}))}, cell{"type", crm.ChoiceValue(t.kind)},
		cell{"origin", crm.ChoiceValue(pick(a.maker, []string{"Phone", "Email", "Web", "Letter"}))}, cell{"account", crm.LinkValue(a.id)},
		cell{"contact", crm.LinkValue(pick(a.maker, a.contacts))}, cell{"description", crm.TextValue(t.text)}, cell{"closed_at", closed},
		cell{"escalated", crm.BoolValue(a.chance(6))}, cell{"order", crm.LinkValue(order)})
}
