package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Reader shows the decided records of the base with the overlay of pending
// edits on top, as one: base ⊕ overlay. It lives as long as its transactions,
// belongs to one goroutine and implements [crm.View].
//
// It costs nothing to make, however many edits are pending. Over a writable
// JTx it shows what the JTx shows, also what is put and dropped after the
// Reader was made, as long as that is done under the schema of the base.
type Reader struct {
	base     *Tx
	timeline uint64 // of base
	journal  *JTx   // nil: none
	over     *JTx   // journal, or nil: there are no pending edits

	linked   map[RecordKey]*crm.Record // records that filters reached over a link
	overRows map[crm.EntityID][]row    // by makeRows, if the journal's rows follow another schema than the base's
}

var _ crm.View = (*Reader)(nil)

// NewReader returns a Reader of base with the overlay of over, which may be nil.
// Begin over before base: an edit that leaves the overlay is in the base by then.
func NewReader(base *Tx, over *JTx) (*Reader, error) {
	timeline, err := base.Timeline()
	if err != nil {
		return nil, err
	}
	r := &Reader{base: base, timeline: timeline, journal: over}
	if over == nil || !over.Writable() && !over.HasOverlay() {
		return r, nil
	}
	r.over = over
	follows, err := over.rowsFollow(base.Schema())
	if err == nil && !follows {
		err = r.makeRows()
	}
	return r, err
}

// Schema returns the schema of the base.
func (r *Reader) Schema() *crm.Schema { return r.base.Schema() }

// Record returns the record, or its tombstone, or nil if there is neither.
func (r *Reader) Record(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	if r.over != nil {
		if rec, err := r.over.Overlay(e, id); rec != nil || err != nil {
			return rec, err
		}
	}
	return r.base.Record(e, id)
}

// Count returns how many live records the entity has. It looks at each pending
// one, which takes about 0.1 µs.
func (r *Reader) Count(e crm.EntityID) (int, error) {
	n, err := r.base.Count(e)
	if r.over == nil || err != nil {
		return n, err
	}
	live := r.base.liveBucket(e)
	var newest []byte
	if live != nil {
		newest, _ = live.Cursor().Last()
	}
	for k, deleted := range r.over.overlaid(entityKey(e)) {
		if !deleted {
			n++
		}
		if bytes.Compare(k.ID[:], newest) <= 0 && live.has(k.ID[:]) {
			n--
		}
	}
	return n, nil
}

func present(r *crm.Record) int {
	if r == nil || r.Deleted {
		return 0
	}
	return 1
}

// Refused returns the attention record about the rejected creation of rec.
func (r *Reader) Refused(rec crm.RecordID) (crm.RecordID, bool, error) { return r.base.Refused(rec) }

// NextNumber returns the number that the next territory or node gets.
func (r *Reader) NextNumber(e crm.EntityID) (int64, error) { return r.base.NextNumber(e) }

// TerritoryByCode returns the number of the territory with that code. The
// codes "shared" and "headoffice" are those of the reserved territories.
func (r *Reader) TerritoryByCode(code string) (crm.TerritoryID, bool, error) {
	switch code {
	case string(crm.HomeShared):
		return crm.Shared, true, nil
	case string(crm.HomeHeadOffice):
		return crm.HeadOffice, true, nil
	}
	e := r.Schema().EntityByID(crm.EntityTerritory)
	id, ok, err := r.Lookup(e, e.FieldByID(crm.TerritoryCode), crm.TextValue(code))
	if err != nil || !ok {
		return 0, false, err
	}
	t, err := r.Record(crm.EntityTerritory, id)
	if err != nil {
		return 0, false, err
	}
	return crm.TerritoryID(t.Value(crm.TerritoryNumber).Int()), true, nil
}

