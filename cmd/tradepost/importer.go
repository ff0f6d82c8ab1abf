package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// The modes of an import.
const (
	modeCreate = "create" // a row whose key exists fails, unless it says nothing else
	modeUpsert = "upsert"
	modeUpdate = "update" // a row whose key does not exist fails
)

// Bounds of one Mutation of an import. Its binary form is smaller than the text,
// so that crm.MaxMutation is never met but by a single row.
const (
	batchRows  = 100
	batchBytes = 48 << 10
)

// importCounts says what became of the rows.
type importCounts struct {
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	Failed    int `json:"failed"`
	Skipped   int `json:"skipped"` // left out by --skip-empty
}

func (n importCounts) rows() int {
	return n.Created + n.Updated + n.Unchanged + n.Failed + n.Skipped
}

// An importer turns the rows of a sheet into Mutations.
type importer struct {
	api    *httpapi.Client
	m      *mapping
	mode   string
	form   importForm
	dry    bool
	counts importCounts
	links  map[linkKey]crm.RecordID
	fail   func(csvRow, *rowError) error
	done   func(offset int64) error // every row up to offset has its fate
}

type linkKey struct {
	entity, field, folded string
}

// A step is what a draft comes to, given what the node holds.
type step struct {
	d    *draft
	op   crm.OpText
	size int // of op as JSON
}

