package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/tradepost-crm/tradepost/crm"
)

// A space is one of the kinds of derived rows.
type space uint8

const (
	spaceIndex space = iota + 1
	spaceRoots
	spaceBuried
	spaceWords
)

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

// rowsOf returns the rows of the record under the definition e, sorted and
// without repeats. A nil record has none, a deleted one only those by which a
// restore of its parent finds it; without a definition a record has no more
// than its root row.
func rowsOf(e *crm.Entity, r *crm.Record) []row {
	switch {
	case r == nil || r.Deleted && e == nil:
		return nil
	case r.Deleted:
		return buriedRows(e, r)
	}
	var out []row
	k := RecordKey{r.Entity, r.ID}
	if !r.Root.IsZero() && r.Root != r.ID {
		out = append(out, row{space: spaceRoots, key: appendRecordKey(r.Root[:], k)})
	}
	if e != nil {
		out = appendIndexRows(out, e, r)
		out = appendWordRows(out, e, r)
	}
	slices.SortFunc(out, compareRows)
	return slices.CompactFunc(out, func(a, b row) bool { return compareRows(a, b) == 0 })
}

func buriedRows(e *crm.Entity, r *crm.Record) []row {
	var out []row
	for _, f := range e.Fields {
		if parent := r.Value(f.ID).Link(); f.Kind == crm.Link && !parent.IsZero() {
			out = append(out, row{space: spaceBuried, key: append(buriedPrefix(parent, f.ID, r.Entity), r.ID[:]...)})
		}
	}
	slices.SortFunc(out, compareRows)
	return out
}

// buriedPrefix is what the rows of the tombstones of one parent begin with.
func buriedPrefix(parent crm.RecordID, f crm.FieldID, e crm.EntityID) []byte {
	b := binary.BigEndian.AppendUint16(append(make([]byte, 0, 36), parent[:]...), uint16(f))
	return binary.BigEndian.AppendUint16(b, uint16(e))
}

func appendIndexRows(out []row, e *crm.Entity, r *crm.Record) []row {
	for _, x := range e.Indexes {
		if f := e.Field(x.Fields[0]); len(x.Fields) == 1 && f.Kind == crm.Choices {
			for _, elem := range r.Value(f.ID).Set() {
				out = append(out, indexRow(x.ID, crm.AppendKey(nil, crm.ChoicesValue(elem)), r.ID))
			}
			continue
		}
		var key []byte
		for _, name := range x.Fields {
			key = crm.AppendKey(key, r.Value(e.Field(name).ID))
		}
		out = append(out, indexRow(x.ID, key, r.ID))
	}
	return out
}

func indexRow(index uint16, key []byte, id crm.RecordID) row {
	return row{space: spaceIndex, index: index, key: append(key, id[:]...)}
}

var (
	inTitle  = []byte{1}
	notTitle = []byte{0}
)

func appendWordRows(out []row, e *crm.Entity, r *crm.Record) []row {
	k := RecordKey{r.Entity, r.ID}
	seen := map[string]bool{}
	add := func(title bool) {
		for _, f := range e.Fields {
			if !f.Search || slices.Contains(e.Title, f.Name) != title {
				continue
			}
			for _, w := range wordsOf(r.Value(f.ID)) {
				if seen[w] {
					continue
				}
				seen[w] = true
				v := notTitle
				if title {
					v = inTitle
				}
				out = append(out, row{space: spaceWords, key: appendRecordKey(append([]byte(w), 0), k), value: v})
			}
		}
	}
	add(true)
	add(false)
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

// A rowTable is the derived rows of one file.
type rowTable struct {
	t       *transaction
	indexes map[string]*bolt.Bucket // opened ones
}

// bucket returns the bucket of the space, nil if there are no rows. Of
// spaceIndex it is that of the one index.
func (t *rowTable) bucket(s space, e crm.EntityID, index uint16) *bolt.Bucket {
	switch s {
	case spaceRoots:
		return t.t.top(bucketRoots)
	case spaceBuried:
		return t.t.top(bucketBuried)
	case spaceWords:
		return t.t.top(bucketWords)
	}
	name := indexKey(e, index)
	if b := t.indexes[string(name)]; b != nil {
		return b
	}
	b := t.t.top(bucketIndex).Bucket(name)
	t.keep(name, b)
	return b
}

func (t *rowTable) keep(name []byte, b *bolt.Bucket) {
	if b == nil {
		return
	}
	if t.indexes == nil {
		t.indexes = map[string]*bolt.Bucket{}
	}
	t.indexes[string(name)] = b
}

func (t *rowTable) makeBucket(s space, e crm.EntityID, index uint16) (*bolt.Bucket, error) {
	if b := t.bucket(s, e, index); b != nil {
		return b, nil
	}
	b, err := t.t.top(bucketIndex).CreateBucket(indexKey(e, index))
	t.keep(indexKey(e, index), b)
	return b, err
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
			err = t.delete(e, old[0])
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
			return t.t.f.failure("write rows", err)
		}
	}
	return nil
}

func (t *rowTable) put(e crm.EntityID, r row) error {
	b, err := t.makeBucket(r.space, e, r.index)
	if err != nil {
		return err
	}
	return b.Put(r.key, r.value)
}

func (t *rowTable) delete(e crm.EntityID, r row) error {
	if b := t.bucket(r.space, e, r.index); b != nil {
		return b.Delete(r.key)
	}
	return nil
}

// clear removes all rows.
func (t *rowTable) clear() error {
	t.indexes = nil
	for _, b := range []bucket{bucketIndex, bucketRoots, bucketBuried, bucketWords} {
		if err := t.t.empty(b); err != nil {
			return err
		}
	}
	return nil
}
