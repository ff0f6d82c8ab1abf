package httpapi

import (
	"maps"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

// names returns the sorted keys of m.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// entityOf returns the entity called name.
func entityOf(schema *crm.Schema, name string) (*crm.Entity, error) {
	if e := schema.Entity(name); e != nil {
		return e, nil
	}
	var known []string
	for _, e := range schema.Entities {
		known = append(known, e.Name)
	}
	return nil, &crm.Error{Code: crm.CodeUnknownEntity, Item: short(name), Message: "no such entity" + query.Suggest(name, known)}
}

// unknownField is the error of a name that is no field of e.
func unknownField(e *crm.Entity, name string) error {
	known := []string{"id"}
	for _, f := range e.Fields {
		known = append(known, f.Name)
	}
	return &crm.Error{Code: crm.CodeUnknownField, Item: short(name), Message: e.Name + " has no such field" + query.Suggest(name, known)}
}

// short cuts what a message quotes.
func short(s string) string {
	r := []rune(s)
	if len(r) <= 60 {
		return s
	}
	return string(r[:59]) + "…"
}
