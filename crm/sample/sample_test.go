package sample

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

var update = flag.Bool("update", false, "rewrite the golden file")

var (
	someSites = []Site{{Name: "lisbon", City: "Lisboa", Country: "PT", Territory: "pt"}, {Name: "osaka", City: "大阪", Country: "Japan", Territory: "jp"},
		{Name: "athens", Country: "GR", Territory: "gr"}, {Name: "sofia", City: "София", Country: "bg", Territory: "bg"}}
	someEnd = time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
)

func encode(req crm.Request) []byte {
	return crm.AppendMutation(nil, &crm.Mutation{Actor: req.Actor, Intent: req.Intent, Ops: req.Ops, Guards: req.Guards})
}

func hash(requests iter.Seq[crm.Request]) string {
	h := sha256.New()
	for req := range requests {
		h.Write(encode(req))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestAll_SameSeedSameBytes(t *testing.T) {
	got := hash(New(7, 200, someSites, someEnd).All())
	if again := hash(New(7, 200, someSites, someEnd).All()); again != got {
		t.Errorf("two runs differ: %s, %s", got, again)
	}
	if other := hash(New(8, 200, someSites, someEnd).All()); other == got {
		t.Error("another seed gives the same data")
	}
	const golden = "testdata/hash.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != strings.TrimSpace(string(want)) {
		t.Errorf("hash %s, want %s: samples changed; -update if that is meant", got, want)
	}
}

func TestAll_LenAndSizes(t *testing.T) {
	d := New(1, 3000, someSites, someEnd)
	n, largest := 0, 0
	for req := range d.All() {
		n++
		largest = max(largest, len(encode(req)))
	}
	if n != d.Len() {
		t.Errorf("%d requests, Len is %d", n, d.Len())
	}
	if largest > 48<<10 || largest < 8<<10 {
		t.Errorf("the largest request has %d bytes, want 8 to 48 KiB", largest)
	}
}

func TestAccounts_SharesMakeUpTheWhole(t *testing.T) {
	d := New(3, 60, someSites, someEnd)
	whole := hash(d.Accounts(0, 60))
	shares := func(yield func(crm.Request) bool) {
		for _, r := range [][2]int{{-5, 20}, {20, 21}, {21, 99}} {
			for req := range d.Accounts(r[0], r[1]) {
				yield(req)
			}
		}
	}
	if got := hash(shares); got != whole {
		t.Errorf("shares hash to %s, the whole to %s", got, whole)
	}
	if larger := hash(New(3, 61, someSites, someEnd).Accounts(0, 60)); larger != whole {
		t.Error("an account depends on how many follow it")
	}
}

func TestAll_EveryRequestIsAccepted(t *testing.T) {
	m := newMemory(t, "pt", "jp", "gr", "bg")
	for req := range New(5, 400, someSites, someEnd).All() {
		m.decide(req)
	}
	for _, s := range someSites {
		if n := m.count(m.Schema().Entity("account"), m.territories[s.Territory]); n != 100 {
			t.Errorf("territory %s has %d accounts, want 100", s.Territory, n)
		}
	}
}

func TestAll_AcceptedInEveryCountry(t *testing.T) {
	var sites []Site
	var codes []string
	for _, c := range countries {
		sites = append(sites, Site{Name: c.code, Country: c.code, Territory: c.code})
		codes = append(codes, c.code)
	}
	m := newMemory(t, codes...)
	for req := range New(5, 6*len(sites), sites, someEnd).All() {
		m.decide(req)
	}
	m.each(func(e *crm.Entity, r *crm.Record) {
		for _, c := range r.Cells {
			if e.FieldByID(c.Field).Kind == crm.Phone && c.Value.E164() != c.Value.Str() {
				t.Errorf("%s: phone %q is not E.164", e.Name, c.Value.Str())
			}
			if e.Name == "contact" && e.FieldByID(c.Field).Kind == crm.Email && !plain(c.Value.Str()) {
				t.Errorf("contact has address %q", c.Value.Str())
			}
		}
	})
}

func plain(address string) bool {
	return !strings.HasPrefix(address, ".") && !strings.Contains(address, "..") && !strings.Contains(address, ".@") &&
		strings.IndexFunc(address, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

func TestAll_LooksLikeATradingCompany(t *testing.T) {
	const accounts = 4000
	m := newMemory(t, "pt", "jp", "gr", "bg")
	d := New(11, accounts, someSites, someEnd)
	ends, counts, scripts := crm.DateValue(someEnd).Int(), map[string]int{}, map[string]bool{}
	perAccount := map[crm.RecordID]int{}
	s := m.Schema()
	orders := s.Entity("order")
	for req := range d.All() {
		for _, op := range req.Ops {
			e := s.EntityByID(op.Entity)
			counts[e.Name]++
			for _, c := range op.Cells {
				f := e.FieldByID(c.Field)
				if f.Name == "last_name" {
					scripts[script(c.Value.Str())] = true
				}
				if f.Name == "order_date" && (c.Value.Int() > ends || c.Value.Int() <= ends-span) {
					t.Fatalf("order of %v, outside the 36 months before %v", c.Value, someEnd)
				}
				if e == orders && f.Name == "account" {
					perAccount[c.Value.Link()]++
				}
			}
		}
	}
	for name, want := range map[string][2]float64{"contact": {2.7, 3.3}, "order": {1.8, 2.2}, "opportunity": {0.9, 1.1}, "activity": {3.6, 4.4}, "case": {0.25, 0.35}} {
		if got := float64(counts[name]) / accounts; got < want[0] || got > want[1] {
			t.Errorf("%.2f of %s an account, want %v", got, name, want)
		}
	}
	if got := float64(counts["order_line"]) / float64(counts["order"]); got < 2.8 || got > 3.2 {
		t.Errorf("%.2f lines an order, want about 3", got)
	}
	if counts["product"] != 40 || counts["user"] != 12 {
		t.Errorf("%d products and %d users, want 40 and 12", counts["product"], counts["user"])
	}
	for _, want := range []string{"Latin", "Greek", "Cyrillic", "Han"} {
		if !scripts[want] {
			t.Errorf("no surname in %s script", want)
		}
	}
	checkSkew(t, perAccount, counts["order"])
}

// checkSkew wants the largest hundredth of the customers to give a tenth to a
// quarter of the orders.
func checkSkew(t *testing.T, perAccount map[crm.RecordID]int, orders int) {
	t.Helper()
	var all []int
	for _, n := range perAccount {
		all = append(all, n)
	}
	slices.Sort(all)
	top := 0
	for _, n := range all[len(all)-40:] {
		top += n
	}
	if share := float64(top) / float64(orders); share < 0.10 || share > 0.25 {
		t.Errorf("the 40 largest customers give %.0f %% of the orders", 100*share)
	}
}

func script(s string) string {
	for name, table := range map[string]*unicode.RangeTable{"Latin": unicode.Latin, "Greek": unicode.Greek, "Cyrillic": unicode.Cyrillic, "Han": unicode.Han} {
		if unicode.Is(table, []rune(s)[0]) {
			return name
		}
	}
	return "other"
}

func TestCountries_AreWhole(t *testing.T) {
	seen := map[string]bool{}
	for i := range countries {
		c := countries[i].ready()
		if seen[c.code] || seen[c.name] {
			t.Errorf("%s is there twice", c.code)
		}
		seen[c.code], seen[c.name] = true, true
		if len(c.firms) != len(industries) || len(c.womensList) != len(c.surnameList) || len(c.surnameList) < usersPerSite {
			t.Errorf("%s: %d firms, %d surnames, %d of women", c.code, len(c.firms), len(c.surnameList), len(c.womensList))
		}
		for _, w := range slices.Concat(c.surnameList, c.womensList, c.womenList, c.menList) {
			if w.native == "" || w.ascii == "" || w.native != strings.TrimSpace(w.native) {
				t.Errorf("%s: name %q, romanised %q", c.code, w.native, w.ascii)
			}
		}
		if _, err := time.LoadLocation(c.zone); err != nil {
			t.Errorf("%s: %v", c.code, err)
		}
	}
	if got := findCountry("Atlantis").code; got != "GB" {
		t.Errorf("an unknown country looks like %s, want GB", got)
	}
}

func TestNew_SitesOfOneNameGetTheirOwnMailDomains(t *testing.T) {
	sites := []Site{{Name: "Córdoba", Country: "ES", Territory: "es"}, {Name: "Cordoba", Country: "MX", Territory: "mx"}, {Name: "大阪", Country: "JP", Territory: "jp"}}
	m := newMemory(t, "es", "mx", "jp")
	for req := range New(1, 3, sites, someEnd).All() {
		m.decide(req)
	}
}

func BenchmarkAccounts(b *testing.B) {
	d := New(1, 1<<30, someSites, someEnd)
	n := 0
	for b.Loop() {
		for range d.Accounts(n, n+1) {
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "accounts/s")
}

// memory is a View in maps: what a master with these territories has decided.
type memory struct {
	tb          testing.TB
	schema      *crm.Schema
	records     map[crm.RecordID]*crm.Record
	unique      map[string]crm.RecordID
	territories map[string]crm.TerritoryID
	rev         crm.Rev
}

func newMemory(tb testing.TB, territories ...string) *memory {
	tb.Helper()
	s, err := crm.NewSchema(1, catalog.Entities()...)
	if err != nil {
		tb.Fatal(err)
	}
	m := &memory{tb: tb, schema: s, records: map[crm.RecordID]*crm.Record{}, unique: map[string]crm.RecordID{}, territories: map[string]crm.TerritoryID{}, rev: 1}
	for i, code := range territories {
		m.territories[code] = crm.FirstTerritory + crm.TerritoryID(i)
	}
	return m
}

// decide applies req, which must be accepted, after checking that its values
// are what the catalogue allows.
func (m *memory) decide(req crm.Request) {
	m.tb.Helper()
	m.rev++
	mut := &crm.Mutation{Node: 1, Seq: crm.Seq(m.rev), Actor: req.Actor, Intent: req.Intent, Ops: req.Ops, Guards: req.Guards}
	dec, err := crm.Decide(m, mut, crm.Env{Rev: m.rev, HLC: crm.NewHLC(someEnd.UnixMilli()), Home: crm.FirstTerritory})
	if err != nil {
		m.tb.Fatal(err)
	}
	if dec.Outcome.Kind != crm.Accepted {
		m.tb.Fatalf("%s: %v %s: %s", req.Intent, dec.Outcome.Kind, dec.Outcome.Code, dec.Outcome.Message)
	}
	for _, r := range dec.Writes {
		m.put(r)
	}
}

func (m *memory) put(r *crm.Record) {
	e := m.schema.EntityByID(r.Entity)
	for _, c := range r.Cells {
		f := e.FieldByID(c.Field)
		if err := f.Check(c.Value); err != nil {
			m.tb.Fatalf("%s: %v", e.Name, err)
		}
		if f.Unique {
			m.unique[key(e, f, c.Value)] = r.ID
		}
	}
	m.records[r.ID] = r
}

func key(e *crm.Entity, f *crm.Field, v crm.Value) string {
	return fmt.Sprintf("%d/%d/%s", e.ID, f.ID, crm.AppendKey(nil, v))
}

func (m *memory) each(visit func(*crm.Entity, *crm.Record)) {
	for _, r := range m.records {
		visit(m.schema.EntityByID(r.Entity), r)
	}
}

func (m *memory) count(e *crm.Entity, t crm.TerritoryID) int {
	n := 0
	for _, r := range m.records {
		if r.Entity == e.ID && r.Territory == t {
			n++
		}
	}
	return n
}

func (m *memory) Schema() *crm.Schema { return m.schema }

func (m *memory) Record(_ crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	return m.records[id], nil
}

func (m *memory) Lookup(e *crm.Entity, f *crm.Field, v crm.Value) (crm.RecordID, bool, error) {
	id, ok := m.unique[key(e, f, v)]
	return id, ok, nil
}

func (m *memory) Children(crm.Child, crm.RecordID) iter.Seq2[*crm.Record, error] {
	return func(func(*crm.Record, error) bool) {}
}

func (m *memory) Under(crm.RecordID) iter.Seq2[*crm.Record, error] {
	return func(func(*crm.Record, error) bool) {}
}

func (m *memory) Refused(crm.RecordID) (crm.RecordID, bool, error) {
	return crm.RecordID{}, false, nil
}

func (m *memory) TerritoryByCode(code string) (crm.TerritoryID, bool, error) {
	t, ok := m.territories[code]
	return t, ok, nil
}

func (m *memory) NextNumber(crm.EntityID) (int64, error) { return 1, nil }

func (m *memory) Deleted(crm.Child, crm.RecordID) iter.Seq2[*crm.Record, error] {
	return func(func(*crm.Record, error) bool) {}
}
