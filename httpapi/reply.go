package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// maxRead bounds how long a read waits to meet its demand.
const maxRead = 10 * time.Second

// writeJSON answers with v where speed does not matter.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
	return nil
}

// A builder writes the body of a read into p and counts the rows it looked at.
// It may be called again with a fresh page, so it keeps nothing.
type builder func(rd *store.Reader, p *page) (scanned int, err error)

// answer reads at what the request demands and sends what build made of it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, kind string, build builder) error {
	p := newPage()
	defer p.free()
	start, scanned := s.now(), 0
	f, err := s.read(r, func(rd *store.Reader) (err error) {
		p.body, p.etag = p.body[:0], p.etag[:0]
		scanned, err = build(rd, p)
		return err
	})
	if err != nil {
		return err
	}
	now := s.now()
	took := now.Sub(start).Seconds()
	s.metrics.queries[queryLabels{kind, f.Pending > 0}].Observe(took)
	s.metrics.scanned[kind].Observe(float64(scanned))
	if kind == "report" {
		s.metrics.reports.Observe(took)
	}
	p.send(w, r, http.StatusOK, f, now)
	return nil
}

// read calls fn with a state that meets the request's demand.
func (s *Server) read(r *http.Request, fn func(*store.Reader) error) (crm.Freshness, error) {
	d, err := parseDemand(r.Header)
	if err != nil {
		return crm.Freshness{}, err
	}
	ctx := r.Context()
	if d.Level != crm.Local {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxRead)
		defer cancel()
	}
	f, err := s.cfg.Node.Read(ctx, d, fn)
	if err != nil {
		if d.Level == crm.Bounded && crm.CodeOf(err) == crm.CodeStale {
			s.metrics.bounded.Inc()
		}
		return f, err
	}
	if !f.AsOf.IsZero() {
		s.metrics.staleness[d.Level].Observe(staleness(f, s.now()).Seconds())
	}
	return f, nil
}

// send writes the page with its headers, or 304 if the reader has it already.
func (p *page) send(w http.ResponseWriter, r *http.Request, status int, f crm.Freshness, now time.Time) {
	b := &p.headers
	b.freshness(f, now)
	if len(p.etag) > 0 {
		b.text = append(append(append(b.text, '"'), p.etag...), '"')
		b.end("Etag")
	}
	h := w.Header()
	if status == http.StatusOK && len(p.etag) > 0 && r.Header.Get("If-None-Match") == `"`+string(p.etag)+`"` {
		b.set(h)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	p.body = append(p.body, '\n')
	b.text = append(b.text, "application/json"...)
	b.end("Content-Type")
	b.text = append(b.text, "no-cache"...)
	b.end("Cache-Control")
	b.text = strconv.AppendInt(b.text, int64(len(p.body)), 10)
	b.end("Content-Length")
	b.set(h)
	w.WriteHeader(status)
	w.Write(p.body)
}

// A view says how records are shown.
type view struct {
	fields []*crm.Field // nil: all that have a value
	expand []*crm.Field // links shown with the title of their target
	every  bool         // expand every link
	rd     *store.Reader
	err    error // the first failure to read a title
}

func (v *view) expands(f *crm.Field) bool { return v.every || slices.Contains(v.expand, f) }

// title names the record that f links to, "" if it is not held here.
func (v *view) title(f *crm.Field, id crm.RecordID) string {
	e := v.rd.Schema().Entity(f.Target)
	if e == nil {
		return ""
	}
	title, err := v.rd.Title(e.ID, id)
	v.err = cmp.Or(v.err, err)
	return title
}
