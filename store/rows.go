package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tradepost-crm/tradepost/crm"
)

// A space is one of the kinds of derived rows.
type space uint8

const (
	spaceIndex space = iota + 1
	spaceRoots
	spaceBuried
	spaceWords
	spaceFeed
	spaceGone
	spaceLeft
)

// feedSpaces are the spaces of a territory's feed.
var feedSpaces = [...]space{spaceFeed, spaceGone, spaceLeft}

func (s space) bucket() bucket {
	return [...]bucket{spaceIndex: bucketIndex, spaceRoots: bucketRoots, spaceBuried: bucketBuried, spaceWords: bucketWords,
		spaceFeed: bucketFeed, spaceGone: bucketGone, spaceLeft: bucketLeft}[s]
}

// A row is derived from one record and leads back to it: its key ends in
// the record's id.
type row struct {
	space space
	index uint16 // of spaceIndex
	key   []byte
	value []byte
}

func compareRows(a, b row) int {
	return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.index, b.index), bytes.Compare(a.key, b.key))
}

// A rowMaker makes rows. The keys that it made stay valid.
type rowMaker struct {
	keys arena
	seen map[string]bool // words of the record at hand
}

// rowsOf returns the rows of the record under the definition e, sorted and
// without repeats. A nil record has none, a deleted one only those by which a
// restore of its parent finds it; without a definition a record has no more
// than its root row.
func rowsOf(e *crm.Entity, r *crm.Record) []row {
	var m rowMaker
	return m.appendRows(nil, e, r)
}

// appendRows appends what rowsOf returns.
func (m *rowMaker) appendRows(out []row, e *crm.Entity, r *crm.Record) []row {
	start := len(out)
	switch {
	case r == nil || r.Deleted && e == nil:
		return out
	case r.Deleted:
		out = m.buriedRows(out, e, r)
	default:
		out = m.liveRows(out, e, r)
	}
	slices.SortFunc(out[start:], compareRows)
	return out
}

func (m *rowMaker) liveRows(out []row, e *crm.Entity, r *crm.Record) []row {
	if !r.Root.IsZero() && r.Root != r.ID {
		out = append(out, row{space: spaceRoots, key: m.keys.keep(appendRecordKey(append(m.keys.room(), r.Root[:]...), RecordKey{r.Entity, r.ID}))})
	}
	if e == nil {
		return out
	}
	return m.wordRows(m.indexRows(out, e, r), e, r)
}

func (m *rowMaker) buriedRows(out []row, e *crm.Entity, r *crm.Record) []row {
	for _, f := range e.Fields {
		if parent := r.Value(f.ID).Link(); f.Kind == crm.Link && !parent.IsZero() {
			out = append(out, row{space: spaceBuried, key: append(buriedPrefix(parent, f.ID, r.Entity), r.ID[:]...)})
		}
	}
	return out
}

// buriedPrefix is what the rows of the tombstones of one parent begin with.
func buriedPrefix(parent crm.RecordID, f crm.FieldID, e crm.EntityID) []byte {
	b := binary.BigEndian.AppendUint16(append(make([]byte, 0, 36), parent[:]...), uint16(f))
	return binary.BigEndian.AppendUint16(b, uint16(e))
}

func (m *rowMaker) indexRows(out []row, e *crm.Entity, r *crm.Record) []row {
	for i := range e.Indexes {
		out = m.rowsOfIndex(out, e, &e.Indexes[i], r)
	}
	return out
}

func (m *rowMaker) rowsOfIndex(out []row, e *crm.Entity, x *crm.Index, r *crm.Record) []row {
	if f := e.Field(x.Fields[0]); len(x.Fields) == 1 && f.Kind == crm.Choices {
		for _, elem := range r.Value(f.ID).Set() {
			out = append(out, m.indexRow(x.ID, crm.AppendKey(m.keys.room(), crm.ChoicesValue(elem)), r.ID))
		}
		return out
	}
	key := m.keys.room()
	for _, name := range x.Fields {
		key = crm.AppendKey(key, r.Value(e.Field(name).ID))
	}
	return append(out, m.indexRow(x.ID, key, r.ID))
}

func (m *rowMaker) indexRow(index uint16, key []byte, id crm.RecordID) row {
	return row{space: spaceIndex, index: index, key: m.keys.keep(append(key, id[:]...))}
}

var (
	inTitle  = []byte{1}
	notTitle = []byte{0}
)

func (m *rowMaker) wordRows(out []row, e *crm.Entity, r *crm.Record) []row {
	if m.seen == nil {
		m.seen = map[string]bool{}
	}
	clear(m.seen)
	k := RecordKey{r.Entity, r.ID}
	add := func(title bool, value []byte) {
		for _, f := range e.Fields {
			if !f.Search || slices.Contains(e.Title, f.Name) != title {
				continue
			}
			for _, w := range wordsOf(r.Value(f.ID)) {
				if m.seen[w] {
					continue
				}
				m.seen[w] = true
				key := appendRecordKey(append(append(m.keys.room(), w...), 0), k)
				out = append(out, row{space: spaceWords, key: m.keys.keep(key), value: value})
			}
		}
	}
	add(true, inTitle)
	add(false, notTitle)
	return out
}