// run imports the rows that end after from.
func (im *importer) run(ctx context.Context, s *sheet, from int64) error {
	var batch []*draft
	ids := map[crm.RecordID]bool{}
	offset := from
	flush := func() error {
		if err := im.flush(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
		clear(ids)
		return im.done(offset)
	}
	for {
		row, err := s.next()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
		if row.end <= from {
			continue
		}
		d, err := im.read(row)
		if err != nil {
			return err
		}
		if d != nil && ids[d.id] { // the second row of a key must see the first
			if err := flush(); err != nil {
				return err
			}
		}
		offset = row.end
		if d == nil {
			continue
		}
		ids[d.id] = true
		if batch = append(batch, d); len(batch) == batchRows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// read returns the draft of a row, nil if it has its fate already.
func (im *importer) read(row csvRow) (*draft, error) {
	if im.m.skips(row) {
		im.counts.Skipped++
		return nil, nil
	}
	d, bad := im.m.draft(row, im.form)
	if bad != nil {
		return nil, im.reject(row, bad)
	}
	return d, nil
}

func (im *importer) reject(row csvRow, bad *rowError) error {
	im.counts.Failed++
	return im.fail(row, bad)
}

// flush decides and sends what the drafts come to.
func (im *importer) flush(ctx context.Context, batch []*draft) error {
	batch, err := im.resolveLinks(ctx, batch)
	if err != nil {
		return err
	}
	have, err := im.existing(ctx, batch)
	if err != nil {
		return err
	}
	var steps []step
	for _, d := range batch {
		st, err := im.plan(d, have[d.id])
		if err != nil {
			return err
		}
		if st != nil {
			steps = append(steps, *st)
		}
	}
	return im.sendAll(ctx, steps)
}

// plan says what to do with a draft; nil if it has its fate.
func (im *importer) plan(d *draft, have *current) (*step, error) {
	changes, err := d.changes(have)
	switch {
	case err != nil:
		return nil, im.reject(d.row, im.m.rowError(d.row, -1, err))
	case have != nil && len(changes) == 0:
		im.counts.Unchanged++
		return nil, nil
	case have != nil && im.mode == modeCreate:
		return nil, im.reject(d.row, &rowError{d.row.line, crm.CodeExists, "a record with this key exists and differs; --mode upsert would update it"})
	case have == nil && im.mode == modeUpdate:
		return nil, im.reject(d.row, &rowError{d.row.line, crm.CodeNotFound, fmt.Sprintf("no %s has the %s %q", im.m.entity.Name, im.keyName(), d.key)})
	case have != nil:
		return newStep(d, crm.OpText{Op: "patch", Entity: im.m.entity.Name, Record: have.id.String(), Seen: have.token, Fields: changes})
	}
	if f := im.m.missing(d); f != nil {
		return nil, im.reject(d.row, &rowError{d.row.line, crm.CodeRequired, f.Name + ": a new " + im.m.entity.Name + " needs it"})
	}
	return newStep(d, crm.OpText{Op: "create", Entity: im.m.entity.Name, Record: d.id.String(), Fields: changes})
}

func (im *importer) keyName() string {
	if im.m.key == nil {
		return "key"
	}
	return im.m.key.Name
}

func newStep(d *draft, op crm.OpText) (*step, error) {
	b, err := json.Marshal(op)
	return &step{d, op, len(b)}, err
}

// sendAll sends the steps in Mutations of bounded size.
func (im *importer) sendAll(ctx context.Context, steps []step) error {
	for len(steps) > 0 {
		n, size := 1, steps[0].size
		for n < len(steps) && size+steps[n].size <= batchBytes {
			size += steps[n].size
			n++
		}
		if err := im.send(ctx, steps[:n], true); err != nil {
			return err
		}
		steps = steps[n:]
	}
	return nil
}

// send sends the steps as one Mutation. If that is refused it sends each half,
// so that of any number of rows only the wrong ones fail.
func (im *importer) send(ctx context.Context, steps []step, first bool) error {
	err := error(nil)
	if !im.dry {
		ops := make([]crm.OpText, len(steps))
		for i, st := range steps {
			ops[i] = st.op
		}
		_, err = im.api.Mutate(ctx, httpapi.MutationText{Intent: im.m.entity.Name + ".import", Ops: ops}, 0)
	}
	switch {
	case err == nil:
		im.count(steps)
		return nil
	case !ofOneRow(codeOf(err)):
		return err
	case len(steps) == 1:
		return im.refused(ctx, steps[0], err, first)
	}
	half := len(steps) / 2
	if err := im.send(ctx, steps[:half], first); err != nil {
		return err
	}
	return im.send(ctx, steps[half:], first)
}

func (im *importer) count(steps []step) {
	for _, st := range steps {
		if st.op.Op == "create" {
			im.counts.Created++
		} else {
			im.counts.Updated++
		}
	}
}

// refused settles a row that was refused alone. A creation that was made before
// (the file has no key, or another import ran meanwhile) is looked at once more.
func (im *importer) refused(ctx context.Context, st step, err error, first bool) error {
	if codeOf(err) != crm.CodeExists || st.op.Op != "create" || !first {
		return im.reject(st.d.row, im.m.rowError(st.d.row, -1, err))
	}
	have, err := im.get(ctx, st.d.id)
	if err != nil {
		if !ofOneRow(codeOf(err)) {
			return err
		}
		return im.reject(st.d.row, im.m.rowError(st.d.row, -1, err))
	}
	again, err := im.plan(st.d, have)
	if err != nil || again == nil {
		return err
	}
	return im.send(ctx, []step{*again}, false)
}

// ofOneRow reports whether an error says something of a row, rather than of the
// node or the way to it.
func ofOneRow(code crm.Code) bool {
	switch code {
	case crm.CodeUnavailable, crm.CodeTimeout, crm.CodeUnauthorized, crm.CodeForbidden, crm.CodeNoLeader, crm.CodeStale, crm.CodeDiskFull, crm.CodeUnsynced,
		crm.CodeFenced, crm.CodeFrozen, crm.CodeCorrupt, crm.CodeFormat, crm.CodeLocked, crm.CodeInternal, httpapi.CodeMethod, httpapi.CodeMediaType:
		return false
	}
	return true
}

// resolveLinks looks up what the drafts link to and returns those whose links
// are all known.
func (im *importer) resolveLinks(ctx context.Context, batch []*draft) ([]*draft, error) {
	ask := map[*crm.Field]map[*crm.Field][]crm.Value{} // link → by → values
	for _, d := range batch {
		for _, l := range d.links {
			if _, ok := im.links[l.key()]; ok {
				continue
			}
			if ask[l.field] == nil {
				ask[l.field] = map[*crm.Field][]crm.Value{}
			}
			if !slices.ContainsFunc(ask[l.field][l.by], l.value.Equal) {
				ask[l.field][l.by] = append(ask[l.field][l.by], l.value)
			}
		}
	}
	for link, bys := range ask {
		for by, values := range bys {
			if err := im.lookUp(ctx, link, by, values); err != nil {
				return nil, err
			}
		}
	}
	var out []*draft
	for _, d := range batch {
		ok, err := im.link(d)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, d)
		}
	}
	return out, nil
}

func (l linkText) key() linkKey {
	return linkKey{l.field.Target, l.by.Name, crm.FoldText(l.value.String())}
}

// several marks a value that more than one record has.
var several = crm.RecordID{0: 0xff, 15: 0xff}

func (im *importer) lookUp(ctx context.Context, link, by *crm.Field, values []crm.Value) error {
	return im.find(ctx, link.Target, by, values, []string{by.Name}, func(c *current) error {
		v, err := c.value(by)
		if err != nil {
			return err
		}
		k := linkText{field: link, by: by, value: v}.key()
		if _, ok := im.links[k]; ok {
			im.links[k] = several
			return nil
		}
		im.links[k] = c.id
		return nil
	})
}

// link fills in the draft's links and reports whether all were found.
func (im *importer) link(d *draft) (bool, error) {
	for _, l := range d.links {
		id, ok := im.links[l.key()]
		switch {
		case !ok:
			return false, im.reject(d.row, im.m.rowError(d.row, l.column, &crm.Error{
				Code:    crm.CodeNotFound,
				Message: fmt.Sprintf("this node holds no %s whose %s is %q; import those first, or look them up by another field with --map", l.field.Target, l.by.Name, l.value),
			}))
		case id == several:
			return false, im.reject(d.row, im.m.rowError(d.row, l.column, &crm.Error{
				Code:    crm.CodeInvalid,
				Message: fmt.Sprintf("more than one %s has the %s %q; look them up by a field that tells them apart", l.field.Target, l.by.Name, l.value),
			}))
		}
		d.values[l.field] = crm.LinkValue(id)
	}
	return true, nil
}

// existing returns, by the id that a draft would create, the record that has the
// draft's key.
func (im *importer) existing(ctx context.Context, batch []*draft) (map[crm.RecordID]*current, error) {
	out := map[crm.RecordID]*current{}
	if im.m.key == nil || len(batch) == 0 {
		return out, nil
	}
	var values []crm.Value
	byKey := map[string]*draft{}
	for _, d := range batch {
		values = append(values, d.key)
		byKey[crm.FoldText(d.key.String())] = d
	}
	err := im.find(ctx, im.m.entity.Name, im.m.key, values, im.m.fieldNames(), func(c *current) error {
		key := crm.TextValue(c.id.String())
		if im.m.key.ID != crm.FieldIDField {
			var err error
			if key, err = c.value(im.m.key); err != nil {
				return err
			}
		}
		if d := byKey[crm.FoldText(key.String())]; d != nil {
			out[d.id] = c
		}
		return nil
	})
	return out, err
}

// fieldNames are the fields that an import of the mapping may write.
func (m *mapping) fieldNames() []string {
	names := []string{}
	add := func(f *crm.Field) {
		if f != nil && f.ID != crm.FieldIDField && !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	add(m.key)
	for _, t := range m.targets {
		add(t.field)
		add(t.last)
	}
	for _, c := range m.set {
		add(c.field)
	}
	return names
}

// filterBytes bounds a filter that asks for many values; see query.MaxLength.
const filterBytes = 6000

// find calls fn with each record of the entity whose field has one of the values.
func (im *importer) find(ctx context.Context, entity string, by *crm.Field, values []crm.Value, fields []string, fn func(*current) error) error {
	for len(values) > 0 {
		literals, size := []string{}, 0
		for len(values) > 0 && (size == 0 || size < filterBytes) && len(literals) < batchRows {
			lit := query.Literal(values[0])
			literals, values = append(literals, lit), values[1:]
			size += len(lit) + 2
		}
		filter := by.Name + " in [" + strings.Join(literals, ", ") + "]"
		for it, err := range im.api.List(ctx, entity, httpapi.Query{Filter: filter, Limit: query.MaxLimit, Asked: httpapi.Asked{Fields: fields}}) {
			if err != nil {
				return err
			}
			c, err := newCurrent(it)
			if err != nil {
				return err
			}
			if err := fn(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (im *importer) get(ctx context.Context, id crm.RecordID) (*current, error) {
	it, _, err := im.api.Get(ctx, im.m.entity.Name, id.String(), httpapi.Asked{})
	if err != nil {
		return nil, err
	}
	return newCurrent(it)
}

// quote writes a text literal of the filter language, which has the escapes of JSON.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("a text does not encode: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}
