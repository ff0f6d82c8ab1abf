// Package catalog holds the stock entities as data: what a new cluster knows
// before anyone adds a field. Numbers of entities and fields are part of the
// format: they are never changed and never reused.
package catalog

import "github.com/tradepost-crm/tradepost/crm"

// The numbers of the stock entities. Territories, sites and nodes are entities
// of package crm itself.
const (
	Account     crm.EntityID = 16
	Contact     crm.EntityID = 17
	Product     crm.EntityID = 18
	Order       crm.EntityID = 19
	OrderLine   crm.EntityID = 20
	Shipment    crm.EntityID = 21
	Opportunity crm.EntityID = 22
	Activity    crm.EntityID = 23
	Case        crm.EntityID = 24
	User        crm.EntityID = 25
)

// Entities returns fresh definitions of the stock entities. An entity comes
// after those it links to, so that every prefix of the list is a schema.
func Entities() []*crm.Entity {
	return []*crm.Entity{
		user(), product(), account(), contact(), opportunity(), order(), orderLine(), shipment(), supportCase(), activity(),
	}
}

// Ops returns the ops that define the stock entities, in the order of Entities.
func Ops() []crm.Op {
	var ops []crm.Op
	for _, e := range Entities() {
		ops = append(ops, crm.MetadataOps(e)...)
	}
	return ops
}

// Requests returns one request per stock entity, in the order of Entities.
// Each fits a Mutation of at most crm.MaxMutation bytes; all of them together
// do not.
func Requests(actor string) []crm.Request {
	var out []crm.Request
	for _, e := range Entities() {
		out = append(out, crm.Request{Actor: actor, Intent: "catalog.install", Ops: crm.MetadataOps(e)})
	}
	return out
}
