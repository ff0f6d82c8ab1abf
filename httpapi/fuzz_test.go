package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tradepost-crm/tradepost/crm"
)

// abuse is where a collection of hostile inputs may lie beside the repository.
const abuse = "../../shared/data/abuse"

// What encoding/json refuses or would change is refused; the rest is read as it
// stands.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, ` { "a" : [ {"b":null} , "x\n" ] , "c" : -1.5e3 } `, `{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\ude00"}`, `{"a":1,"A":2}`, `[]`, `{"":{}}`, `{"a":"\\u"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := parseObject(body)
		if err != nil {
			if code := crm.CodeOf(err); code != crm.CodeInvalid {
				t.Fatalf("%q: code %s", body, code)
			}
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("%q is read, but not by encoding/json: %v", body, err)
		}
		if len(want) != len(in) {
			t.Fatalf("%q: %d members, want %d", body, len(in), len(want))
		}
		for _, m := range in {
			if !bytes.Equal(m.raw, want[m.name]) {
				t.Fatalf("%q: %s is %q, want %q", body, m.name, m.raw, want[m.name])
			}
		}
	})
}

func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{"", "local", "bounded;max=5s", "session", "1.2.3.4", `W/"1.2"`, "*", "leader"} {
		f.Add(seed, seed, seed)
	}
	f.Fuzz(func(t *testing.T, level, session, match string) {
		h := http.Header{headerConsistency: {level}, headerSession: {session}, "If-Match": {match}}
		if d, err := parseDemand(h); err == nil {
			again := http.Header{}
			formatDemand(again, d)
			back, err := parseDemand(again)
			if d.Level == crm.Local {
				d.Session = crm.Mark{}
			}
			if err != nil || back != d && d.Level != crm.Session {
				t.Fatalf("%v comes back as %v, %v", d, back, err)
			}
		} else if crm.CodeOf(err) != crm.CodeInvalid {
			t.Fatal(err)
		}
		if token, err := parseIfMatch(h); err == nil && token != nil {
			if back, err := crm.ParseToken(token.String()); err != nil || back != *token {
				t.Fatalf("%v comes back as %v, %v", token, back, err)
			}
		}
	})
}

func FuzzAppendString(f *testing.F) {
	f.Add("Häusler <b>\u2028\x00\x7f\xff\"\\\ufffd")
	f.Fuzz(func(t *testing.T, s string) {
		got := appendString(nil, s)
		want, err := json.Marshal(s)
		must(t, err)
		if utf8.ValidString(s) && !bytes.Equal(got, want) {
			t.Fatalf("%q: %s, want %s", s, got, want)
		}
		if !json.Valid(got) {
			t.Fatalf("%q: %s", s, got)
		}
	})
}

// The hand-written encoding is the one of package crm.
func TestAppendValue(t *testing.T) {
	for _, v := range []crm.Value{{}, crm.TextValue("a<b"), crm.IntegerValue(-7), crm.DecimalValue(-5, 2, ""), crm.DecimalValue(1250, 2, "EUR"), crm.BoolValue(true), crm.DateDays(20000),
		crm.InstantMillis(1_700_000_000_123), crm.ChoiceValue("x"), crm.ChoicesValue("b", "a"), crm.LinkValue(crm.RecordID{1, 2, 255}), crm.EmailValue("a@b.c"), crm.PhoneValue("+1 2"), crm.URLValue("https://x.y/?a=1&b=2"),
		crm.AddressValue(crm.PostalAddress{Street: "1 \"A\"", Country: "PT"}), crm.AddressValue(crm.PostalAddress{City: "x"})} {
		want, err := v.MarshalJSON()
		must(t, err)
		if got := appendValue(nil, v); string(got) != string(want) {
			t.Errorf("%s %s, want %s", v.Kind(), got, want)
		}
	}
}

// Naughty strings come back byte for byte or are refused with a problem.
func TestNaughtyStrings(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(abuse, "blns", "blns.base64.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the collection of hostile inputs is not beside the repository")
	}
	must(t, err)
	var list []string
	must(t, json.Unmarshal(raw, &list))
	s := newSite(t, nil)
	whole, stored := 0, 0
	for _, encoded := range list {
		text, err := base64.StdEncoding.DecodeString(encoded)
		must(t, err)
		whole += b2i(utf8.Valid(text)) // the collection breaks long strings anywhere
		made, err := s.client.Create(t.Context(), "account", Fields{"name": "x", "description": string(text)}, 0)
		if err != nil {
			if code := crm.CodeOf(err); code != crm.CodeInvalid && code != crm.CodeTooLarge {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		stored++
		it, _, err := s.client.Get(t.Context(), "account", made.Item.ID, Asked{})
		must(t, err)
		if got, want := it.Text("description"), strings.TrimSpace(string(text)); got != want {
			t.Errorf("%q came back as %q", want, got)
		}
	}
	if stored < whole*9/10 {
		t.Errorf("only %d of %d were stored", stored, whole)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The JSON test suite: n_ must be refused, y_ that are objects must be read,
// and nothing may crash.
func TestJSONSuite(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(abuse, "json", "test_parsing", "*.json"))
	must(t, err)
	if len(files) == 0 {
		t.Skip("the collection of hostile inputs is not beside the repository")
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		must(t, err)
		_, got := parseObject(body)
		name := filepath.Base(file)
		var object map[string]any
		wanted := strings.HasPrefix(name, "y_") && json.Unmarshal(body, &object) == nil && object != nil && !strings.Contains(name, "duplicated")
		if strings.HasPrefix(name, "n_") && got == nil || wanted && got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func logTo(b *strings.Builder) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// fetch reads url over one connection.
func fetch(b *testing.B, url, token string) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequest("GET", url, nil)
	must(b, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	var sink bytes.Buffer
	for b.Loop() {
		resp, err := client.Do(r)
		must(b, err)
		sink.Reset()
		_, err = sink.ReadFrom(resp.Body)
		must(b, err)
		must(b, resp.Body.Close())
	}
}
