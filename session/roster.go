package session

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A Roster is who the decided records say belongs to the cluster. It does not
// change once made.
type Roster struct {
	Timeline uint64
	Rev      crm.Rev
	Nodes    map[crm.NodeID]NodeFacts
	Sites    map[string]SiteFacts // by name
}

// NodeFacts is a node's record.
type NodeFacts struct {
	Record crm.RecordID
	Token  crm.Token
	Node   crm.NodeID
	Site   string
	City   string
	Role   auth.Role
	Active bool
	Sync   string // host:port
	HTTP   string
	Raft   string
	Votes  bool    // of a master: it is to be a voter of Raft
	Since  crm.Rev // when the record last changed
}

// SiteFacts is a site's record.
type SiteFacts struct {
	Name   string
	City   string
	Grants []Grant // by element of the set; Shared is not among them
	Since  crm.Rev // when the record last changed
}

// A Grant lets a site hold a territory.
type Grant struct {
	Territory crm.TerritoryID
	Rev       crm.Rev // since when it has held without a break: a Cursor below needs the territory whole
}

// Rosters keep the newest roster, because every batch needs one and it hardly
// ever changes. The zero value is ready; any goroutine may use it.
type Rosters struct {
	mu      sync.Mutex // protects the rest
	newest  *Roster
	checked crm.Rev // newest still holds here, in its timeline
}

// At returns the roster at the transaction's Rev.
func (c *Rosters) At(tx *store.Tx) (*Roster, error) {
	rev, err := tx.Rev()
	if err != nil {
		return nil, err
	}
	timeline, err := tx.Timeline()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	known, checked := c.newest, c.checked
	c.mu.Unlock()
	if known != nil && known.Timeline == timeline && known.Rev <= rev {
		same, err := rev <= checked, error(nil)
		if !same {
			same, err = unchanged(tx, checked)
		}
		if err != nil {
			return nil, err
		}
		if same {
			c.keep(known, rev)
			return known, nil
		}
	}
	r, err := readRoster(tx, timeline, rev)
	if err != nil {
		return nil, err
	}
	c.keep(r, rev)
	return r, nil
}

// keep notes that r holds at rev, unless a newer one of its timeline is known.
func (c *Rosters) keep(r *Roster, rev crm.Rev) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.newest == nil || c.newest.Timeline != r.Timeline || c.checked < rev {
		c.newest, c.checked = r, rev
	}
}

// unchanged reports whether no record that a roster is made of changed after
// since.
func unchanged(tx *store.Tx, since crm.Rev) (bool, error) {
	for entry, err := range tx.Feed(crm.Shared, since) {
		if err != nil {
			return false, err
		}
		switch entry.Entity {
		case crm.EntityTerritory, crm.EntitySite, crm.EntityNode:
			return false, nil
		}
	}
	return true, nil
}

func readRoster(tx *store.Tx, timeline uint64, rev crm.Rev) (*Roster, error) {
	r := &Roster{Timeline: timeline, Rev: rev, Nodes: map[crm.NodeID]NodeFacts{}, Sites: map[string]SiteFacts{}}
	for rec, err := range tx.Scan(crm.EntityNode) {
		if err != nil {
			return nil, err
		}
		n, err := nodeFactsOf(tx, rec)
		if err != nil {
			return nil, err
		}
		r.Nodes[n.Node] = n
	}
	for rec, err := range tx.Scan(crm.EntitySite) {
		if err != nil {
			return nil, err
		}
		s, err := siteFactsOf(tx, rec)
		if err != nil {
			return nil, err
		}
		r.Sites[s.Name] = s
	}
	return r, nil
}

func nodeFactsOf(tx *store.Tx, rec *crm.Record) (NodeFacts, error) {
	seen, err := tx.Token(rec)
	text := func(f crm.FieldID) string { return rec.Value(f).Str() }
	return NodeFacts{Record: rec.ID, Token: seen, Node: crm.NodeID(rec.Value(crm.NodeNumber).Int()),
		Site: text(crm.NodeSite), City: text(crm.NodeCity), Role: auth.Role(text(crm.NodeRole)), Active: text(crm.NodeStatus) != "removed",
		Sync: text(crm.NodeSync), HTTP: text(crm.NodeHTTP), Raft: text(crm.NodeRaft), Votes: text(crm.NodeSuffrage) != "nonvoter", Since: rec.Stamp.Rev}, err
}

func siteFactsOf(tx *store.Tx, rec *crm.Record) (SiteFacts, error) {
	s := SiteFacts{Name: rec.Value(crm.SiteName).Str(), City: rec.Value(crm.SiteCity).Str(), Since: rec.Stamp.Rev}
	c := rec.Cell(crm.SiteTerritories)
	if c == nil {
		return s, nil
	}
	for i, code := range c.Value.Set() {
		t, since, err := territoryOf(tx, code)
		if err != nil {
			return s, err
		}
		if t != 0 && t != crm.Shared && t != crm.HeadOffice {
			s.Grants = append(s.Grants, Grant{t, max(c.Elems[i].Rev, rec.Entered, since)})
		}
	}
	return s, nil
}

// territoryOf returns the territory of that code and the Rev at which its record
// was made or last restored: no replica held it before. 0 if there is none.
func territoryOf(tx *store.Tx, code string) (crm.TerritoryID, crm.Rev, error) {
	e := tx.Schema().EntityByID(crm.EntityTerritory)
	id, ok, err := tx.Lookup(e, e.FieldByID(crm.TerritoryCode), crm.TextValue(code))
	if err != nil || !ok {
		return 0, 0, err
	}
	rec, err := tx.Record(crm.EntityTerritory, id)
	if err != nil {
		return 0, 0, err
	}
	return crm.TerritoryID(rec.Value(crm.TerritoryNumber).Int()), rec.Entered, nil
}

// maxHosts is how many addresses a Welcome may carry.
const maxHosts = 64

// Masters returns the sync addresses of the active masters, leader first, at
// most as many as a Welcome may carry.
func (r *Roster) Masters(leader crm.NodeID) []string {
	var out []string
	if n := r.Nodes[leader]; n.Active && n.Sync != "" {
		out = append(out, n.Sync)
	}
	for _, id := range sortedKeys(r.Nodes) {
		n := r.Nodes[id]
		if id != leader && n.Active && n.Role == auth.RoleMaster && n.Sync != "" && len(out) < maxHosts {
			out = append(out, n.Sync)
		}
	}
	return out
}

// ReplicaOf returns the active replica of a site.
func (r *Roster) ReplicaOf(site string) (NodeFacts, bool) {
	for _, id := range sortedKeys(r.Nodes) {
		n := r.Nodes[id]
		if n.Site == site && n.Role == auth.RoleReplica && n.Active {
			return n, true
		}
	}
	return NodeFacts{}, false
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
