package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
)

// The codes this package adds to those of package crm.
const (
	CodeMethod    crm.Code = "method_not_allowed"     // the path exists, the method does not fit it
	CodeMediaType crm.Code = "unsupported_media_type" // a body that is not application/json
)

// statuses is the one table of codes and HTTP statuses. A code that is not in
// it is internal.
var statuses = map[crm.Code]int{
	crm.CodeInvalid:       http.StatusBadRequest,
	crm.CodeUnknownEntity: http.StatusNotFound,
	crm.CodeUnknownField:  http.StatusBadRequest,
	crm.CodeRequired:      http.StatusUnprocessableEntity,
	crm.CodeNotFound:      http.StatusNotFound,
	crm.CodeExists:        http.StatusConflict,
	crm.CodeDuplicateKey:  http.StatusConflict,
	crm.CodeDeleted:       http.StatusGone,
	crm.CodeTransition:    http.StatusConflict,
	crm.CodeGuard:         http.StatusConflict,
	crm.CodeDependsOn:     http.StatusConflict,
	crm.CodeTerritory:     http.StatusForbidden,
	crm.CodeConflict:      http.StatusConflict,
	crm.CodeReadOnly:      http.StatusBadRequest,
	crm.CodeTooLarge:      http.StatusRequestEntityTooLarge,
	crm.CodeInternal:      http.StatusInternalServerError,
	crm.CodeUnavailable:   http.StatusServiceUnavailable,
	crm.CodeTimeout:       http.StatusGatewayTimeout,
	crm.CodeUnauthorized:  http.StatusUnauthorized,
	crm.CodeForbidden:     http.StatusForbidden,
	crm.CodeCorrupt:       http.StatusInternalServerError,
	crm.CodeFormat:        http.StatusInternalServerError,
	crm.CodeLocked:        http.StatusServiceUnavailable,
	crm.CodeDiskFull:      http.StatusInsufficientStorage,
	crm.CodeUnsynced:      http.StatusInternalServerError,
	crm.CodeNoLeader:      http.StatusServiceUnavailable,
	crm.CodeFenced:        http.StatusServiceUnavailable,
	crm.CodeFrozen:        http.StatusServiceUnavailable,
	crm.CodeRemoved:       http.StatusForbidden,
	crm.CodeWithheld:      http.StatusGone,
	crm.CodePoison:        http.StatusUnprocessableEntity,
	crm.CodeStale:         http.StatusServiceUnavailable,
	CodeMethod:            http.StatusMethodNotAllowed,
	CodeMediaType:         http.StatusUnsupportedMediaType,
	"site_has_replica":    http.StatusConflict, // package master's, which is not imported for a word
}

// retryAfter holds, in seconds, the codes that a later try may cure by itself.
var retryAfter = map[crm.Code]string{
	crm.CodeUnavailable: "2",
	crm.CodeNoLeader:    "2",
	crm.CodeStale:       "1",
	crm.CodeLocked:      "5",
}

// A Problem is an error answer (RFC 9457).
type Problem struct {
	Type      string       `json:"type"` // a relative reference to the code's documentation
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"` // what is wrong and what to do about it
	Code      crm.Code     `json:"code"`
	Op        string       `json:"op,omitempty"`
	Item      string       `json:"item,omitempty"` // which field, record, header or parameter
	RequestID string       `json:"request_id,omitempty"`
	Outcome   *OutcomeText `json:"outcome,omitempty"` // of an edit that the master rejected
}

// rejected carries the outcome of a rejected edit to its problem.
type rejected struct {
	cause   *crm.Error
	outcome OutcomeText
}

func (r *rejected) Error() string { return r.cause.Error() }

func (r *rejected) Unwrap() error { return r.cause }

// problemOf returns the answer to err. What is internal is not told: the log has it.
func problemOf(err error) Problem {
	e := personal(err)
	status, ok := statuses[e.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	p := Problem{Type: "/docs/errors#" + string(e.Code), Title: title(e.Code), Status: status,
		Detail: e.Message, Code: e.Code, Op: e.Op, Item: e.Item}
	if e.Code == crm.CodeInternal {
		p.Detail, p.Op, p.Item = "a fault of this node; its log tells more under the request id", "", ""
	}
	if r, ok := errors.AsType[*rejected](err); ok {
		p.Outcome = &r.outcome
	}
	return p
}

// personal returns the error for people in err's chain, or what stands for it.
func personal(err error) crm.Error {
	if e, ok := errors.AsType[*crm.Error](err); ok {
		return *e
	}
	if e, ok := errors.AsType[*auth.Error](err); ok {
		return crm.Error{Code: crm.CodeInvalid, Item: e.Code, Message: e.Msg}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return crm.Error{Code: crm.CodeTimeout, Message: "this took longer than a request may; an edit already taken will be decided"}
	case errors.Is(err, context.Canceled):
		return crm.Error{Code: crm.CodeUnavailable, Message: "the request ended early: the client left, or this node is stopping"}
	}
	return crm.Error{Code: crm.CodeInternal}
}

func title(code crm.Code) string {
	s := strings.ReplaceAll(string(code), "_", " ")
	return strings.ToUpper(s[:1]) + s[1:]
}

// fail writes the problem of err and logs what is this node's fault.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	p.RequestID = w.Header().Get(headerRequestID)
	if p.Status == http.StatusInternalServerError {
		s.log.Error("request failed", slog.String("request_id", p.RequestID), slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	h := w.Header()
	for _, name := range []string{"Etag", "Location", "Content-Length"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if after := retryAfter[p.Code]; after != "" {
		h.Set("Retry-After", after)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="tradepost"`)
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic("httpapi: a problem does not encode: " + err.Error())
	}
	w.WriteHeader(p.Status)
	w.Write(append(body, '\n'))
}

// invalid is the error of one parameter, header or member.
func invalid(item, format string, args ...any) error {
	return &crm.Error{Code: crm.CodeInvalid, Item: item, Message: fmt.Sprintf(format, args...)}
}

// err returns the problem as the error it was made of.
func (p *Problem) err() error {
	e := &crm.Error{Code: p.Code, Op: p.Op, Item: p.Item, Message: p.Detail}
	if p.Outcome == nil {
		return e
	}
	return &rejected{e, *p.Outcome}
}
