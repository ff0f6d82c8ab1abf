package store

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// A Page is one page of a list.
type Page struct {
	Records []*crm.Record
	Next    string // cursor of the next page; "" if this is the last
	Scanned int    // records looked at to find these
}

// List returns one page of the records that q asks for. Records are ordered by
// the index keys of the sort fields, null first, and then by id in the
// direction of the last sort field, so the order is total and a cursor exact:
// records that keep their place are shown once, whatever happens to others. A
// sort by the field id ends the order.
//
// A filter or order that an index serves costs time in proportion to the page;
// others read all records that the best index leaves. The error is of code
// invalid for a cursor that is not of this list.
func (r *Reader) List(q query.List) (Page, error) {
	o := orderOf(q)
	from, err := o.parseCursor(q.Cursor)
	if err != nil {
		return Page{}, err
	}
	if r.writes() {
		r.linked = nil
	}
	l := lister{r: r, q: q, order: o, from: from, want: q.PageSize()}
	p := l.plan()
	if p.ordered {
		err = l.walk(p)
	} else {
		err = l.sort(p)
	}
	if err != nil {
		return Page{}, err
	}
	return l.page()
}

// An order is a sort order with its end, the id.
type order struct {
	keys   []query.Key
	idDesc bool
	tag    uint32 // tells cursors of different lists apart
}

func orderOf(q query.List) order {
	var o order
	spec := fmt.Appendf(nil, "%d", q.Entity.ID)
	for _, k := range q.Sort {
		spec = fmt.Appendf(spec, " %d %v", k.Field.ID, k.Desc)
		o.idDesc = k.Desc
		if k.Field.ID == crm.FieldIDField {
			break
		}
		o.keys = append(o.keys, k)
	}
	o.tag = crc32.Checksum(spec, castagnoli)
	return o
}

// uniform reports whether all of the order goes one way.
func (o order) uniform() bool {
	return !slices.ContainsFunc(o.keys, func(k query.Key) bool { return k.Desc != o.idDesc })
}

// place returns the place in the order of a record, of which value returns the
// fields: bytes that compare as records are sorted. Keys are prefix-free, so the
// complement of one turns its order around.
func (o order) place(id crm.RecordID, value func(crm.FieldID) crm.Value) []byte {
	b := make([]byte, 0, 64)
	for _, k := range o.keys {
		at := len(b)
		b = crm.AppendKey(b, value(k.Field.ID))
		if k.Desc {
			invert(b[at:])
		}
	}
	at := len(b)
	b = append(b, id[:]...)
	if o.idDesc {
		invert(b[at:])
	}
	return b
}

func invert(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}

func (o order) cursor(place []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, o.tag), place...))
}

// parseCursor returns the place that the cursor names, nil for none.
func (o order) parseCursor(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 4+idSize || binary.BigEndian.Uint32(b) != o.tag {
		return nil, &crm.Error{Code: crm.CodeInvalid, Op: "list", Item: "cursor", Message: "this cursor is not of this list; start from the first page"}
	}
	return b[4:], nil
}

// A lister collects one page.
type lister struct {
	r       *Reader
	q       query.List
	order   order
	from    []byte // place to go on from, excluded; nil: the start
	want    int
	hits    []hit // ordered by place; one more than want is kept to know whether there is a next page
	scanned int
	missed  int // of those scanned, by the filter
	raw     crm.Raw
}

// A hit is a record for the page. It is decoded only if it gets there.
type hit struct {
	place  []byte // of sort
	key    RecordKey
	body   []byte      // valid as long as the transactions
	over   bool        // it is in the overlay
	record *crm.Record // nil: not decoded yet
}

// walk takes the first matching records of a plan that yields them in order.
func (l *lister) walk(p plan) error {
	l.hits = make([]hit, 0, l.want+1)
	for m := p.merge(l); len(l.hits) <= l.want && m.next(); {
		h, ok, err := l.match(m)
		if err != nil {
			return err
		}
		if ok {
			l.hits = append(l.hits, h)
		}
	}
	return nil
}

// sort goes through all records of a plan and keeps the first matching ones.
func (l *lister) sort(p plan) error {
	for m := p.merge(l); m.next(); {
		h, ok, err := l.match(m)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if h.place, err = l.placeOf(&h); err != nil {
			return err
		}
		if bytes.Compare(h.place, l.from) > 0 {
			l.keep(h)
		}
	}
	l.cut()
	return nil
}

