package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// The exit codes. Scripts rely on them: never renumber.
const (
	exitOK          = 0
	exitFailed      = 1
	exitAttention   = 2  // only with --detailed-exitcode: there is something to look at
	exitUsage       = 64 // the command line, a file it names or a value in it is wrong
	exitUnavailable = 69 // no node or no quorum can be reached; nothing was changed
	exitDeadline    = 75 // the deadline passed; the work may still be going on
	exitDenied      = 77
)

// exitCodes is the one table of error codes and exit codes.
var exitCodes = map[crm.Code]int{
	crm.CodeInvalid:       exitUsage,
	crm.CodeUnknownEntity: exitUsage,
	crm.CodeUnknownField:  exitUsage,
	crm.CodeRequired:      exitFailed,
	crm.CodeNotFound:      exitFailed,
	crm.CodeExists:        exitFailed,
	crm.CodeDuplicateKey:  exitFailed,
	crm.CodeDeleted:       exitFailed,
	crm.CodeTransition:    exitFailed,
	crm.CodeGuard:         exitFailed,
	crm.CodeDependsOn:     exitFailed,
	crm.CodeTerritory:     exitDenied,
	crm.CodeConflict:      exitFailed,
	crm.CodeReadOnly:      exitFailed,
	crm.CodeTooLarge:      exitFailed,
	crm.CodeInternal:      exitFailed,
	crm.CodeUnavailable:   exitUnavailable,
	crm.CodeTimeout:       exitDeadline,
	crm.CodeUnauthorized:  exitDenied,
	crm.CodeForbidden:     exitDenied,
	crm.CodeCorrupt:       exitFailed,
	crm.CodeFormat:        exitFailed,
	crm.CodeLocked:        exitFailed,
	crm.CodeDiskFull:      exitFailed,
	crm.CodeUnsynced:      exitFailed,
	crm.CodeNoLeader:      exitUnavailable,
	crm.CodeFenced:        exitFailed,
	crm.CodeFrozen:        exitFailed,
	crm.CodeRemoved:       exitDenied,
	crm.CodeWithheld:      exitFailed,
	crm.CodePoison:        exitFailed,
	crm.CodeStale:         exitUnavailable,

	httpapi.CodeMethod:    exitFailed,
	httpapi.CodeMediaType: exitFailed,
	codeUsage:             exitUsage,
	codeAttention:         exitAttention,
	codeRows:              exitFailed,
}

// The codes that only this program knows.
const (
	codeUsage     crm.Code = "usage"     // the command line is wrong
	codeAttention crm.Code = "attention" // with --detailed-exitcode: there is something to look at
)

// remedies say what to do where the message of a code cannot know.
var remedies = map[crm.Code]string{
	crm.CodeNoLeader:     "if no master leads, a majority of them must run and reach each other; `tradepost operator raft list-peers` names them",
	crm.CodeDeleted:      "`tradepost record restore` brings it back",
	crm.CodeStale:        "the node is behind or cut off; `tradepost status` says how far",
	crm.CodeTimeout:      "give it longer with --timeout; an edit that was taken is decided when the node is in session with the masters; `tradepost status` says what is in its way",
	crm.CodeUnauthorized: "name a file that holds a token with --token-file or TRADEPOST_TOKEN_FILE; a node's first token is admin.token in its directory",
	crm.CodeInternal:     "the node's log tells more",
}

// unreachable is the remedy where the node at --addr did not answer.
const unreachable = "name the node with --addr or TRADEPOST_ADDR; `tradepost serve` starts one"

// exitCode returns the exit code of a command that ended with err.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	code := codeOf(err)
	if exit, ok := exitCodes[code]; ok {
		return exit
	}
	if strings.HasPrefix(string(code), "auth/join_string_") {
		return exitUsage
	}
	return exitFailed
}

// codeOf returns the code of any error a command can end with.
func codeOf(err error) crm.Code { return plain(err).Code }

// plain returns the error for people in err's chain, or what stands for it.
func plain(err error) *crm.Error {
	switch {
	case errors.Is(err, context.DeadlineExceeded) || timedOut(err):
		return &crm.Error{Code: crm.CodeTimeout, Message: "no answer in time"}
	case errors.Is(err, context.Canceled):
		return &crm.Error{Code: crm.CodeTimeout, Message: "interrupted"}
	}
	if e, ok := errors.AsType[*crm.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*auth.Error](err); ok {
		return &crm.Error{Code: crm.Code(e.Code), Message: e.Msg}
	}
	return ofSystem(err)
}

// ofSystem gives an error of the machine or its network a code.
func ofSystem(err error) *crm.Error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &crm.Error{Code: crm.CodeDiskFull, Message: err.Error()}
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok { // before net.Error, which a plain errno is as well
		return &crm.Error{Code: crm.CodeInvalid, Item: e.Path, Message: e.Op + ": " + e.Err.Error()}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return &crm.Error{Code: crm.CodeUnavailable, Message: err.Error()}
	}
	return &crm.Error{Code: crm.CodeInternal, Message: err.Error()}
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func usage(item, format string, args ...any) error {
	return &crm.Error{Code: codeUsage, Item: item, Message: fmt.Sprintf(format, args...)}
}

// failed is an error of this program itself, not of a node.
func failed(op, item string, err error) error {
	return &crm.Error{Code: crm.CodeInvalid, Op: op, Item: item, Message: reason(err)}
}

// reason is what an error of a file says without repeating the file's name.
func reason(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	return s
}

// complain writes the one line of an error, and what to do about it.
func (c *cli) complain(cmd *cobra.Command, err error) {
	e := plain(err)
	if e.Code == codeAttention {
		return // the data said it already
	}
	parts := []string{"tradepost"}
	op := e.Op
	if op == "" && cmd != nil && cmd.HasParent() {
		op = strings.TrimPrefix(cmd.CommandPath(), "tradepost ")
	}
	message := e.Message
	if e.Err != nil {
		message += ": " + e.Err.Error()
	}
	for _, part := range []string{op, e.Item, message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	c.note("%s [%s]", strings.Join(parts, ": "), e.Code)
	remedy := remedies[e.Code]
	if e.Code == crm.CodeUnavailable && c.asked != "" && e.Item == c.asked {
		remedy = unreachable
	}
	if e.Code == codeUsage && cmd != nil {
		remedy = "`" + cmd.CommandPath() + " --help` shows how it is used"
	}
	if remedy != "" {
		c.note("  %s", remedy)
	}
}
