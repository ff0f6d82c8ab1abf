package crm

import (
	"maps"
	"slices"
)

// A metaKey names an entity (field 0) or a field of the metadata by number.
type metaKey struct {
	entity int64
	field  int64
}

// checkSchema judges a Mutation that changes metadata: what it leaves must be a
// schema, because no node could work under one that is not. Metadata is never
// deleted: records decided under it stay.
func (d *decider) checkSchema() error {
	var changed []*Record
	for _, id := range d.order {
		if r := d.work[id]; r.Entity == EntityEntity || r.Entity == EntityField {
			changed = append(changed, r)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	meta := liveMetadata(d.Schema())
	for _, r := range changed {
		if r.Deleted {
			return reject(CodeInvalid, r.Value(MetaName).Str(), "metadata is never deleted: records made under it remain")
		}
		meta[metaKeyOf(r)] = r
	}
	var entities, fields []*Record
	for _, k := range slices.SortedFunc(maps.Keys(meta), func(a, b metaKey) int {
		return slices.Compare([]int64{a.entity, a.field}, []int64{b.entity, b.field})
	}) {
		if k.field == 0 {
			entities = append(entities, meta[k])
		} else {
			fields = append(fields, meta[k])
		}
	}
	if _, err := SchemaOf(entities, fields); err != nil {
		return reject(CodeInvalid, "schema", "the change would leave metadata that no node can use: %v", err)
	}
	return nil
}

func metaKeyOf(r *Record) metaKey {
	if r.Entity == EntityEntity {
		return metaKey{entity: r.Value(MetaNumber).Int()}
	}
	return metaKey{r.Value(MetaEntity).Int(), r.Value(MetaNumber).Int()}
}

// liveMetadata writes the schema's own entities as the records that define them.
func liveMetadata(s *Schema) map[metaKey]*Record {
	out := map[metaKey]*Record{}
	for _, e := range s.Entities {
		if e.ID < FirstEntity {
			continue
		}
		for _, op := range MetadataOps(e) {
			r := &Record{Entity: op.Entity, ID: op.Record}
			for _, c := range op.Cells {
				r.set(Cell{Field: c.Field, Value: c.Value})
			}
			out[metaKeyOf(r)] = r
		}
	}
	return out
}
