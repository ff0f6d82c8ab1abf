package report

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

func field(id crm.FieldID, name string, k crm.Kind, edits ...func(*crm.Field)) *crm.Field {
	f := &crm.Field{ID: id, Name: name, Label: name, Kind: k}
	for _, edit := range edits {
		edit(f)
	}
	return f
}

func to(target string) func(*crm.Field) { return func(f *crm.Field) { f.Target = target } }
func money(f *crm.Field)                { f.Money, f.Scale = true, 2 }

const (
	accountID crm.EntityID = 100
	orderID   crm.EntityID = 101
	lineID    crm.EntityID = 102
)

func testSchema(tb testing.TB) *crm.Schema {
	tb.Helper()
	schema, err := crm.NewSchema(1,
		&crm.Entity{ID: accountID, Name: "account", Label: "Account", Home: crm.HomeRoot, Title: []string{"name"}, Fields: []*crm.Field{
			field(16, "name", crm.Text), field(17, "billing_address", crm.Address), field(18, "tier", crm.Choice),
			field(19, "parent", crm.Link, to("account"))}},
		&crm.Entity{ID: orderID, Name: "order", Label: "Order", Home: crm.HomeRoot, Title: []string{"number"}, Fields: []*crm.Field{
			field(16, "number", crm.Text), field(17, "account", crm.Link, to("account")), field(18, "order_date", crm.Date),
			field(19, "region", crm.Choice), field(20, "status", crm.Choice), field(21, "placed_at", crm.Instant),
			field(22, "freight", crm.Decimal, money), field(23, "paid", crm.Bool), field(24, "about", crm.Link)}},
		&crm.Entity{ID: lineID, Name: "line", Label: "Line", Home: crm.HomeRoot, Title: []string{"note"}, Fields: []*crm.Field{
			field(16, "order", crm.Link, to("order")), field(17, "quantity", crm.Integer), field(18, "unit_price", crm.Decimal, money),
			field(19, "discount", crm.Decimal), field(20, "note", crm.Text), field(21, "weight", crm.Decimal),
			field(22, "tags", crm.Choices), field(23, "cost", crm.Decimal, money), field(24, "price", crm.Decimal)}})
	if err != nil {
		tb.Fatal(err)
	}
	return schema
}

// A world is the records a report is run over, as a plain map.
type world struct {
	schema  *crm.Schema
	records map[crm.EntityID]map[crm.RecordID]*crm.Record
}

func newWorld(tb testing.TB) *world {
	w := &world{schema: testSchema(tb), records: map[crm.EntityID]map[crm.RecordID]*crm.Record{}}
	for _, e := range []crm.EntityID{accountID, orderID, lineID} {
		w.records[e] = map[crm.RecordID]*crm.Record{}
	}
	return w
}

func id(n int) crm.RecordID { return crm.RecordID{0: 1, 14: byte(n >> 8), 15: byte(n)} }

// put stores a record with values by field name.
func (w *world) put(e crm.EntityID, n int, values map[string]crm.Value) *crm.Record {
	r := &crm.Record{Entity: e, ID: id(n)}
	for _, f := range w.schema.EntityByID(e).Fields {
		if v, ok := values[f.Name]; ok {
			r.Cells = append(r.Cells, crm.Cell{Field: f.ID, Value: v})
		}
	}
	w.records[e][r.ID] = r
	return r
}

func (w *world) fill(ts *Tables, entities []*crm.Entity) {
	for _, e := range entities {
		for _, r := range w.records[e.ID] {
			ts.Put(e.ID, r.ID, r.Value)
		}
	}
}

func (w *world) parse(tb testing.TB, entity, groups, measures, where, sort string, limit int) *Report {
	tb.Helper()
	def, err := Parse(w.schema, w.schema.Entity(entity), groups, measures, where, sort, limit)
	if err != nil {
		tb.Fatalf("%s | %s | %s | %s: %v", groups, measures, where, sort, err)
	}
	return def
}

