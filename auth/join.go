package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
)

// A JoinToken lets one node join, once. The cluster keeps its ID and Hash with the
// site it is for and the time it ends, and deletes them when it is used.
type JoinToken struct {
	ID     string // 8 lower-case hexadecimal digits; not secret
	Secret [16]byte
}

// NewJoinToken returns a token of 20 bytes from rand.
func NewJoinToken(rand io.Reader) (JoinToken, error) {
	var id [4]byte
	var t JoinToken
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return JoinToken{}, fmt.Errorf("new join token: %w", err)
	}
	if _, err := io.ReadFull(rand, t.Secret[:]); err != nil {
		return JoinToken{}, fmt.Errorf("new join token: %w", err)
	}
	t.ID = hex.EncodeToString(id[:])
	return t, nil
}

// Hash returns SHA-256("tradepost join v1" ‖ ID ‖ Secret), what the cluster keeps.
// The secret has 128 random bits, so a fast hash is safe.
func (t JoinToken) Hash() [sha256.Size]byte {
	return sha256.Sum256(append([]byte("tradepost join v1"+t.ID), t.Secret[:]...))
}

// Matches reports whether hash is t's, in a time that does not depend on the answer.
func (t JoinToken) Matches(hash [sha256.Size]byte) bool {
	own := t.Hash()
	return subtle.ConstantTimeCompare(own[:], hash[:]) == 1
}

// String returns t without its secret.
func (t JoinToken) String() string { return "join token " + t.ID }

// LogValue keeps the secret out of structured logs.
func (t JoinToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// A JoinString is what a person carries to a new node. It is a secret until used.
//
// Encoded it is one word of letters, digits, '-', '_' and one '.':
//
//	"tpj" version "." base64url( payload ‖ checksum )
//
//	payload of version 1
//	  4  token id          32  CA pin
//	 16  token secret       1  number of endpoints, 1 to 16
//	 then for each endpoint: 1 length, 1 to 255; that many bytes of host:port
//
//	checksum: the first 4 bytes of SHA-256("tpj" version "." ‖ payload)
//
// All versions share the outer form, so a later one is told apart from a damaged one.
type JoinString struct {
	Endpoints []string // host:port of masters, in the order to try; 1 to 16, each at most 255 bytes of printable ASCII
	Token     JoinToken
	CAPin     [sha256.Size]byte // see Pin
}

const (
	joinScheme    = "tpj"
	joinVersion   = 1
	joinChecksum  = 4  // bytes
	joinFixed     = 53 // bytes of payload before the endpoints
	maxEndpoints  = 16
	maxEndpoint   = 255
	maxJoinLength = 8 << 10 // characters, with white space; the longest possible is 5,543 without
)

var joinBase64 = base64.RawURLEncoding.Strict()

// Encode returns the text of j. It returns an [*Error] with
// [CodeJoinStringInvalid] if a field is out of its bounds.
func (j JoinString) Encode() (string, error) {
	if err := j.validate(); err != nil {
		return "", err
	}
	id, err := hex.DecodeString(j.Token.ID)
	if err != nil {
		return "", err
	}
	payload := append(id, j.Token.Secret[:]...)
	payload = append(payload, j.CAPin[:]...)
	payload = append(payload, byte(len(j.Endpoints)))
	for _, endpoint := range j.Endpoints {
		payload = append(payload, byte(len(endpoint)))
		payload = append(payload, endpoint...)
	}
	prefix := joinScheme + strconv.Itoa(joinVersion) + "."
	return prefix + joinBase64.EncodeToString(append(payload, joinSum(prefix, payload)...)), nil
}

// ParseJoinString reads the text that Encode returned. White space anywhere in it,
// as mail programs add, is ignored. The code of its [*Error] says what is wrong:
// [CodeJoinStringForeign], [CodeJoinStringDamaged], [CodeJoinStringNewer] or
// [CodeJoinStringInvalid].
func ParseJoinString(text string) (JoinString, error) {
	if len(text) > maxJoinLength {
		return JoinString{}, refuse(CodeJoinStringForeign, "this is not a join string, it is too long: paste only the text that starts with %s%d.", joinScheme, joinVersion)
	}
	version, payload, err := unwrapJoin(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return JoinString{}, err
	}
	if version != joinVersion {
		return JoinString{}, refuse(CodeJoinStringNewer, "this join string has version %d, and this release reads version %d: install the release that the masters run", version, joinVersion)
	}
	j, ok := parseJoinPayload(payload)
	if !ok {
		return JoinString{}, refuse(CodeJoinStringInvalid, "this join string arrived whole but was made wrongly: get a new one from a master")
	}
	return j, j.validate()
}

// unwrapJoin undoes the form that all versions share.
func unwrapJoin(text string) (version uint64, payload []byte, err error) {
	head, body, dotted := strings.Cut(text, ".")
	digits, ours := strings.CutPrefix(head, joinScheme)
	version, err = strconv.ParseUint(digits, 10, 16)
	if !dotted || !ours || err != nil || digits != strconv.FormatUint(version, 10) {
		return 0, nil, refuse(CodeJoinStringForeign, "this is not a join string: paste the whole text that starts with %s%d.", joinScheme, joinVersion)
	}
	data, err := joinBase64.DecodeString(body)
	if err == nil && len(data) >= joinChecksum {
		payload, sum := data[:len(data)-joinChecksum], data[len(data)-joinChecksum:]
		if bytes.Equal(sum, joinSum(head+".", payload)) {
			return version, payload, nil
		}
	}
	return 0, nil, refuse(CodeJoinStringDamaged, "join string is damaged (checksum): copy it again, whole, rather than typing it")
}

func joinSum(prefix string, payload []byte) []byte {
	sum := sha256.Sum256(append([]byte(prefix), payload...))
	return sum[:joinChecksum]
}

func parseJoinPayload(p []byte) (j JoinString, ok bool) {
	if len(p) < joinFixed {
		return JoinString{}, false
	}
	j.Token.ID = hex.EncodeToString(p[:4])
	copy(j.Token.Secret[:], p[4:20])
	copy(j.CAPin[:], p[20:52])
	count, rest := int(p[52]), p[joinFixed:]
	for range count {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return JoinString{}, false
		}
		n := 1 + int(rest[0])
		j.Endpoints = append(j.Endpoints, string(rest[1:n]))
		rest = rest[n:]
	}
	return j, len(rest) == 0
}

func (j JoinString) validate() error {
	if id, err := hex.DecodeString(j.Token.ID); err != nil || len(id) != 4 || hex.EncodeToString(id) != j.Token.ID {
		return refuse(CodeJoinStringInvalid, "join token id %.20q is not 8 lower-case hexadecimal digits: get a new join string", j.Token.ID)
	}
	if n := len(j.Endpoints); n < 1 || n > maxEndpoints {
		return refuse(CodeJoinStringInvalid, "a join string names 1 to %d endpoints, not %d: list other masters", maxEndpoints, n)
	}
	for _, endpoint := range j.Endpoints {
		if !validEndpoint(endpoint) {
			return refuse(CodeJoinStringInvalid, "endpoint %.300q is not host:port: write for example master.example.com:7400", endpoint)
		}
	}
	return nil
}

func validEndpoint(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || len(s) > maxEndpoint {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n != 0
}
