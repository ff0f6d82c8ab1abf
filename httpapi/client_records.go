package httpapi

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tradepost-crm/tradepost/crm"
)

// An Asked says how a read is to be answered.
type Asked struct {
	Demand crm.Demand // zero: local
	Fields []string   // none: all that have a value
	Expand []string   // links shown with a title; "*" is all
}

func (a Asked) query() url.Values {
	q := url.Values{}
	set(q, "fields", strings.Join(a.Fields, ","))
	set(q, "expand", strings.Join(a.Expand, ","))
	return q
}

func (a Asked) header() http.Header {
	h := http.Header{}
	formatDemand(h, a.Demand)
	return h
}

// set leaves out what is empty.
func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func setLimit(q url.Values, limit int) {
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
}

// Get returns one record and what it was read from.
func (c *Client) Get(ctx context.Context, entity, id string, a Asked) (Item, crm.Freshness, error) {
	var it Item
	h, err := c.do(ctx, request{method: "GET", path: path(entity, id), query: a.query(), header: a.header()}, &it)
	return it, parseFreshness(h), err
}

// A Query says which records a list holds.
type Query struct {
	Asked
	Filter string
	Sort   string
	Limit  int    // records a page; 0: the server's default
	Cursor string // Next of the page before
}

// Listed is a page of a list.
type Listed struct {
	Items []Item `json:"items"`
	Next  string `json:"next"`
	Count *int   `json:"count"` // of all records, where it is known
}

// Page returns one page of a list and what it was read from.
func (c *Client) Page(ctx context.Context, entity string, q Query) (Listed, crm.Freshness, error) {
	values := q.query()
	set(values, "filter", q.Filter)
	set(values, "sort", q.Sort)
	set(values, "cursor", q.Cursor)
	setLimit(values, q.Limit)
	var out Listed
	h, err := c.do(ctx, request{method: "GET", path: path(entity), query: values, header: q.header()}, &out)
	return out, parseFreshness(h), err
}

// List yields all records of a list, page after page, until an error.
func (c *Client) List(ctx context.Context, entity string, q Query) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for {
			p, _, err := c.Page(ctx, entity, q)
			if err != nil {
				yield(Item{}, err)
				return
			}
			for _, it := range p.Items {
				if !yield(it, nil) {
					return
				}
			}
			if q.Cursor = p.Next; q.Cursor == "" {
				return
			}
		}
	}
}

// Fields are the values of an edit, as the API writes them: texts, numbers,
// nil to clear, {"add":…} for sets and counters.
type Fields map[string]any

// check refuses texts that are not UTF-8, which encoding/json would change.
func (f Fields) check() error {
	for _, name := range names(f) {
		texts, ok := f[name].([]string)
		if text, one := f[name].(string); one {
			texts, ok = []string{text}, true
		}
		if ok && slices.ContainsFunc(texts, func(s string) bool { return !utf8.ValidString(s) }) {
			return invalid(name, "the text is not UTF-8; save the file as UTF-8")
		}
	}
	return nil
}

// Wait is how long an edit waits for the master's decision; 0 is not at all.
type Wait time.Duration

func (w Wait) query() url.Values {
	if w == 0 {
		return nil
	}
	return url.Values{"wait": {"decided"}, "timeout": {time.Duration(w).String()}}
}

// Edited is the answer to an edit of one record.
type Edited struct {
	Written
	Item *Item    // nil if the record is deleted or not held by the node
	Mark crm.Mark // a session read with it sees the edit
}

// Create makes a record; fields may hold its "id".
func (c *Client) Create(ctx context.Context, entity string, fields Fields, w Wait) (Edited, error) {
	if err := fields.check(); err != nil {
		return Edited{}, err
	}
	return c.edit(ctx, request{method: "POST", path: path(entity), query: w.query(), body: fields})
}

// Patch changes fields of a record. Token is what its author had seen, at this
// node or another; "" is what this node shows now.
func (c *Client) Patch(ctx context.Context, entity, id, token string, fields Fields, w Wait) (Edited, error) {
	if err := fields.check(); err != nil {
		return Edited{}, err
	}
	return c.edit(ctx, request{method: "PATCH", path: path(entity, id), query: w.query(), header: seen(token), body: fields})
}

