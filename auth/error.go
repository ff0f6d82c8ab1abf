package auth

import (
	"errors"
	"fmt"
)

// Codes of [Error]. They are stable: scripts and translations depend on them.
const (
	CodeCAExists     = "auth/ca_exists"      // the directory holds a CA already
	CodeCAMissing    = "auth/ca_missing"     // ca.crt or ca.key is not there
	CodeCAInvalid    = "auth/ca_invalid"     // ca.crt or ca.key cannot be used
	CodeCAExpired    = "auth/ca_expired"     // the cluster CA is past its ten years
	CodePinMismatch  = "auth/pin_mismatch"   // a server's CA is not the one the join string names
	CodeFileExposed  = "auth/file_exposed"   // a secret file can be read by others
	CodeWrongCluster = "auth/wrong_cluster"  // an identity of another cluster
	CodeWrongRole    = "auth/wrong_role"     // a replica where only a master may be
	CodeProtocol     = "auth/protocol"       // no common protocol, or one that needs a certificate
	CodeNotPermitted = "auth/request_denied" // a certificate request the CA refuses to sign

	CodeCertMissing     = "auth/cert_missing"       // node.crt or node.key is not there, or a peer showed none
	CodeCertInvalid     = "auth/cert_invalid"       // not a node certificate, or unreadable
	CodeCertExpired     = "auth/cert_expired"       // past its last day
	CodeCertNotYetValid = "auth/cert_not_yet_valid" // starts in the future: some clock is wrong
	CodeCertWrongCA     = "auth/cert_wrong_ca"      // signed by another cluster's CA
	CodeCertKeyMismatch = "auth/cert_key_mismatch"  // certificate and key do not belong together
	CodeIdentityInvalid = "auth/identity_invalid"   // a name that is no node identity

	CodeJoinStringForeign = "auth/join_string_foreign" // not a join string at all
	CodeJoinStringDamaged = "auth/join_string_damaged" // mistyped or cut off
	CodeJoinStringNewer   = "auth/join_string_newer"   // made by a newer release
	CodeJoinStringInvalid = "auth/join_string_invalid" // whole, but with unusable contents

	CodeTokenMissing      = "auth/token_missing"       // no Authorization header
	CodeTokenNotBearer    = "auth/token_not_bearer"    // an Authorization header of another scheme
	CodeTokenMalformed    = "auth/token_malformed"     // a bearer token that cannot be ours
	CodeTokenUnknown      = "auth/token_unknown"       // well formed, but not issued here
	CodeTokenInvalid      = "auth/token_invalid"       // a token entry that cannot be added or removed
	CodeTokensFileInvalid = "auth/tokens_file_invalid" // tokens.json cannot be used
)

// An Error is a refusal that a person can act on. Its text names the file or the
// peer and says what to do, and never contains a token, a key or a join string.
type Error struct {
	Code string // stable, one of the Code constants
	Msg  string // what is wrong and what to do
	Err  error  // the cause, or nil
}

// Error returns Msg, with the cause in parentheses if there is one.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + " (" + e.Err.Error() + ")"
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first [*Error] in err's tree, or "" if there is none.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

func refuse(code, format string, args ...any) error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

func refuseFor(code string, cause error, format string, args ...any) error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...), Err: cause}
}
