package query

import (
	"iter"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// Sizes of a page of a list.
const (
	DefaultLimit = 50
	MaxLimit     = 1000
)

// A List asks for the records of an entity that match Where, in the order of
// Sort and then of their ids, one page at a time.
type List struct {
	Entity *crm.Entity
	Where  *Expr // nil matches every record
	Sort   []Key // empty: by id
	Limit  int   // records a page; see PageSize
	Cursor string
}

// PageSize returns Limit, DefaultLimit where it is 0 or less, and MaxLimit
// where it is more.
func (l List) PageSize() int {
	if l.Limit <= 0 {
		return DefaultLimit
	}
	return min(l.Limit, MaxLimit)
}

// A Key is one field of a sort order.
type Key struct {
	Field *crm.Field
	Desc  bool
}

// ParseSort reads "-close_date,name": fields of e, a minus before those that
// descend. Empty text is no order. Sets and addresses have no order.
func ParseSort(e *crm.Entity, text string) ([]Key, error) {
	var keys []Key
	for name, at := range names(text) {
		bare, desc := strings.CutPrefix(name, "-")
		f, m := fieldOf(e, bare)
		switch {
		case m != nil:
			return nil, m.at("parse sort", text, at)
		case f.Kind == crm.Choices || f.Kind == crm.Address:
			return nil, ErrorAt("parse sort", text, at, "a field of kind "+f.Kind.String()+" has no order; sort by another")
		case slices.ContainsFunc(keys, func(k Key) bool { return k.Field == f }):
			return nil, ErrorAt("parse sort", text, at, quote(bare)+" is named twice")
		}
		keys = append(keys, Key{f, desc})
	}
	return keys, nil
}

// ParseFields reads "name,stage": fields of e, without repeats. Empty text is
// no field.
func ParseFields(e *crm.Entity, text string) ([]*crm.Field, error) {
	var fields []*crm.Field
	for name, at := range names(text) {
		f, m := fieldOf(e, name)
		if m != nil {
			return nil, m.at("parse fields", text, at)
		}
		if !slices.Contains(fields, f) {
			fields = append(fields, f)
		}
	}
	return fields, nil
}

// names yields the parts of a comma-separated text without blanks around them,
// and where each starts. Text of blanks only has no parts.
func names(text string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		if strings.TrimSpace(text) == "" {
			return
		}
		at := 0
		for part := range strings.SplitSeq(text, ",") {
			lead := len(part) - len(strings.TrimLeft(part, " \t\r\n"))
			if !yield(strings.TrimSpace(part), at+lead) {
				return
			}
			at += len(part) + 1
		}
	}
}
