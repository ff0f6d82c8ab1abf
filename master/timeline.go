package master

import (
	"crypto/sha256"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Codes of the two territories that every cluster has.
const (
	codeShared     = "shared"
	codeHeadOffice = "headoffice"
)

// timeline begins the cluster. All its records are the decision Rev 1. A repeat
// is answered as the first one was; another timeline is refused.
func (f *FSM) timeline(e TimelineEntry) (Verdict, error) {
	done := Decided{Outcome: crm.Outcome{Node: e.Node, Rev: 1, Kind: crm.Accepted}, Admitted: 1}
	t, err := f.tx.Timeline()
	if err != nil {
		return Verdict{}, err
	}
	switch {
	case t == e.Timeline && t != 0:
		done.Duplicate = true
		return Verdict{Results: []Decided{done}}, nil
	case t != 0:
		return refuse(crm.CodeExists, "begin cluster", e.Node, "the cluster exists already"), nil
	case e.Timeline == 0 || e.Node == 0 || e.Site == "" || e.Cluster == "":
		return refuse(crm.CodeInvalid, "begin cluster", e.Node, "timeline, cluster, node and site are needed"), nil
	}
	return Verdict{Results: []Decided{done}}, f.beginTimeline(e)
}

func (f *FSM) beginTimeline(e TimelineEntry) error {
	f.rev++
	if err := f.put(crm.Decision{Writes: e.records(f.rev, f.tx.Schema().Version), Outcome: crm.Outcome{Kind: crm.Accepted}}); err != nil {
		return err
	}
	if err := f.tx.SetTimeline(e.Timeline); err != nil {
		return err
	}
	if err := f.tx.SetMeta(metaCluster, []byte(e.Cluster)); err != nil {
		return err
	}
	return f.tx.SetNode(store.NodeState{Node: e.Node, Incarnation: 1, SeenMillis: e.ReceivedMillis})
}

// records returns what a new cluster holds: its two territories, the first site
// and the first master.
func (e TimelineEntry) records(rev, schema crm.Rev) []*crm.Record {
	made := func(entity crm.EntityID, name string, values map[crm.FieldID]crm.Value) *crm.Record {
		r := &crm.Record{Entity: entity, Territory: crm.Shared, Schema: schema, Entered: rev,
			ID:    madeID(sha256.Sum256(fmt.Appendf(nil, "tradepost %s %d %s", e.Cluster, entity, name))),
			Stamp: crm.Stamp{Rev: rev, HLC: crm.NewHLC(e.ReceivedMillis), Node: e.Node, Actor: "cluster"}}
		values[crm.FieldCreatedAt], values[crm.FieldCreatedBy] = crm.InstantMillis(e.ReceivedMillis), crm.TextValue("cluster")
		fill(r, values)
		return r
	}
	territory := func(code, name string, n crm.TerritoryID) *crm.Record {
		return made(crm.EntityTerritory, code, map[crm.FieldID]crm.Value{crm.TerritoryCode: crm.TextValue(code),
			crm.TerritoryName: crm.TextValue(name), crm.TerritoryNumber: crm.IntegerValue(int64(n))})
	}
	return []*crm.Record{
		territory(codeShared, "Shared", crm.Shared),
		territory(codeHeadOffice, "Head office", crm.HeadOffice),
		made(crm.EntitySite, e.Site, map[crm.FieldID]crm.Value{crm.SiteName: crm.TextValue(e.Site), crm.SiteCity: crm.TextValue(e.City),
			crm.SiteCountry: crm.TextValue(e.Country)}),
		made(crm.EntityNode, fmt.Sprint(e.Node), map[crm.FieldID]crm.Value{crm.NodeNumber: crm.IntegerValue(int64(e.Node)),
			crm.NodeSite: crm.TextValue(e.Site), crm.NodeRole: crm.ChoiceValue("master"), crm.NodeStatus: crm.ChoiceValue("active"),
			crm.NodeRaft: crm.TextValue(e.Raft), crm.NodeSync: crm.TextValue(e.Sync), crm.NodeHTTP: crm.TextValue(e.HTTP),
			crm.NodeCity: crm.TextValue(e.City)}),
	}
}
