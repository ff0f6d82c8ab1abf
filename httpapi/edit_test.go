package httpapi

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

// An order and its lines stand or fall together.
func TestMutations(t *testing.T) {
	s := newSite(t, nil)
	s.mustCreate(t, "account", Fields{"id": acme, "name": "Acme", "tags": []string{"red"}})
	order := `{"op":"create","entity":"order","record":"` + lines + `","fields":{"account":"` + acme + `","order_date":"2026-11-21","number":"X-1"}}`
	line := `{"op":"create","entity":"order_line","fields":{"order":"` + lines + `","quantity":"2","unit_price":"3.50 EUR"}}`
	post := func(name, body string, status int, code string, want ...string) {
		s.run(t, scenario{name: name, method: "POST", path: "/api/v1/mutations", body: body, status: status, code: code, want: want})
	}
	post("order with a bad line", `{"intent":"order.create","ops":[`+order+`,{"op":"create","entity":"order_line","fields":{"order":"`+lines+`"}}]}`, 422, "required")
	s.run(t, scenario{name: "no half order", method: "GET", path: "/api/v1/order/" + lines, status: 404, code: "not_found"})
	post("order with lines", `{"intent":"order.create","ops":[`+order+`,`+line+`,`+line+`]}`, 201, "", `"saved":"everywhere"`, `"records":[{"id":"`+lines, `"unit_price":{"amount":"3.50","currency":"EUR"}`)
	post("every kind", `{"ops":[{"op":"patch","entity":"account","record":"`+acme+`","fields":{"rating":"hot"}},
		{"op":"set-add","entity":"account","record":"`+acme+`","fields":{"tags":["blue"]}},
		{"op":"set-remove","entity":"account","record":"`+acme+`","fields":{"tags":["red"]}},
		{"op":"transition","entity":"order","record":"`+lines+`","from":"draft","fields":{"status":"open"}}]}`, 200, "", `"rating":"hot"`, `"tags":["blue"]`, `"status":"open"`)
	post("guard holds", `{"ops":[{"op":"patch","entity":"account","record":"`+acme+`","fields":{"rating":"cold"}}],"guards":[{"kind":"equals","entity":"account","record":"`+acme+`","field":"rating","value":"hot"}]}`, 200, "")
	post("guard fails", `{"ops":[{"op":"patch","entity":"account","record":"`+acme+`","fields":{"rating":"warm"}}],"guards":[{"kind":"equals","entity":"account","record":"`+acme+`","field":"rating","value":"hot"}]}`, 409, "guard_failed")
	post("guard of existence", `{"ops":[{"op":"delete","entity":"order","record":"`+lines+`"}],"guards":[{"kind":"exists","entity":"account","record":"`+acme+`"}]}`, 200, "", `"records":[null]`)
	post("no ops", `{"intent":"x","ops":[]}`, 400, "invalid")
	post("unknown member", `{"intents":"x","ops":[]}`, 400, "unknown_field", `did you mean \"intent\"`)
	post("ops no list", `{"ops":{}}`, 400, "invalid", "want a list")
	post("op no object", `{"ops":[1]}`, 400, "invalid", "ops[0]")
	post("unknown op", `{"ops":[{"op":"upsert","entity":"account","record":"`+acme+`"}]}`, 400, "invalid", "ops[0] op")
	post("unknown entity", `{"ops":[`+line+`,{"op":"create","entity":"ordr"}]}`, 404, "unknown_entity", `"item":"ops[1] ordr"`, `did you mean \"order\"`)
	post("unknown field", `{"ops":[{"op":"patch","entity":"account","record":"`+acme+`","fields":{"ratign":"hot"}}]}`, 400, "unknown_field", "ops[0] ratign")
	post("bad record", `{"ops":[{"op":"patch","entity":"account","record":"7","fields":{"rating":"hot"}}]}`, 400, "invalid")
	post("bad seen", `{"ops":[{"op":"patch","entity":"account","record":"`+acme+`","seen":"x","fields":{"rating":"hot"}}]}`, 400, "invalid")
	post("absent record", `{"ops":[{"op":"patch","entity":"account","record":"`+none+`","fields":{"rating":"hot"}}]}`, 404, "not_found")
	post("bad guard", `{"ops":[`+line+`],"guards":[{"kind":"never","entity":"account","record":"`+acme+`"}]}`, 400, "invalid", "guards[0] kind")
	post("guard of unknown field", `{"ops":[`+line+`],"guards":[{"kind":"equals","entity":"account","record":"`+acme+`","field":"nam"}]}`, 400, "unknown_field")
}

