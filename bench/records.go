package main

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

// An item is one record of the data set as Tradepost holds it.
type item struct {
	entity crm.EntityID
	id     crm.RecordID
	root   crm.RecordID // its account; zero of what all share
	region int          // its territory; -1 of what all share
	cells  []crm.Input  // by field
}

// amountField is a field that the stock order line has not: the line's amount
// in whole cents, as the data set rounds it.
const amountField crm.FieldID = 100

// stock returns the entities that every cluster has.
func stock() []*crm.Entity { return finished(catalog.Entities()) }

// entities are the stock ones with the data set's own field, and with the index
// that the peers have for the list.
func entities() []*crm.Entity {
	all := catalog.Entities()
	for _, e := range all {
		switch e.ID {
		case catalog.OrderLine:
			e.Fields = append(e.Fields, &crm.Field{ID: amountField, Name: "amount", Label: "Amount", Kind: crm.Decimal, KindName: crm.Decimal.String(), Money: true, Scale: 2})
		case catalog.Account:
			e.Indexes = append(e.Indexes, crm.Index{ID: 100, Fields: []string{"industry", "territory", "name"}})
		}
	}
	return finished(all)
}

func finished(all []*crm.Entity) []*crm.Entity {
	for _, e := range all {
		if err := e.Finish(); err != nil {
			panic("bench: the schema: " + err.Error())
		}
	}
	return all
}

// recordID returns the id of the n-th record of an entity: as a node would have
// made it, one a second from the start of the data set on.
func recordID(e crm.EntityID, n int) (id crm.RecordID) {
	random := mix(uint64(e)<<40 | uint64(n))
	binary.BigEndian.PutUint64(id[:], uint64(start.UnixMilli()+int64(n)*1000)<<16|0x7000|random>>52)
	binary.BigEndian.PutUint64(id[8:], 1<<63|mix(random)>>2)
	return id
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// territory is the code of a region's territory.
func territory(region int) string { return strings.ToLower(regions[region]) }

func sku(n int) string { return fmt.Sprintf("SKU-%05d", n) }

func stageOf(n int) string {
	return []string{"Prospecting", "Qualification", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost"}[n]
}

// A writer makes items of rows.
type writer struct {
	*data
	entities map[crm.EntityID]*crm.Entity
	yield    func(item) bool
	stopped  bool
}

// items yields the records of the data set, each after those it links to.
// Fields that no entity of schema has are left out.
func (d *data) items(schema []*crm.Entity) iter.Seq[item] {
	return func(yield func(item) bool) {
		w := &writer{data: d, entities: map[crm.EntityID]*crm.Entity{}, yield: yield}
		for _, e := range schema {
			w.entities[e.ID] = e
		}
		for _, write := range []func(){w.shared, w.people, w.sales, w.history} {
			if write(); w.stopped {
				return
			}
		}
	}
}

// A value is a field by name and what it holds.
type value struct {
	field string
	crm.Value
}

// put yields a record of the account, or a shared one for account 0.
func (w *writer) put(e crm.EntityID, n, account int, values ...value) {
	if w.stopped {
		return
	}
	it := item{entity: e, id: recordID(e, n), region: -1}
	if account > 0 {
		it.root, it.region = recordID(catalog.Account, account), w.accounts[account].region
	}
	for _, v := range values {
		if f := w.entities[e].Field(v.field); f != nil && !v.IsNull() {
			it.cells = append(it.cells, crm.Input{Field: f.ID, Value: v.Value})
		}
	}
	slices.SortFunc(it.cells, func(a, b crm.Input) int { return int(a.Field) - int(b.Field) })
	w.stopped = !w.yield(it)
}

func text(field, s string) value      { return value{field, crm.TextValue(s)} }
func choice(field, s string) value    { return value{field, crm.ChoiceValue(s)} }
func whole(field string, n int) value { return value{field, crm.IntegerValue(int64(n))} }
func euros(field string, cents int64) value {
	return value{field, crm.DecimalValue(cents, 2, "EUR")}
}
func number(field string, n int64, scale uint8) value {
	return value{field, crm.DecimalValue(n, scale, "")}
}
func date(field string, second int) value { return value{field, crm.DateValue(at(second))} }
func link(field string, e crm.EntityID, n int) value {
	if n == 0 {
		return value{field: field}
	}
	return value{field, crm.LinkValue(recordID(e, n))}
}
func owner(n int) value { return link("owner", catalog.User, n) }

func (w *writer) shared() {
	for n := 1; n <= len(regions)*sellers; n++ {
		w.put(catalog.User, n, 0, value{"email", crm.EmailValue(fmt.Sprintf("seller%d@example.com", n))}, text("name", fmt.Sprintf("Seller %d", n)),
			text("site", territory((n-1)/sellers)), value{"active", crm.BoolValue(true)})
	}
	for n := range products {
		w.put(catalog.Product, n+1, 0, text("code", sku(n)), text("name", "Product "+sku(n)), value{"active", crm.BoolValue(true)})
	}
}

func (w *writer) people() {
	for n, a := range w.accounts[1:] {
		w.put(catalog.Account, n+1, n+1, text("name", a.name), choice("industry", a.industry), text("territory", territory(a.region)),
			value{"billing_address", crm.AddressValue(crm.PostalAddress{City: a.city})}, value{"phone", crm.PhoneValue(a.phone)},
			value{"website", crm.URLValue(a.website)}, euros("annual_revenue", int64(a.revenue)*100), whole("number_of_employees", a.employees),
			owner(a.owner), text("description", a.description))
	}
	for n, c := range w.contacts[1:] {
		w.put(catalog.Contact, n+1, c.account, link("account", catalog.Account, c.account), text("first_name", c.first), text("last_name", c.last),
			value{"email", crm.EmailValue(c.email)}, value{"phone", crm.PhoneValue(c.phone)}, text("title", c.title), owner(c.owner))
	}
}

func (w *writer) sales() {
	for n, o := range w.opportunities[1:] {
		w.put(catalog.Opportunity, n+1, o.account, link("account", catalog.Account, o.account), link("contact", catalog.Contact, o.contact),
			text("name", o.name), choice("stage", stageOf(o.stage)), euros("amount", int64(o.cents)), number("probability", int64(stageOdds[o.stage]), 0),
			owner(o.owner), date("close_date", o.closeAt))
	}
	for n, o := range w.orders[1:] {
		w.put(catalog.Order, n+1, o.account, link("account", catalog.Account, o.account), link("contact", catalog.Contact, o.contact),
			text("number", o.number), choice("status", o.status), date("order_date", o.at), text("region", regions[o.region]),
			text("currency", "EUR"), euros("total", o.cents), owner(o.owner))
	}
	for n, l := range w.lines[1:] {
		w.put(catalog.OrderLine, n+1, w.orders[l.order].account, link("order", catalog.Order, l.order), link("product", catalog.Product, l.product+1),
			whole("line_number", l.number), number("quantity", int64(l.quantity), 0), euros("unit_price", l.unit),
			number("discount", int64(l.discount), 2), euros("amount", l.cents))
	}
}

func (w *writer) history() {
	for n, a := range w.activities[1:] {
		w.put(catalog.Activity, n+1, a.account, link("account", catalog.Account, a.account), link("contact", catalog.Contact, a.contact),
			link("opportunity", catalog.Opportunity, a.opportunity), choice("kind", a.kind), text("subject", a.subject), text("body", a.body),
			owner(a.owner), value{"at", crm.InstantValue(at(a.at))}, value{"done", crm.BoolValue(a.done == 1)})
	}
}
