package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Client speaks to the API of one node. Its errors are [*crm.Error] with the
// code, item and message that the node gave, or code unavailable if the node
// could not be reached.
type Client struct {
	BaseURL string       // as http://localhost:8400
	Token   string       // bearer token; "" sends none
	HTTP    *http.Client // nil: http.DefaultClient
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 256 << 20

// A request is one call of the client.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         any // nil: none
}

// path joins the parts to a path, each escaped.
func path(parts ...string) string {
	var b strings.Builder
	b.WriteString("/api/v1")
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// do sends q, decodes the answer into out unless that is nil, and returns the
// answer's header.
func (c *Client) do(ctx context.Context, q request, out any) (http.Header, error) {
	resp, err := c.open(ctx, q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && out != nil {
		err = json.Unmarshal(body, out)
	}
	if err != nil {
		return resp.Header, &crm.Error{Code: crm.CodeUnavailable, Op: q.method + " " + q.path, Item: c.BaseURL, Message: "the answer is cut off or not from tradepost", Err: err}
	}
	return resp.Header, nil
}

// open sends q and returns the answer with its body open, or the error it tells of.
func (c *Client) open(ctx context.Context, q request) (*http.Response, error) {
	r, err := c.request(ctx, q)
	if err != nil {
		return nil, err
	}
	resp, err := cmp.Or(c.HTTP, http.DefaultClient).Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, &crm.Error{Code: crm.CodeUnavailable, Op: q.method + " " + q.path, Item: c.BaseURL, Message: "the node cannot be reached; is it running, and is this its HTTP address?", Err: err}
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problemIn(resp, q, c.BaseURL)
}

func (c *Client) request(ctx context.Context, q request) (*http.Request, error) {
	var body io.Reader
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", q.method, q.path, err)
		}
		body = bytes.NewReader(b)
	}
	target := strings.TrimRight(c.BaseURL, "/") + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, q.method, target, body)
	if err != nil {
		return nil, &crm.Error{Code: crm.CodeInvalid, Item: c.BaseURL, Message: "not an address such as http://localhost:8400", Err: err}
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return r, nil
}

// problemIn decodes the error in an answer.
func problemIn(resp *http.Response, q request, from string) error {
	var p Problem
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	if err == nil {
		err = json.Unmarshal(body, &p)
	}
	if resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge || resp.StatusCode == http.StatusRequestURITooLong {
		return &crm.Error{Code: crm.CodeTooLarge, Item: "query", Message: fmt.Sprintf("filter and the other parameters are %d bytes together; at most about %d fit", len(q.query.Encode()), maxHeader)}
	}
	if err != nil || p.Code == "" {
		return &crm.Error{Code: crm.CodeUnavailable, Op: q.method + " " + q.path, Item: from, Message: "answered " + resp.Status + ", not as tradepost does; is a proxy in between?"}
	}
	return p.err()
}

// OutcomeOf returns the outcome of an edit that was rejected, nil if err is
// another error.
func OutcomeOf(err error) *OutcomeText {
	if r, ok := errors.AsType[*rejected](err); ok {
		return &r.outcome
	}
	return nil
}
