package sim

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A shelf is a crm.View over records in memory: what a decision looks at, without
// the store. It belongs to one goroutine and shares the records it is given.
type shelf struct {
	records map[store.RecordKey]*crm.Record // live and deleted
	ids     map[crm.EntityID][]crm.RecordID // of records, ascending
	keys    map[string]crm.RecordID         // live records by entity, unique field and folded value
	refused map[crm.RecordID]crm.RecordID
	highest map[crm.EntityID]int64 // number ever given
	schema  *crm.Schema            // nil: metadata has changed
}

func newShelf() *shelf {
	return &shelf{records: map[store.RecordKey]*crm.Record{}, ids: map[crm.EntityID][]crm.RecordID{}, keys: map[string]crm.RecordID{},
		refused: map[crm.RecordID]crm.RecordID{}, highest: map[crm.EntityID]int64{}}
}

// shelve returns a shelf of the records.
func shelve(records iter.Seq[*crm.Record]) *shelf {
	s := newShelf()
	var rest []*crm.Record
	for r := range records {
		if isMetadata(r.Entity) {
			s.put(r)
		} else {
			rest = append(rest, r)
		}
	}
	for _, r := range rest {
		s.put(r)
	}
	return s
}

func isMetadata(e crm.EntityID) bool { return e == crm.EntityEntity || e == crm.EntityField }

func keyOf(r *crm.Record) store.RecordKey { return store.RecordKey{Entity: r.Entity, ID: r.ID} }

// clone returns a shelf that changes apart from s.
func (s *shelf) clone() *shelf {
	c := &shelf{records: maps.Clone(s.records), ids: map[crm.EntityID][]crm.RecordID{}, keys: maps.Clone(s.keys), refused: maps.Clone(s.refused),
		highest: maps.Clone(s.highest), schema: s.schema}
	for e, ids := range s.ids {
		c.ids[e] = slices.Clone(ids)
	}
	return c
}

// put inserts or replaces a record.
func (s *shelf) put(r *crm.Record) {
	k := keyOf(r)
	if old := s.records[k]; old != nil {
		s.unindex(old)
	} else {
		at, _ := slices.BinarySearchFunc(s.ids[r.Entity], r.ID, compareIDs)
		s.ids[r.Entity] = slices.Insert(s.ids[r.Entity], at, r.ID)
	}
	s.records[k] = r
	switch r.Entity {
	case crm.EntityEntity, crm.EntityField:
		s.schema = nil
		return
	case crm.EntityTerritory:
		s.highest[r.Entity] = max(s.highest[r.Entity], r.Value(crm.TerritoryNumber).Int())
	case crm.EntityNode:
		s.highest[r.Entity] = max(s.highest[r.Entity], r.Value(crm.NodeNumber).Int())
	}
	for key := range s.uniqueKeys(r) {
		s.keys[key] = r.ID
	}
}

// trim drops tombstones of rev or below.
func (s *shelf) trim(rev crm.Rev) {
	for k, r := range s.records {
		if r.Deleted && r.Stamp.Rev <= rev {
			delete(s.records, k)
			s.ids[k.Entity] = slices.DeleteFunc(s.ids[k.Entity], func(id crm.RecordID) bool { return id == k.ID })
		}
	}
}

func compareIDs(a, b crm.RecordID) int { return bytes.Compare(a[:], b[:]) }

func (s *shelf) unindex(r *crm.Record) {
	if isMetadata(r.Entity) {
		return
	}
	for key := range s.uniqueKeys(r) {
		if s.keys[key] == r.ID {
			delete(s.keys, key)
		}
	}
}

// uniqueKeys yields the unique values of a live record.
func (s *shelf) uniqueKeys(r *crm.Record) iter.Seq[string] {
	return func(yield func(string) bool) {
		e := s.Schema().EntityByID(r.Entity)
		if e == nil || r.Deleted {
			return
		}
		for _, f := range e.Fields {
			if v := r.Value(f.ID); f.Unique && !v.IsNull() && !yield(uniqueKey(e, f, v)) {
				return
			}
		}
	}
}

func uniqueKey(e *crm.Entity, f *crm.Field, v crm.Value) string {
	text := crm.FoldText(v.Str())
	if v.Str() == "" {
		text = v.String()
	}
	return fmt.Sprintf("%d %d %s", e.ID, f.ID, text)
}

// Schema returns the schema that the metadata on the shelf forms. It panics if
// they form none: a decision does not leave such.
func (s *shelf) Schema() *crm.Schema {
	if s.schema == nil {
		var err error
		if s.schema, err = crm.SchemaOf(s.live(crm.EntityEntity), s.live(crm.EntityField)); err != nil {
			panic(fmt.Sprintf("sim: the metadata form no schema: %v", err))
		}
	}
	return s.schema
}

func (s *shelf) live(e crm.EntityID) (out []*crm.Record) {
	for _, id := range s.ids[e] {
		if r := s.records[store.RecordKey{Entity: e, ID: id}]; !r.Deleted {
			out = append(out, r)
		}
	}
	return out
}

