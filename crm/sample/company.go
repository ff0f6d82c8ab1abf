package sample

import (
	"strconv"

	"github.com/tradepost-crm/tradepost/crm"
)

// An item is a product on the price list.
type item struct {
	id    crm.RecordID
	code  string
	name  string
	cents int64 // price in euro cents
}

type family struct {
	name, code, unit, pack string
	items                  []listed
}

type listed struct {
	name  string
	cents int64
}

// priceList is what the company sells. Earlier families sell more.
var priceList = []family{
	{"Office supplies", "OF", "box", "1 box", []listed{{"Copy paper A4", 2490}, {"Ballpoint pens", 1290}, {"Ring binders", 1850}, {"Envelopes C5", 1640},
		{"Staplers", 940}, {"Whiteboard markers", 1120}, {"Notebooks ruled", 2180}, {"Toner black", 7990}}},
	{"Packaging", "PK", "pallet", "500 pieces", []listed{{"Cardboard boxes M", 18900}, {"Cardboard boxes L", 24900}, {"Stretch film", 9900}, {"Packing tape", 3490},
		{"Bubble wrap", 4290}, {"Pallet labels", 2590}, {"Shipping tubes", 6790}}},
	{"Cleaning", "CL", "case", "12 bottles", []listed{{"Floor cleaner", 3890}, {"Hand soap", 2690}, {"Paper towels", 4490}, {"Glass cleaner", 2890},
		{"Bin liners", 1990}, {"Mop set", 5490}}},
	{"Tools", "TL", "piece", "1 piece", []listed{{"Cordless drill", 12900}, {"Screwdriver set", 3450}, {"Tape measure 8 m", 1290}, {"Socket set", 8900},
		{"Work lamp", 5990}, {"Spirit level", 2790}, {"Angle grinder", 9490}}},
	{"Safety", "SF", "pair", "1 pair", []listed{{"Work gloves", 790}, {"Safety shoes", 6990}, {"Ear defenders", 1890}, {"Hard hat", 1590}, {"High-visibility vest", 690},
		{"First-aid kit", 3990}}},
	{"Furniture", "FU", "piece", "1 piece", []listed{{"Desk 160 cm", 28900}, {"Office chair", 19900}, {"Steel shelf", 11900}, {"Filing cabinet", 23900},
		{"Meeting table", 64900}, {"Locker", 15900}}},
}

func (m *maker) items() []item {
	var out []item
	for _, f := range priceList {
		for i, l := range f.items {
			out = append(out, item{id: m.newID(), code: f.code + "-" + strconv.Itoa(101+i), name: l.name, cents: l.cents})
		}
	}
	return out
}

func (d *Data) productOps() []crm.Op {
	m := d.draw(shared - 1)
	var ops []crm.Op
	for _, f := range priceList {
		for range f.items {
			p := d.products[len(ops)]
			ops = append(ops, d.sheets.product.create(p.id,
				cell{"code", crm.TextValue(p.code)}, cell{"name", crm.TextValue(p.name)}, cell{"family", crm.ChoiceValue(f.name)},
				cell{"unit_price", crm.DecimalValue(p.cents, 2, "EUR")}, cell{"unit", crm.TextValue(f.unit)}, cell{"quantity_per_unit", crm.TextValue(f.pack)},
				cell{"active", crm.BoolValue(true)}, cell{"units_in_stock", crm.IntegerValue(int64(m.n(0, 900)))},
				cell{"cost", crm.DecimalValue(p.cents*int64(m.n(52, 71))/100, 2, "EUR")}))
		}
	}
	return ops
}

// userOps creates the people of the i-th site. Their surnames differ, and so do
// their mail addresses.
func (d *Data) userOps(i int) []crm.Op {
	m, b := d.draw(shared-2-uint64(i)), &d.sites[i]
	c, titles := b.country, [...]string{"Branch manager", "Sales representative", "Customer service"}
	first := m.rand.IntN(len(c.surnameList))
	var ops []crm.Op
	for n, id := range b.users {
		p := m.person(c)
		p.surname(c, (first+n)%len(c.surnameList))
		ops = append(ops, d.sheets.user.create(id,
			cell{"email", crm.EmailValue(p.mail(b.domain + ".tradepost.example"))}, cell{"name", crm.TextValue(p.shown(c))}, cell{"active", crm.BoolValue(true)},
			cell{"site", crm.TextValue(b.Name)}, cell{"title", crm.TextValue(titles[n])}, cell{"time_zone", crm.TextValue(c.zone)},
			cell{"locale", crm.TextValue(c.locale)}, cell{"phone", crm.PhoneValue(m.digits(c.mobile))}))
	}
	return ops
}
