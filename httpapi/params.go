package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// params are the query parameters of a request, each at most once.
type params url.Values

// readParams refuses parameters that the path does not know, because one
// mistyped would be ignored silently.
func readParams(r *http.Request, known ...string) (params, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("query", "%v", err)
	}
	for _, name := range names(values) {
		if !slices.Contains(known, name) {
			return nil, invalid(short(name), "no such parameter%s", query.Suggest(name, known))
		}
		if len(values[name]) > 1 {
			return nil, invalid(name, "given more than once")
		}
	}
	return params(values), nil
}

func (p params) text(name string) string { return url.Values(p).Get(name) }

// limit reads a parameter that counts, from 1 to most; 0 if absent.
func (p params) limit(name string, most int) (int, error) {
	text := p.text(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, invalid(name, "%q is not a whole number from 1 to %d", short(text), most)
	}
	return n, nil
}

// How long an edit waits for its outcome at most, and where it does not say.
const (
	MaxWait     = 30 * time.Second
	defaultWait = 5 * time.Second
)

// wait reads how long an edit waits for its outcome; 0 is not at all.
func (p params) wait() (time.Duration, error) {
	text := p.text("timeout")
	switch wait := p.text("wait"); {
	case wait == "" && text == "":
		return 0, nil
	case wait != "decided":
		return 0, invalid("wait", "%q is not decided", short(wait))
	case text == "":
		return defaultWait, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > MaxWait {
		return 0, invalid("timeout", "%q is not a time such as 5s, and at most %s", short(text), MaxWait)
	}
	return d, nil
}

// pathID reads the record id in a path.
func pathID(r *http.Request) (crm.RecordID, error) {
	id, err := crm.ParseRecordID(r.PathValue("id"))
	if err != nil {
		return id, invalid("id", "%q is not a record id: 36 characters, as 01890f3e-7c5a-7d2b-8e4f-0123456789ab", short(r.PathValue("id")))
	}
	return id, nil
}
