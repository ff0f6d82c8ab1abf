package auth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// sampleBearer is NewBearer's answer to the byte b, 32 times.
func sampleBearer(tb testing.TB, b byte) string {
	tb.Helper()
	token, err := NewBearer(bytes.NewReader(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func mustTokens(tb testing.TB, dir string) *Tokens {
	tb.Helper()
	tokens, err := LoadTokens(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return tokens
}

const goldenTokens = `{
  "version": 1,
  "tokens": [
    {
      "name": "nightly export",
      "actor": "user-1",
      "hash": "fdafab7ec01020b86833d006a3659fffa2235a76f53471966f004f3fc1deb4fb",
      "created": "2026-03-01T09:00:00Z"
    }
  ]
}
`

func TestBearer_Golden(t *testing.T) {
	token := sampleBearer(t, 0xff)
	if want := "tp_" + strings.Repeat("_", 42) + "8"; token != want {
		t.Errorf("got %q, want %q", token, want)
	}
	hash := HashBearer(token)
	if got := hex.EncodeToString(hash[:]); !strings.Contains(goldenTokens, got) {
		t.Errorf("hash %s is not the one in old files", got)
	}
	if _, err := NewBearer(strings.NewReader("short")); err == nil {
		t.Error("made a token of 5 random bytes")
	}
}

func TestTokens_FileRoundTrip(t *testing.T) {
	dir := t.TempDir()
	token := sampleBearer(t, 0xff)
	tokens := mustTokens(t, dir)
	if err := tokens.Add("nightly export", "user-1", token, epoch.Add(999)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tokens.json")
	if got, err := os.ReadFile(path); err != nil || string(got) != goldenTokens {
		t.Errorf("file is\n%s%v", got, err)
	}
	wantMode(t, path, 0o600)
	back := mustTokens(t, dir)
	if got, want := back.Entries(), tokens.Entries(); !reflect.DeepEqual(got, want) {
		t.Errorf("read back %+v, want %+v", got, want)
	}
	name, actor, err := back.Check("Bearer " + token)
	if name != "nightly export" || actor != "user-1" || err != nil {
		t.Errorf("Check = %q, %q, %v", name, actor, err)
	}
}

func TestTokens_Check(t *testing.T) {
	tokens := mustTokens(t, t.TempDir())
	first, last, stranger := sampleBearer(t, 1), sampleBearer(t, 2), sampleBearer(t, 3)
	if err := errors.Join(tokens.Add("first", "ann", first, epoch), tokens.Add("last", "bob", last, epoch)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ header, actor, code string }{
		{"Bearer " + first, "ann", ""},
		{"Bearer " + last, "bob", ""},
		{"bearer   " + last, "bob", ""},
		{"", "", CodeTokenMissing},
		{"Basic YW5uOmFubg==", "", CodeTokenNotBearer},
		{first, "", CodeTokenNotBearer},
		{" Bearer " + first, "", CodeTokenNotBearer},
		{"Bearer\t" + first, "", CodeTokenNotBearer},
		{"Bearer", "", CodeTokenMalformed},
		{"Bearer ", "", CodeTokenMalformed},
		{"Bearer " + first + " ", "", CodeTokenMalformed},
		{"Bearer " + first + "," + last, "", CodeTokenMalformed},
		{"Bearer " + first[:45], "", CodeTokenMalformed},
		{"Bearer " + first[:45] + "\n", "", CodeTokenMalformed},
		{"Bearer " + first[:45] + "F", "", CodeTokenMalformed}, // would set the two bits past the end
		{"Bearer TP_" + first[3:], "", CodeTokenMalformed},
		{"Bearer " + first[3:], "", CodeTokenMalformed},
		{"Bearer " + stranger, "", CodeTokenUnknown},
	} {
		_, actor, err := tokens.Check(c.header)
		if actor != c.actor || CodeOf(err) != c.code {
			t.Errorf("Check(%q) = %q, %v; want %q, %q", c.header, actor, err, c.actor, c.code)
		}
		if err != nil && strings.Contains(err.Error(), first[3:20]) {
			t.Errorf("the error repeats the token: %v", err)
		}
	}
}

func TestTokens_AddRefuses(t *testing.T) {
	dir := t.TempDir()
	tokens := mustTokens(t, dir)
	if err := tokens.Add("taken", "ann", sampleBearer(t, 1), epoch); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := sampleBearer(t, 2)
	for _, c := range []struct{ name, actor, token string }{
		{"taken", "bob", fresh},
		{"same token", "bob", sampleBearer(t, 1)},
		{"", "bob", fresh},
		{"no actor", "", fresh},
		{"line\nbreak", "bob", fresh},
		{" blank ", "bob", fresh},
		{"\xff", "bob", fresh},
		{long(101), "bob", fresh},
		{"weak", "bob", "tp_password"},
	} {
		wantCode(t, tokens.Add(c.name, c.actor, c.token, epoch), CodeTokenInvalid)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "tokens.json")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a refused token changed the file: %v", err)
	}
}

func TestTokens_Remove(t *testing.T) {
	dir := t.TempDir()
	tokens := mustTokens(t, dir)
	first, last := sampleBearer(t, 1), sampleBearer(t, 2)
	if err := errors.Join(tokens.Add("first", "ann", first, epoch), tokens.Add("last", "bob", last, epoch), tokens.Remove("first")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, tokens.Remove("first"), CodeTokenInvalid)
	for _, tokens := range []*Tokens{tokens, mustTokens(t, dir)} {
		_, _, err := tokens.Check("Bearer " + first)
		wantCode(t, err, CodeTokenUnknown)
		if _, actor, err := tokens.Check("Bearer " + last); actor != "bob" || err != nil {
			t.Errorf("the other token: %q, %v", actor, err)
		}
	}
}

// What is not durable is not valid: the answer to a failed Add is no token.
func TestTokens_AddFailsWithItsFile(t *testing.T) {
	dir := t.TempDir()
	tokens := mustTokens(t, dir)
	if err := os.MkdirAll(filepath.Join(dir, "tokens.json", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Add("lost", "ann", sampleBearer(t, 1), epoch); err == nil {
		t.Fatal("Add wrote over a directory")
	}
	_, _, err := tokens.Check("Bearer " + sampleBearer(t, 1))
	wantCode(t, err, CodeTokenUnknown)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left behind %v (%v)", names, err)
	}
}

func TestLoadTokens_Refuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokens.json")
	row := goldenTokens[strings.Index(goldenTokens, "    {") : strings.Index(goldenTokens, "    }")+5]
	for name, text := range map[string]string{
		"Empty":         "",
		"Junk":          "junk",
		"CutOff":        goldenTokens[:60],
		"Trailing":      goldenTokens + "{}",
		"Newer":         strings.Replace(goldenTokens, `"version": 1`, `"version": 2`, 1),
		"UnknownField":  strings.Replace(goldenTokens, `"version"`, `"admin": true, "version"`, 1),
		"ShortHash":     strings.Replace(goldenTokens, "fd", "", 1),
		"BadHash":       strings.Replace(goldenTokens, "fd", "zz", 1),
		"NoActor":       strings.Replace(goldenTokens, "user-1", "", 1),
		"SameNameTwice": strings.Replace(goldenTokens, row, row+","+row, 1),
		"Huge":          strings.Repeat(" ", maxFileSize) + goldenTokens,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadTokens(dir)
			wantCode(t, err, CodeTokensFileInvalid)
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%q does not name the file", err)
			}
		})
	}
}

func TestLoadTokens_Exposed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are a Unix matter")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "tokens.json")
	if err := os.WriteFile(path, []byte(goldenTokens), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o602, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadTokens(dir)
		wantCode(t, err, CodeFileExposed)
	}
}

func TestTokens_ConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	tokens := mustTokens(t, dir)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		token := sampleBearer(t, byte(i))
		wg.Go(func() {
			errs[i] = tokens.Add(fmt.Sprint("token ", i), "ann", token, epoch)
			if _, _, err := tokens.Check("Bearer " + token); err != nil {
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := len(mustTokens(t, dir).Entries()); got != len(errs) {
		t.Errorf("%d tokens in the file, want %d", got, len(errs))
	}
}
