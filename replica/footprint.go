package replica

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A footprint is a View that remembers the traces of one decision: what it
// looked at and what it changed.
//
// A decision looks at records, whether they are there or not; at unique values,
// taken or free; and at sets: the children of a record, living and dead, and
// what is under an account. Each of these is a subject and has an id. The trace
// of a look is saw(id), that of a change made(id): both are keys of entity 0,
// which has no records. A record written leaves its own key as well, by which it
// is found in the overlay, and no saw: to write it is to have looked at it.
//
// Two subjects that share an id by chance are taken for one: more is folded
// than needed, and nothing less.
type footprint struct {
	*store.Reader
	found  map[store.RecordKey]*crm.Record // that the decision looked at; nil: not there
	traces map[store.RecordKey]bool        // but those of the looks at records
}

func newFootprint(rd *store.Reader) *footprint {
	return &footprint{Reader: rd, found: map[store.RecordKey]*crm.Record{}, traces: map[store.RecordKey]bool{}}
}

// forget begins anew, for the next decision.
func (f *footprint) forget() {
	clear(f.found)
	clear(f.traces)
}

// Record notes the record, whether it is there or not.
func (f *footprint) Record(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	rec, err := f.Reader.Record(e, id)
	f.sawRecord(store.RecordKey{Entity: e, ID: id}, rec)
	return rec, err
}

func (f *footprint) sawRecord(k store.RecordKey, rec *crm.Record) {
	f.found[k] = rec
}

// Lookup notes the unique value, whether it is taken or not.
func (f *footprint) Lookup(e *crm.Entity, fld *crm.Field, v crm.Value) (crm.RecordID, bool, error) {
	f.traces[saw(valueID(e.ID, fld.ID, v))] = true
	return f.Reader.Lookup(e, fld, v)
}

// Children notes the set of children and each of them.
func (f *footprint) Children(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	return f.children(c, parent, f.Reader.Children(c, parent))
}

// Deleted notes the set of children and each dead one.
func (f *footprint) Deleted(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	return f.children(c, parent, f.Reader.Deleted(c, parent))
}

// children refuses links whose changes memberships does not tell.
func (f *footprint) children(c crm.Child, parent crm.RecordID, list iter.Seq2[*crm.Record, error]) iter.Seq2[*crm.Record, error] {
	if c.Field.Name != c.Entity.Parent {
		return func(yield func(*crm.Record, error) bool) {
			yield(nil, fmt.Errorf("children by %s.%s: the field does not lead to a parent", c.Entity.Name, c.Field.Name))
		}
	}
	return f.members(childrenID(parent), list)
}

// Under notes the set of records under the root and each of them.
func (f *footprint) Under(root crm.RecordID) iter.Seq2[*crm.Record, error] {
	return f.members(underID(root), f.Reader.Under(root))
}

func (f *footprint) members(set crm.RecordID, list iter.Seq2[*crm.Record, error]) iter.Seq2[*crm.Record, error] {
	return func(yield func(*crm.Record, error) bool) {
		f.traces[saw(set)] = true
		for rec, err := range list {
			if rec != nil {
				f.sawRecord(store.RecordKey{Entity: rec.Entity, ID: rec.ID}, rec)
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// wrote notes that the decision leaves rec so. A record that it did not look at
// is a note of its own.
func (f *footprint) wrote(rec *crm.Record) {
	k := store.RecordKey{Entity: rec.Entity, ID: rec.ID}
	for _, trace := range changes(nil, f.Schema(), f.found[k], rec) {
		f.traces[trace] = true
	}
}

// left returns the traces, once all that the decision writes is noted.
func (f *footprint) left() map[store.RecordKey]bool {
	for k := range f.found {
		if !f.traces[k] {
			f.traces[saw(k.ID)] = true
		}
	}
	return f.traces
}

// changes appends the traces of a change of a record, of which either state may
// be nil: its key, the record as a subject, and the subjects that it joins,
// leaves, takes or frees.
func changes(traces []store.RecordKey, s *crm.Schema, old, now *crm.Record) []store.RecordKey {
	rec := now
	if rec == nil {
		rec = old
	}
	traces = append(traces, store.RecordKey{Entity: rec.Entity, ID: rec.ID}, made(rec.ID))
	for _, id := range memberships(s.EntityByID(rec.Entity), old, now) {
		traces = append(traces, made(id))
	}
	return traces
}

// memberships returns the sets that the record joined or left and the unique
// values that it took or freed. e may be nil.
func memberships(e *crm.Entity, old, now *crm.Record) (out []crm.RecordID) {
	if a, b := rootOf(old), rootOf(now); a != b {
		out = appendSubjects(out, underID, a, b)
	}
	if e == nil {
		return out
	}
	if f := e.Field(e.Parent); f != nil {
		if a, b := linkOf(old, f), linkOf(now, f); a != b || !a.IsZero() && (old == nil || now == nil || old.Deleted != now.Deleted) {
			out = appendSubjects(out, childrenID, a, b)
		}
	}
	for _, f := range e.Fields {
		if !f.Unique {
			continue
		}
		a, b := liveValue(old, f), liveValue(now, f)
		if a.Equal(b) {
			continue
		}
		for _, v := range []crm.Value{a, b} {
			if !v.IsNull() {
				out = append(out, valueID(e.ID, f.ID, v))
			}
		}
	}
	return out
}

func appendSubjects(out []crm.RecordID, subject func(crm.RecordID) crm.RecordID, ids ...crm.RecordID) []crm.RecordID {
	for i, id := range ids {
		if !id.IsZero() && !slices.Contains(ids[:i], id) {
			out = append(out, subject(id))
		}
	}
	return out
}

// rootOf returns the root that the record is under, zero if it is under none.
func rootOf(r *crm.Record) crm.RecordID {
	if r == nil || r.Deleted || r.Root == r.ID {
		return crm.RecordID{}
	}
	return r.Root
}

func linkOf(r *crm.Record, f *crm.Field) crm.RecordID {
	if r == nil {
		return crm.RecordID{}
	}
	return r.Value(f.ID).Link()
}

func liveValue(r *crm.Record, f *crm.Field) crm.Value {
	if r == nil || r.Deleted {
		return crm.Value{}
	}
	return r.Value(f.ID)
}

// madeMark tells the two traces of a subject apart. In a UUID it is a bit of the
// variant, 0 in all that RFC 9562 defines.
const madeMark = 0x40

// saw is the trace of having looked at the subject.
func saw(id crm.RecordID) store.RecordKey {
	id[8] &^= madeMark
	return store.RecordKey{ID: id}
}

// made is the trace of having changed it.
func made(id crm.RecordID) store.RecordKey {
	id[8] |= madeMark
	return store.RecordKey{ID: id}
}

func isMade(k store.RecordKey) bool { return k.Entity == 0 && k.ID[8]&madeMark != 0 }

// valueID is the subject of a unique value.
func valueID(e crm.EntityID, f crm.FieldID, v crm.Value) crm.RecordID {
	b := binary.BigEndian.AppendUint16([]byte("unique"), uint16(e))
	return subjectID(crm.AppendKey(binary.BigEndian.AppendUint16(b, uint16(f)), v))
}

// childrenID is the subject of the set of a record's children, dead ones too.
func childrenID(parent crm.RecordID) crm.RecordID {
	return subjectID(append([]byte("children"), parent[:]...))
}

// underID is the subject of the set of living records under a root.
func underID(root crm.RecordID) crm.RecordID { return subjectID(append([]byte("under"), root[:]...)) }

func subjectID(b []byte) crm.RecordID {
	sum := sha256.Sum256(b)
	return crm.RecordID(sum[:16])
}
