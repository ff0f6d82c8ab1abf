package crm

import "errors"

// Code is the stable, documented name of an error or outcome (docs/errors.md).
type Code string

// The codes of this package. Other packages add their own; all are listed in
// docs/errors.md, which a test compares with the code.
const (
	CodeInvalid       Code = "invalid"         // a value, name or request is malformed
	CodeUnknownEntity Code = "unknown_entity"  // no such entity in the live schema
	CodeUnknownField  Code = "unknown_field"   // no such field on the entity
	CodeRequired      Code = "required"        // a required field is empty
	CodeNotFound      Code = "not_found"       // no such record
	CodeExists        Code = "already_exists"  // a record with this id exists
	CodeDuplicateKey  Code = "duplicate_key"   // a unique field's value is taken
	CodeDeleted       Code = "deleted"         // the record is deleted; restore it first
	CodeTransition    Code = "transition"      // the stage or status move is not allowed
	CodeGuard         Code = "guard_failed"    // a guard of the mutation is false on decided state
	CodeDependsOn     Code = "depends_on"      // the record's creation was rejected
	CodeTerritory     Code = "territory"       // the site does not hold the record's territory
	CodeConflict      Code = "conflict"        // two edits met that had not seen each other
	CodeReadOnly      Code = "read_only_field" // the field is set by the system only
	CodeTooLarge      Code = "too_large"       // a value or mutation is over its limit
	CodeInternal      Code = "internal"        // a bug; the bytes are kept for diagnosis
	CodeUnavailable   Code = "unavailable"     // try again later; nothing was changed
	CodeTimeout       Code = "timeout"         // the outcome is unknown; it will be decided
	CodeUnauthorized  Code = "unauthorized"    // no or bad credentials
	CodeForbidden     Code = "forbidden"       // known, but not allowed
	CodeCorrupt       Code = "corrupt"         // stored bytes fail their checksum or structure
	CodeFormat        Code = "format"          // a file of another program or a newer version
	CodeLocked        Code = "locked"          // another process has the directory open
	CodeDiskFull      Code = "disk_full"       // the disk has no room; nothing was acknowledged
	CodeUnsynced      Code = "unsynced"        // the disk did not confirm the write, which may or may not last
	CodeNoLeader      Code = "no_leader"       // no quorum of masters
	CodeFenced        Code = "fenced"          // this disk is an old copy of the node's state
	CodeFrozen        Code = "frozen"          // the node's history forked; an admin must choose
	CodeRemoved       Code = "node_removed"    // the node was removed from the cluster
	CodeWithheld      Code = "withheld"        // the content of the edit was purged from its branch
	CodePoison        Code = "poison"          // judging the edit brings the masters down
	CodeStale         Code = "stale"           // a consistency demand could not be met in time
)

// An Error is an error for people: a stable Code, the operation and item it
// concerns, and a message that says what is wrong and what to do.
type Error struct {
	Code    Code
	Op      string // what was being done: "create account", "read config"
	Item    string // which one: a field, record id, file, flag
	Message string // what is wrong and what to do about it
	Err     error  // the cause, if any
}

func (e *Error) Error() string {
	s := e.Message
	if e.Item != "" {
		s = e.Item + ": " + s
	}
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first *Error in err's chain, CodeInternal if
// there is none, and "" for a nil error.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
