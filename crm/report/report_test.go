package report

import (
	"encoding/csv"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

func eur(s string) crm.Value {
	v, ok := crm.ParseDecimal(s)
	if !ok {
		panic(s)
	}
	return crm.DecimalValue(v.Int(), v.Scale(), "EUR")
}

func plain(s string) crm.Value {
	v, ok := crm.ParseDecimal(s)
	if !ok {
		panic(s)
	}
	return v
}

func smallWorld(t *testing.T) *world {
	w := newWorld(t)
	w.put(accountID, 1, map[string]crm.Value{"name": crm.TextValue("Acme"), "billing_address": crm.AddressValue(crm.PostalAddress{City: "Porto", Country: "PT"})})
	w.put(accountID, 2, map[string]crm.Value{"name": crm.TextValue("Bolt")})
	w.put(orderID, 1, map[string]crm.Value{"account": crm.LinkValue(id(1)), "order_date": day("2024-12-31"), "status": crm.ChoiceValue("shipped"), "freight": eur("0.10")})
	w.put(orderID, 2, map[string]crm.Value{"account": crm.LinkValue(id(2)), "order_date": day("2025-01-01"), "status": crm.ChoiceValue("open"), "freight": eur("0.20")})
	w.put(orderID, 3, map[string]crm.Value{"account": crm.LinkValue(id(9)), "order_date": day("2023-01-01"), "status": crm.ChoiceValue("shipped"),
		"freight": crm.DecimalValue(5, 0, "USD"), "placed_at": crm.InstantMillis(-1)})
	w.put(orderID, 4, map[string]crm.Value{"status": crm.ChoiceValue("shipped"), "placed_at": crm.InstantMillis(0)})
	return w
}

func TestRun(t *testing.T) {
	w := smallWorld(t)
	for _, c := range []struct {
		groups, measures, where, sort string
		limit                         int
		want                          []string
	}{
		{measures: "", want: []string{"4", "4"}},
		{groups: "status", want: []string{"open 1", "shipped 3", "- 4"}},
		{groups: "status", sort: "-count", want: []string{"shipped 3", "open 1", "- 4"}},
		{groups: "status", sort: "-count", limit: 1, want: []string{"shipped 3", "- 4"}},
		{groups: "account.name", want: []string{"- 2", "Acme 1", "Bolt 1", "- 4"}},
		{groups: "account.billing_address.country", want: []string{"- 3", "PT 1", "- 4"}},
		{groups: "account", where: `account != null`, want: []string{id(1).String() + " 1", id(2).String() + " 1", id(9).String() + " 1", "- 3"}},
		{measures: "sum(freight) as f", want: []string{"- -", "EUR 0.30", "USD 5.00", "- -"}},
		{measures: "sum(freight),avg(freight),min(freight),max(freight),count(freight)", where: `freight < "1 EUR"`,
			want: []string{"EUR 0.30 0.15 0.10 0.20 2", "- 0.30 EUR 0.15 EUR 0.10 EUR 0.20 EUR 2"}},
		{measures: "sum(freight*2+freight)", where: `account.name == "acme"`, want: []string{"EUR 0.30", "- 0.30 EUR"}},
		{measures: "sum(freight)", where: `status == "none"`, want: []string{"- -", "- -"}},
		{groups: "status", where: `status == "none"`, want: []string{"- 0"}},
		{groups: "order_date:year", want: []string{"- 1", "2023 1", "2024 1", "2025 1", "- 4"}},
		{groups: "order_date:week", want: []string{"- 1", "2022-W52 1", "2025-W01 2", "- 4"}},
		{groups: "order_date:quarter as q", want: []string{"- 1", "2023-Q1 1", "2024-Q4 1", "2025-Q1 1", "- 4"}},
		{groups: "order_date:month, status", where: `order_date >= date("2024-01-01")`, want: []string{"2024-12 shipped 1", "2025-01 open 1", "- - 2"}},
		{groups: "order_date:day", where: `!(order_date < date("2025-01-01")) && has(order_date)`, want: []string{"2025-01-01 1", "- 1"}},
		{groups: "placed_at:day", where: "has(placed_at)", want: []string{"1969-12-31 1", "1970-01-01 1", "- 2"}},
		{groups: "placed_at", where: "has(placed_at)", want: []string{"1969-12-31T23:59:59.999Z 1", "1970-01-01T00:00:00.000Z 1", "- 2"}},
		{groups: "freight", where: "has(freight)", want: []string{"0.10 EUR 1", "0.20 EUR 1", "5.00 USD 1", "- 3"}},
		{measures: "min(order_date),max(order_date)", want: []string{"2023-01-01 2025-01-01", "2023-01-01 2025-01-01"}},
		{groups: "account.name as n", sort: "-n", measures: "count as c, sum(1-2*3) as s", want: []string{"Bolt 1 -5", "Acme 1 -5", "- 2 -10", "- 4 -20"}},
	} {
		def := w.parse(t, "order", c.groups, c.measures, c.where, c.sort, c.limit)
		res := w.run(t, def)
		got := res.text()
		for i, row := range got[:len(got)-1] { // the currency column is there; drop it from the amounts
			for j, v := range res.Rows[i] {
				if v.Currency() != "" && res.Columns[j].Kind == crm.Decimal && j >= len(def.Groups) {
					row = strings.Replace(row, v.String(), v.Number(), 1)
				}
			}
			got[i] = row
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s | %s | %s | %s:\n got %q\nwant %q", c.groups, c.measures, c.where, c.sort, got, c.want)
		}
		if res.Scanned != 4 {
			t.Errorf("scanned %d of 4", res.Scanned)
		}
	}
}

func TestMixedCurrencies(t *testing.T) {
	w := newWorld(t)
	w.put(orderID, 1, map[string]crm.Value{"freight": eur("7")})
	w.put(lineID, 1, map[string]crm.Value{"unit_price": eur("1"), "cost": crm.DecimalValue(1, 0, "USD"), "order": crm.LinkValue(id(1))})
	w.put(lineID, 2, map[string]crm.Value{"unit_price": eur("3"), "cost": eur("1"), "order": crm.LinkValue(id(1))})
	w.put(lineID, 3, map[string]crm.Value{"unit_price": eur("4"), "order": crm.LinkValue(id(1))})
	res := w.run(t, w.parse(t, "line", "", "sum(unit_price-cost), sum(unit_price), sum(order.freight), count", "", "", 0))
	want := []string{"EUR 2.00 EUR 7.00 EUR 14.00 EUR 2", "- 2.00 EUR 7.00 EUR 14.00 EUR 2"}
	if got := res.text(); !slices.Equal(got, want) || res.Mixed != 1 {
		t.Errorf("%d mixed, %q; want %q", res.Mixed, got, want)
	}
}

func TestParseErrors(t *testing.T) {
	schema := testSchema(t)
	for _, c := range []struct{ groups, measures, where, sort, want string }{
		{groups: "order.regoin", want: `parse groups: 1:7: order has no field "regoin"; did you mean "region"?`},
		{groups: "note, order.order_date:moth", want: `parse groups: 1:24: a date is grouped by`},
		{groups: "note:day", want: `1:6: note is no date`},
		{groups: "tags", want: `not grouped by a field of kind choices`},
		{groups: "note as Note", want: `1:9: a name is lower-case`},
		{groups: "note,note", want: `note: two columns have this name`},
		{groups: "note as currency", measures: "sum(cost)", want: `currency: two columns`},
		{groups: strings.Repeat("note,", 9), want: `at most 8 groups`},
		{measures: "total(cost)", want: `parse measures: 1:1: "total" is no measure`},
		{measures: "sum", want: `1:4: write sum(field)`},
		{measures: "count, sum(cots)", want: `1:12: line has no field "cots"; did you mean "cost"?`},
		{measures: "sum(note)", want: `1:5: note is no number but of kind text`},
		{measures: "sum(cost/2)", want: `1:9: there is no division`},
		{measures: "sum(cost", want: `1:9: want +, -, * or ), not the end`},
		{measures: "sum(cost))", want: `1:10: want a comma or the end, not ')'`},
		{measures: "sum()", want: `1:5: want a field, a number or (, not ')'`},
		{measures: "sum(cost é)", want: `not 'é'`},
		{measures: "sum(cost*unit_price)", want: `1:9: an amount of money times`},
		{measures: "sum(cost+quantity)", want: `1:9: an amount of money and a plain number`},
		{measures: "sum(1.0123456789)", want: `"1.0123456789" is not a number`},
		{measures: "avg(order.order_date)", want: `1:5: avg takes numbers`},
		{measures: "min(order.order_date+1)", want: `dates are not computed with`},
		{measures: "sum(" + strings.Repeat("(", 65) + "1" + strings.Repeat(")", 65) + ")", want: `more than 64 levels`},
		{measures: "sum(" + strings.Repeat("1+", 64) + "1)", want: `more than 64 fields and numbers`},
		{measures: strings.Repeat("count,", 40), want: `at most`},
		{measures: strings.Repeat(" ", 9000), want: ``},
		{measures: "count" + strings.Repeat(" ", 9000), want: `at most 8192 are read`},
		{where: "nope == 1", want: `parse filter: 1:1: line has no field`},
		{sort: "count,-cost", want: `parse sort: 1:7: there is no column "cost", only count`},
	} {
		_, err := Parse(schema, schema.Entity("line"), c.groups, c.measures, c.where, c.sort, 0)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, want %s", c, err, c.want)
		}
	}
	if _, err := Parse(schema, schema.Entity("line"), "", "", "", "", -1); crm.CodeOf(err) != crm.CodeInvalid {
		t.Errorf("negative limit: %v", err)
	}
}