// Title returns the words that name the record to a person, "" if it does not
// exist.
func (r *Reader) Title(e crm.EntityID, id crm.RecordID) (string, error) {
	rec, err := r.Record(e, id)
	def := r.Schema().EntityByID(e)
	if err != nil || rec == nil || def == nil {
		return "", err
	}
	return def.TitleOf(rec), nil
}

// Lookup returns the live record whose unique field has the value, by its
// folded form. The field must be indexed.
func (r *Reader) Lookup(e *crm.Entity, f *crm.Field, v crm.Value) (crm.RecordID, bool, error) {
	if v.IsNull() {
		return crm.RecordID{}, false, nil
	}
	x := indexOn(e, f)
	if x == nil {
		return crm.RecordID{}, false, fmt.Errorf("look up %s.%s: the field has no index", e.Name, f.Name)
	}
	for rec, err := range r.records(r.rows(spaceIndex, e.ID, x.ID, prefixRange(crm.AppendKey(nil, v)))) {
		if err != nil {
			return crm.RecordID{}, false, err
		}
		if sameKey(rec.Value(f.ID), v) {
			return rec.ID, true, nil
		}
	}
	return crm.RecordID{}, false, nil
}

// sameKey reports whether values whose index keys agree, which for long texts
// are cut, are the same as a unique key.
func sameKey(a, b crm.Value) bool {
	return a.Str() == "" || a.Kind() == crm.Phone || crm.FoldText(a.Str()) == crm.FoldText(b.Str())
}

// indexOn returns the index on the field alone, nil if there is none.
func indexOn(e *crm.Entity, f *crm.Field) *crm.Index {
	i := slices.IndexFunc(e.Indexes, func(x crm.Index) bool { return len(x.Fields) == 1 && x.Fields[0] == f.Name })
	if i < 0 {
		return nil
	}
	return &e.Indexes[i]
}

// Children yields the live records of c.Entity whose link c.Field is parent, by
// id.
func (r *Reader) Children(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	x := indexOn(c.Entity, c.Field)
	if x == nil {
		return func(yield func(*crm.Record, error) bool) {
			yield(nil, fmt.Errorf("children by %s.%s: the field has no index", c.Entity.Name, c.Field.Name))
		}
	}
	return r.records(r.rows(spaceIndex, c.Entity.ID, x.ID, prefixRange(crm.AppendKey(nil, crm.LinkValue(parent)))))
}

// Deleted yields the tombstones of c.Entity whose link c.Field is parent, by id.
func (r *Reader) Deleted(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	m := r.rows(spaceBuried, 0, 0, prefixRange(buriedPrefix(parent, c.Field.ID, c.Entity.ID)))
	m.dead = true
	return r.records(m)
}

// Under yields every live record whose Root is root, but not root itself, by
// entity and id.
func (r *Reader) Under(root crm.RecordID) iter.Seq2[*crm.Record, error] {
	return r.records(r.rows(spaceRoots, 0, 0, prefixRange(root[:])))
}

// Scan yields all live records of the entity by id.
func (r *Reader) Scan(e *crm.Entity) iter.Seq2[*crm.Record, error] {
	return r.records(r.primary(e.ID, false, nil))
}

