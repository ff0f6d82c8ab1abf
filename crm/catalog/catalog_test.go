package catalog

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tradepost-crm/tradepost/crm"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func mustSchema(tb testing.TB) *crm.Schema {
	tb.Helper()
	s, err := crm.NewSchema(0, Entities()...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// records is what a store would hold after ops that only create.
func records(ops []crm.Op) (entities, fields []*crm.Record) {
	for _, op := range ops {
		r := &crm.Record{Entity: op.Entity, ID: op.Record, Stamp: crm.Stamp{Rev: 7}}
		for _, c := range op.Cells {
			r.Cells = append(r.Cells, crm.Cell{Field: c.Field, Value: c.Value})
		}
		slices.SortFunc(r.Cells, func(a, b crm.Cell) int { return cmp.Compare(a.Field, b.Field) })
		if op.Entity == crm.EntityEntity {
			entities = append(entities, r)
		} else {
			fields = append(fields, r)
		}
	}
	return entities, fields
}

func TestOps_RoundTripThroughMetadataRecords(t *testing.T) {
	got, err := crm.SchemaOf(records(Ops()))
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != 7 {
		t.Errorf("version %d, want that of the newest record, 7", got.Version)
	}
	want := mustSchema(t)
	skip := cmpopts.IgnoreUnexported(crm.Entity{})
	for _, name := range want.Names() {
		if diff := gocmp.Diff(want.Entity(name), got.Entity(name), skip, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRequests_EveryPrefixIsASchemaAndFits(t *testing.T) {
	var ops []crm.Op
	for _, req := range Requests("admin") {
		ops = append(ops, req.Ops...)
		if _, err := crm.SchemaOf(records(ops)); err != nil {
			t.Errorf("after %d ops: %v", len(ops), err)
		}
		size := len(crm.AppendMutation(nil, &crm.Mutation{Actor: req.Actor, Intent: req.Intent, Ops: req.Ops}))
		if size > crm.MaxMutation*3/4 {
			t.Errorf("%v: %d bytes leave no room in a mutation of %d", req.Ops[0].Cells[1].Value, size, crm.MaxMutation)
		}
	}
	if !slices.EqualFunc(ops, Ops(), func(a, b crm.Op) bool { return a.Record == b.Record && a.Kind == b.Kind }) {
		t.Error("Requests and Ops differ")
	}
}

// TestEntities_NumbersAreForever compares with a listing that may only grow: a
// changed or missing line breaks every existing cluster.
func TestEntities_NumbersAreForever(t *testing.T) {
	var b strings.Builder
	for _, e := range Entities() {
		fmt.Fprintf(&b, "%d %s\n", e.ID, e.Name)
		for _, f := range e.Fields {
			fmt.Fprintf(&b, "  %d %s %s%s\n", f.ID, f.Name, f.Kind, traits(f))
		}
		for _, x := range e.Indexes {
			fmt.Fprintf(&b, "  index %d %s\n", x.ID, strings.Join(x.Fields, ","))
		}
	}
	const golden = "testdata/numbers.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("numbers changed (-want +got); -update only after adding a line:\n%s", diff)
	}
}

func traits(f *crm.Field) string {
	s := ""
	for _, t := range []struct {
		word string
		on   bool
	}{{"required", f.Required}, {"unique", f.Unique}, {"immutable", f.Immut}, {"money", f.Money}} {
		if t.on {
			s += " " + t.word
		}
	}
	if f.Target != "" {
		s += " → " + f.Target
	}
	if f.Rule() != crm.Latest {
		s += " " + string(f.Rule())
	}
	return s
}

func TestEntities_EveryOneHasTheCommonFields(t *testing.T) {
	for _, e := range mustSchema(t).Entities {
		if e.System {
			continue
		}
		key, own := e.Field("external_id"), e.Field("owner")
		if key == nil || key.ID != 16 || !key.Unique || own == nil || own.ID != 17 || own.Target != "user" {
			t.Errorf("%s: external_id is %+v, owner is %+v", e.Name, key, own)
		}
		if e.Label == "" || e.Plural == "" || len(e.Title) == 0 {
			t.Errorf("%s has no label, plural or title", e.Name)
		}
	}
}

func TestEntities_RootsLeadToAnAccount(t *testing.T) {
	s := mustSchema(t)
	for _, e := range s.Entities {
		if e.System || e.Home != crm.HomeRoot {
			continue
		}
		at := e
		for at.Parent != "" {
			at = s.Entity(at.Field(at.Parent).Target)
		}
		if at.ID != Account {
			t.Errorf("%s leads to %s", e.Name, at.Name)
		}
	}
}

func TestFields_DefaultsOptionsAndMovesAreValid(t *testing.T) {
	for _, e := range mustSchema(t).Entities {
		for _, f := range e.Fields {
			if v, err := f.ParseText(f.Default); err != nil || f.Default != "" && v.IsNull() {
				t.Errorf("%s.%s: default %q: %v, %v", e.Name, f.Name, f.Default, v, err)
			}
			seen := map[string]bool{}
			for _, o := range f.Options {
				for _, s := range []string{o.Value, cmp.Or(o.Label, o.Value)} {
					if v, err := f.ParseText(s); err != nil || f.Kind == crm.Choice && v.Str() != o.Value {
						t.Errorf("%s.%s: option %q read from %q: %v, %v", e.Name, f.Name, o.Value, s, v, err)
					}
				}
				if seen[o.Value] {
					t.Errorf("%s.%s: option %q twice", e.Name, f.Name, o.Value)
				}
				seen[o.Value] = true
			}
			checkMoves(t, e, f, seen)
		}
	}
}

func checkMoves(t *testing.T, e *crm.Entity, f *crm.Field, options map[string]bool) {
	t.Helper()
	if len(f.Moves) > 0 != (f.Rule() == crm.Transition) {
		t.Errorf("%s.%s: policy %s with %d moves", e.Name, f.Name, f.Rule(), len(f.Moves))
	}
	reached := map[string]bool{f.Default: true}
	for i, m := range f.Moves {
		if !options[m[0]] || !options[m[1]] || m[0] == m[1] || slices.Contains(f.Moves[:i], m) {
			t.Errorf("%s.%s: move %q", e.Name, f.Name, m)
		}
		reached[m[1]] = true
	}
	for o := range options {
		if f.Rule() == crm.Transition && !reached[o] {
			t.Errorf("%s.%s: no move leads to %q", e.Name, f.Name, o)
		}
	}
}

func TestOpportunity_Moves(t *testing.T) {
	stage := mustSchema(t).Entity("opportunity").Field("stage")
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"Prospecting", "Negotiation/Review", true},
		{"Negotiation/Review", "Prospecting", true},
		{"Needs Analysis", "Closed Won", true},
		{"Needs Analysis", "Closed Lost", true},
		{"Closed Lost", "Qualification", true},
		{"Closed Lost", "Closed Won", false},
		{"Closed Won", "Closed Lost", false},
		{"Closed Won", "Prospecting", false},
	} {
		if got := stage.Allows(tc.from, tc.to); got != tc.want {
			t.Errorf("%s → %s: %v, want %v", tc.from, tc.to, got, tc.want)
		}
	}
}

func TestEntities_AreFresh(t *testing.T) {
	a := Entities()
	a[0].Fields[0].Name = "changed"
	a[0].Fields[0].Aliases[0] = "changed"
	if f := Entities()[0].Fields[0]; f.Name == "changed" || f.Aliases[0] == "changed" {
		t.Error("two calls share a field")
	}
}
