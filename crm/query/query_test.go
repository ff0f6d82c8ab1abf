package query

import (
	"math/rand/v2"
	"strings"
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

func testSchema(tb testing.TB) (*crm.Schema, *crm.Entity) {
	tb.Helper()
	account := &crm.Entity{ID: 100, Name: "account", Label: "Account", Home: crm.HomeRoot, Title: []string{"name"}, Fields: []*crm.Field{
		field(16, "name", crm.Text), field(17, "billing_address", crm.Address), field(18, "employees", crm.Integer),
		field(19, "tags", crm.Choices), field(20, "parent", crm.Link, func(f *crm.Field) { f.Target = "account" })}}
	deal := &crm.Entity{ID: 101, Name: "deal", Label: "Deal", Home: crm.HomeRoot, Title: []string{"name"}, Fields: []*crm.Field{
		field(16, "name", crm.Text), field(17, "account", crm.Link, func(f *crm.Field) { f.Target = "account" }),
		field(18, "stage", crm.Choice, func(f *crm.Field) {
			f.Options = []crm.Option{{Value: "open"}, {Value: "won", Label: "Closed won"}, {Value: "lost"}}
		}),
		field(19, "amount", crm.Decimal, func(f *crm.Field) { f.Money = true }), field(20, "discount", crm.Decimal),
		field(21, "close_date", crm.Date), field(22, "seen_at", crm.Instant), field(23, "done", crm.Bool),
		field(24, "tags", crm.Choices), field(25, "phone", crm.Phone), field(26, "email", crm.Email), field(27, "site", crm.URL),
		field(28, "about", crm.Link), field(29, "pieces", crm.Integer), field(30, "address", crm.Address)}}
	schema, err := crm.NewSchema(1, account, deal)
	if err != nil {
		tb.Fatal(err)
	}
	return schema, deal
}

var (
	acmeID  = crm.RecordID{1}
	otherID = crm.RecordID{2}
)

// sample is a deal with a value in most fields; get also answers for its account.
func sample(p *Path) crm.Value {
	deal := map[string]crm.Value{
		"name": crm.TextValue("Häusler  renewal"), "account": crm.LinkValue(acmeID), "stage": crm.ChoiceValue("won"),
		"amount": crm.DecimalValue(150050, 2, "EUR"), "discount": crm.DecimalValue(15, 2, ""), "close_date": day("2026-01-31"),
		"seen_at": crm.InstantValue(time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)), "done": crm.BoolValue(true),
		"tags": crm.ChoicesValue("red", "blue"), "phone": crm.PhoneValue("+351 21 123 45 67"), "email": crm.EmailValue("Ana@Example.com"),
		"pieces": crm.IntegerValue(-3), "id": crm.TextValue("x"),
	}
	account := map[string]crm.Value{"name": crm.TextValue("ACME Ltd"),
		"billing_address": crm.AddressValue(crm.PostalAddress{City: "Łódź", Country: "Poland"})}
	if p.Link != nil {
		return p.Of(account[p.Field.Name])
	}
	return p.Of(deal[p.Field.Name])
}

func day(s string) crm.Value {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return crm.DateValue(t)
}

