package httpapi

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// suggest returns `; did you mean "x"?` for the nearest of the names, or "" if
// none is near: at most two edits, and fewer than half of the characters.
func suggest(name string, known []string) string {
	best, found := 3, ""
	for _, k := range known {
		if len(name) > 64 || len(k) > 64 {
			continue
		}
		if d := distance(name, k); d < best && 2*d < len(k) {
			best, found = d, k
		}
	}
	if found == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", found)
}

// distance is the number of bytes to insert, delete, replace or swap with their
// neighbour that make b of a (restricted Damerau-Levenshtein).
func distance(a, b string) int {
	var before, last []int // the two rows above
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replaced := last[j]
			if a[i] != b[j] {
				replaced++
			}
			row[j+1] = min(replaced, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

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
	return nil, &crm.Error{Code: crm.CodeUnknownEntity, Item: short(name), Message: "no such entity" + suggest(name, known)}
}

// unknownField is the error of a name that is no field of e.
func unknownField(e *crm.Entity, name string) error {
	known := []string{"id"}
	for _, f := range e.Fields {
		known = append(known, f.Name)
	}
	return &crm.Error{Code: crm.CodeUnknownField, Item: short(name), Message: e.Name + " has no such field" + suggest(name, known)}
}

// short cuts what a message quotes.
func short(s string) string {
	r := []rune(s)
	if len(r) <= 60 {
		return s
	}
	return string(r[:59]) + "…"
}
