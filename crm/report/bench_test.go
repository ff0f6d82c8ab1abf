package report

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

const (
	benchAccounts = 20_000
	benchOrders   = 100_000
	benchLines    = 300_000
)

func benchID(e crm.EntityID, n int) (id crm.RecordID) {
	binary.BigEndian.PutUint16(id[:], uint16(e))
	binary.BigEndian.PutUint32(id[2:], uint32(n)+1)
	return id
}

// benchTables hold 100,000 orders of 36 months and 12 regions with 300,000
// lines, filled for defs.
func benchTables(b *testing.B, schema *crm.Schema, defs ...*Report) *Tables {
	ts := NewTables(schema)
	for _, def := range defs {
		ts.Extend(def.Needs())
	}
	r := rand.New(rand.NewPCG(1, 2))
	statuses := []string{"shipped", "invoiced", "invoiced", "invoiced", "open"}
	put := func(e crm.EntityID, n int, values map[string]crm.Value) {
		entity := schema.EntityByID(e)
		ts.Put(e, benchID(e, n), func(f crm.FieldID) crm.Value { return values[entity.FieldByID(f).Name] })
	}
	for n := range benchOrders {
		put(orderID, n, map[string]crm.Value{"account": crm.LinkValue(benchID(accountID, r.IntN(benchAccounts))), "order_date": crm.DateDays(19000 + int64(n)*1095/benchOrders),
			"region": crm.ChoiceValue(fmt.Sprint("region ", r.IntN(12))), "status": crm.ChoiceValue(statuses[r.IntN(5)]), "freight": crm.DecimalValue(r.Int64N(10_000), 2, "EUR")})
	}
	for n := range benchLines {
		put(lineID, n, map[string]crm.Value{"order": crm.LinkValue(benchID(orderID, n/3)), "quantity": crm.IntegerValue(1 + r.Int64N(20)),
			"unit_price": crm.DecimalValue(r.Int64N(100_000), 2, "EUR"), "price": crm.DecimalValue(r.Int64N(100_000), 2, ""), "discount": crm.DecimalValue(r.Int64N(30), 2, "")})
	}
	return ts
}

func BenchmarkRun(b *testing.B) {
	schema := testSchema(b)
	const sold = `order.status in ["shipped", "invoiced"]`
	cases := []struct{ name, entity, groups, measures, where string }{
		{"revenue", "line", "order.order_date:month,order.region", "count,sum(unit_price)", sold},
		{"revenue-plain", "line", "order.order_date:month,order.region", "count,sum(price)", sold},
		{"revenue-discounted", "line", "order.order_date:month,order.region", "count,sum(quantity*unit_price*(1-discount))", sold},
		{"headers", "order", "order_date:month,region", "count,sum(freight)", `status in ["shipped", "invoiced"]`},
		{"one-month", "line", "order.region", "count,sum(unit_price)", sold + ` && order.order_date >= date("2023-05-01") && order.order_date < date("2023-06-01")`},
		{"pipeline", "order", "status,region", "count,sum(freight)", ""},
		{"by-account", "order", "account", "max(order_date),count,sum(freight)", `status in ["shipped", "invoiced"]`},
	}
	var defs []*Report
	for _, c := range cases {
		def, err := Parse(schema, schema.Entity(c.entity), c.groups, c.measures, c.where, "", 0)
		if err != nil {
			b.Fatal(err)
		}
		defs = append(defs, def)
	}
	ts := benchTables(b, schema, defs...)
	b.Logf("tables: %d MiB", ts.Bytes()>>20)
	for i, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var res *Result
			for b.Loop() {
				var err error
				if res, err = ts.Run(defs[i]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(res.Scanned), "ns/row")
			b.ReportMetric(float64(len(res.Rows)), "groups")
		})
	}
}

func BenchmarkPut(b *testing.B) {
	schema := testSchema(b)
	def, err := Parse(schema, schema.Entity("line"), "order.region", "sum(quantity*unit_price*(1-discount))", "", "", 0)
	if err != nil {
		b.Fatal(err)
	}
	ts := benchTables(b, schema, def)
	values := map[crm.FieldID]crm.Value{16: crm.LinkValue(benchID(orderID, 5)), 17: crm.IntegerValue(3), 18: crm.DecimalValue(100, 2, "EUR")}
	n := 0
	for b.Loop() {
		ts.Put(lineID, benchID(lineID, n%benchLines), func(f crm.FieldID) crm.Value { return values[f] })
		n += 7919
	}
}