// placeOf returns the place of the hit that match has found last.
func (l *lister) placeOf(h *hit) ([]byte, error) {
	if h.record != nil {
		return l.order.place(h.key.ID, h.record.Value), nil
	}
	if err := l.reset(h); err != nil {
		return nil, err
	}
	return l.order.place(h.key.ID, l.raw.Peek), l.damage(h, l.raw.Err())
}

// keep adds a hit and now and then drops those that cannot be on the page, so
// that memory stays in proportion to the page.
func (l *lister) keep(h hit) {
	if l.hits = append(l.hits, h); len(l.hits) > 4*(l.want+1) {
		l.cut()
	}
}

func (l *lister) cut() {
	slices.SortFunc(l.hits, func(a, b hit) int { return bytes.Compare(a.place, b.place) })
	l.hits = slices.CompactFunc(l.hits, func(a, b hit) bool { return bytes.Equal(a.place, b.place) })
	l.hits = slices.Delete(l.hits, min(len(l.hits), l.want+1), len(l.hits))
}

// match returns the record that m has found, and whether it passes the filter.
func (l *lister) match(m *merge) (h hit, ok bool, err error) {
	l.scanned++
	body, err := l.r.bodyAt(m)
	if err != nil || body == nil {
		return h, false, err
	}
	h = hit{key: m.key, body: body, over: m.over}
	if l.q.Where == nil {
		return h, true, nil
	}
	value := l.raw.Peek
	if l.missed <= l.scanned/4 {
		// Most pass: then it is cheaper to decode at once what will be shown.
		if h.record, err = l.decode(&h); err != nil {
			return h, false, err
		}
		value = h.record.Value
	} else if err := l.reset(&h); err != nil {
		return h, false, err
	}
	ok, err = l.passes(value)
	if h.record == nil && err == nil {
		err = l.damage(&h, l.raw.Err())
	}
	if !ok {
		l.missed++
	}
	return h, ok, err
}

// passes reports whether a record with the values passes the filter.
func (l *lister) passes(value func(crm.FieldID) crm.Value) (ok bool, err error) {
	ok = l.q.Where.Match(func(p *query.Path) crm.Value {
		if p.Link == nil {
			return p.Of(value(p.Field.ID))
		}
		far, lerr := l.r.followed(p.Entity.ID, value(p.Link.ID).Link())
		if lerr != nil {
			err = lerr
		}
		return p.Value(far)
	})
	return ok, err
}

// reset makes l.raw read the hit.
func (l *lister) reset(h *hit) error {
	return l.damage(h, l.raw.Reset(h.key.Entity, h.key.ID, h.body))
}

func (l *lister) decode(h *hit) (*crm.Record, error) {
	rec, err := crm.DecodeRecord(h.key.Entity, h.key.ID, h.body)
	return rec, l.damage(h, err)
}

func (l *lister) damage(h *hit, err error) error {
	if err == nil {
		return nil
	}
	return l.r.unreadable(h.key, h.over, err)
}

// followed returns the live record that a link leads to, nil if there is none.
func (r *Reader) followed(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	k := RecordKey{e, id}
	if rec, ok := r.linked[k]; ok || id.IsZero() {
		return rec, nil
	}
	rec, err := r.Record(e, id)
	if err != nil {
		return nil, err
	}
	if present(rec) == 0 {
		rec = nil
	}
	if r.linked == nil || len(r.linked) >= maxLinked {
		r.linked = map[RecordKey]*crm.Record{}
	}
	r.linked[k] = rec
	return rec, nil
}

// maxLinked bounds the records remembered for filters over a link.
const maxLinked = 4096

// page decodes the records of the page.
func (l *lister) page() (Page, error) {
	p := Page{Scanned: l.scanned}
	n := min(len(l.hits), l.want)
	if n > 0 {
		p.Records = make([]*crm.Record, n)
	}
	for i := range p.Records {
		h := &l.hits[i]
		if h.record == nil {
			var err error
			if h.record, err = l.decode(h); err != nil {
				return Page{}, err
			}
		}
		p.Records[i] = h.record
	}
	if len(l.hits) > n && n > 0 {
		last := p.Records[n-1]
		p.Next = l.order.cursor(l.order.place(last.ID, last.Value))
	}
	return p, nil
}