// wordsOf returns the words by which a search finds the value. A telephone
// number is found by its groups and by all its digits.
func wordsOf(v crm.Value) []string {
	if v.IsNull() {
		return nil
	}
	words := crm.Words(v.String())
	if e := v.E164(); e != "" {
		words = append(words, e[1:])
	}
	return words
}

// A rowTable is the derived rows of one file. What changes of them waits in
// memory until rows of the same bucket are read or the transaction commits, and
// then goes into the bucket in the order of the keys: bbolt splits pages only
// when it commits, and rows that come in no order into a page that grows cost
// time in proportion to the page each.
type rowTable struct {
	t     *transaction
	lists map[rowBucket]*rowList
	err   error // of a bucket that could not be written before it was read

	rowMaker
	old, now []row     // of replace
	values   [2][]byte // of differs
}

// A rowBucket names a bucket of rows. entity and index are those of spaceIndex,
// else 0.
type rowBucket struct {
	space  space
	index  uint16
	entity crm.EntityID
}

// A rowList is a bucket of rows with the changes that wait.
type rowList struct {
	table   *table // nil: not looked for, or not there
	waiting []rowChange
}

// A rowChange puts or deletes a row.
type rowChange struct {
	head   uint64 // of key, for a quick comparison
	at     uint32 // among those that wait: of two changes of a row the later counts
	delete bool
	key    []byte
	value  []byte
}

// sameRow reports whether the changes are of one row.
func (c rowChange) sameRow(d rowChange) bool { return c.head == d.head && bytes.Equal(c.key, d.key) }

func compareChanges(a, b rowChange) int {
	if a.head != b.head {
		return cmp.Compare(a.head, b.head)
	}
	if c := bytes.Compare(a.key, b.key); c != 0 {
		return c
	}
	return cmp.Compare(a.at, b.at)
}

