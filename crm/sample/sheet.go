package sample

import (
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

// A sheet is what a creation needs to know of an entity.
type sheet struct {
	entity crm.EntityID
	fields map[string]crm.FieldID
}

type sheets struct {
	user, product, account, contact, deal, order, line, shipment, ticket, activity *sheet
}

func newSheets() sheets {
	all := map[crm.EntityID]*sheet{}
	for _, e := range catalog.Entities() {
		s := &sheet{entity: e.ID, fields: map[string]crm.FieldID{}}
		for _, f := range e.Fields {
			s.fields[f.Name] = f.ID
		}
		all[e.ID] = s
	}
	return sheets{user: all[catalog.User], product: all[catalog.Product], account: all[catalog.Account], contact: all[catalog.Contact],
		deal: all[catalog.Opportunity], order: all[catalog.Order], line: all[catalog.OrderLine], shipment: all[catalog.Shipment],
		ticket: all[catalog.Case], activity: all[catalog.Activity]}
}

// A cell is a value for the field of that name.
type cell struct {
	field string
	value crm.Value
}

// create returns the op that creates a record of the cells that have a value.
// A name the catalogue lacks is a mistake in this package.
func (s *sheet) create(id crm.RecordID, cells ...cell) crm.Op {
	op := crm.Op{Kind: crm.OpCreate, Entity: s.entity, Record: id, Cells: make([]crm.Input, 0, len(cells))}
	for _, c := range cells {
		f, ok := s.fields[c.field]
		if !ok {
			panic("sample: the catalogue has no field " + c.field)
		}
		if !c.value.IsNull() {
			op.Cells = append(op.Cells, crm.Input{Field: f, Value: c.value})
		}
	}
	return op
}

func money(cents int64, c *country) crm.Value { return crm.DecimalValue(cents, c.decimals, c.currency) }