func TestMatch(t *testing.T) {
	schema, deal := testSchema(t)
	for _, c := range []struct {
		text string
		want bool
	}{
		{``, true},
		{`stage == "won"`, true}, {`stage == "Closed Won"`, true}, {`stage != "won"`, false}, {`"won" == stage`, true},
		{`stage in ["open", "won"]`, true}, {`stage in []`, false}, {`!(stage in ["open"])`, true},
		{`name == "hausler renewal"`, true}, {`name.startsWith("HÄUS")`, true}, {`name.endsWith("wal")`, true}, {`name.contains("x")`, false},
		{`name > "hausler"`, true}, {`name < "i"`, true}, {`site == null`, true}, {`site != "example.com"`, true}, {`has(site)`, false}, {`!has(site)`, true},
		{`amount >= 1500.5 && amount <= 1500.50`, true}, {`amount > 1500.499999999`, true}, {`amount == "1500.5 EUR"`, true}, {`amount == "1500.5 USD"`, false}, {`amount < "9999 USD"`, false},
		{`discount == 0.15`, true}, {`discount == 0.150000000`, true}, {`0.2 > discount`, true}, {`discount < -0.2`, false},
		{`pieces == -3`, true}, {`pieces < 0`, true}, {`pieces in [1, -3]`, true},
		{`close_date == date("2026-01-31")`, true}, {`close_date > date("2026-01-31")`, false}, {`close_date in [date("2026-01-31")]`, true},
		{`seen_at >= timestamp("2026-01-31T11:00:00+01:00")`, true}, {`seen_at > date("2026-01-31")`, true},
		{`done`, true}, {`!done`, false}, {`done == false`, false}, {`!!done`, true},
		{`"RED" in tags`, true}, {`"green" in tags`, false}, {`!("green" in tags)`, true}, {`tags == null`, false},
		{`phone == "00351211234567"`, true}, {`phone.contains("123 4")`, true}, {`email == "ana@example.com"`, true},
		{`account.name.contains("acme")`, true}, {`account.billing_address.city == "lodz"`, true}, {`account.employees > 0`, false}, {`account.employees != 5`, true},
		{`account == "01000000-0000-0000-0000-000000000000"`, true}, {`about == null`, true}, {`name == ''`, false}, {`name != ""`, true},
		{`stage == "lost" || stage == "won" && done`, true}, {`(stage == "lost" || stage == "won") && !done`, false}, {`!(done && stage == "lost")`, true},
		{`address.city == null`, true}, {`id == "X"`, true},
	} {
		x, err := Parse(schema, deal, c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := x.Match(sample); got != c.want {
			t.Errorf("%s matches: %v, want %v", c.text, got, c.want)
		}
	}
}

func TestCanonicalText(t *testing.T) {
	schema, deal := testSchema(t)
	for text, want := range map[string]string{
		"":                                    "",
		"  done ":                             `done == true`,
		"!done":                               `done != true`,
		"has(name)":                           `name != null`,
		"!has( name )":                        `name == null`,
		`1.50 <= discount`:                    `discount >= 1.50`,
		`'a"b\'' == name`:                     `name == "a\"b'"`,
		`(done)&&(stage=="WON"||name<"b")`:    `done == true && (stage == "won" || name < "b")`,
		`done && (done && (pieces > 1))`:      `done == true && done == true && pieces > 1`,
		`(done && pieces>1) || pieces<0`:      `done == true && pieces > 1 || pieces < 0`,
		`!(pieces in [1,2,])`:                 `!(pieces in [1, 2])`,
		`!name.contains("\u0061\n")`:          `!name.contains("a\n")`,
		`!(pieces > 1)`:                       `!(pieces > 1)`,
		`seen_at > date("2026-01-31")`:        `seen_at > timestamp("2026-01-31T00:00:00.000Z")`,
		`amount > "€ 5"`:                      `amount > "5 EUR"`,
		`"red" in account.tags && site==null`: `"red" in account.tags && site == null`,
	} {
		x, err := Parse(schema, deal, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if x.String() != want {
			t.Errorf("%s: canonical text %s, want %s", text, x, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	schema, deal := testSchema(t)
	deep := func(n int) string { return strings.Repeat("(", n) + "done" + strings.Repeat(")", n) }
	if _, err := Parse(schema, deal, deep(MaxDepth)); err != nil {
		t.Errorf("%d parentheses: %v", MaxDepth, err)
	}
	for _, c := range []struct {
		text string
		code crm.Code
		want string
	}{
		{`stgae == "won"`, crm.CodeUnknownField, `1:1: deal has no field "stgae"; did you mean "stage"?`},
		{"done &&\n  account.nmae == 'x'", crm.CodeUnknownField, `2:11: account has no field "nmae"; did you mean "name"?`},
		{`account.billing_address.town == "x"`, crm.CodeUnknownField, `1:25: an address has no part town`},
		{`stage == "wno"`, crm.CodeInvalid, `1:10: stage: "wno" is not one of: open, won, lost; did you mean "won"?`},
		{`äname == "x"`, crm.CodeInvalid, `1:1: "ä" has no meaning here`},
		{`name == "ä" & done`, crm.CodeInvalid, `1:13: write && for and`},
		{`name = "x"`, crm.CodeInvalid, `1:6: write ==`},
		{`pieces == 1.5`, crm.CodeInvalid, `1:11: pieces: "1.5" is not a whole number`},
		{`pieces == "1"`, crm.CodeInvalid, `1:11: pieces is of kind integer; compare it with a whole number`},
		{`name == 5`, crm.CodeInvalid, `compare it with a text in quotes`},
		{`close_date > "2026-01-31"`, crm.CodeInvalid, `compare it with a date, as date("2026-01-31")`},
		{`close_date > date("31.1.2026")`, crm.CodeInvalid, `"31.1.2026" is not a date`},
		{`seen_at > timestamp("2026-01-31")`, crm.CodeInvalid, `is not a time`},
		{`seen_at > timestamp("9999-12-31T23:00:00-10:00")`, crm.CodeInvalid, `the year 10000`},
		{`amount > "5"`, crm.CodeInvalid, `names its currency`},
		{`discount > "5 EUR"`, crm.CodeInvalid, `kind decimal`},
		{`discount > 0.1234567890`, crm.CodeInvalid, `at most 9 decimals`},
		{`phone > "123"`, crm.CodeInvalid, `have no order`},
		{`name > null`, crm.CodeInvalid, `no value has no order`},
		{`tags == "red"`, crm.CodeInvalid, `"red" in tags`},
		{`address == "x"`, crm.CodeInvalid, `name a part, as address.city`},
		{`"red" in stage`, crm.CodeInvalid, `1:10: stage is not a set`},
		{`stage in ["won", ""]`, crm.CodeInvalid, `1:18: no value in a list`},
		{`stage in [["won"]]`, crm.CodeInvalid, `a list holds literals only`},
		{`stage in [stage]`, crm.CodeInvalid, `a list holds literals only`},
		{`name == stage`, crm.CodeInvalid, `1:9: two fields`},
		{`name == won`, crm.CodeUnknownField, `1:9: deal has no field "won"`},
		{`1 == 1`, crm.CodeInvalid, `two literals`},
		{`1 < pieces < 3`, crm.CodeInvalid, `do not chain`},
		{`!stage == "won"`, crm.CodeInvalid, `stage alone is no condition`},
		{`!done == true`, crm.CodeInvalid, `1:7: a condition cannot be compared`},
		{`true`, crm.CodeInvalid, `a literal alone`},
		{`name.contains("")`, crm.CodeInvalid, `an empty text`},
		{`name.contain("x")`, crm.CodeInvalid, `did you mean "contains"?`},
		{`pieces.contains("x")`, crm.CodeInvalid, `contains asks a text`},
		{`name.contains(5)`, crm.CodeInvalid, `contains takes a text`},
		{`hsa(name)`, crm.CodeInvalid, `did you mean "has"?`},
		{`has("name")`, crm.CodeInvalid, `has asks about a field`},
		{`has(name.contains("x"))`, crm.CodeInvalid, `has asks about a field`},
		{`account.parent.name == "x"`, crm.CodeInvalid, `1:16: a path follows one link`},
		{`about.name == "x"`, crm.CodeInvalid, `may link to any entity`},
		{`name.first == "x"`, crm.CodeInvalid, `name has no parts`},
		{`name == "x`, crm.CodeInvalid, `1:9: the text does not end`},
		{"name == \"x\ny\"", crm.CodeInvalid, `a line break inside`},
		{`name == "\q"`, crm.CodeInvalid, `1:10: unknown escape`},
		{"name == \"\xff\"", crm.CodeInvalid, `not UTF-8`},
		{`(done`, crm.CodeInvalid, `1:6: want ), not the end`},
		{`done)`, crm.CodeInvalid, `1:5: ) is out of place`},
		{`done done`, crm.CodeInvalid, `done is out of place`},
		{`done &&`, crm.CodeInvalid, `want a field or a literal, not the end`},
		{`pieces == - stage`, crm.CodeInvalid, `want a number after -`},
		{`pieces == 12abc`, crm.CodeInvalid, `a number is digits`},
		{`package == 1`, crm.CodeInvalid, `reserved word`},
		{deep(MaxDepth + 1), crm.CodeInvalid, `1:65: more than 64 levels`},
		{strings.Repeat("!", MaxDepth+1) + "done", crm.CodeInvalid, `more than 64 levels`},
		{strings.Repeat(" ", MaxLength) + "done", crm.CodeTooLarge, `at most 8192`},
		{"done" + strings.Repeat("||done", 1300), crm.CodeTooLarge, `written out`},
	} {
		_, err := Parse(schema, deal, c.text)
		if err == nil || crm.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: %v (%s), want %s with %q", c.text, err, crm.CodeOf(err), c.code, c.want)
		}
	}
}

func TestBounds(t *testing.T) {
	schema, deal := testSchema(t)
	opNames := map[Op]string{Eq: "==", In: "in", Lt: "<", Le: "<=", Gt: ">", Ge: ">=", Prefix: "prefix"}
	for text, want := range map[string]string{
		``:                                "",
		`stage == "won" && discount > 1`:  "stage==won discount>1",
		`stage == "won" || discount > 1`:  "",
		`!(pieces > 1) && pieces <= 5`:    "pieces<=5",
		`amount > 5 && amount <= "7 EUR"`: "amount<=7 EUR",
		`"red" in tags && done`:           "tags==red done==true",
		`name > "b" && name < "c"`:        "name>=b name<=c",
		`name.startsWith("Acme") && phone.startsWith("+3") && name.contains("x")`: "nameprefixAcme",
		`account.name == "x" && address.city == "y" && name != "x"`:               "",
		`pieces in [3, 1] && email == null && has(site)`:                          "piecesin3,1",
	} {
		x, err := Parse(schema, deal, text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range x.Bounds() {
			var vals []string
			for _, v := range b.Values {
				vals = append(vals, v.String())
			}
			got = append(got, b.Field.Name+opNames[b.Op]+strings.Join(vals, ","))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: bounds %q, want %q", text, got, want)
		}
	}
}

func TestSortAndFields(t *testing.T) {
	_, deal := testSchema(t)
	keys, err := ParseSort(deal, " -close_date, name")
	if err != nil || len(keys) != 2 || keys[0] != (Key{deal.Field("close_date"), true}) || keys[1] != (Key{deal.Field("name"), false}) {
		t.Errorf("sort: %v %v", keys, err)
	}
	if keys, err := ParseSort(deal, " "); err != nil || keys != nil {
		t.Errorf("no sort: %v %v", keys, err)
	}
	fields, err := ParseFields(deal, "stage,name,stage")
	if err != nil || len(fields) != 2 || fields[0].Name != "stage" || fields[1].Name != "name" {
		t.Errorf("fields: %v %v", fields, err)
	}
	for text, want := range map[string]string{
		"-close_date,nmae": `1:13: deal has no field "nmae"; did you mean "name"?`, "tags": "has no order", "name,-name": "named twice", "name,,stage": `1:6: deal has no field ""`,
	} {
		if _, err := ParseSort(deal, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("sort %s: %v, want %s", text, err, want)
		}
	}
	if _, err := ParseFields(deal, "name, stag"); err == nil || crm.CodeOf(err) != crm.CodeUnknownField || !strings.Contains(err.Error(), `1:7`) {
		t.Errorf("fields: %v", err)
	}
	for limit, want := range map[int]int{0: 50, -1: 50, 20: 20, 5000: 1000} {
		if got := (List{Limit: limit}).PageSize(); got != want {
			t.Errorf("page size of limit %d is %d, want %d", limit, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	schema, deal := testSchema(t)
	p, err := ParsePath(schema, deal, "account.billing_address.city")
	if err != nil || p.Link != deal.Field("account") || p.Entity.Name != "account" || p.Part != "city" || p.Kind() != crm.Text {
		t.Fatalf("%+v %v", p, err)
	}
	r := &crm.Record{Cells: []crm.Cell{{Field: 17, Value: crm.AddressValue(crm.PostalAddress{City: "Porto", Country: "PT"})}}}
	if got := p.Value(r); !got.Equal(crm.TextValue("Porto")) {
		t.Errorf("value %s", got)
	}
	if !p.Value(nil).IsNull() {
		t.Error("a path through no record has a value")
	}
	if _, err := ParsePath(schema, deal, "acount.name"); crm.CodeOf(err) != crm.CodeUnknownField {
		t.Errorf("unknown link: %v", err)
	}
	if _, err := ParsePath(schema, deal, ""); crm.CodeOf(err) != crm.CodeUnknownField {
		t.Errorf("empty path: %v", err)
	}
}

// records returns a get over random values of every kind, drawn from few so
// that comparisons hit; literals of the filter are among them.
func records(x *Expr, r *rand.Rand) func(*Path) crm.Value {
	pool := map[crm.Kind][]crm.Value{
		crm.Text: {crm.TextValue("Acme"), crm.TextValue("b"), crm.TextValue("ça va")}, crm.Choice: {crm.ChoiceValue("won"), crm.ChoiceValue("open")},
		crm.Integer: {crm.IntegerValue(0), crm.IntegerValue(-5), crm.IntegerValue(1 << 62)}, crm.Bool: {crm.BoolValue(true), crm.BoolValue(false)},
		crm.Decimal: {crm.DecimalValue(5, 0, ""), crm.DecimalValue(500, 2, "EUR"), crm.DecimalValue(-1<<63, 9, "USD")},
		crm.Date:    {crm.DateDays(20000), crm.DateDays(-3)}, crm.Instant: {crm.InstantMillis(0), crm.InstantMillis(1 << 41)},
		crm.Choices: {crm.ChoicesValue("red"), crm.ChoicesValue("red", "Blue")}, crm.Link: {crm.LinkValue(acmeID), crm.LinkValue(otherID)},
		crm.Phone: {crm.PhoneValue("+351 123 4567"), crm.PhoneValue("123")}, crm.Email: {crm.EmailValue("a@b.c")}, crm.URL: {crm.URLValue("https://a.b")},
	}
	var collect func(*Node)
	collect = func(n *Node) {
		for _, v := range n.Values {
			pool[v.Kind()] = append(pool[v.Kind()], v)
		}
		for _, k := range n.Kids {
			collect(k)
		}
	}
	if x != nil {
		collect(x.root)
	}
	picked := map[string]crm.Value{}
	return func(p *Path) crm.Value {
		v, ok := picked[p.String()]
		if vals := pool[p.Kind()]; !ok && len(vals) > 0 && r.IntN(5) > 0 {
			v = vals[r.IntN(len(vals))]
		}
		picked[p.String()] = v
		return v
	}
}

func FuzzParse(f *testing.F) {
	schema, deal := testSchema(f)
	for _, s := range []string{
		`stage == "won" && amount >= 1000 && account.name.contains("acme") && !(stage in ["open","lost"])`,
		`"red" in tags || !done && close_date < date("2026-01-31") || seen_at >= timestamp("2026-01-31T10:00:00.5+02:00")`,
		`!(!has(account.billing_address.city) || amount != "5.00 EUR")`, `phone == '+351 "x"' || email.endsWith('\u00e9') || discount > -0.10`, `((((`, `a.b.c(`, `!!!!`,
	} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		x, err := Parse(schema, deal, text)
		if err != nil {
			if code := crm.CodeOf(err); code == crm.CodeInternal {
				t.Fatalf("%q: %v has no code", text, err)
			}
			return
		}
		again, err := Parse(schema, deal, x.String())
		if err != nil {
			t.Fatalf("%q: canonical text %q: %v", text, x, err)
		}
		if again.String() != x.String() || len(again.Paths()) != len(x.Paths()) || len(again.Bounds()) != len(x.Bounds()) {
			t.Fatalf("%q: canonical text %q parses to %q", text, x, again)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		for range 20 {
			get := records(x, r)
			if x.Match(get) != again.Match(get) {
				t.Fatalf("%q and %q differ", text, x)
			}
			checkBounds(t, x, get)
		}
	})
}

// checkBounds demands that a matching record lies within every bound, by the
// index keys that a store would compare.
func checkBounds(t *testing.T, x *Expr, get func(*Path) crm.Value) {
	if !x.Match(get) {
		return
	}
	for _, b := range x.Bounds() {
		v := get(&Path{Field: b.Field})
		if !within(b, v) {
			t.Fatalf("%q matches %s = %q, which is outside the bound %d %v", x, b.Field.Name, v, b.Op, b.Values)
		}
	}
}

func within(b Bound, v crm.Value) bool {
	if b.Op == Prefix {
		prefix := crm.AppendTextPrefix(nil, b.Field.Kind, b.Values[0].Str())
		return strings.HasPrefix(string(crm.AppendKey(nil, v)), string(prefix))
	}
	keys := []string{string(crm.AppendKey(nil, v))}
	for _, e := range v.Set() {
		keys = append(keys, string(crm.AppendKey(nil, crm.ChoicesValue(e))))
	}
	for _, key := range keys {
		for _, w := range b.Values {
			bound := string(crm.AppendKey(nil, w))
			if c := strings.Compare(key, bound); c == 0 && b.Op != Lt && b.Op != Gt || c < 0 && (b.Op == Lt || b.Op == Le) || c > 0 && (b.Op == Gt || b.Op == Ge) {
				return true
			}
		}
	}
	return false
}

func BenchmarkMatch(b *testing.B) {
	schema, deal := testSchema(b)
	x, err := Parse(schema, deal, `stage == "won" && amount >= 1000 && pieces < 0`)
	if err != nil {
		b.Fatal(err)
	}
	values := map[*Path]crm.Value{}
	for _, p := range x.Paths() {
		values[p] = sample(p)
	}
	get := func(p *Path) crm.Value { return values[p] }
	for b.Loop() {
		if !x.Match(get) {
			b.Fatal("no match")
		}
	}
}