// Record returns the record or its tombstone, nil if there is neither.
func (s *shelf) Record(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	return s.records[store.RecordKey{Entity: e, ID: id}], nil
}

// Lookup returns the live record whose unique field has the value.
func (s *shelf) Lookup(e *crm.Entity, f *crm.Field, v crm.Value) (crm.RecordID, bool, error) {
	if v.IsNull() {
		return crm.RecordID{}, false, nil
	}
	id, ok := s.keys[uniqueKey(e, f, v)]
	return id, ok, nil
}

// Children yields the live records of c.Entity whose c.Field is parent, by id.
func (s *shelf) Children(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	return s.where(c.Entity.ID, func(r *crm.Record) bool { return !r.Deleted && r.Value(c.Field.ID).Link() == parent })
}

// Deleted yields the tombstones of c.Entity whose c.Field is parent, by id.
func (s *shelf) Deleted(c crm.Child, parent crm.RecordID) iter.Seq2[*crm.Record, error] {
	return s.where(c.Entity.ID, func(r *crm.Record) bool { return r.Deleted && r.Value(c.Field.ID).Link() == parent })
}

func (s *shelf) where(e crm.EntityID, holds func(*crm.Record) bool) iter.Seq2[*crm.Record, error] {
	return func(yield func(*crm.Record, error) bool) {
		for _, id := range s.ids[e] {
			if r := s.records[store.RecordKey{Entity: e, ID: id}]; holds(r) && !yield(r, nil) {
				return
			}
		}
	}
}

// Under yields every live record whose Root is root, root itself excluded, by
// entity and id.
func (s *shelf) Under(root crm.RecordID) iter.Seq2[*crm.Record, error] {
	return func(yield func(*crm.Record, error) bool) {
		for _, e := range slices.Sorted(maps.Keys(s.ids)) {
			for r := range s.where(e, func(r *crm.Record) bool { return !r.Deleted && r.Root == root && r.ID != root }) {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// Refused returns the attention record about the rejected creation of rec.
func (s *shelf) Refused(rec crm.RecordID) (crm.RecordID, bool, error) {
	id, ok := s.refused[rec]
	return id, ok, nil
}

// TerritoryByCode returns the number of the territory with that code.
func (s *shelf) TerritoryByCode(code string) (crm.TerritoryID, bool, error) {
	t, ok := territoryByCode(code, s.live)
	return t, ok, nil
}

// NextNumber returns the number that the next territory or node gets.
func (s *shelf) NextNumber(e crm.EntityID) (int64, error) {
	first := int64(1)
	if e == crm.EntityTerritory {
		first = int64(crm.FirstTerritory)
	}
	return max(first, s.highest[e]+1), nil
}

// A right is what a site's edits may do.
type right struct {
	home    crm.TerritoryID   // of records made there without an account
	granted []crm.TerritoryID // besides crm.Shared
}

func (g right) holds(t crm.TerritoryID) bool { return t == crm.Shared || slices.Contains(g.granted, t) }

// rightOf reads a site's record among the live ones. A site without a territory
// is at home where it cannot write.
func rightOf(site string, live func(crm.EntityID) []*crm.Record) right {
	var g right
	for _, r := range live(crm.EntitySite) {
		if r.Value(crm.SiteName).Str() != site {
			continue
		}
		if t, ok := territoryByCode(r.Value(crm.SiteHome).Str(), live); ok {
			g.home = t
		}
		for _, code := range r.Value(crm.SiteTerritories).Set() {
			if t, ok := territoryByCode(code, live); ok {
				g.granted = append(g.granted, t)
			}
		}
	}
	switch {
	case g.home != 0:
	case len(g.granted) > 0:
		g.home = g.granted[0]
	default:
		g.home = crm.HeadOffice
	}
	return g
}

func territoryByCode(code string, live func(crm.EntityID) []*crm.Record) (crm.TerritoryID, bool) {
	switch code {
	case string(crm.HomeShared):
		return crm.Shared, true
	case string(crm.HomeHeadOffice):
		return crm.HeadOffice, true
	}
	for _, r := range live(crm.EntityTerritory) {
		if crm.FoldText(r.Value(crm.TerritoryCode).Str()) == crm.FoldText(code) {
			return crm.TerritoryID(r.Value(crm.TerritoryNumber).Int()), true
		}
	}
	return 0, false
}

// fold decides pending Mutations of a site one after the other, as a branch
// does whose base has the lineage, and returns the records that they would leave.
func (s *shelf) fold(site string, lineage crm.Lineage, pending []*crm.Mutation) (map[store.RecordKey]*crm.Record, error) {
	over, g := s.clone(), rightOf(site, s.live)
	out := map[store.RecordKey]*crm.Record{}
	for _, m := range pending {
		dec, err := crm.Decide(over, m, crm.Env{Rev: crm.Pending, HLC: m.HLC, Home: g.home, Writable: g.holds, Lineage: lineage, Level: syncproto.MaxVersion})
		if err != nil {
			return nil, err
		}
		for _, r := range dec.Writes {
			over.put(r)
			out[keyOf(r)] = r
		}
	}
	return out, nil
}
