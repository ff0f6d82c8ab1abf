package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// Bounds of a request body.
const (
	MaxBody  = 1 << 20 // bytes
	MaxDepth = 16      // objects and lists within one another
)

// A member is one name and value of a JSON object, in the order of the text.
type member struct {
	name string
	raw  json.RawMessage
}

// readObject reads the request's body as one JSON object. It refuses what JSON
// readers disagree on: text that is not UTF-8, names given twice in any case,
// half surrogates, anything after the object.
func readObject(w http.ResponseWriter, r *http.Request) ([]member, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			return nil, &crm.Error{Code: CodeMediaType, Item: "Content-Type", Message: fmt.Sprintf("%.60q is not application/json", ct)}
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, &crm.Error{Code: crm.CodeTooLarge, Item: "body", Message: fmt.Sprintf("more than %d bytes", MaxBody)}
		}
		return nil, invalid("body", "could not be read to its end: %v", err)
	}
	return parseObject(body)
}

func parseObject(body []byte) ([]member, error) {
	if !utf8.Valid(body) {
		return nil, invalid("body", "not UTF-8")
	}
	if !json.Valid(body) {
		return nil, invalid("body", "not one JSON value: %v", json.Unmarshal(body, new(json.RawMessage)))
	}
	w := walker{text: body}
	w.space()
	if body[w.at] != '{' {
		return nil, invalid("body", "want a JSON object")
	}
	return w.object(1)
}

// members reads a part of a body that was read by readObject.
func members(item string, raw json.RawMessage) ([]member, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return nil, invalid(item, "want a JSON object")
	}
	w := walker{text: raw}
	return w.object(1)
}

// A walker goes through text that json.Valid accepted, so that what it expects
// is there; it judges only what json.Valid does not.
type walker struct {
	text []byte
	at   int
}

func (w *walker) space() {
	for w.at < len(w.text) && strings.IndexByte(" \t\r\n", w.text[w.at]) >= 0 {
		w.at++
	}
}

func (w *walker) object(depth int) ([]member, error) {
	if depth > MaxDepth {
		return nil, invalid("body", "objects and lists are nested more than %d deep", MaxDepth)
	}
	var out []member
	seen := map[string]bool{}
	for w.at++; ; w.at++ { // past { or ,
		w.space()
		if w.text[w.at] == '}' {
			w.at++
			return out, nil
		}
		name, err := w.string()
		if err != nil {
			return nil, err
		}
		if folded := strings.ToLower(name); seen[folded] {
			return nil, invalid(name, "named twice in one object")
		} else {
			seen[folded] = true
		}
		w.space()
		w.at++ // the colon
		w.space()
		start := w.at
		if err := w.value(depth); err != nil {
			return nil, err
		}
		out = append(out, member{name, w.text[start:w.at:w.at]})
		w.space()
		if w.text[w.at] == '}' {
			w.at++
			return out, nil
		}
	}
}

func (w *walker) list(depth int) error {
	if depth > MaxDepth {
		return invalid("body", "objects and lists are nested more than %d deep", MaxDepth)
	}
	for w.at++; ; w.at++ { // past [ or ,
		w.space()
		if w.text[w.at] == ']' {
			w.at++
			return nil
		}
		if err := w.value(depth); err != nil {
			return err
		}
		w.space()
		if w.text[w.at] == ']' {
			w.at++
			return nil
		}
	}
}

func (w *walker) value(depth int) error {
	var err error
	switch w.text[w.at] {
	case '{':
		_, err = w.object(depth + 1)
	case '[':
		err = w.list(depth + 1)
	case '"':
		_, err = w.string()
	default:
		for w.at < len(w.text) && strings.IndexByte(",]} \t\r\n", w.text[w.at]) < 0 {
			w.at++
		}
	}
	return err
}

func (w *walker) string() (string, error) {
	start, escaped := w.at, false
	for w.at++; w.text[w.at] != '"'; w.at++ {
		if w.text[w.at] == '\\' {
			escaped = true
			w.at++
		}
	}
	w.at++
	quoted := w.text[start:w.at]
	if !escaped {
		return string(quoted[1 : len(quoted)-1]), nil
	}
	if halfSurrogate(quoted) {
		return "", invalid("body", "half a surrogate pair in %.60s", quoted)
	}
	var s string
	err := json.Unmarshal(quoted, &s)
	return s, err
}

// halfSurrogate reports whether an escape in the string literal stands for half
// a character, which encoding/json would replace.
func halfSurrogate(quoted []byte) bool {
	high := false // the last escape was the first half of a pair
	for i := 1; i < len(quoted)-1; i++ {
		low := false
		if quoted[i] == '\\' && quoted[i+1] == 'u' {
			low = quoted[i+2]|0x20 == 'd' && quoted[i+3]|0x20 >= 'c'
			if low != high {
				return true
			}
			high = quoted[i+2]|0x20 == 'd' && (quoted[i+3] >= '8' && quoted[i+3] <= '9' || quoted[i+3]|0x20 == 'a' || quoted[i+3]|0x20 == 'b')
			i += 5
			continue
		}
		if high {
			return true
		}
		if quoted[i] == '\\' {
			i++
		}
	}
	return high
}

// A shape maps the names that a body of fixed shape may have to where their
// values go: *string, *bool, *[]string, *[]json.RawMessage or *json.RawMessage.
type shape map[string]any

// fill reads the members into the shape and refuses a name that is not in it.
func (s shape) fill(in []member) error {
	for _, m := range in {
		into, ok := s[m.name]
		if !ok {
			return &crm.Error{Code: crm.CodeUnknownField, Item: m.name, Message: "no such member" + query.Suggest(m.name, names(s))}
		}
		if raw, ok := into.(*json.RawMessage); ok {
			*raw = m.raw
			continue
		}
		if json.Unmarshal(m.raw, into) != nil || string(m.raw) == "null" {
			return invalid(m.name, "want %s", wanted(into))
		}
	}
	return nil
}

func wanted(into any) string {
	switch into.(type) {
	case *string:
		return "a text"
	case *bool:
		return "true or false"
	case *[]string:
		return "a list of texts"
	}
	return "a list"
}

// readShape reads a body of fixed shape.
func readShape(w http.ResponseWriter, r *http.Request, s shape) error {
	in, err := readObject(w, r)
	if err != nil {
		return err
	}
	return s.fill(in)
}