func TestExact(t *testing.T) {
	w := newWorld(t)
	for n, v := range []string{"0.1", "0.2", "0.000000001"} {
		w.put(lineID, n, map[string]crm.Value{"discount": plain(v), "quantity": crm.IntegerValue(int64(n))})
	}
	res := w.run(t, w.parse(t, "line", "", "sum(discount) as s, sum(1-discount) as r, avg(discount) as a, sum(quantity) as q", "", "", 0))
	if got := res.text()[0]; got != "0.300000001 2.699999999 0.1 3" {
		t.Errorf("got %s", got)
	}
	for text, want := range map[string]string{"1265793.0395": "1265793.04", "0.125": "0.12", "0.135": "0.14", "-0.125": "-0.12", "-0.135": "-0.14", "1.5": "1.5"} {
		if got := Round(plain(text), 2).Number(); got != want {
			t.Errorf("%s rounds to %s, want %s", text, got, want)
		}
	}
}

func TestOverflow(t *testing.T) {
	w := newWorld(t)
	for n := range 3 {
		w.put(lineID, n, map[string]crm.Value{"quantity": crm.IntegerValue(math.MaxInt64), "order": crm.LinkValue(id(1)), "weight": crm.DecimalValue(math.MaxInt64, 0, "")})
	}
	w.put(lineID, 3, map[string]crm.Value{"quantity": crm.IntegerValue(math.MinInt64), "weight": plain("0.000000001")})
	w.put(lineID, 4, map[string]crm.Value{"quantity": crm.IntegerValue(-math.MaxInt64)})
	for measures, want := range map[string]string{
		"sum(quantity)":                            big.NewRat(math.MaxInt64-1, 1).String(),
		"sum(quantity-quantity)":                   "0",
		"avg(quantity*quantity-quantity*quantity)": "0",
		"max(quantity*0)":                          "0",
		"max(weight)":                              strconv.FormatInt(math.MaxInt64, 10),
		"min(weight)":                              "1/1000000000",
	} {
		res := w.run(t, w.parse(t, "line", "", measures, "", "", 0))
		got := measureText(res.Rows[0][0])
		if want := strings.TrimSuffix(want, "/1"); strings.TrimSuffix(got, "/1") != want {
			t.Errorf("%s = %s, want %s", measures, got, want)
		}
	}
	for _, measures := range []string{"sum(quantity)", "min(quantity*quantity)", "avg(weight*2)", "min(0-quantity-quantity)"} {
		def := w.parse(t, "line", "", measures, "quantity > 0", "", 0)
		ts := NewTables(w.schema)
		w.fill(ts, ts.Extend(def.Needs()))
		if _, err := ts.Run(def); crm.CodeOf(err) != crm.CodeTooLarge {
			t.Errorf("%s: %v, want too_large", measures, err)
		}
	}
}

