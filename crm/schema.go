package crm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Policy decides a truly concurrent edit of one field (DESIGN §5.2).
type Policy string

// The policies. An append entity needs none: its records are only inserted, and
// two inserts never meet.
const (
	Latest     Policy = "latest"     // higher effective time wins; the loser is kept as a conflict
	AddWins    Policy = "set"        // a removal takes only elements its author had seen
	Counter    Policy = "counter"    // deltas add up
	Transition Policy = "transition" // allowed (from, to) pairs; else parked
	Review     Policy = "review"     // the current value stays, the proposal is parked
)

// Home says which territory an entity's records live in.
type Home string

const (
	HomeRoot       Home = "root"       // the territory of the record's root account, else the author's home territory
	HomeShared     Home = "shared"     // Shared
	HomeHeadOffice Home = "headoffice" // HeadOffice
)

// DeletePolicy decides a deletion against a concurrent edit.
type DeletePolicy string

const (
	DeleteReview DeletePolicy = "review"      // the deletion stands, the edit is parked (default)
	EditWins     DeletePolicy = "edit-wins"   // the record comes back with the edit
	DeleteWins   DeletePolicy = "delete-wins" // the deletion stands, the edit is kept as a conflict only
)

// An Entity is a kind of record: metadata, itself stored as a record of the
// entity "entity" and its fields as records of "field".
type Entity struct {
	ID      EntityID     `json:"-"`
	Name    string       `json:"-"`                 // lower_snake, as in URLs
	Label   string       `json:"label"`             // for people
	Plural  string       `json:"plural"`            // for people
	Home    Home         `json:"home"`              //
	Parent  string       `json:"parent,omitempty"`  // the Link field that leads towards the root account
	Owned   bool         `json:"owned,omitempty"`   // deleted and restored with its parent
	Delete  DeletePolicy `json:"delete,omitempty"`  // "" is DeleteReview
	Title   []string     `json:"title"`             // fields that name a record to a person
	Indexes []Index      `json:"indexes,omitempty"` // beside those of Unique, Indexed and Link fields
	System  bool         `json:"system,omitempty"`  // written by nodes, not by people
	Fields  []*Field     `json:"-"`                 // by ID

	byName map[string]*Field
	byID   map[FieldID]*Field
}

// An Index is a sorted list of the entity's records by the named fields. ID is
// unique within the entity and never reused.
type Index struct {
	ID     uint16   `json:"id"`
	Fields []string `json:"fields"`
}

// A Field is one attribute of an entity.
type Field struct {
	ID       FieldID     `json:"-"`
	Name     string      `json:"-"`                // lower_snake
	Label    string      `json:"label"`            //
	Kind     Kind        `json:"-"`                //
	KindName string      `json:"kind"`             //
	Policy   Policy      `json:"policy,omitempty"` // "" is Latest
	Required bool        `json:"required,omitempty"`
	Unique   bool        `json:"unique,omitempty"`    // within the entity, by folded value; decided by the master
	Indexed  bool        `json:"indexed,omitempty"`   // filtered or sorted on often
	Search   bool        `json:"search,omitempty"`    // found by the search box
	ReadOnly bool        `json:"read_only,omitempty"` // set by the system
	Immut    bool        `json:"immutable,omitempty"` // set at creation only
	Target   string      `json:"target,omitempty"`    // entity of a Link
	Scale    uint8       `json:"scale,omitempty"`     // digits shown of a Decimal; more are kept
	Money    bool        `json:"money,omitempty"`     // a Decimal that carries a currency
	Max      int         `json:"max,omitempty"`       // longest text in bytes; 0 is MaxText
	Series   string      `json:"series,omitempty"`    // document number series: "ORD" numbers ORD-<site>-000001
	Default  string      `json:"default,omitempty"`   // parsed by Parse when a creation leaves the field out
	Options  []Option    `json:"options,omitempty"`   // of a Choice or Choices; empty allows any text
	Moves    [][2]string `json:"moves,omitempty"`     // allowed (from, to) of a Transition field; empty allows all
	Aliases  []string    `json:"aliases,omitempty"`   // other headers an import recognises

	Level uint16 `json:"-"` // of decision logic from which on a field of a system entity can be set
}

// An Option is one choice.
type Option struct {
	Value string `json:"value"`
	Label string `json:"label,omitempty"`
}

// System fields of every record. CreatedAt and CreatedBy are ordinary cells set
// at creation; UpdatedAt, UpdatedBy and IDField are read from the record itself.
const (
	FieldCreatedAt FieldID = 1
	FieldCreatedBy FieldID = 2
	FieldUpdatedAt FieldID = 3
	FieldUpdatedBy FieldID = 4
	FieldIDField   FieldID = 5
	FirstField     FieldID = 16
)

