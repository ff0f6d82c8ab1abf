package master

import (
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// A directory says of each node what its Mutations may do. It is read from the
// node and site records whenever one of them may have changed.
type directory map[crm.NodeID]*member

type member struct {
	removed  bool
	master   bool
	home     crm.TerritoryID            // of records made there without an account
	writable func(crm.TerritoryID) bool // nil: all
}

// site is what a site's record grants.
type site struct {
	home    crm.TerritoryID
	granted []crm.TerritoryID
}

// env is what a decision on a Mutation of the member depends on besides records.
func (w *member) env(tx *store.Tx, rev crm.Rev, hlc crm.HLC) (e crm.Env, err error) {
	e = crm.Env{Rev: rev, HLC: hlc, Home: w.home, Writable: w.writable, Admin: w.master}
	if e.Lineage, err = tx.Lineage(); err != nil {
		return e, err
	}
	e.Level, err = session.LevelIn(tx)
	return e, err
}

// member returns the node's entry, nil if there is no such node.
func (f *FSM) member(n crm.NodeID) (*member, error) {
	if f.directory == nil {
		d, err := readDirectory(f.tx)
		if err != nil {
			return nil, err
		}
		f.directory = d
	}
	return f.directory[n], nil
}

func readDirectory(tx *store.Tx) (directory, error) {
	sites, err := readSites(tx)
	if err != nil {
		return nil, err
	}
	d := directory{}
	for r, err := range tx.Scan(crm.EntityNode) {
		if err != nil {
			return nil, err
		}
		d[crm.NodeID(r.Value(crm.NodeNumber).Int())] = newMember(r, sites[r.Value(crm.NodeSite).Str()])
	}
	return d, nil
}

func newMember(r *crm.Record, s site) *member {
	m := &member{removed: r.Value(crm.NodeStatus).Str() == "removed", master: r.Value(crm.NodeRole).Str() == "master", home: s.home}
	if m.home == 0 && len(s.granted) > 0 {
		m.home = s.granted[0]
	}
	if m.home == 0 {
		m.home = crm.HeadOffice
	}
	if !m.master {
		m.writable = func(t crm.TerritoryID) bool { return t == crm.Shared || slices.Contains(s.granted, t) }
	}
	return m
}

func readSites(tx *store.Tx) (map[string]site, error) {
	sites := map[string]site{}
	for r, err := range tx.Scan(crm.EntitySite) {
		if err != nil {
			return nil, err
		}
		s, err := readSite(tx, r)
		if err != nil {
			return nil, err
		}
		sites[r.Value(crm.SiteName).Str()] = s
	}
	return sites, nil
}

func readSite(tx *store.Tx, r *crm.Record) (s site, err error) {
	if s.home, _, err = tx.TerritoryByCode(r.Value(crm.SiteHome).Str()); err != nil {
		return s, err
	}
	for _, code := range r.Value(crm.SiteTerritories).Set() {
		t, known, err := tx.TerritoryByCode(code)
		if err != nil {
			return s, err
		}
		if known {
			s.granted = append(s.granted, t)
		}
	}
	return s, nil
}
