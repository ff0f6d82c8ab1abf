package httpapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Fixed records of the scenarios.
const (
	acme  = "01900000-0000-7000-8000-000000000001"
	lines = "01900000-0000-7000-8000-000000000002"
	none  = "01900000-0000-7000-8000-0000000000ff"
)

// A scenario is one request and what its answer must be.
type scenario struct {
	name         string
	method, path string
	header       map[string]string
	body         string
	anonymous    bool
	status       int
	code         string            // of the problem; "" expects none
	want         []string          // pieces of the body
	wantHeader   map[string]string // "" demands only that it is there
	notWant      []string
}

func (s *site) run(t *testing.T, sc scenario) {
	t.Helper()
	t.Run(sc.name, func(t *testing.T) {
		t.Helper()
		resp, body := s.send(t, sc)
		if resp.StatusCode != sc.status {
			t.Errorf("%s %s: status %d, want %d\n%s", sc.method, sc.path, resp.StatusCode, sc.status, body)
		}
		if sc.code != "" {
			checkProblem(t, resp, body, sc.code)
		}
		for _, piece := range sc.want {
			if !strings.Contains(body, piece) {
				t.Errorf("%s %s: no %s in\n%s", sc.method, sc.path, piece, body)
			}
		}
		for _, piece := range sc.notWant {
			if strings.Contains(body, piece) {
				t.Errorf("%s %s: %s in\n%s", sc.method, sc.path, piece, body)
			}
		}
		for name, value := range sc.wantHeader {
			if got := resp.Header.Get(name); got == "" || value != "" && got != value {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
	})
}

func (s *site) send(t *testing.T, sc scenario) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), sc.method, s.url+sc.path, strings.NewReader(sc.body))
	must(t, err)
	if !sc.anonymous {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	for name, value := range sc.header {
		r.Header.Set(name, value)
	}
	resp, err := s.client.HTTP.Do(r)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(body)
}

