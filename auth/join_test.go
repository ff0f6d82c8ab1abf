package auth

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

func sampleJoin() JoinString {
	j := JoinString{
		Endpoints: []string{"hq.example.com:7400", "[2001:db8::1]:7400"},
		Token:     JoinToken{ID: "00c0ffee"},
	}
	for i := range j.Token.Secret {
		j.Token.Secret[i] = byte(i)
	}
	for i := range j.CAPin {
		j.CAPin[i] = byte(0xff - i)
	}
	return j
}

// Joins in progress survive an upgrade, so these never change.
const (
	goldenJoin = "tpj1.AMD_7gABAgMEBQYHCAkKCwwNDg___v38-_r5-Pf29fTz8vHw7-7t7Ovq6ejn5uXk4-Lh4AITaHEuZXhhbXBsZS5jb206NzQwMBJbMjAwMTpkYjg6OjFdOjc0MDBL3WeP"
	goldenHash = "ce4ec4f8c4d4ef6b89ef9194d20dd71dfa18f499e5e39904ad6987e7389f1057"
)

func TestJoinString_Golden(t *testing.T) {
	got, err := sampleJoin().Encode()
	if err != nil || got != goldenJoin {
		t.Errorf("Encode() = %q, %v", got, err)
	}
	hash := sampleJoin().Token.Hash()
	if got := hex.EncodeToString(hash[:]); got != goldenHash {
		t.Errorf("Hash() = %s", got)
	}
	back, err := ParseJoinString(goldenJoin)
	if err != nil || !reflect.DeepEqual(back, sampleJoin()) {
		t.Errorf("ParseJoinString = %+v, %v", back, err)
	}
}

func TestJoinString_Limits(t *testing.T) {
	j := sampleJoin()
	j.Endpoints = nil
	for range maxEndpoints {
		j.Endpoints = append(j.Endpoints, long(maxEndpoint-3)+":80")
	}
	text, err := j.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(text), 5543; got != want {
		t.Errorf("the longest join string has %d characters, its comment says %d", got, want)
	}
	if back, err := ParseJoinString(text); err != nil || !reflect.DeepEqual(back, j) {
		t.Errorf("the longest join string came back as %+v, %v", back, err)
	}
	_, err = ParseJoinString(strings.Repeat(" ", maxJoinLength) + text)
	wantCode(t, err, CodeJoinStringForeign)
}

func TestJoinString_IgnoresWhiteSpace(t *testing.T) {
	wrapped := " " + goldenJoin[:3] + "\r\n" + goldenJoin[3:40] + "\n\t" + goldenJoin[40:] + "\n"
	if back, err := ParseJoinString(wrapped); err != nil || !reflect.DeepEqual(back, sampleJoin()) {
		t.Errorf("got %+v, %v", back, err)
	}
}

// Each single mistyped, missing or doubled character, and each swap of neighbours,
// is noticed; past the prefix it is called damage.
func TestJoinString_Mistyped(t *testing.T) {
	for i := range goldenJoin {
		swapped := []byte(goldenJoin)
		if i > 0 {
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
		}
		for _, text := range []string{
			goldenJoin[:i] + "x" + goldenJoin[i+1:],
			goldenJoin[:i] + "7" + goldenJoin[i+1:],
			goldenJoin[:i] + goldenJoin[i+1:],
			goldenJoin[:i] + goldenJoin[i:i+1] + goldenJoin[i:],
			goldenJoin[:i],
			string(swapped),
		} {
			_, err := ParseJoinString(text)
			switch code := CodeOf(err); {
			case text == goldenJoin:
			case code == CodeJoinStringDamaged:
			case code == CodeJoinStringForeign && i <= len("tpj1."):
			default:
				t.Errorf("change at %d: got %v", i, err)
			}
		}
	}
}