func TestArithmetic(t *testing.T) {
	edges := []int64{0, 1, -1, 2, -2, 1 << 31, -1 << 31, 1<<31 - 1, 3037000500, -3037000500, 1 << 32, math.MaxInt64, math.MinInt64, math.MaxInt64 / 2, math.MinInt64 / 2}
	for _, a := range edges {
		for _, b := range edges {
			product := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
			if c, ok := mul(a, b); ok != product.IsInt64() || ok && c != product.Int64() {
				t.Errorf("%d * %d = %d, %v", a, b, c, ok)
			}
			sum := new(big.Int).Add(big.NewInt(a), big.NewInt(b))
			if c, ok := add(a, b); ok != sum.IsInt64() || ok && c != sum.Int64() {
				t.Errorf("%d + %d = %d, %v", a, b, c, ok)
			}
		}
	}
}

func TestBucketStart(t *testing.T) {
	for _, b := range []Bucket{Day, Week, Month, Quarter, Year} {
		for days := int64(-20_000); days < 40_000; days++ {
			if got, want := b.start(days), cut(b, crm.DateDays(days)).Int(); got != want {
				t.Fatalf("%s of %s starts %s, want %s", b, crm.DateDays(days), crm.DateDays(got), crm.DateDays(want))
			}
		}
		if got := b.start(math.MaxInt64); got != math.MaxInt64 {
			t.Errorf("a day beyond the calendar has the bucket %d", got)
		}
	}
}