func checkProblem(t *testing.T, resp *http.Response, body, code string) {
	t.Helper()
	var p Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("not a problem: %v\n%s", err, body)
	}
	if string(p.Code) != code || p.Type != "/docs/errors#"+code || p.Status != resp.StatusCode || p.Title == "" || p.Detail == "" || p.RequestID == "" {
		t.Errorf("problem %+v, want code %s", p, code)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestRecords(t *testing.T) {
	s := newSite(t, nil)
	one := "/api/v1/account/" + acme
	for _, sc := range []scenario{
		{name: "create", method: "POST", path: "/api/v1/account", body: `{"id":"` + acme + `","name":"Häusler <b>&\u2028","tags":["red","blue"],"annual_revenue":{"amount":"12.50","currency":"EUR"},"billing_address":{"city":"Köln"},"number_of_employees":7,"website":null}`,
			status: 201, want: []string{`{"saved":"everywhere","node":3,`, `"outcome":{"kind":"accepted"`, `"record":{"id":"` + acme + `","entity":"account","token":"`, `"tags":["blue","red"]`, `"created_by":"ana"`, `\u003cb\u003e`},
			wantHeader: map[string]string{"Location": one, "ETag": "", headerMark: "", "Tradepost-Saved": "everywhere"}},
		{name: "get", method: "GET", path: one, status: 200, want: []string{`"name":"Häusler `, `"annual_revenue":{"amount":"12.50","currency":"EUR"}`, `"billing_address":{"city":"Köln"}`, `"number_of_employees":7`, `"updated_by":"ana"`}, notWant: []string{"website"},
			wantHeader: map[string]string{headerMark: "", headerAsOf: "", headerStaleness: "0.250", headerPending: "0", headerConnected: "true", "Content-Type": "application/json"}},
		{name: "get fields", method: "GET", path: one + "?fields=number_of_employees,website", status: 200, want: []string{`"number_of_employees":7,"website":null}`}, notWant: []string{`"name"`}},
		{name: "get unknown field", method: "GET", path: one + "?fields=nmae", status: 400, code: "unknown_field", want: []string{`did you mean \"name\"`}},
		{name: "get unknown parameter", method: "GET", path: one + "?feilds=name", status: 400, code: "invalid", want: []string{`did you mean \"fields\"`}},
		{name: "get parameter twice", method: "GET", path: one + "?fields=name&fields=tags", status: 400, code: "invalid"},
		{name: "get expand no link", method: "GET", path: one + "?expand=name", status: 400, code: "invalid"},
		{name: "get bad id", method: "GET", path: "/api/v1/account/7", status: 400, code: "invalid", want: []string{"record id"}},
		{name: "get absent", method: "GET", path: "/api/v1/account/" + none, status: 404, code: "not_found"},
		{name: "get unknown entity", method: "GET", path: "/api/v1/acount/" + acme, status: 404, code: "unknown_entity", want: []string{`did you mean \"account\"`}},
		{name: "create again", method: "POST", path: "/api/v1/account", body: `{"id":"` + acme + `","name":"B"}`, status: 409, code: "already_exists", want: []string{`"outcome":{"kind":"rejected"`}},
		{name: "create without required", method: "POST", path: "/api/v1/account", body: `{}`, status: 422, code: "required"},
		{name: "create unknown field", method: "POST", path: "/api/v1/account", body: `{"naem":"B"}`, status: 400, code: "unknown_field", want: []string{`"item":"naem"`, `did you mean \"name\"`}},
		{name: "create wrong type", method: "POST", path: "/api/v1/account", body: `{"name":"B","number_of_employees":"many"}`, status: 400, code: "invalid", want: []string{`"item":"number_of_employees"`}},
		{name: "create system field", method: "POST", path: "/api/v1/account", body: `{"name":"B","created_at":"2020-01-01T00:00:00Z"}`, status: 400, code: "read_only_field"},
		{name: "create bad id", method: "POST", path: "/api/v1/account", body: `{"name":"B","id":"x"}`, status: 400, code: "invalid"},
		{name: "create id of wrong type", method: "POST", path: "/api/v1/account", body: `{"name":"B","id":5}`, status: 400, code: "invalid", want: []string{"want a text"}},
		{name: "create unknown entity", method: "POST", path: "/api/v1/accounts", body: `{}`, status: 404, code: "unknown_entity"},
		{name: "create missing link", method: "POST", path: "/api/v1/contact", body: `{"last_name":"X","account":"` + none + `"}`, status: 404, code: "not_found"},
		{name: "patch", method: "PATCH", path: one, body: `{"rating":"hot","number_of_employees":null}`, status: 200, want: []string{`"rating":"hot"`}, notWant: []string{"number_of_employees"}},
		{name: "patch any token", method: "PATCH", path: one, header: map[string]string{"If-Match": "*"}, body: `{"rating":"cold"}`, status: 200},
		{name: "patch weak token", method: "PATCH", path: one, header: map[string]string{"If-Match": `W/"10-99"`}, body: `{"rating":"warm"}`, status: 200},
		{name: "patch token of an earlier release", method: "PATCH", path: one, header: map[string]string{"If-Match": `"99.0"`}, body: `{"rating":"warm"}`, status: 400, code: "invalid", want: []string{"If-Match", "read the record again"}},
		{name: "patch bad token", method: "PATCH", path: one, header: map[string]string{"If-Match": `"yesterday"`}, body: `{"rating":"hot"}`, status: 400, code: "invalid", want: []string{`"item":"If-Match"`}},
		{name: "patch set", method: "PATCH", path: one, body: `{"tags":{"add":["green"],"remove":["red"]}}`, status: 200, want: []string{`"tags":["blue","green"]`}},
		{name: "patch set wrongly", method: "PATCH", path: one, body: `{"tags":{"ad":["green"]}}`, status: 400, code: "unknown_field", want: []string{`did you mean \"add\"`}},
		{name: "patch nothing", method: "PATCH", path: one, body: `{}`, status: 400, code: "invalid"},
		{name: "patch empty delta", method: "PATCH", path: one, body: `{"tags":{}}`, status: 400, code: "invalid"},
		{name: "patch id", method: "PATCH", path: one, body: `{"id":"` + none + `"}`, status: 400, code: "read_only_field"},
		{name: "patch absent", method: "PATCH", path: "/api/v1/account/" + none, body: `{"rating":"hot"}`, status: 404, code: "not_found"},
		{name: "patch bad choice", method: "PATCH", path: one, body: `{"rating":"tepid"}`, status: 400, code: "invalid", want: []string{"hot, warm, cold"}},
		{name: "delete", method: "DELETE", path: one, status: 200, want: []string{`"record":null`}},
		{name: "get deleted", method: "GET", path: one, status: 410, code: "deleted"},
		{name: "patch deleted", method: "PATCH", path: one, body: `{"rating":"hot"}`, status: 410, code: "deleted"},
		{name: "restore", method: "POST", path: one + "/restore", status: 200, want: []string{`"tags":["blue","green"]`}},
		{name: "get restored", method: "GET", path: one, status: 200},
		{name: "wait", method: "PATCH", path: one + "?wait=decided&timeout=1s", body: `{"rating":"hot"}`, status: 200, want: []string{`"saved":"everywhere"`}},
		{name: "wait for what", method: "PATCH", path: one + "?wait=forever", body: `{"rating":"hot"}`, status: 400, code: "invalid"},
		{name: "wait too long", method: "PATCH", path: one + "?wait=decided&timeout=1h", body: `{"rating":"hot"}`, status: 400, code: "invalid"},
	} {
		s.run(t, sc)
	}
}

func TestConditionalGet(t *testing.T) {
	s := newSite(t, nil)
	made := s.mustCreate(t, "account", Fields{"name": "Acme"})
	path := "/api/v1/account/" + made.Item.ID
	tag := `"` + made.Item.Token + `"`
	s.run(t, scenario{name: "unchanged", method: "GET", path: path, header: map[string]string{"If-None-Match": tag}, status: 304, wantHeader: map[string]string{"ETag": tag, headerMark: ""}})
	s.run(t, scenario{name: "changed", method: "GET", path: path, header: map[string]string{"If-None-Match": `"10-1"`}, status: 200, wantHeader: map[string]string{"ETag": tag}})
	s.run(t, scenario{name: "expanded has no tag", method: "GET", path: path + "?expand=owner", header: map[string]string{"If-None-Match": tag}, status: 200})
}

func TestList(t *testing.T) {
	s := newSite(t, nil)
	owner := s.mustCreate(t, "user", Fields{"name": "Ana Reis", "email": "ana@example.com"})
	for i := range 7 {
		s.mustCreate(t, "account", Fields{"name": fmt.Sprintf("Account %d", i), "number_of_employees": i, "owner": owner.Item.ID, "tags": []string{"t"}})
	}
	for _, sc := range []scenario{
		{name: "all", method: "GET", path: "/api/v1/account", status: 200, want: []string{`{"items":[{"id":"`, `"count":7}`}, notWant: []string{`"next"`}, wantHeader: map[string]string{headerMark: ""}},
		{name: "filtered", method: "GET", path: "/api/v1/account?filter=number_of_employees+%3E+4&sort=-name&fields=name", status: 200, want: []string{`"name":"Account 6"},{"id":`, `"name":"Account 5"}],"count":2}`}},
		{name: "first page", method: "GET", path: "/api/v1/account?limit=3&sort=name", status: 200, want: []string{`"next":"`, `"count":7`}},
		{name: "filtered page has no count", method: "GET", path: "/api/v1/account?limit=3&filter=number_of_employees+%3E+1", status: 200, want: []string{`"next":"`}, notWant: []string{`"count"`}},
		{name: "over a link", method: "GET", path: `/api/v1/account?filter=owner.name+%3D%3D+"ana+reis"`, status: 200, want: []string{`"count":7`}},
		{name: "expanded", method: "GET", path: "/api/v1/account?expand=owner&limit=1", status: 200, want: []string{`"owner":{"id":"` + owner.Item.ID + `","title":"Ana Reis"}`}},
		{name: "all expanded", method: "GET", path: "/api/v1/account?expand=*&limit=1", status: 200, want: []string{`"title":"Ana Reis"`}},
		{name: "bad filter", method: "GET", path: "/api/v1/account?filter=name+%3D%3D", status: 400, code: "invalid", want: []string{`"item":"filter 1:8"`}},
		{name: "filter of unknown field", method: "GET", path: "/api/v1/account?filter=nam+%3D%3D+null", status: 400, code: "unknown_field", want: []string{`"item":"filter 1:1"`, `did you mean \"name\"`}},
		{name: "bad sort", method: "GET", path: "/api/v1/account?sort=tags", status: 400, code: "invalid", want: []string{`"item":"sort 1:1"`}},
		{name: "bad limit", method: "GET", path: "/api/v1/account?limit=0", status: 400, code: "invalid"},
		{name: "bad cursor", method: "GET", path: "/api/v1/account?cursor=zzz", status: 400, code: "invalid"},
		{name: "bad query", method: "GET", path: "/api/v1/account?filter=%zz", status: 400, code: "invalid"},
		{name: "unknown entity", method: "GET", path: "/api/v1/acounts", status: 404, code: "unknown_entity"},
		{name: "system entity", method: "GET", path: "/api/v1/territory", status: 200, want: []string{`"code":"lis"`}},
		{name: "moved names", method: "GET", path: "/api/v1/field?limit=1", status: 200, want: []string{`"_entity":"field","token":"`, `"entity":`}},
		{name: "search", method: "GET", path: "/api/v1/search?q=acc+6", status: 200, want: []string{`"entity":"account","title":"Account 6","token":"`}},
		{name: "search within", method: "GET", path: "/api/v1/search?q=ana&entity=account,contact", status: 200, want: []string{`{"items":[]}`}},
		{name: "search nothing", method: "GET", path: "/api/v1/search?q=...", status: 400, code: "invalid"},
		{name: "search unknown entity", method: "GET", path: "/api/v1/search?q=a&entity=zebra", status: 404, code: "unknown_entity"},
		{name: "search limit", method: "GET", path: "/api/v1/search?q=a&limit=5000", status: 400, code: "invalid"},
		{name: "report", method: "GET", path: "/api/v1/reports?entity=account&group=owner.name&measure=count,sum(number_of_employees)+as+staff", status: 200,
			want: []string{`{"columns":[{"name":"owner.name","kind":"text"},{"name":"count","kind":"integer"},{"name":"staff","kind":"integer"}]`, `"rows":[["Ana Reis",7,21]]`, `"totals":[null,7,21]`, `"scanned":7,"mixed":0}`}},
		{name: "report by month", method: "GET", path: "/api/v1/reports?entity=account&group=created_at:month", status: 200, want: []string{`"bucket":"month"`, `"rows":[["2026-11-01",7]]`}},
		{name: "report of nothing", method: "GET", path: "/api/v1/reports", status: 400, code: "invalid"},
		{name: "report with bad expand", method: "GET", path: "/api/v1/reports?entity=account&expand=owner", status: 400, code: "invalid"},
		{name: "report with bad group", method: "GET", path: "/api/v1/reports?entity=account&group=nme", status: 400, code: "unknown_field"},
		{name: "report with bad measure", method: "GET", path: "/api/v1/reports?entity=account&measure=sum(name)", status: 400, code: "invalid"},
		{name: "report with bad limit", method: "GET", path: "/api/v1/reports?entity=account&limit=x", status: 400, code: "invalid"},
	} {
		s.run(t, sc)
	}
}

func TestBodies(t *testing.T) {
	s := newSite(t, nil)
	post := func(name, body string, status int, code string) {
		s.run(t, scenario{name: name, method: "POST", path: "/api/v1/account", body: body, status: status, code: code})
	}
	post("not JSON", `{"name":`, 400, "invalid")
	post("list", `[]`, 400, "invalid")
	post("empty", ``, 400, "invalid")
	post("trailing", `{"name":"A"} {}`, 400, "invalid")
	post("twice", `{"name":"A","name":"B"}`, 400, "invalid")
	post("twice in another case", `{"name":"A","NAME":"B"}`, 400, "invalid")
	post("twice escaped", `{"name":"A","n\u0061me":"B"}`, 400, "invalid")
	post("twice inside", `{"name":"A","billing_address":{"city":"a","city":"b"}}`, 400, "invalid")
	post("half a surrogate", `{"name":"\ud800"}`, 400, "invalid")
	post("whole surrogates", `{"name":"\ud83d\ude00"}`, 201, "")
	post("not UTF-8", "{\"name\":\"\xff\"}", 400, "invalid")
	post("control", `{"name":"a\u0000b"}`, 400, "invalid")
	post("too deep", `{"name":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)+`}`, 400, "invalid")
	post("much too deep", `{"name":`+strings.Repeat("[", 200_000)+strings.Repeat("]", 200_000)+`}`, 400, "invalid")
	post("too large", `{"name":"`+strings.Repeat("a", MaxBody)+`"}`, 413, "too_large")
	post("value too large", `{"name":"`+strings.Repeat("a", 300)+`"}`, 413, "too_large")
	post("mutation too large", `{"name":"a","description":"`+strings.Repeat("a", 32<<10)+`","legal_name":"`+strings.Repeat("b", 32<<10)+`"}`, 413, "too_large")
	s.run(t, scenario{name: "not JSON by its type", method: "POST", path: "/api/v1/account", header: map[string]string{"Content-Type": "text/csv"}, body: "name\nA", status: 415, code: "unsupported_media_type"})
	s.run(t, scenario{name: "type with parameter", method: "POST", path: "/api/v1/account", header: map[string]string{"Content-Type": "application/json; charset=utf-8"}, body: `{"name":"A"}`, status: 201})
}

func TestAccess(t *testing.T) {
	s := newSite(t, nil)
	account := "/api/v1/account"
	for _, sc := range []scenario{
		{name: "no token", method: "GET", path: account, anonymous: true, status: 401, code: "unauthorized", want: []string{"auth/token_missing"}, wantHeader: map[string]string{"WWW-Authenticate": ""}},
		{name: "wrong scheme", method: "GET", path: account, anonymous: true, header: map[string]string{"Authorization": "Basic YTpi"}, status: 401, code: "unauthorized", want: []string{"auth/token_not_bearer"}},
		{name: "wrong token", method: "GET", path: account, anonymous: true, header: map[string]string{"Authorization": "Bearer tp_" + strings.Repeat("A", 43)}, status: 401, code: "unauthorized", want: []string{"auth/token_unknown"}, notWant: []string{"AAAA"}},
		{name: "livez is open", method: "GET", path: "/livez", anonymous: true, status: 200},
		{name: "readyz is open", method: "GET", path: "/readyz", anonymous: true, status: 200},
		{name: "metrics are not", method: "GET", path: "/metrics", anonymous: true, status: 401, code: "unauthorized"},
		{name: "metrics", method: "GET", path: "/metrics", status: 200, want: []string{"tradepost_http_requests_in_flight", `route="/api/v1/{entity}"`}},
		{name: "openapi is not", method: "GET", path: "/openapi.json", anonymous: true, status: 401, code: "unauthorized"},
		{name: "another site's page", method: "POST", path: account, header: map[string]string{"Sec-Fetch-Site": "cross-site"}, body: `{"name":"A"}`, status: 403, code: "forbidden"},
		{name: "no path", method: "GET", path: "/api/v2/account", status: 404, code: "not_found"},
		{name: "root", method: "GET", path: "/", status: 404, code: "not_found"},
		{name: "trailing slash", method: "GET", path: account + "/", status: 404, code: "not_found"},
		{name: "no method", method: "PUT", path: account, status: 405, code: "method_not_allowed", wantHeader: map[string]string{"Allow": "GET, POST"}},
		{name: "no method either", method: "DELETE", path: "/api/v1/status", status: 405, code: "method_not_allowed"},
		{name: "own request id", method: "GET", path: account, header: map[string]string{headerRequestID: "abc-1.2"}, status: 200, wantHeader: map[string]string{headerRequestID: "abc-1.2"}},
		{name: "unfit request id", method: "GET", path: account, header: map[string]string{headerRequestID: "a b"}, status: 200, wantHeader: map[string]string{headerRequestID: ""}, notWant: []string{"a b"}},
	} {
		s.run(t, sc)
	}
	s.unready = errPlain
	s.run(t, scenario{name: "not ready", method: "GET", path: "/readyz", anonymous: true, status: 503, code: "unavailable", want: []string{errPlain.Error()}, wantHeader: map[string]string{"Retry-After": ""}})
}