// records yields the records that a merge finds.
func (r *Reader) records(m *merge) iter.Seq2[*crm.Record, error] {
	return func(yield func(*crm.Record, error) bool) {
		for m.next() {
			rec, err := r.recordAt(m)
			if err == nil && rec == nil {
				continue
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// A merge walks rows of the base and of the overlay as one list, in the order
// of what follows the first skip bytes of each key, and leaves out base rows of
// records that the overlay has.
type merge struct {
	r       *Reader
	entity  crm.EntityID // of all rows; 0: it is in the keys
	primary bool         // the rows are the records themselves
	dead    bool         // the rows are those of tombstones
	hides   bool         // the overlay has records of the entity
	desc    bool
	lists   []mergeList

	order []byte    // of the row found: its key without the skipped bytes
	prev  []byte    // order of the row found before
	key   RecordKey // of its record
	value []byte
	over  bool // the record is in the overlay
	at    int  // list it came from, to be moved on; -1 at first
}

type mergeList struct {
	*rowCursor
	skip int
	over bool
}

// rows returns the merge of one range of a space.
func (r *Reader) rows(s space, e crm.EntityID, index uint16, rng keyRange) *merge {
	m := newMerge(r, e)
	m.add(s, e, index, rng, 0)
	return m
}

func newMerge(r *Reader, e crm.EntityID) *merge {
	return &merge{r: r, entity: e, hides: r.over != nil && r.over.overlays(e), at: -1}
}

func (m *merge) add(s space, e crm.EntityID, index uint16, rng keyRange, skip int) {
	if b := m.r.base.rows.bucket(s, e, index); b != nil {
		m.lists = append(m.lists, mergeList{newRowCursor(source{bucket: b}, rng, m.desc), skip, false})
	}
	if m.hides {
		m.lists = append(m.lists, mergeList{newRowCursor(m.r.overlaySource(s, e, index), rng, m.desc), skip, true})
	}
}

// primary returns the merge of all records of an entity by id; from, if not
// nil, is where it starts, itself excluded.
func (r *Reader) primary(e crm.EntityID, desc bool, from []byte) *merge {
	m := newMerge(r, e)
	m.primary, m.desc = true, desc
	if b := r.base.liveBucket(e); b != nil {
		m.lists = append(m.lists, mergeList{newRowCursor(source{bucket: b}, past(keyRange{}, from, desc), desc), 0, false})
	}
	if m.hides {
		prefix := entityKey(e)
		rng := prefixRange(prefix)
		if from != nil {
			rng = past(rng, append(prefix, from...), desc)
		}
		m.lists = append(m.lists, mergeList{newRowCursor(source{bucket: r.over.top(bucketOverlay)}, rng, desc), len(prefix), true})
	}
	return m
}

// past cuts the range to what comes after the key in its direction.
func past(rng keyRange, key []byte, desc bool) keyRange {
	switch {
	case key == nil:
	case desc:
		if rng.hi == nil || bytes.Compare(key, rng.hi) < 0 {
			rng.hi = key
		}
	default:
		if next := append(bytes.Clone(key), 0); bytes.Compare(next, rng.lo) > 0 {
			rng.lo = next
		}
	}
	return rng
}

// overlaySource returns the overlay's rows: the journal's, or those of makeRows
// if those follow another schema than the base. A write makes them follow it.
func (r *Reader) overlaySource(s space, e crm.EntityID, index uint16) source {
	if r.overRows == nil || r.over.written {
		return source{bucket: r.over.rows.bucket(s, e, index)}
	}
	all := r.overRows[e]
	lo, _ := slices.BinarySearchFunc(all, row{space: s, index: index}, compareRows)
	hi := lo
	for hi < len(all) && all[hi].space == s && all[hi].index == index {
		hi++
	}
	return source{rows: all[lo:hi]}
}

// makeRows makes the rows of all overlay records: index rows by entity, the
// others, whose keys tell the entity, under 0.
func (r *Reader) makeRows() error {
	r.overRows = map[crm.EntityID][]row{}
	for rec, err := range r.over.overlayRecords(nil) {
		if err != nil {
			return err
		}
		for _, row := range rowsOf(r.Schema().EntityByID(rec.Entity), rec) {
			e := rec.Entity
			if row.space != spaceIndex {
				e = 0
			}
			r.overRows[e] = append(r.overRows[e], row)
		}
	}
	for _, rows := range r.overRows {
		slices.SortFunc(rows, compareRows)
	}
	return nil
}

// next finds the next row. A record that several ranges lead to at one place in
// the order is found once.
func (m *merge) next() bool {
	again := m.at >= 0
	m.prev, m.order = m.order, m.prev
	for {
		if m.at >= 0 {
			m.lists[m.at].rowCursor.next()
		}
		if m.at = m.first(); m.at < 0 {
			return false
		}
		if m.take(&m.lists[m.at]) && !(again && bytes.Equal(m.prev, m.order)) {
			return true
		}
	}
}

func (m *merge) first() int {
	at := -1
	for i, l := range m.lists {
		if l.key == nil {
			continue
		}
		if at < 0 {
			at = i
			continue
		}
		if c := bytes.Compare(l.key[l.skip:], m.lists[at].key[m.lists[at].skip:]); c < 0 && !m.desc || c > 0 && m.desc {
			at = i
		}
	}
	return at
}

// take reads the row a list stands at and reports whether it counts.
func (m *merge) take(l *mergeList) bool {
	size := keySize
	if m.entity != 0 {
		size = idSize
	}
	if len(l.key) < size {
		return false
	}
	if m.entity != 0 {
		m.key = RecordKey{m.entity, idAt(l.key)}
	} else {
		m.key = recordKeyAt(l.key)
	}
	m.order, m.value, m.over = append(m.order[:0], l.key[l.skip:]...), l.value, l.over
	return m.over || !m.hides || !m.hidden()
}

// hidden reports whether the overlay has the record of a base row. Where the
// rows are the records, both lists are in one order, so the overlay's stands at
// the record now if it has it at all.
func (m *merge) hidden() bool {
	if !m.primary {
		return m.r.over.hasOverlay(m.key)
	}
	over := &m.lists[len(m.lists)-1]
	return over.key != nil && idAt(over.key) == m.key.ID
}

// recordAt returns the record that the merge has found, nil if the overlay has
// deleted it.
func (r *Reader) recordAt(m *merge) (*crm.Record, error) {
	rec, err := r.load(m)
	switch {
	case err != nil:
		return nil, err
	case rec != nil && rec.Deleted == m.dead:
		return rec, nil
	case m.over && m.primary:
		return nil, nil
	case m.over:
		return nil, r.over.f.corrupt(m.key.String(), errRow)
	}
	return nil, r.base.f.corrupt(m.key.String(), errRow)
}

// bodyAt returns the encoding of the live record that the merge has found, nil
// if the overlay has deleted it. It stays valid as long as the transactions.
func (r *Reader) bodyAt(m *merge) ([]byte, error) {
	v, f := m.value, r.base.f
	switch {
	case m.over && !m.primary:
		v, f = r.over.top(bucketOverlay).Get(r.over.recordKey(m.key)), r.over.f
	case m.over:
		f = r.over.f
	case !m.primary:
		v = nil
		if live := r.base.liveBucket(m.key.Entity); live != nil {
			v = live.Get(m.key.ID[:])
		}
	}
	if v == nil {
		return nil, f.corrupt(m.key.String(), errRow)
	}
	body, err := unseal(r.base.recordKey(m.key), v)
	if err == nil && crm.EncodedDeleted(body) {
		if m.over && m.primary {
			return nil, nil
		}
		err = errRow
	}
	if err != nil {
		return nil, r.unreadable(m.key, m.over, err)
	}
	return body, nil
}

// unreadable is the error about the bytes of a record of the overlay or the base.
func (r *Reader) unreadable(k RecordKey, over bool, err error) error {
	if over {
		return r.over.f.corrupt(k.String(), err)
	}
	return r.base.f.damaged(k, err)
}

var errRow = errors.New("a row leads to it, but it is not there")

func (r *Reader) load(m *merge) (*crm.Record, error) {
	switch {
	case m.over && m.primary:
		return r.over.decodeOverlay(m.key, m.value)
	case m.over:
		return r.over.Overlay(m.key.Entity, m.key.ID)
	case m.primary:
		s, err := r.base.decode(m.key, m.value, false)
		return s.record, err
	}
	return r.base.Record(m.key.Entity, m.key.ID)
}