// A token that is not current is no error: the edit is judged field by field.
func TestConcurrentEdits(t *testing.T) {
	s := newSite(t, nil)
	made := s.mustCreate(t, "account", Fields{"name": "Acme", "rating": "cold"})
	id, token := made.Item.ID, made.Item.Token
	rid, err := crm.ParseRecordID(id)
	must(t, err)
	base, err := crm.ParseToken(token)
	must(t, err)
	rating := func() crm.Op {
		e := entityByID(t, s, catalog.Account)
		return crm.Op{Kind: crm.OpPatch, Entity: e.ID, Record: rid, Cells: []crm.Input{{Field: e.Field("rating").ID, Value: crm.ChoiceValue("warm")}}}
	}
	s.far(base, rating())
	out, err := s.client.Patch(t.Context(), "account", id, token, Fields{"rating": "hot"}, 0)
	must(t, err)
	if out.Outcome == nil || out.Outcome.Kind != "merged" || out.Item.Text("rating") != "hot" {
		t.Fatalf("a concurrent edit: %+v %s", out.Outcome, out.Record)
	}
	list, err := s.client.Attention(t.Context(), Watch{Kind: "conflict", Record: id})
	must(t, err)
	if len(list.Items) != 1 {
		t.Fatalf("attention list: %+v", list.Items)
	}
	a := list.Items[0]
	if string(a.Kept.Value) != `"hot"` || a.Kept.Actor != "ana" || string(a.Lost.Value) != `"warm"` || a.Lost.Actor != "far" || a.Title != "Acme" || a.Label != "Rating" {
		t.Errorf("item: %+v", a)
	}
	if got := strings.Join(a.Takes, " "); got != "lost kept dismiss" {
		t.Errorf("takes %s", got)
	}
	done, err := s.client.Resolve(t.Context(), a.ID, "lost", 0)
	must(t, err)
	if done.Outcome.Kind != "accepted" || done.Items[0].Text("rating") != "warm" || done.Items[1].Text("resolution") != "lost" {
		t.Errorf("resolved: %+v %s", done.Outcome, done.Records)
	}
	_, err = s.client.Resolve(t.Context(), a.ID, "kept", 0)
	if crm.CodeOf(err) != crm.CodeGuard {
		t.Errorf("resolved twice: %v", err)
	}
	// Having seen everything, the same author overwrites without a conflict.
	out, err = s.client.Patch(t.Context(), "account", id, "", Fields{"rating": "cold"}, 0)
	must(t, err)
	if out.Outcome.Kind != "accepted" {
		t.Errorf("a later edit: %+v", out.Outcome)
	}
}

func entityByID(t *testing.T, s *site, id crm.EntityID) *crm.Entity {
	t.Helper()
	schema, err := s.client.Schema(t.Context())
	must(t, err)
	return schema.EntityByID(id)
}

// A refused edit can be applied again once what it broke is mended.
func TestAttentionApply(t *testing.T) {
	s := newSite(t, nil)
	first := s.mustCreate(t, "user", Fields{"name": "Ana", "email": "ana@example.com"})
	_, err := s.client.Create(t.Context(), "user", Fields{"name": "Anna", "email": "ANA@example.com"}, 0)
	if crm.CodeOf(err) != crm.CodeDuplicateKey || OutcomeOf(err) == nil || OutcomeOf(err).Kind != "rejected" {
		t.Fatalf("a duplicate: %v, outcome %+v", err, OutcomeOf(err))
	}
	list, err := s.client.Attention(t.Context(), Watch{Status: "open", Kind: "rejected"})
	must(t, err)
	a := list.Items[0]
	if len(list.Items) != 1 || len(a.Ops) != 1 || a.Ops[0].Op != "create" || strings.Join(a.Takes, " ") != "apply dismiss" {
		t.Fatalf("attention: %+v", list.Items)
	}
	_, err = s.client.Patch(t.Context(), "user", first.Item.ID, "", Fields{"email": "ana.old@example.com"}, 0)
	must(t, err)
	done, err := s.client.Resolve(t.Context(), a.ID, "apply", 0)
	must(t, err)
	if done.Items[0].Text("name") != "Anna" || done.Items[1].Text("status") != "resolved" {
		t.Errorf("applied: %s", done.Records)
	}
	one, err := s.client.AttentionItem(t.Context(), a.ID)
	must(t, err)
	if one.Status != "resolved" || one.Takes != nil {
		t.Errorf("item: %+v", one)
	}
	item := "/api/v1/attention/" + a.ID
	for _, sc := range []scenario{
		{name: "none open", method: "GET", path: "/api/v1/attention", status: 200, want: []string{`{"items":[]}`}, wantHeader: map[string]string{headerMark: ""}},
		{name: "all", method: "GET", path: "/api/v1/attention?status=all&limit=1", status: 200, want: []string{a.ID}},
		{name: "bad status", method: "GET", path: "/api/v1/attention?status=shut", status: 400, code: "invalid", want: []string{"open, resolved, dismissed"}},
		{name: "bad kind", method: "GET", path: "/api/v1/attention?kind=odd", status: 400, code: "invalid"},
		{name: "bad record", method: "GET", path: "/api/v1/attention?record=odd", status: 400, code: "invalid"},
		{name: "absent", method: "GET", path: "/api/v1/attention/" + none, status: 404, code: "not_found"},
		{name: "resolve absent", method: "POST", path: "/api/v1/attention/" + none + "/resolve", body: `{"take":"kept"}`, status: 404, code: "not_found"},
		{name: "resolve without body", method: "POST", path: item + "/resolve", status: 400, code: "invalid"},
		{name: "resolve unknown member", method: "POST", path: item + "/resolve", body: `{"taek":"kept"}`, status: 400, code: "unknown_field", want: []string{`did you mean \"take\"`}},
	} {
		s.run(t, sc)
	}
}

