package catalog

import (
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

type edit func(*crm.Field)

func field(id crm.FieldID, name, label string, k crm.Kind, edits []edit) *crm.Field {
	f := &crm.Field{ID: id, Name: name, Label: label, Kind: k, KindName: k.String()}
	for _, e := range edits {
		e(f)
	}
	return f
}

func text(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Text, edits)
}

func integer(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Integer, edits)
}

func decimal(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Decimal, edits)
}

func money(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	f := field(id, name, label, crm.Decimal, edits)
	f.Money, f.Scale = true, 2
	return f
}

func yesNo(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Bool, edits)
}

func date(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Date, edits)
}

func instant(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Instant, edits)
}

func choice(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Choice, edits)
}

func choices(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Choices, edits)
}

func email(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Email, edits)
}

func phone(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Phone, edits)
}

func webAddress(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.URL, edits)
}

func address(id crm.FieldID, name, label string, edits ...edit) *crm.Field {
	return field(id, name, label, crm.Address, edits)
}

func link(id crm.FieldID, name, label, target string, edits ...edit) *crm.Field {
	f := field(id, name, label, crm.Link, edits)
	f.Target = target
	return f
}

// externalID is field 16 of every stock entity: the key the record has in the
// system it was imported from.
func externalID(aliases ...string) *crm.Field {
	return text(16, "external_id", "External id", unique, limit(255), alias("Id", "Record ID", "Key"), alias(aliases...))
}

// owner is field 17 of every stock entity: the user who answers for the record.
func owner(aliases ...string) *crm.Field {
	return link(17, "owner", "Owner", "user", alias("OwnerId", "Owner.Name", "Record owner", "Assigned to", "Assigned user"), alias(aliases...))
}

func required(f *crm.Field) { f.Required = true }
func unique(f *crm.Field)   { f.Unique = true }
func indexed(f *crm.Field)  { f.Indexed = true }
func search(f *crm.Field)   { f.Search = true }
func fixed(f *crm.Field)    { f.Immut = true }

func alias(headers ...string) edit {
	return func(f *crm.Field) { f.Aliases = append(f.Aliases, headers...) }
}

func policy(p crm.Policy) edit { return func(f *crm.Field) { f.Policy = p } }

func limit(bytes int) edit { return func(f *crm.Field) { f.Max = bytes } }

func scale(digits uint8) edit { return func(f *crm.Field) { f.Scale = digits } }

func byDefault(value string) edit { return func(f *crm.Field) { f.Default = value } }

// series numbers documents per site. Only the creation may set the number.
func series(name string) edit {
	return func(f *crm.Field) { f.Series, f.Unique, f.Immut, f.Search = name, true, true, true }
}

// options allows the values and nothing else. A lower_snake value gets a label.
func options(values ...string) edit {
	return func(f *crm.Field) {
		f.Indexed = true
		for _, v := range values {
			f.Options = append(f.Options, crm.Option{Value: v, Label: optionLabel(v)})
		}
	}
}

func optionLabel(value string) string {
	if value != strings.ToLower(value) {
		return ""
	}
	return strings.ToUpper(value[:1]) + strings.ReplaceAll(value[1:], "_", " ")
}

// moves allows the field to go from one value to each of others.
func moves(from string, to ...string) edit {
	return func(f *crm.Field) {
		f.Policy = crm.Transition
		for _, t := range to {
			f.Moves = append(f.Moves, [2]string{from, t})
		}
	}
}