var systemFields = []*Field{
	{ID: FieldCreatedAt, Name: "created_at", Label: "Created", Kind: Instant, ReadOnly: true},
	{ID: FieldCreatedBy, Name: "created_by", Label: "Created by", Kind: Text, ReadOnly: true},
	{ID: FieldUpdatedAt, Name: "updated_at", Label: "Updated", Kind: Instant, ReadOnly: true},
	{ID: FieldUpdatedBy, Name: "updated_by", Label: "Updated by", Kind: Text, ReadOnly: true},
	{ID: FieldIDField, Name: "id", Label: "Id", Kind: Text, ReadOnly: true},
}

// Field returns the field of that name, or nil. System fields are included.
func (e *Entity) Field(name string) *Field { return e.byName[name] }

// FieldByID returns the field of that id, or nil.
func (e *Entity) FieldByID(id FieldID) *Field { return e.byID[id] }

// DeletePolicy returns the entity's policy, DeleteReview by default.
func (e *Entity) DeletePolicy() DeletePolicy {
	if e.Delete == "" {
		return DeleteReview
	}
	return e.Delete
}

// Rule returns the field's policy: that of its kind where none is stated.
func (f *Field) Rule() Policy {
	switch {
	case f.Policy != "":
		return f.Policy
	case f.Kind == Choices:
		return AddWins
	}
	return Latest
}

// Allows reports whether a Transition field may move from one value to
// another. The empty value may move anywhere.
func (f *Field) Allows(from, to string) bool {
	return len(f.Moves) == 0 || from == "" || from == to || slices.Contains(f.Moves, [2]string{from, to})
}

// Finish builds the lookup tables of e after its fields are set and checks the
// definition. Fields must be unique by id and name.
func (e *Entity) Finish() error {
	e.byName, e.byID = map[string]*Field{}, map[FieldID]*Field{}
	slices.SortFunc(e.Fields, func(a, b *Field) int { return int(a.ID) - int(b.ID) })
	for _, f := range slices.Concat(systemFields, e.Fields) {
		if e.byName[f.Name] != nil || e.byID[f.ID] != nil {
			return fmt.Errorf("entity %s: field %s (%d) is defined twice", e.Name, f.Name, f.ID)
		}
		e.byName[f.Name], e.byID[f.ID] = f, f
	}
	if e.Parent != "" && (e.byName[e.Parent] == nil || e.byName[e.Parent].Kind != Link) {
		return fmt.Errorf("entity %s: parent %q is not a link field of it", e.Name, e.Parent)
	}
	if e.Parent != "" && e.byName[e.Parent].Target == "" {
		return fmt.Errorf("entity %s: parent %q links to no entity", e.Name, e.Parent)
	}
	for _, name := range e.Title {
		if e.byName[name] == nil {
			return fmt.Errorf("entity %s: title field %q does not exist", e.Name, name)
		}
	}
	return e.finishIndexes()
}

// firstAutoIndex numbers the indexes derived from single fields: index
// 0x4000+field, apart from the declared ones.
const firstAutoIndex = 0x4000

func (e *Entity) finishIndexes() error {
	declared := e.Indexes
	if i := slices.IndexFunc(declared, func(x Index) bool { return x.ID >= firstAutoIndex }); i >= 0 {
		declared = declared[:i]
	}
	for _, x := range declared {
		if x.ID == 0 || x.ID >= firstAutoIndex || len(x.Fields) == 0 {
			return fmt.Errorf("entity %s: index %d: want an id of 1..%d and fields", e.Name, x.ID, firstAutoIndex-1)
		}
		for _, name := range x.Fields {
			if f := e.byName[name]; f == nil || f.Kind == Choices || f.Kind == Address || f.ID == FieldIDField {
				return fmt.Errorf("entity %s: index %d: field %q cannot be indexed with others", e.Name, x.ID, name)
			}
		}
	}
	e.Indexes = slices.Clone(declared)
	for _, f := range e.Fields {
		if (f.Unique || f.Indexed || f.Kind == Link) && f.Kind != Address {
			e.Indexes = append(e.Indexes, Index{ID: firstAutoIndex + uint16(f.ID), Fields: []string{f.Name}})
		}
	}
	return nil
}

// A Schema is the live metadata of a cluster. It is immutable once built.
type Schema struct {
	Version  Rev // Rev of the newest metadata record
	Entities []*Entity

	byName map[string]*Entity
	byID   map[EntityID]*Entity
}

// NewSchema builds a schema of the system entities and the given ones.
func NewSchema(version Rev, entities ...*Entity) (*Schema, error) {
	s := &Schema{Version: version, byName: map[string]*Entity{}, byID: map[EntityID]*Entity{}}
	for _, e := range slices.Concat(systemEntities(), entities) {
		if err := e.Finish(); err != nil {
			return nil, err
		}
		if s.byName[e.Name] != nil || s.byID[e.ID] != nil {
			return nil, fmt.Errorf("entity %s (%d) is defined twice", e.Name, e.ID)
		}
		s.byName[e.Name], s.byID[e.ID] = e, e
		s.Entities = append(s.Entities, e)
	}
	slices.SortFunc(s.Entities, func(a, b *Entity) int { return int(a.ID) - int(b.ID) })
	return s, s.checkTargets()
}

