package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

const (
	bearerPrefix = "tp_" // lets secret scanners find leaked tokens
	bearerBytes  = 32
)

var bearerBase64 = base64.RawURLEncoding.Strict()

// NewBearer returns a new token for the HTTP API: "tp_" and 43 base64url
// characters for 256 bits from rand.
func NewBearer(rand io.Reader) (string, error) {
	var secret [bearerBytes]byte
	if _, err := io.ReadFull(rand, secret[:]); err != nil {
		return "", fmt.Errorf("new bearer token: %w", err)
	}
	return bearerPrefix + bearerBase64.EncodeToString(secret[:]), nil
}

// HashBearer returns SHA-256("tradepost bearer v1" ‖ token), all that is kept of a
// token. Tokens are 256 random bits, so a fast hash without salt is safe.
func HashBearer(token string) [sha256.Size]byte {
	return sha256.Sum256([]byte("tradepost bearer v1" + token))
}

// parseAuthorization returns the token in an Authorization header's value. The
// scheme's case is free (RFC 9110, 11.1); the token must have NewBearer's form.
func parseAuthorization(header string) (token string, err error) {
	if header == "" {
		return "", refuse(CodeTokenMissing, "this request needs a token: send the header Authorization: Bearer tp_…")
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", refuse(CodeTokenNotBearer, "the Authorization header is not of the Bearer scheme: send Authorization: Bearer tp_…")
	}
	token = strings.TrimLeft(token, " ")
	if !validBearer(token) {
		return "", refuse(CodeTokenMalformed, "the bearer token is not one of tradepost's: send the whole token, %s and 43 characters, with nothing around it", bearerPrefix)
	}
	return token, nil
}

func validBearer(token string) bool {
	secret, ok := strings.CutPrefix(token, bearerPrefix)
	if !ok || len(secret) != bearerBase64.EncodedLen(bearerBytes) {
		return false
	}
	data, err := bearerBase64.DecodeString(secret)
	return err == nil && len(data) == bearerBytes // the decoder skips line ends, then bytes are missing
}
