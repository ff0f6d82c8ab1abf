package httpapi

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/store"
)

// get answers GET /api/v1/{entity}/{id}?fields=&expand=.
func (s *Server) get(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := readParams(r, "fields", "expand")
	if err != nil {
		return err
	}
	id, err := pathID(r)
	if err != nil {
		return err
	}
	return s.answer(w, r, "point", func(rd *store.Reader, p *page) (int, error) {
		e, rec, err := liveRecord(rd, r.PathValue("entity"), id)
		if err != nil {
			return 1, err
		}
		v, err := viewOf(rd, e, q)
		if err != nil {
			return 1, err
		}
		if v.expand == nil && !v.every { // titles change without the record
			p.etag = rd.Token(rec).AppendTo(p.etag)
		}
		p.body = appendRecord(p.body, e, rec, v)
		return 1, v.err
	})
}

// liveRecord returns a record that is there and not deleted.
func liveRecord(rd *store.Reader, entity string, id crm.RecordID) (*crm.Entity, *crm.Record, error) {
	e, rec, err := anyRecord(rd, entity, id)
	if err == nil && rec.Deleted {
		err = &crm.Error{Code: crm.CodeDeleted, Item: id.String(), Message: "the " + strings.ToLower(e.Label) + " was deleted; restore it with POST …/restore"}
	}
	return e, rec, err
}

// anyRecord returns a record that is there, even deleted.
func anyRecord(rd *store.Reader, entity string, id crm.RecordID) (*crm.Entity, *crm.Record, error) {
	e, err := entityOf(rd.Schema(), entity)
	if err != nil {
		return nil, nil, err
	}
	rec, err := rd.Record(e.ID, id)
	if err == nil && rec == nil {
		err = &crm.Error{Code: crm.CodeNotFound, Item: id.String(), Message: "this node holds no such " + strings.ToLower(e.Label)}
	}
	return e, rec, err
}

// viewOf reads fields= and expand=.
func viewOf(rd *store.Reader, e *crm.Entity, q params) (*view, error) {
	v := &view{rd: rd}
	var err error
	if v.fields, err = query.ParseFields(e, q.text("fields")); err != nil {
		return v, under("fields", err)
	}
	if q.text("expand") == "*" {
		v.every = true
		return v, nil
	}
	if v.expand, err = query.ParseFields(e, q.text("expand")); err != nil {
		return v, under("expand", err)
	}
	for _, f := range v.expand {
		if f.Kind != crm.Link {
			return v, invalid("expand", "%s is no link but of kind %s", f.Name, f.Kind)
		}
	}
	return v, nil
}

// list answers GET /api/v1/{entity}?filter=&sort=&limit=&cursor=&fields=&expand=.
func (s *Server) list(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := readParams(r, "filter", "sort", "limit", "cursor", "fields", "expand")
	if err != nil {
		return err
	}
	return s.answer(w, r, "list", func(rd *store.Reader, p *page) (int, error) {
		e, err := entityOf(rd.Schema(), r.PathValue("entity"))
		if err != nil {
			return 0, err
		}
		l, err := listOf(rd.Schema(), e, q)
		if err != nil {
			return 0, err
		}
		v, err := viewOf(rd, e, q)
		if err != nil {
			return 0, err
		}
		found, err := rd.List(l)
		if err != nil {
			return 0, err
		}
		return found.Scanned, appendList(rd, p, l, found, v)
	})
}

func listOf(schema *crm.Schema, e *crm.Entity, q params) (query.List, error) {
	l := query.List{Entity: e, Cursor: q.text("cursor")}
	var err error
	if l.Where, err = query.Parse(schema, e, q.text("filter")); err != nil {
		return l, under("filter", err)
	}
	if l.Sort, err = query.ParseSort(e, q.text("sort")); err != nil {
		return l, under("sort", err)
	}
	l.Limit, err = q.limit("limit", query.MaxLimit)
	return l, err
}

// appendList writes a page of a list. The count is there where it costs nothing:
// of a whole entity, and of a list that fits one page.
func appendList(rd *store.Reader, p *page, l query.List, found store.Page, v *view) error {
	p.body = append(p.body, `{"items":[`...)
	for i, rec := range found.Records {
		if i > 0 {
			p.body = append(p.body, ',')
		}
		p.body = appendRecord(p.body, l.Entity, rec, v)
	}
	p.body = append(p.body, ']')
	if found.Next != "" {
		p.body = append(p.body, `,"next":`...)
		p.body = appendString(p.body, found.Next)
	}
	count := -1
	switch {
	case found.Next == "" && l.Cursor == "":
		count = len(found.Records)
	case l.Where == nil:
		n, err := rd.Count(l.Entity.ID)
		if err != nil {
			return err
		}
		count = n
	}
	if count >= 0 {
		p.body = append(p.body, `,"count":`...)
		p.body = strconv.AppendInt(p.body, int64(count), 10)
	}
	p.body = append(p.body, '}')
	return v.err
}

// under puts the parameter's name before the place an error names: "filter 1:7".
func under(param string, err error) error {
	e := personal(err)
	if e.Code == crm.CodeInternal {
		return err
	}
	e.Item = strings.TrimSpace(param + " " + e.Item)
	return &e
}

// maxHits bounds a search.
const maxHits = 100

// search answers GET /api/v1/search?q=&entity=&limit=.
func (s *Server) search(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := readParams(r, "q", "entity", "limit")
	if err != nil {
		return err
	}
	limit, err := q.limit("limit", maxHits)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = 20
	}
	text := q.text("q")
	if len(text) > 200 || len(crm.Words(text)) == 0 {
		return invalid("q", "want at least one letter or digit to search for, and at most 200 bytes")
	}
	return s.answer(w, r, "search", func(rd *store.Reader, p *page) (int, error) {
		within, err := searched(rd.Schema(), q.text("entity"))
		if err != nil {
			return 0, err
		}
		hits, err := rd.Search(text, within, limit)
		if err != nil {
			return 0, err
		}
		p.body = append(p.body, `{"items":[`...)
		for i, hit := range hits {
			if i > 0 {
				p.body = append(p.body, ',')
			}
			p.body = appendHit(p.body, rd, hit)
		}
		p.body = append(p.body, ']', '}')
		return len(hits), nil
	})
}

// searched reads entity=account,contact; none named means all that people work with.
func searched(schema *crm.Schema, text string) ([]*crm.Entity, error) {
	list := schema.Names()
	if text != "" {
		list = strings.Split(text, ",")
	}
	var out []*crm.Entity
	for _, name := range list {
		e, err := entityOf(schema, strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// A Hit is one item of a search.
type Hit struct {
	ID     string `json:"id"`
	Entity string `json:"entity"`
	Title  string `json:"title"`
	Token  string `json:"token"`
}

func appendHit(dst []byte, rd *store.Reader, h store.Hit) []byte {
	dst = append(dst, `{"id":"`...)
	dst = appendID(dst, h.Record.ID)
	dst = append(append(dst, `","entity":"`...), h.Entity.Name...)
	dst = appendString(append(dst, `","title":`...), h.Title)
	dst = rd.Token(h.Record).AppendTo(append(dst, `,"token":"`...))
	return append(dst, '"', '}')
}