// Delete deletes a record; see Patch for token.
func (c *Client) Delete(ctx context.Context, entity, id, token string, w Wait) (Edited, error) {
	return c.edit(ctx, request{method: "DELETE", path: path(entity, id), query: w.query(), header: seen(token)})
}

// Restore brings a deleted record back.
func (c *Client) Restore(ctx context.Context, entity, id string, w Wait) (Edited, error) {
	return c.edit(ctx, request{method: "POST", path: path(entity, id, "restore"), query: w.query()})
}

func seen(token string) http.Header {
	if token == "" {
		return nil
	}
	return http.Header{"If-Match": {`"` + token + `"`}}
}

func (c *Client) edit(ctx context.Context, q request) (Edited, error) {
	var out Edited
	h, err := c.do(ctx, q, &out.Written)
	if err != nil {
		return out, err
	}
	out.Mark = parseFreshness(h).Mark
	if len(out.Record) > 0 && string(out.Record) != "null" {
		out.Item = &Item{}
		err = json.Unmarshal(out.Record, out.Item)
	}
	return out, err
}

// Mutated is the answer to an edit of many records.
type Mutated struct {
	Written
	Items []*Item  // of the records of the mutation in its order; nil where deleted or not held
	Mark  crm.Mark // a session read with it sees the edit
}

// Mutate makes an edit of any number of records, all or nothing.
func (c *Client) Mutate(ctx context.Context, m MutationText, w Wait) (Mutated, error) {
	return c.mutated(ctx, request{method: "POST", path: path("mutations"), query: w.query(), body: mutationBody(m)})
}

// mutationBody leaves out what is empty, which the server would refuse to read.
func mutationBody(m MutationText) any {
	ops := []map[string]any{}
	for _, op := range m.Ops {
		body := map[string]any{"op": op.Op, "entity": op.Entity}
		for name, value := range map[string]string{"record": op.Record, "seen": op.Seen} {
			if value != "" {
				body[name] = value
			}
		}
		if op.Fields != nil {
			body["fields"] = op.Fields
		}
		if op.From != nil {
			body["from"] = op.From
		}
		ops = append(ops, body)
	}
	body := map[string]any{"intent": m.Intent, "ops": ops}
	if len(m.Guards) > 0 {
		body["guards"] = m.Guards
	}
	return body
}

func (c *Client) mutated(ctx context.Context, q request) (Mutated, error) {
	var out Mutated
	h, err := c.do(ctx, q, &out.Written)
	if err != nil {
		return out, err
	}
	out.Mark = parseFreshness(h).Mark
	for _, raw := range out.Records {
		var it *Item
		if err := json.Unmarshal(raw, &it); err != nil {
			return out, err
		}
		out.Items = append(out.Items, it)
	}
	return out, nil
}

// Search returns the records that have words beginning like those of text.
func (c *Client) Search(ctx context.Context, text string, entities []string, limit int) ([]Hit, error) {
	q := url.Values{"q": {text}}
	set(q, "entity", strings.Join(entities, ","))
	setLimit(q, limit)
	return items[Hit](ctx, c, request{method: "GET", path: path("search"), query: q})
}

// items calls for an answer that is a list without pages.
func items[T any](ctx context.Context, c *Client, q request) ([]T, error) {
	var out Items[T]
	_, err := c.do(ctx, q, &out)
	return out.Items, err
}

// A Summary says what a report computes; see package report for the texts.
type Summary struct {
	Demand                               crm.Demand
	Entity, Group, Measure, Filter, Sort string
	Limit                                int  // rows; 0: all that the server allows
	Titles                               bool // show links with the title of their target
}

// Report runs a report and says what it was read from.
func (c *Client) Report(ctx context.Context, s Summary) (ReportText, crm.Freshness, error) {
	q := url.Values{"entity": {s.Entity}}
	set(q, "group", s.Group)
	set(q, "measure", s.Measure)
	set(q, "filter", s.Filter)
	set(q, "sort", s.Sort)
	setLimit(q, s.Limit)
	if s.Titles {
		q.Set("expand", "*")
	}
	var out ReportText
	h, err := c.do(ctx, request{method: "GET", path: path("reports"), query: q, header: Asked{Demand: s.Demand}.header()}, &out)
	return out, parseFreshness(h), err
}