func TestParseJoinString_Errors(t *testing.T) {
	wrap := func(prefix string, payload []byte) string {
		return prefix + joinBase64.EncodeToString(append(payload, joinSum(prefix, payload)...))
	}
	fixed := make([]byte, joinFixed)
	with := func(tail ...byte) []byte { // the last fixed byte, the count, is tail[0]
		return append(bytes.Clone(fixed[:joinFixed-1]), tail...)
	}
	for _, c := range []struct{ name, code, text string }{
		{"Empty", CodeJoinStringForeign, ""},
		{"Word", CodeJoinStringForeign, "hello"},
		{"Bearer", CodeJoinStringForeign, "tp_" + long(43)},
		{"UpperCase", CodeJoinStringForeign, "TPJ1." + goldenJoin[5:]},
		{"NoVersion", CodeJoinStringForeign, "tpj." + goldenJoin[5:]},
		{"PaddedVersion", CodeJoinStringForeign, "tpj01." + goldenJoin[5:]},
		{"CutOff", CodeJoinStringDamaged, "tpj1."},
		{"MistypedVersion", CodeJoinStringDamaged, "tpj2." + goldenJoin[5:]},
		{"Newer", CodeJoinStringNewer, wrap("tpj2.", []byte("whatever it will be"))},
		{"Short", CodeJoinStringInvalid, wrap("tpj1.", []byte("short"))},
		{"NoEndpoint", CodeJoinStringInvalid, wrap("tpj1.", with(0))},
		{"EndpointCutOff", CodeJoinStringInvalid, wrap("tpj1.", with(1, 9, 'a'))},
		{"EndpointMissing", CodeJoinStringInvalid, wrap("tpj1.", with(255))},
		{"EndpointWithoutPort", CodeJoinStringInvalid, wrap("tpj1.", with(1, 1, 'a'))},
		{"Trailing", CodeJoinStringInvalid, wrap("tpj1.", with(1, 3, 'a', ':', '1', 'x'))},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseJoinString(c.text)
			wantCode(t, err, c.code)
		})
	}
	_, err := ParseJoinString("tpj1.")
	if !strings.Contains(err.Error(), "join string is damaged (checksum)") {
		t.Errorf("damage is reported as %q", err)
	}
}

func TestJoinString_EncodeRefuses(t *testing.T) {
	for _, endpoint := range []string{"", "hq", "hq:", ":7400", "hq:0", "hq:65536", "hq:http", "h q:80", "hé:80", "hq:80\n", "a:b:80", long(253) + ":80"} {
		j := sampleJoin()
		j.Endpoints[1] = endpoint
		if _, err := j.Encode(); CodeOf(err) != CodeJoinStringInvalid {
			t.Errorf("endpoint %q: %v", endpoint, err)
		}
	}
	for _, id := range []string{"", "00c0ffe", "00C0FFEE", "00c0ffee0", "00c0ffeg", "00c0ffee00"} {
		j := sampleJoin()
		j.Token.ID = id
		if _, err := j.Encode(); CodeOf(err) != CodeJoinStringInvalid {
			t.Errorf("token id %q: %v", id, err)
		}
	}
	for _, n := range []int{0, maxEndpoints + 1} {
		j := sampleJoin()
		j.Endpoints = make([]string, n)
		if _, err := j.Encode(); CodeOf(err) != CodeJoinStringInvalid {
			t.Errorf("%d endpoints: %v", n, err)
		}
	}
}

func TestJoinToken(t *testing.T) {
	token, err := NewJoinToken(bytes.NewReader([]byte("idid0123456789abcdef")))
	if err != nil || token.ID != "69646964" || string(token.Secret[:]) != "0123456789abcdef" {
		t.Fatalf("got %s %q, %v", token.ID, token.Secret, err)
	}
	if !token.Matches(token.Hash()) {
		t.Error("a token does not match its own hash")
	}
	otherID, otherSecret := token, token
	otherID.ID = "69646965"
	otherSecret.Secret[15] ^= 1
	if token.Matches(otherID.Hash()) || token.Matches(otherSecret.Hash()) {
		t.Error("a token matches another one's hash")
	}
	for n := range 20 {
		if _, err := NewJoinToken(strings.NewReader(long(n))); err == nil {
			t.Errorf("made a token of %d random bytes", n)
		}
	}
}

func TestJoinToken_KeepsSecretOutOfLogs(t *testing.T) {
	token := sampleJoin().Token
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("joining", "token", token)
	for _, text := range []string{fmt.Sprint(token), fmt.Sprintf("%+v", sampleJoin()), log.String()} {
		if !strings.Contains(text, "join token 00c0ffee") || strings.Contains(strings.ToLower(text), "secret") {
			t.Errorf("logged as %s", text)
		}
	}
}

func FuzzParseJoinString(f *testing.F) {
	f.Add(goldenJoin)
	f.Add("tpj2." + goldenJoin[5:])
	f.Add("tpj1.")
	// The checksum would stop nearly every change the fuzzer makes, so the same
	// bytes are also tried as a payload that arrived whole.
	f.Fuzz(func(t *testing.T, text string) {
		checkJoinRoundTrip(t, text)
		const prefix = "tpj1."
		checkJoinRoundTrip(t, prefix+joinBase64.EncodeToString(append([]byte(text), joinSum(prefix, []byte(text))...)))
	})
}

func checkJoinRoundTrip(t *testing.T, text string) {
	j, err := ParseJoinString(text)
	if err != nil {
		if !strings.HasPrefix(CodeOf(err), "auth/join_string_") {
			t.Fatalf("error without its code: %v", err)
		}
		return
	}
	again, err := j.Encode()
	if err != nil || again != strings.Join(strings.Fields(text), "") {
		t.Fatalf("%q was read as %q (%v)", text, again, err)
	}
}
