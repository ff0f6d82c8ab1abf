package httpapi

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// The document is whole: every reference leads somewhere, every operation has an
// id of its own and an answer, every parameter of a path is described, every
// route is in it and every live entity has its paths, one made a moment ago too.
func TestOpenAPI(t *testing.T) {
	s := newSite(t, nil)
	before := s.document(t)
	boat := &crm.Entity{ID: 200, Name: "boat", Label: "Boat", Plural: "Boats", Home: crm.HomeRoot, Title: []string{"name"}, Fields: []*crm.Field{
		{ID: 16, Name: "name", Label: "Name", Kind: crm.Text, Required: true, Indexed: true},
		{ID: 17, Name: "sails", Label: "Sails", Kind: crm.Choice, Options: []crm.Option{{Value: "one"}, {Value: "two"}}},
		{ID: 18, Name: "trips", Label: "Trips", Kind: crm.Integer, Policy: crm.Counter},
	}}
	s.mustCommit(crm.Request{Actor: "admin", Intent: "entity.create", Ops: crm.MetadataOps(boat)})
	doc := s.document(t)
	if has(before, "paths", "/api/v1/boat") || !has(doc, "paths", "/api/v1/boat", "post") {
		t.Error("the new entity is not described")
	}
	if got := dig(doc, "components", "schemas", "boat", "properties", "sails", "enum"); !slices.Equal(texts(got), []string{"one", "two"}) {
		t.Errorf("options: %v", got)
	}
	if got := dig(doc, "components", "schemas", "boat.edit", "x-required-on-create"); !slices.Equal(texts(got), []string{"name"}) {
		t.Errorf("required: %v", got)
	}
	checkReferences(t, doc, doc)
	checkOperations(t, doc)
	paths := dig(doc, "paths").(map[string]any)
	for _, r := range s.server.routes() {
		if strings.Contains(r.path, "{entity}") {
			for _, e := range schemaOf(t, s).Entities {
				path := strings.Replace(r.path, "{entity}", e.Name, 1)
				if !has(doc, "paths", path, strings.ToLower(r.method)) && reserved[path] == nil {
					t.Errorf("%s %s is not described", r.method, path)
				}
			}
		} else if !has(doc, "paths", r.path, strings.ToLower(r.method)) {
			t.Errorf("%s %s is not described", r.method, r.path)
		}
	}
	if len(paths) < 60 {
		t.Errorf("%d paths", len(paths))
	}
	// What is described works.
	made := s.mustCreate(t, "boat", Fields{"name": "Nau", "trips": 2})
	out, err := s.client.Patch(t.Context(), "boat", made.Item.ID, "", Fields{"trips": map[string]int{"add": 5}}, 0)
	must(t, err)
	if out.Item.Text("trips") != "7" {
		t.Errorf("a counter: %s", out.Record)
	}
	s.run(t, scenario{name: "counter to remove from", method: "PATCH", path: "/api/v1/boat/" + made.Item.ID, body: `{"trips":{"remove":1}}`, status: 400, code: "unknown_field"})
}

func schemaOf(t *testing.T, s *site) *crm.Schema {
	t.Helper()
	schema, err := s.client.Schema(t.Context())
	must(t, err)
	return schema
}

func (s *site) document(t *testing.T) map[string]any {
	t.Helper()
	_, body := s.send(t, scenario{method: "GET", path: "/openapi.json"})
	var doc map[string]any
	must(t, json.Unmarshal([]byte(body), &doc))
	if doc["openapi"] != "3.1.0" || dig(doc, "info", "title") == nil || dig(doc, "info", "version") == nil {
		t.Errorf("head of the document: %.200s", body)
	}
	return doc
}

func dig(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func has(v any, keys ...string) bool { return dig(v, keys...) != nil }

func texts(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, x := range list {
		s, _ := x.(string)
		out = append(out, s)
	}
	return out
}

func checkReferences(t *testing.T, doc map[string]any, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		if to, ok := v["$ref"].(string); ok && !has(doc, strings.Split(strings.TrimPrefix(to, "#/"), "/")...) {
			t.Errorf("%s leads nowhere", to)
		}
		for _, x := range v {
			checkReferences(t, doc, x)
		}
	case []any:
		for _, x := range v {
			checkReferences(t, doc, x)
		}
	}
}

var pathVariable = regexp.MustCompile(`\{(\w+)\}`)

func checkOperations(t *testing.T, doc map[string]any) {
	t.Helper()
	seen := map[string]bool{}
	tagged := map[string]bool{}
	for _, tag := range doc["tags"].([]any) {
		tagged[dig(tag, "name").(string)] = true
	}
	for path, item := range doc["paths"].(map[string]any) {
		if n := len(pathVariable.FindAllString(path, -1)); n > 0 {
			params, _ := dig(item, "parameters").([]any)
			if len(params) != n {
				t.Errorf("%s describes %d of %d variables", path, len(params), n)
			}
		}
		for method, op := range item.(map[string]any) {
			if method == "parameters" {
				continue
			}
			id, _ := dig(op, "operationId").(string)
			if id == "" || seen[id] {
				t.Errorf("%s %s: operation id %q", method, path, id)
			}
			seen[id] = true
			if tags := texts(dig(op, "tags")); len(tags) != 1 || !tagged[tags[0]] {
				t.Errorf("%s: tags %v", id, tags)
			}
			answers, _ := dig(op, "responses").(map[string]any)
			if answers["default"] == nil || len(answers) < 2 {
				t.Errorf("%s: answers %v", id, answers)
			}
		}
	}
}

func TestSchema(t *testing.T) {
	s := newSite(t, nil)
	got := schemaOf(t, s)
	var want *crm.Schema
	_, err := s.Read(t.Context(), crm.Demand{Level: crm.Local}, func(rd *store.Reader) error { want = rd.Schema(); return nil })
	must(t, err)
	if got.Version != want.Version || len(got.Entities) != len(want.Entities) {
		t.Fatalf("schema %d with %d entities, want %d with %d", got.Version, len(got.Entities), want.Version, len(want.Entities))
	}
	for _, e := range want.Entities {
		a, err := json.Marshal(schemaText(&crm.Schema{Entities: []*crm.Entity{e}}))
		must(t, err)
		b, err := json.Marshal(schemaText(&crm.Schema{Entities: []*crm.Entity{got.Entity(e.Name)}}))
		must(t, err)
		if string(a) != string(b) {
			t.Errorf("%s\ngot  %s\nwant %s", e.Name, b, a)
		}
	}
	resp, _ := s.send(t, scenario{method: "GET", path: "/api/v1/schema"})
	s.run(t, scenario{name: "unchanged", method: "GET", path: "/api/v1/schema", header: map[string]string{"If-None-Match": resp.Header.Get("ETag")}, status: 304})
	odd := SchemaText{Entities: []EntityText{{ID: 300, Name: "x", Fields: []FieldText{{ID: 16, Name: "f", Field: crm.Field{KindName: "smell"}}}}}}
	if _, err := odd.Schema(); crm.CodeOf(err) != crm.CodeFormat {
		t.Errorf("a kind of the future: %v", err)
	}
}