func (s *Schema) checkTargets() error {
	for _, e := range s.Entities {
		for _, f := range e.Fields {
			if f.Kind == Link && f.Target != "" && s.byName[f.Target] == nil {
				return fmt.Errorf("entity %s: field %s links to %q, which does not exist", e.Name, f.Name, f.Target)
			}
		}
	}
	return nil
}

// Entity returns the entity of that name, or nil.
func (s *Schema) Entity(name string) *Entity { return s.byName[name] }

// EntityByID returns the entity of that id, or nil.
func (s *Schema) EntityByID(id EntityID) *Entity { return s.byID[id] }

// Names returns the names of the entities people work with, sorted.
func (s *Schema) Names() []string {
	var out []string
	for _, e := range s.Entities {
		if !e.System {
			out = append(out, e.Name)
		}
	}
	slices.Sort(out)
	return out
}

// Child is an entity and the field of it that links to a parent.
type Child struct {
	Entity *Entity
	Field  *Field
}

// Owned returns the entities deleted with a record of e, by entity id.
func (s *Schema) Owned(e *Entity) []Child {
	var out []Child
	for _, c := range s.Entities {
		if f := c.Field(c.Parent); c.Owned && f != nil && f.Target == e.Name {
			out = append(out, Child{c, f})
		}
	}
	return out
}

// definition is how an entity or field is written into a metadata record.
func definition(v any) Value {
	b, err := json.Marshal(v)
	if err != nil {
		panic("crm: metadata does not encode: " + err.Error())
	}
	return TextValue(string(b))
}

// metadataID derives the fixed record id of a metadata record, so that making
// the catalogue twice makes the same records (RFC 9562 §5.8 layout).
func metadataID(entity EntityID, field FieldID) RecordID {
	id := RecordID{0: 't', 1: 'r', 2: 'a', 3: 'd', 4: 'e', 6: 0x80, 8: 0x80}
	id[12], id[13] = byte(entity>>8), byte(entity)
	id[14], id[15] = byte(field>>8), byte(field)
	return id
}

// MetadataOps returns the ops that define e and its fields.
func MetadataOps(e *Entity) []Op {
	ops := []Op{{Kind: OpCreate, Entity: EntityEntity, Record: metadataID(e.ID, 0), Cells: []Input{
		{MetaNumber, IntegerValue(int64(e.ID))}, {MetaName, TextValue(e.Name)}, {MetaDefinition, definition(e)}}}}
	for _, f := range e.Fields {
		def := *f // e may be live, and read by others
		def.KindName = f.Kind.String()
		ops = append(ops, Op{Kind: OpCreate, Entity: EntityField, Record: metadataID(e.ID, f.ID), Cells: []Input{
			{MetaNumber, IntegerValue(int64(f.ID))}, {MetaName, TextValue(f.Name)}, {MetaDefinition, definition(&def)},
			{MetaEntity, IntegerValue(int64(e.ID))}}})
	}
	return ops
}

// SchemaOf builds the live schema from the metadata records.
func SchemaOf(entities, fields []*Record) (*Schema, error) {
	var version Rev
	byID := map[int64]*Entity{}
	list := make([]*Entity, 0, len(entities))
	for _, r := range entities {
		e := &Entity{ID: EntityID(r.Value(MetaNumber).Int()), Name: r.Value(MetaName).Str()}
		if err := json.Unmarshal([]byte(r.Value(MetaDefinition).Str()), e); err != nil {
			return nil, fmt.Errorf("definition of entity %s: %w", e.Name, err)
		}
		version = max(version, r.Stamp.Rev)
		byID[int64(e.ID)] = e
		list = append(list, e)
	}
	for _, r := range fields {
		f := &Field{ID: FieldID(r.Value(MetaNumber).Int()), Name: r.Value(MetaName).Str()}
		if err := json.Unmarshal([]byte(r.Value(MetaDefinition).Str()), f); err != nil {
			return nil, fmt.Errorf("definition of field %s: %w", f.Name, err)
		}
		k, ok := ParseKind(f.KindName)
		e := byID[r.Value(MetaEntity).Int()]
		if !ok || e == nil {
			return nil, fmt.Errorf("definition of field %s: kind %q, entity %d", f.Name, f.KindName, r.Value(MetaEntity).Int())
		}
		f.Kind = k
		version = max(version, r.Stamp.Rev)
		e.Fields = append(e.Fields, f)
	}
	return NewSchema(version, list...)
}

// Title returns the words that name a record to a person.
func (e *Entity) TitleOf(r *Record) string {
	var parts []string
	for _, name := range e.Title {
		if s := r.Value(e.Field(name).ID).String(); s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " ")
}
