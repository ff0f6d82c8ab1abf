package sim

import (
	"fmt"
	"hash/fnv"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

// A Role of a node, as its record has it.
const (
	roleMaster  = "master"
	roleReplica = "replica"
)

// headOffice is the name of the masters' site.
const headOffice = "hq"

// regions are the territories that accounts live in, besides the one that each
// branch has to itself.
var regions = []string{"north", "south", "east"}

// idOf returns the id of a record that the Script names, such as account/a7. It
// has the shape of one made offline.
func idOf(name string) crm.RecordID {
	h := fnv.New128a()
	h.Write([]byte(name))
	id := crm.RecordID(h.Sum(nil))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

func masterName(i int) string  { return fmt.Sprintf("m%d", i+1) }
func replicaName(i int) string { return fmt.Sprintf("r%d", i+1) }

// holdings returns the territories that a branch is granted in the beginning:
// the one of its own, where it is at home, and two regions, so that any two
// branches share one and no branch holds all.
func holdings(replica int) (home string, granted []string) {
	home = replicaName(replica)
	return home, []string{home, regions[replica%len(regions)], regions[(replica+1)%len(regions)]}
}

// A plan is what a cluster is founded with.
type plan struct{ masters, replicas, accounts int }

// requests returns what head office asks for before the run: the catalogue,
// territories, sites, nodes and some customers.
func (p plan) requests() []crm.Request {
	out := catalog.Requests("founder")
	for _, t := range p.territories() {
		out = append(out, made(crm.EntityTerritory, "territory/"+t, crm.Input{Field: crm.TerritoryCode, Value: crm.TextValue(t)},
			crm.Input{Field: crm.TerritoryName, Value: crm.TextValue("Territory " + t)}))
	}
	for i := range p.replicas {
		home, granted := holdings(i)
		out = append(out, made(crm.EntitySite, "site/"+replicaName(i), crm.Input{Field: crm.SiteName, Value: crm.TextValue(replicaName(i))},
			crm.Input{Field: crm.SiteTerritories, Value: crm.ChoicesValue(granted...)}, crm.Input{Field: crm.SiteHome, Value: crm.TextValue(home)}))
	}
	for i := 1; i < p.masters; i++ {
		out = append(out, made(crm.EntityNode, "node/"+masterName(i), nodeCells(headOffice, roleMaster, masterName(i))...))
	}
	for i := range p.replicas {
		out = append(out, made(crm.EntityNode, "node/"+replicaName(i), nodeCells(replicaName(i), roleReplica, "")...))
	}
	for i := range p.accounts {
		out = append(out, p.customer(i))
	}
	return out
}

func (p plan) territories() []string {
	out := append([]string(nil), regions...)
	for i := range p.replicas {
		out = append(out, replicaName(i))
	}
	return out
}

func nodeCells(site, role, address string) []crm.Input {
	return []crm.Input{{Field: crm.NodeSite, Value: crm.TextValue(site)}, {Field: crm.NodeRole, Value: crm.ChoiceValue(role)},
		{Field: crm.NodeSync, Value: crm.TextValue(address)}, {Field: crm.NodeStatus, Value: crm.ChoiceValue("active")}}
}

// customer is an account with a contact and an opportunity.
func (p plan) customer(i int) crm.Request {
	territories := p.territories()
	account, contact, sale := fmt.Sprintf("account/a%d", i), fmt.Sprintf("contact/c%d", i), fmt.Sprintf("opportunity/o%d", i)
	req := made(catalog.Account, account, crm.Input{Field: 18, Value: crm.TextValue(account)},
		crm.Input{Field: 35, Value: crm.TextValue(territories[i%len(territories)])})
	req.Ops = append(req.Ops,
		made(catalog.Contact, contact, crm.Input{Field: 18, Value: crm.LinkValue(idOf(account))}, crm.Input{Field: 22, Value: crm.TextValue(contact)},
			crm.Input{Field: counterField, Value: crm.IntegerValue(10)}).Ops[0],
		made(catalog.Opportunity, sale, crm.Input{Field: 18, Value: crm.TextValue(sale)}, crm.Input{Field: 19, Value: crm.LinkValue(idOf(account))}).Ops[0])
	return req
}

func made(e crm.EntityID, name string, cells ...crm.Input) crm.Request {
	return crm.Request{Actor: "founder", Intent: "found", Ops: []crm.Op{{Kind: crm.OpCreate, Entity: e, Record: idOf(name), Cells: cells}}}
}