// randomReport draws a report over lines or orders.
func randomReport(t *testing.T, w *world, d dice) *Report {
	entity := d.word("line", "line", "order")
	groups := []string{"order", "order.region", "order.order_date:month", "order.order_date:week", "order.account", "note", "quantity", "weight", "unit_price", "order.paid",
		"order.placed_at:quarter", "order.placed_at", "order.freight", "order.order_date", "order.about"}
	measures := []string{"count as n", "sum(quantity)", "sum(quantity*unit_price)", "sum(quantity*unit_price*(1-discount))", "avg(unit_price-cost)", "min(weight*weight-discount)",
		"max(cost)", "count(weight*price)", "sum(order.freight)", "avg(price+0.5)", "max(order.order_date)", "min(order.placed_at)", "sum(quantity*2-1)", "avg(quantity)"}
	leaves := []string{`order.region == "north"`, `order.status in ["shipped", "invoiced"]`, `order.order_date >= date("1970-02-01")`, `quantity > 3`, `quantity != 3`, `quantity in [1, 2, 3]`,
		`unit_price > 10`, `unit_price <= "20 EUR"`, `discount < 0.5`, `weight == null`, `has(order.account)`, `note == "x"`, `"red" in tags`, `order.number.contains("2")`, `order.paid`, `!order.paid`,
		`order == "` + id(3).String() + `"`, `order in ["` + id(4).String() + `", "` + id(99).String() + `"]`, `order != null`, `order.placed_at < timestamp("1970-01-20T10:00:00Z")`}
	if entity == "order" {
		groups = []string{"region", "order_date:year", "account.name", "account.billing_address.city", "account.tier", "account.parent", "freight", "status", "placed_at:day", "id"}
		measures = []string{"count as n", "sum(freight)", "max(order_date)", "avg(freight*0.19)", "min(freight)"}
		leaves = []string{`paid`, `account.name == "acme"`, `account.billing_address.country == "PT"`, `freight > 5`, `status != "open"`, `account.tier == null`, `created_at == null`, `number > "2"`}
	}
	var gs, ms []string
	for range d.IntN(4) {
		gs = append(gs, groups[d.IntN(len(groups))])
	}
	slices.Sort(gs)
	for range 1 + d.IntN(3) {
		ms = append(ms, measures[d.IntN(len(measures))])
	}
	slices.Sort(ms)
	where := ""
	for i := range d.IntN(4) {
		if i > 0 {
			where += d.word(" && ", " && ", " || ")
		}
		where += d.word("", "", "!") + "(" + leaves[d.IntN(len(leaves))] + ")"
	}
	return w.parse(t, entity, strings.Join(slices.Compact(gs), ","), strings.Join(slices.Compact(ms), ","), where, "", 0)
}

