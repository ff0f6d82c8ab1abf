package httpapi

import (
	"encoding/json"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// An Item is a record as the API shows it.
type Item struct {
	ID     string
	Entity string
	Token  string                     // for Patch and Delete: what its reader has seen
	Fields map[string]json.RawMessage // without those that have no value
}

// UnmarshalJSON reads the flat object.
func (it *Item) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	*it = Item{Fields: fields}
	for name, into := range map[string]*string{"id": &it.ID, "entity": &it.Entity, "token": &it.Token} {
		key := name
		if _, moved := fields["_"+name]; moved {
			key = "_" + name
		}
		if err := json.Unmarshal(fields[key], into); err != nil {
			return err
		}
		delete(fields, key)
	}
	return nil
}

// MarshalJSON writes the flat object.
func (it Item) MarshalJSON() ([]byte, error) {
	out := map[string]any{"id": it.ID}
	for name, value := range it.Fields {
		out[name] = value
	}
	for name, value := range map[string]string{"entity": it.Entity, "token": it.Token} {
		if _, taken := it.Fields[name]; taken {
			name = "_" + name
		}
		out[name] = value
	}
	return json.Marshal(out)
}

// Text returns the field as people read it: texts bare, amounts with their
// currency, sets joined by ";", an expanded link as its title; "" if it has no
// value.
func (it *Item) Text(field string) string {
	raw := it.Fields[field]
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
	case '[':
		var list []string
		if json.Unmarshal(raw, &list) == nil {
			return strings.Join(list, ";")
		}
	case '{':
		return objectText(raw)
	case 'n':
		return ""
	}
	return string(raw)
}

func objectText(raw json.RawMessage) string {
	var o struct {
		Title, ID, Amount, Currency string
		crm.PostalAddress
	}
	if json.Unmarshal(raw, &o) != nil {
		return string(raw)
	}
	switch {
	case o.Title != "":
		return o.Title
	case o.ID != "":
		return o.ID
	case o.Amount != "":
		return o.Amount + " " + o.Currency
	}
	return crm.AddressValue(o.PostalAddress).String()
}