func TestAttentionDismiss(t *testing.T) {
	s := newSite(t, nil)
	_, err := s.client.Create(t.Context(), "account", Fields{}, 0)
	if crm.CodeOf(err) != crm.CodeRequired {
		t.Fatal(err)
	}
	list, err := s.client.Attention(t.Context(), Watch{})
	must(t, err)
	item := "/api/v1/attention/" + list.Items[0].ID + "/resolve"
	s.run(t, scenario{name: "unknown take", method: "POST", path: item, body: `{"take":"both"}`, status: 400, code: "invalid", want: []string{"apply, dismiss"}})
	s.run(t, scenario{name: "no value to take", method: "POST", path: item, body: `{"take":"lost"}`, status: 400, code: "invalid"})
	s.run(t, scenario{name: "dismiss", method: "POST", path: item, body: `{"take":"dismiss"}`, status: 200, want: []string{`"status":"dismissed"`}})
}

// An edit at a branch whose line is cut is saved here, visible at once, and
// everywhere once the master decides.
func TestSavedHere(t *testing.T) {
	s := newSite(t, nil)
	made := s.mustCreate(t, "account", Fields{"name": "Acme"})
	s.hold()
	out, err := s.client.Patch(t.Context(), "account", made.Item.ID, made.Item.Token, Fields{"rating": "hot"}, 0)
	must(t, err)
	if out.Saved != "here" || out.Outcome != nil || out.Item.Text("rating") != "hot" || seqOf(t, out.Item.Token) != out.Seq || out.Mark.Seq != out.Seq {
		t.Fatalf("saved here: %+v %s mark %+v", out.Written, out.Record, out.Mark)
	}
	it, f, err := s.client.Get(t.Context(), "account", made.Item.ID, Asked{Demand: crm.Demand{Level: crm.Session, Session: out.Mark}})
	must(t, err)
	if it.Text("rating") != "hot" || f.Pending != 1 || f.Connected {
		t.Errorf("read own write: %s, %+v", it.Fields["rating"], f)
	}
	s.run(t, scenario{name: "waits in vain", method: "PATCH", path: "/api/v1/account/" + made.Item.ID + "?wait=decided&timeout=1ms", body: `{"rating":"cold"}`,
		status: 202, want: []string{`"saved":"here"`, `"outcome":null`}, wantHeader: map[string]string{"Tradepost-Saved": "here"}})
	s.run(t, scenario{name: "refused here", method: "POST", path: "/api/v1/account", body: `{}`, status: 422, code: "required", notWant: []string{"outcome"}})
	answered := make(chan Edited)
	go func() {
		defer close(answered)
		out, err := s.client.Patch(t.Context(), "account", made.Item.ID, "", Fields{"rating": "warm"}, Wait(20*time.Second))
		if err != nil {
			t.Error(err)
		}
		answered <- out
	}()
	s.waitFor(func() bool { return len(s.pending) == 3 })
	s.settle()
	if out := <-answered; out.Saved != "everywhere" || out.Outcome == nil || out.Outcome.Kind != "accepted" {
		t.Errorf("waited: %+v", out.Written)
	}
	it, f, err = s.client.Get(t.Context(), "account", made.Item.ID, Asked{})
	must(t, err)
	if it.Text("rating") != "warm" || f.Pending != 0 || seqOf(t, it.Token) != 0 {
		t.Errorf("after the master: %s %s %+v", it.Fields["rating"], it.Token, f)
	}
}

func TestItem_RoundTrip(t *testing.T) {
	in := `{"_entity":"field","_token":"10-3","entity":16,"id":"` + acme + `","name":"x","set":["a","b"],"sum":{"amount":"1.50","currency":"EUR"},"owner":{"id":"` + none + `","title":"Ana"},"place":{"city":"Köln","country":"DE"},"none":null}`
	var it Item
	must(t, json.Unmarshal([]byte(in), &it))
	if it.Entity != "field" || it.Token != "10-3" || it.ID != acme {
		t.Errorf("%+v", it)
	}
	for field, want := range map[string]string{"entity": "16", "name": "x", "set": "a;b", "sum": "1.50 EUR", "owner": "Ana", "place": "Köln, DE", "none": "", "absent": ""} {
		if got := it.Text(field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	out, err := json.Marshal(it)
	must(t, err)
	var again Item
	must(t, json.Unmarshal(out, &again))
	if !reflect.DeepEqual(again, it) {
		t.Errorf("%+v comes back as %+v", it, again)
	}
}