func compareWithNaive(t *testing.T, w *world, def *Report, res *Result, err error) {
	t.Helper()
	want, mixed := w.naive(def)
	if err != nil {
		if crm.CodeOf(err) != crm.CodeTooLarge || !slices.ContainsFunc(want, tooLong) && !tooLong(strings.Join(want, "")) {
			t.Fatalf("%v: %v", def, err)
		}
		return
	}
	got := res.exactRows(len(res.Columns) - len(def.Measures))
	same := slices.EqualFunc(got, want, func(g, w string) bool { return g == w || tooLong(w) })
	if res.Mixed != mixed || !same {
		t.Fatalf("groups %v, measures %v, where %s: %d mixed, want %d\n got %s\nwant %s", def.Groups, def.Measures, def.Where, res.Mixed, mixed, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// tooLong reports whether a row has a number that a Value may not hold exactly.
func tooLong(row string) bool {
	for part := range strings.SplitSeq(row, "|") {
		num, _, _ := strings.Cut(strings.TrimLeft(part, "-"), "/")
		if len(num) > 16 && !strings.Contains(num, "-") {
			return true
		}
	}
	return false
}

func TestRandomReports(t *testing.T) {
	compared := 0
	for seed := range uint64(60) {
		d := dice{rand.New(rand.NewPCG(seed, 7))}
		w := randomWorld(t, d)
		for range 10 {
			def := randomReport(t, w, d)
			ts := NewTables(w.schema)
			w.fill(ts, ts.Extend(def.Needs()))
			res, err := ts.Run(def)
			compareWithNaive(t, w, def, res, err)
			if want, _ := w.naive(def); err == nil && !slices.ContainsFunc(want, tooLong) {
				compared++
			}
		}
	}
	if compared < 300 {
		t.Errorf("only %d of 600 reports were compared exactly", compared)
	}
}

// Tables kept up to date through random changes answer as rebuilt ones do.
func TestUpdatesEqualRebuild(t *testing.T) {
	for seed := range uint64(40) {
		d := dice{rand.New(rand.NewPCG(seed, 11))}
		w := randomWorld(t, d)
		ts := NewTables(w.schema)
		for range 6 {
			def := randomReport(t, w, d)
			w.fill(ts, ts.Extend(def.Needs()))
			for range 20 {
				w.change(ts, d)
			}
			got, gotErr := ts.Run(def)
			fresh := NewTables(w.schema)
			w.fill(fresh, fresh.Extend(def.Needs()))
			want, wantErr := fresh.Run(def)
			if (gotErr == nil) != (wantErr == nil) {
				t.Fatalf("updated: %v, rebuilt: %v", gotErr, wantErr)
			}
			if gotErr == nil && fmt.Sprint(*got) != fmt.Sprint(*want) {
				t.Fatalf("groups %v, measures %v, where %s\nupdated %s\nrebuilt %s", def.Groups, def.Measures, def.Where, got.text(), want.text())
			}
		}
	}
}

// change puts or removes one random record, in the map and in the tables.
func (w *world) change(ts *Tables, d dice) {
	e := []crm.EntityID{accountID, orderID, lineID}[d.IntN(3)]
	n := d.IntN(map[crm.EntityID]int{accountID: 16, orderID: 60, lineID: 220}[e])
	if d.chance(30) {
		delete(w.records[e], id(n))
		ts.Kill(e, id(n))
		return
	}
	values := map[crm.EntityID]func() map[string]crm.Value{accountID: d.account, orderID: d.order, lineID: d.line}[e]()
	r := w.put(e, n, values)
	ts.Put(e, r.ID, r.Value)
}

// Many combinations take the sparse way, which must agree as well.
func TestSparseGroups(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(3, 3))}
	w := newWorld(t)
	for n := range 300 {
		w.put(orderID, n, map[string]crm.Value{"number": crm.TextValue(strconv.Itoa(n % 250)), "region": crm.ChoiceValue(d.word("a", "b")), "freight": d.decimal("EUR", "USD"), "status": crm.ChoiceValue("open")})
	}
	for n := range 3000 {
		w.put(lineID, n, map[string]crm.Value{"order": crm.LinkValue(id(d.IntN(310))), "note": crm.TextValue(strconv.Itoa(d.IntN(2000))), "quantity": crm.IntegerValue(d.Int64N(9) << d.IntN(40))})
	}
	def := w.parse(t, "line", "note,order.number,quantity", "count as n,sum(order.freight),max(quantity)", `order.region == "a" && quantity > 0`, "", 0)
	ts := NewTables(w.schema)
	w.fill(ts, ts.Extend(def.Needs()))
	if space := newSpaceOf(ts, def); space.dense {
		t.Fatal("the space is dense; the test needs more values")
	}
	res, err := ts.Run(def)
	compareWithNaive(t, w, def, res, err)
	if len(res.Rows) < 500 {
		t.Errorf("only %d groups", len(res.Rows))
	}
}

func newSpaceOf(ts *Tables, def *Report) *space {
	r := &run{ts: ts, def: def, base: ts.tables[def.Entity.ID]}
	r.plan()
	return r.space
}

func TestExtendAndMissing(t *testing.T) {
	w := smallWorld(t)
	ts := NewTables(w.schema)
	count := w.parse(t, "order", "", "count", "", "", 0)
	if _, err := ts.Run(count); crm.CodeOf(err) != crm.CodeInternal {
		t.Errorf("run without columns: %v", err)
	}
	if scan := ts.Extend(count.Needs()); len(scan) != 1 || scan[0].Name != "order" {
		t.Fatalf("scan %v", scan)
	}
	w.fill(ts, []*crm.Entity{w.schema.Entity("order")})
	byName := w.parse(t, "order", "account.name", "count", "", "", 0)
	if _, err := ts.Run(byName); crm.CodeOf(err) != crm.CodeInternal {
		t.Errorf("run with a missing column: %v", err)
	}
	if scan := ts.Extend(byName.Needs()); len(scan) != 2 {
		t.Fatalf("scan %v", scan)
	}
	if scan := ts.Extend(byName.Needs()); len(scan) != 0 {
		t.Fatalf("nothing is new, but scan %v", scan)
	}
	ts.Kill(orderID, id(77))
	ts.Kill(crm.EntityID(9999), id(77))
	ts.Put(lineID, id(1), func(crm.FieldID) crm.Value { return crm.Value{} })
	if ts.Bytes() == 0 {
		t.Error("tables of no size")
	}
}

const northwind = "../../../shared/data/northwind/"

func TestNorthwind(t *testing.T) {
	details := readCSV(t, northwind+"order_details.csv")
	w := newWorld(t)
	for n, row := range details {
		num, err := strconv.Atoi(row["OrderID"])
		if err != nil {
			t.Fatal(err)
		}
		q, err := strconv.ParseInt(row["Quantity"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		w.put(lineID, n, map[string]crm.Value{"order": crm.LinkValue(id(num)), "quantity": crm.IntegerValue(q), "price": plain(row["UnitPrice"]), "discount": plain(row["Discount"])})
	}
	years := map[string]int{}
	for _, row := range readCSV(t, northwind+"orders.csv") {
		num, err := strconv.Atoi(row["OrderID"])
		if err != nil {
			t.Fatal(err)
		}
		w.put(orderID, num, map[string]crm.Value{"order_date": day(row["OrderDate"])})
		years[row["OrderDate"][:4]]++
	}
	const revenue = "sum(quantity*price*(1-discount))"
	res := w.run(t, w.parse(t, "line", "order.order_date:year", revenue+", count", "", "", 0))
	if got := res.Totals[1]; got.Number() != "1265793.0395" || Round(got, 2).Number() != "1265793.04" {
		t.Errorf("revenue %s, want 1265793.0395", got)
	}
	if len(res.Rows) != len(years) || res.Totals[2].Int() != int64(len(details)) {
		t.Errorf("%d years of %d, %s lines of %d", len(res.Rows), len(years), res.Totals[2], len(details))
	}
}

func readCSV(t *testing.T, path string) []map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Skipf("the Northwind sample is not here: %v", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, name := range rows[0] {
			m[name] = row[i]
		}
		out = append(out, m)
	}
	return out
}

func FuzzParseMeasures(f *testing.F) {
	w := newWorld(f)
	d := dice{rand.New(rand.NewPCG(1, 1))}
	for n := range 20 {
		w.put(orderID, n, d.order())
		w.put(lineID, n, d.line())
	}
	for _, s := range []string{"count", "sum(quantity*unit_price*(1-discount)) as revenue, avg(cost)", "min(-(weight+1.5)*-2)", "max(order.order_date)", "sum(0-cost)", "count(price*price*price*price*price)", "sum((", "sum(1 as x"} {
		f.Add(s, "order.region, note")
	}
	f.Fuzz(func(t *testing.T, measures, groups string) {
		def, err := Parse(w.schema, w.schema.Entity("line"), groups, measures, "", "", 0)
		if err != nil {
			if crm.CodeOf(err) == crm.CodeInternal {
				t.Fatalf("%q: %v has no code", measures, err)
			}
			return
		}
		for _, m := range def.Measures {
			again, err := Parse(w.schema, def.Entity, "", m.String()+" as again", "", "", 0)
			if err != nil || again.Measures[0].String() != m.String() {
				t.Fatalf("%q: canonical %q: %v", measures, m, err)
			}
		}
		ts := NewTables(w.schema)
		w.fill(ts, ts.Extend(def.Needs()))
		res, err := ts.Run(def)
		compareWithNaive(t, w, def, res, err)
	})
}
