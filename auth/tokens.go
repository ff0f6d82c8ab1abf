package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// A TokenEntry describes a bearer token that was issued. It does not hold the token.
type TokenEntry struct {
	Name    string    // what a person calls it, for example "nightly export"; unique, 1 to 100 bytes
	Actor   string    // on whose behalf requests with it act; 1 to 100 bytes
	Created time.Time // UTC, whole seconds

	hash [sha256.Size]byte
}

// Tokens are the bearer tokens that a node's HTTP API accepts, kept in tokens.json:
//
//	{"version": 1, "tokens": [{"name": …, "actor": …, "hash": 64 hex digits, "created": RFC 3339}]}
//
// It may be used by several goroutines at once, but by one process: another
// process's changes are seen by the next LoadTokens, and Add overwrites them.
type Tokens struct {
	path string

	mu      sync.RWMutex // guards entries, and the file while it is written
	entries []TokenEntry
}

const tokensVersion = 1

type tokensJSON struct {
	Version int         `json:"version"`
	Tokens  []tokenJSON `json:"tokens"`
}

type tokenJSON struct {
	Name    string    `json:"name"`
	Actor   string    `json:"actor"`
	Hash    string    `json:"hash"`
	Created time.Time `json:"created"`
}

// LoadTokens reads tokens.json in dir. No file means no tokens. It returns an
// [*Error] with [CodeFileExposed] if others may read or write the file, and with
// [CodeTokensFileInvalid] if it is not what Add writes.
func LoadTokens(dir string) (*Tokens, error) {
	t := &Tokens{path: filepath.Join(dir, tokensFile)}
	data, err := readSecret(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		t.entries, err = parseTokens(data)
	}
	if err != nil && CodeOf(err) != CodeFileExposed {
		err = refuseFor(CodeTokensFileInvalid, err, "%s is not usable: put back the saved copy, or move it away and issue the tokens again", t.path)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func parseTokens(data []byte) ([]TokenEntry, error) {
	var file tokensJSON
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	if file.Version != tokensVersion {
		return nil, fmt.Errorf("version %d, this release reads version %d", file.Version, tokensVersion)
	}
	var entries []TokenEntry
	for _, row := range file.Tokens {
		entry := TokenEntry{Name: row.Name, Actor: row.Actor, Created: row.Created}
		hash, err := hex.DecodeString(row.Hash)
		if err != nil || len(hash) != len(entry.hash) {
			return nil, fmt.Errorf("hash of token %q is not 64 hexadecimal digits", row.Name)
		}
		copy(entry.hash[:], hash)
		if err := checkEntry(entries, entry); err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Add makes token valid for requests on behalf of actor and writes the file before
// it returns. It returns an [*Error] with [CodeTokenInvalid] if name is taken, the
// token is not [NewBearer]'s or is known already, or a text is out of its bounds.
func (t *Tokens) Add(name, actor, token string, now time.Time) error {
	if !validBearer(token) {
		return refuse(CodeTokenInvalid, "the token for %.200q was not made here: let tradepost make one", name)
	}
	entry := TokenEntry{Name: name, Actor: actor, Created: now.UTC().Truncate(time.Second), hash: HashBearer(token)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := checkEntry(t.entries, entry); err != nil {
		return err
	}
	return t.save(append(slices.Clone(t.entries), entry))
}

// Remove ends the token called name and writes the file before it returns. It
// returns an [*Error] with [CodeTokenInvalid] if there is none.
func (t *Tokens) Remove(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.entries, func(e TokenEntry) bool { return e.Name == name })
	if i < 0 {
		return refuse(CodeTokenInvalid, "no token is called %.200q: list the tokens to see their names", name)
	}
	return t.save(slices.Delete(slices.Clone(t.entries), i, i+1))
}

// Entries returns the tokens in the order they were added.
func (t *Tokens) Entries() []TokenEntry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.entries)
}

// Check returns the name and the actor of the token in an Authorization header's
// value. The code of its [*Error] says why there is none: [CodeTokenMissing],
// [CodeTokenNotBearer], [CodeTokenMalformed] or [CodeTokenUnknown].
// It compares with every token, so its time tells only how many there are.
func (t *Tokens) Check(header string) (name, actor string, err error) {
	token, err := parseAuthorization(header)
	if err != nil {
		return "", "", err
	}
	hash := HashBearer(token)
	t.mu.RLock()
	defer t.mu.RUnlock()
	found := -1
	for i := range t.entries {
		equal := subtle.ConstantTimeCompare(hash[:], t.entries[i].hash[:])
		found = subtle.ConstantTimeSelect(equal, i, found)
	}
	if found < 0 {
		return "", "", refuse(CodeTokenUnknown, "this node does not know the bearer token: it was removed or is another node's; ask an administrator for a new one")
	}
	return t.entries[found].Name, t.entries[found].Actor, nil
}

// save writes entries and then makes them t's. The caller holds mu.
func (t *Tokens) save(entries []TokenEntry) error {
	file := tokensJSON{Version: tokensVersion, Tokens: []tokenJSON{}}
	for _, e := range entries {
		file.Tokens = append(file.Tokens, tokenJSON{Name: e.Name, Actor: e.Actor, Hash: hex.EncodeToString(e.hash[:]), Created: e.Created})
	}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", t.path, err)
	}
	if len(data) >= maxFileSize { // LoadTokens would refuse it
		return refuse(CodeTokenInvalid, "%s is full with %d tokens: remove some that are no longer used", t.path, len(t.entries))
	}
	if err := replaceFile(t.path, append(data, '\n'), secretMode); err != nil {
		return err
	}
	t.entries = entries
	return nil
}

func checkEntry(entries []TokenEntry, entry TokenEntry) error {
	for _, text := range []string{entry.Name, entry.Actor} {
		if !validLabel(text) {
			return refuse(CodeTokenInvalid, "%.200q cannot name a token or its actor: use 1 to 100 bytes of printable text without spaces at the ends", text)
		}
	}
	for i := range entries {
		if entries[i].Name == entry.Name {
			return refuse(CodeTokenInvalid, "a token called %q exists: choose another name, or remove that one first", entry.Name)
		}
		if entries[i].hash == entry.hash {
			return refuse(CodeTokenInvalid, "token %q is the same as %q: make a new one", entry.Name, entries[i].Name)
		}
	}
	return nil
}

func validLabel(s string) bool {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	return s != "" && len(s) <= 100 && utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) && strings.TrimSpace(s) == s
}