// run computes a report over fresh tables.
func (w *world) run(tb testing.TB, def *Report) *Result {
	tb.Helper()
	ts := NewTables(w.schema)
	w.fill(ts, ts.Extend(def.Needs()))
	res, err := ts.Run(def)
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

// text is the result as lines of values, the totals last.
func (r *Result) text() []string {
	var out []string
	for _, row := range append(r.Rows[:len(r.Rows):len(r.Rows)], r.Totals) {
		line := ""
		for i, v := range row {
			if i > 0 {
				line += " "
			}
			if v.IsNull() {
				line += "-"
				continue
			}
			line += r.Columns[i].Bucket.Label(v)
		}
		out = append(out, line)
	}
	return out
}

// some values for random records: few, so that groups have several members.
type dice struct{ *rand.Rand }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func (d dice) decimal(currencies ...string) crm.Value {
	scale := uint8(d.IntN(4))
	n := int64(d.IntN(20_000)) - 5_000
	if d.chance(1) {
		n, scale = n<<48, uint8(d.IntN(10)) // some that need more than 64 bits
	}
	return crm.DecimalValue(n, scale, currencies[d.IntN(len(currencies))])
}

func (d dice) word(words ...string) string { return words[d.IntN(len(words))] }

func (d dice) account() map[string]crm.Value {
	v := map[string]crm.Value{"name": crm.TextValue(d.word("Acme", "acme", "Bolt", "Çelik")), "tier": crm.ChoiceValue(d.word("a", "b", ""))}
	if d.chance(70) {
		v["billing_address"] = crm.AddressValue(crm.PostalAddress{City: d.word("Porto", "Wien", ""), Country: d.word("PT", "AT")})
	}
	if d.chance(50) {
		v["parent"] = crm.LinkValue(id(d.IntN(12)))
	}
	return v
}

func (d dice) order() map[string]crm.Value {
	v := map[string]crm.Value{"number": crm.TextValue(d.word("1", "2", "3", "4", "5", "6")), "region": crm.ChoiceValue(d.word("north", "south", "east", "")),
		"status": crm.ChoiceValue(d.word("open", "shipped", "invoiced")), "paid": crm.BoolValue(d.chance(50))}
	if d.chance(90) {
		v["order_date"] = crm.DateDays(int64(d.IntN(800)) - 200)
		v["placed_at"] = crm.InstantMillis(d.Int64N(90*millisPerDay) - 30*millisPerDay)
	}
	if d.chance(80) {
		v["account"] = crm.LinkValue(id(d.IntN(14))) // some do not exist
		v["about"] = crm.LinkValue(id(d.IntN(4)))
	}
	if d.chance(80) {
		v["freight"] = d.decimal("EUR", "EUR", "EUR", "USD")
	}
	return v
}

func (d dice) line() map[string]crm.Value {
	v := map[string]crm.Value{"note": crm.TextValue(d.word("x", "X", "y z", "")), "tags": crm.ChoicesValue(d.word("red", "blue"), d.word("red", "green"))}
	if d.chance(90) {
		v["order"] = crm.LinkValue(id(d.IntN(60)))
	}
	if d.chance(90) {
		v["quantity"] = crm.IntegerValue(int64(d.IntN(50)) - 5)
	}
	if d.chance(90) {
		v["unit_price"] = d.decimal("EUR", "USD", "EUR", "")
	}
	if d.chance(60) {
		v["discount"], v["weight"], v["price"] = d.decimal(""), d.decimal(""), d.decimal("")
	}
	if d.chance(70) {
		v["cost"] = d.decimal("EUR", "USD")
	}
	return v
}

// randomWorld has 12 accounts, 50 orders and 200 lines.
func randomWorld(tb testing.TB, d dice) *world {
	w := newWorld(tb)
	for n := range 12 {
		w.put(accountID, n, d.account())
	}
	for n := range 50 {
		w.put(orderID, n, d.order())
	}
	for n := range 200 {
		w.put(lineID, n, d.line())
	}
	return w
}

func day(s string) crm.Value {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return crm.DateValue(t)
}
