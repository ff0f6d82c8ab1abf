package crm

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genToken() *rapid.Generator[Token] {
	return rapid.Custom(func(t *rapid.T) Token {
		out := Token{Timeline: rapid.Uint32Min(1).Draw(t, "timeline"), Rev: Rev(rapid.Uint64Max(1<<63-1).Draw(t, "rev"))}
		if rapid.Bool().Draw(t, "pending") {
			out.Node, out.Seq = NodeID(rapid.Uint32Min(1).Draw(t, "node")), Seq(rapid.Uint64Range(1, 1<<63-1).Draw(t, "seq"))
		}
		return out
	})
}

func TestToken_ComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genToken().Draw(t, "token")
		if got, err := ParseToken(want.String()); err != nil || got != want {
			t.Fatalf("%+v is written %s and read %+v, %v", want, want, got, err)
		}
	})
}

func TestToken_Text(t *testing.T) {
	for want, token := range map[string]Token{
		"z-0":               {Timeline: 35},
		"1z141z3-1204":      {Timeline: 1<<32 - 1, Rev: 1204},
		"10-1204-3.7":       {Timeline: 36, Rev: 1204, Node: 3, Seq: 7},
		"1204.7":            {Rev: 1204, Node: 3, Seq: 7}, // what version 1 wrote
		"0.0":               {},
		"1-12-4294967295.9": {Timeline: 1, Rev: 12, Node: 1<<32 - 1, Seq: 9},
	} {
		if got := token.String(); got != want {
			t.Errorf("%+v is written %s, want %s", token, got, want)
		}
	}
}

func TestToken_HasOneForm(t *testing.T) {
	for _, s := range []string{"", "-", "1", "1-", "-1", "0-5", "01-5", "1-05", "A-5", "1-5-", "1-5-3", "1-5-3.", "1-5-.7", "1-5-0.7", "1-5-3.0", "1-5-03.7", "1-5-3.07",
		"1-5-3.7.1", "1-5-3.7-1", "+1-5", "1-+5", " 1-5", "1-5 ", "1z141z4-5", "1-9223372036854775808", "1-5-4294967296.7", "1_0-5", "W/\"1-5\""} {
		if got, err := ParseToken(s); CodeOf(err) != CodeInvalid {
			t.Errorf("%q is read as %+v, %v", s, got, err)
		}
	}
}

func TestToken_OfVersionOneIsRefusedWithAdvice(t *testing.T) {
	for s, want := range map[string]string{"1204.7": "read the record again", "0.0": "read the record again", "nonsense": "1z141z3-1204", "1204.x": "1z141z3-1204"} {
		if _, err := ParseToken(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", s, err, want)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"1204.7", "10-1204", "1z141z3-1204-3.7", "0-0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if token, err := ParseToken(s); err == nil && token.String() != s {
			t.Fatalf("%q and %q are one token", s, token)
		}
	})
}