// head returns the first eight bytes of a key as a number that compares as they do.
func head(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

func (t *rowTable) list(s space, e crm.EntityID, index uint16) *rowList {
	name := rowBucket{space: s}
	if s == spaceIndex {
		name.entity, name.index = e, index
	}
	l := t.lists[name]
	if l == nil {
		if t.lists == nil {
			t.lists = map[rowBucket]*rowList{}
		}
		l = new(rowList)
		t.lists[name] = l
	}
	if l.table == nil {
		l.table = t.open(name)
	}
	return l
}

func (t *rowTable) open(name rowBucket) *table {
	if name.space != spaceIndex {
		return t.t.top(name.space.bucket())
	}
	return t.t.open(t.t.top(bucketIndex).Bucket(indexKey(name.entity, name.index)))
}

// bucket returns the bucket of the space for reading, nil if there are no rows.
// Of spaceIndex it is that of the one index.
func (t *rowTable) bucket(s space, e crm.EntityID, index uint16) *table {
	l := t.list(s, e, index)
	if len(l.waiting) > 0 {
		t.err = errors.Join(t.err, t.write(rowBucket{s, index, e}, l))
	}
	return l.table
}

// flush writes all that waits.
func (t *rowTable) flush() error {
	err := t.err
	for name, l := range t.lists {
		if err == nil && len(l.waiting) > 0 {
			err = t.write(name, l)
		}
	}
	return err
}

// bulk is the number of waiting rows from which pages are left fuller: most of
// them are new and next to each other.
const bulk = 4096

// write brings the changes of one bucket into it.
func (t *rowTable) write(name rowBucket, l *rowList) (err error) {
	if l.table == nil {
		made, err := t.t.top(bucketIndex).CreateBucket(indexKey(name.entity, name.index))
		if err != nil {
			return t.t.f.failure("write rows", err)
		}
		l.table = t.t.open(made)
	}
	if name.space == spaceFeed || len(l.waiting) >= bulk {
		l.table.FillPercent = fullPages
	}
	slices.SortFunc(l.waiting, compareChanges)
	for i, c := range l.waiting {
		switch {
		case i+1 < len(l.waiting) && c.sameRow(l.waiting[i+1]):
		case i > 0 && c.sameRow(l.waiting[i-1]) && l.table.holds(c):
			// It was deleted and put again, as when a record is folded anew.
		case c.delete:
			err = l.table.Delete(c.key)
		default:
			err = l.table.Put(c.key, c.value)
		}
		if err != nil {
			return t.t.f.failure("write rows", err)
		}
	}
	l.waiting = nil
	return nil
}

// replace turns the rows of a record of entity e into others: those that was
// has under the definition old into those that is has under now. Both records
// may be nil.
func (t *rowTable) replace(e crm.EntityID, old *crm.Entity, was *crm.Record, now *crm.Entity, is *crm.Record) error {
	t.old, t.now = t.old[:0], t.now[:0]
	if old == now && edited(was, is) {
		t.makeEdited(now, was, is)
	} else {
		t.old = t.appendRows(t.old, old, was)
		t.now = t.appendRows(t.now, now, is)
	}
	return t.change(e, t.old, t.now)
}

// edited reports whether only fields may differ, of a live record.
func edited(was, is *crm.Record) bool {
	return was != nil && is != nil && !was.Deleted && !is.Deleted && was.Root == is.Root
}

// makeEdited makes the rows that depend on a field whose value differs: most
// edits change few fields, and rows cost more to make than values to compare.
func (t *rowTable) makeEdited(e *crm.Entity, was, is *crm.Record) {
	if e == nil {
		return
	}
	for i := range e.Indexes {
		x := &e.Indexes[i]
		if slices.ContainsFunc(x.Fields, func(name string) bool { return t.differs(e.Field(name).ID, was, is) }) {
			t.old, t.now = t.rowsOfIndex(t.old, e, x, was), t.rowsOfIndex(t.now, e, x, is)
		}
	}
	if slices.ContainsFunc(e.Fields, func(f *crm.Field) bool { return f.Search && t.differs(f.ID, was, is) }) {
		t.old, t.now = t.wordRows(t.old, e, was), t.wordRows(t.now, e, is)
	}
	slices.SortFunc(t.old, compareRows)
	slices.SortFunc(t.now, compareRows)
}

// differs compares the values byte for byte: values that are equal may be spelled
// in different words.
func (t *rowTable) differs(f crm.FieldID, was, is *crm.Record) bool {
	t.values[0] = crm.AppendValue(t.values[0][:0], was.Value(f))
	t.values[1] = crm.AppendValue(t.values[1][:0], is.Value(f))
	return !bytes.Equal(t.values[0], t.values[1])
}

// change turns the old rows of a record of entity e into the new ones and
// writes only what differs. Both are sorted.
func (t *rowTable) change(e crm.EntityID, old, now []row) error {
	for len(old) > 0 || len(now) > 0 {
		c := 0
		switch {
		case len(old) == 0:
			c = 1
		case len(now) == 0:
			c = -1
		default:
			c = compareRows(old[0], now[0])
		}
		var err error
		switch {
		case c < 0:
			t.delete(e, old[0])
			old = old[1:]
		case c > 0:
			err = t.put(e, now[0])
			now = now[1:]
		default:
			if !bytes.Equal(old[0].value, now[0].value) {
				err = t.put(e, now[0])
			}
			old, now = old[1:], now[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// put adds or replaces a row. Its key must not be changed from now on.
func (t *rowTable) put(e crm.EntityID, r row) error {
	if len(r.key) > bolt.MaxKeySize {
		return t.t.f.failure("write rows", berrors.ErrKeyTooLarge)
	}
	t.list(r.space, e, r.index).wait(rowChange{key: r.key, value: r.value})
	return nil
}

func (t *rowTable) delete(e crm.EntityID, r row) {
	t.list(r.space, e, r.index).wait(rowChange{key: r.key, delete: true})
}

func (l *rowList) wait(c rowChange) {
	c.head, c.at = head(c.key), uint32(len(l.waiting))
	l.waiting = append(l.waiting, c)
}

// feedRow returns a row of one of the feedSpaces.
func (t *rowTable) feedRow(s space, of crm.TerritoryID, rev crm.Rev, k RecordKey) row {
	return row{space: s, key: t.keys.keep(appendFeedKey(t.keys.room(), of, rev, k))}
}

// clear removes all rows but those of the feed.
func (t *rowTable) clear() error {
	for name := range t.lists {
		if !slices.Contains(feedSpaces[:], name.space) {
			delete(t.lists, name)
		}
	}
	for _, b := range []bucket{bucketIndex, bucketRoots, bucketBuried, bucketWords} {
		if err := t.t.empty(b); err != nil {
			return err
		}
	}
	return nil
}

// An arena is memory for many small byte slices that live as long as the arena,
// or longer.
type arena struct {
	free []byte // its capacity is what is left of the chunk
	size int    // of the chunk
}

const (
	minChunk = 1 << 10
	maxChunk = 64 << 10
	fewBytes = 256 // room for most keys
)

// room returns an empty slice to append to, which keep then keeps.
func (a *arena) room() []byte {
	if cap(a.free) < fewBytes {
		a.size = min(max(2*a.size, minChunk), maxChunk)
		a.free = make([]byte, 0, a.size)
	}
	return a.free
}

// keep returns b, which was appended to room and will not be changed.
func (a *arena) keep(b []byte) []byte {
	if len(b) <= cap(a.free) {
		a.free = a.free[len(b):len(b)]
	}
	return b[:len(b):len(b)]
}

// clone returns a copy of b.
func (a *arena) clone(b []byte) []byte {
	if len(b) > maxChunk/8 {
		return bytes.Clone(b)
	}
	if len(b) > cap(a.room()) {
		a.free, a.size = make([]byte, 0, maxChunk), maxChunk
	}
	return a.keep(append(a.free, b...))
}
