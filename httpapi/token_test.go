package httpapi

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// A token is judged by what it names, not by how high its numbers are.
func TestToken_VouchesForWhatItNames(t *testing.T) {
	for name, c := range map[string]struct {
		token   string // REV and SEQ stand for those of the current values
		outcome string
	}{
		"of this timeline":       {"10-REV", "accepted"},
		"of the one before":      {"z-REV", "merged"},
		"of an unknown one":      {"11-REV", "merged"},
		"of a node's own edits":  {"10-1-3.SEQ", "accepted"},
		"of another node's":      {"10-1-9.SEQ", "merged"},
		"of its own, before":     {"z-1-3.SEQ", "accepted"},
		"of its own, elsewhere":  {"11-1-3.SEQ", "merged"},
		"of this one, and of it": {"10-REV-9.SEQ", "accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil)
			made := s.mustCreate(t, "account", Fields{"name": "Acme", "rating": "cold"})
			token := strings.NewReplacer("REV", fmt.Sprint(made.Outcome.Rev), "SEQ", fmt.Sprint(made.Seq)).Replace(c.token)
			out, err := s.client.Patch(t.Context(), "account", made.Item.ID, token, Fields{"rating": "hot"}, 0)
			must(t, err)
			if out.Outcome.Kind != c.outcome || out.Item.Text("rating") != "hot" {
				t.Errorf("with %s: %+v %s", token, out.Outcome, out.Record)
			}
			body := `{"ops":[{"op":"patch","entity":"account","record":"` + made.Item.ID + `","seen":"` + token + `","fields":{"name":"Acme Ltd"}}]}`
			s.run(t, scenario{name: "mutation", method: "POST", path: "/api/v1/mutations", body: body, status: 200, want: []string{`"kind":"` + c.outcome + `"`}})
		})
	}
}

// What the description of the API says of a token is so, and the ETag is the
// token of the body.
func TestToken_IsDescribed(t *testing.T) {
	s := newSite(t, nil)
	made := s.mustCreate(t, "account", Fields{"name": "Acme"})
	s.hold()
	edited, err := s.client.Patch(t.Context(), "account", made.Item.ID, made.Item.Token, Fields{"rating": "hot"}, 0)
	must(t, err)
	_, doc := s.send(t, scenario{method: "GET", path: "/openapi.json"})
	found := regexp.MustCompile(`"pattern":"(\^\[0-9a-z\][^"]*)"`).FindStringSubmatch(doc)
	if found == nil {
		t.Fatal("no pattern of a token is described")
	}
	pattern := regexp.MustCompile(strings.ReplaceAll(found[1], `\\`, `\`))
	for _, token := range []string{made.Item.Token, edited.Item.Token} {
		if !pattern.MatchString(token) {
			t.Errorf("%s does not match %s", token, pattern)
		}
	}
	if pattern.MatchString("1204.7") {
		t.Errorf("a token of an earlier release matches %s", pattern)
	}
	if seqOf(t, edited.Item.Token) != edited.Seq || !strings.HasPrefix(edited.Item.Token, made.Item.Token+"-3.") {
		t.Errorf("a pending edit %d of node 3 on %s gives %s", edited.Seq, made.Item.Token, edited.Item.Token)
	}
	s.run(t, scenario{name: "ETag", method: "GET", path: "/api/v1/account/" + made.Item.ID, status: 200, want: []string{`"token":"` + edited.Item.Token + `"`}, wantHeader: map[string]string{"ETag": `"` + edited.Item.Token + `"`}})
}
