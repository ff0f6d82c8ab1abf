package master

import (
	"context"
	"encoding/binary"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// An Initial is what a new cluster begins with, beside its two territories, the
// first site and the first master.
type Initial struct {
	Catalogue   []crm.Request // define the stock entities, in order
	Territories []InitialTerritory
	Sites       []InitialSite // the first master's own site may be among them
}

// An InitialTerritory is a territory to begin with.
type InitialTerritory struct{ Code, Name string }

// An InitialSite is a site to begin with.
type InitialSite struct {
	Name        string
	City        string
	Country     string
	Territories []string // codes that it holds
	Home        string   // code of the territory of records made there without an account; may be ""
}

// Bootstrap begins a cluster with this master as its only one. Run must be
// running. If it is interrupted it may be called again: what is there is kept.
// The error is of code already_exists if the directory is part of another
// cluster.
func (m *Master) Bootstrap(ctx context.Context, init Initial) error {
	server := raft.Server{Suffrage: raft.Voter, ID: serverID(m.node), Address: raft.ServerAddress(m.cfg.RaftAddress)}
	if err := m.ledger.bootstrap([]raft.Server{server}); err != nil && crm.CodeOf(err) != crm.CodeExists {
		return err
	}
	if err := m.begin(ctx); err != nil {
		return err
	}
	if _, _, err := m.ledger.propose(ctx, ActivateEntry{Level: uint64(m.cfg.Protocol)}); err != nil {
		return err
	}
	for _, req := range init.requests(m) {
		if err := m.establish(ctx, req); err != nil {
			return err
		}
	}
	return m.ledger.waitRev(ctx, m.ledger.evaluated())
}

// begin logs the cluster's first entry, unless it was logged before.
func (m *Master) begin(ctx context.Context) error {
	var b [8]byte
	m.random(b[:])
	e := TimelineEntry{Timeline: binary.BigEndian.Uint64(b[:])>>1 | 1, Cluster: m.id.Cluster, Node: m.node, ReceivedMillis: m.millis(),
		Site: m.id.Site, City: m.cfg.City, Country: m.cfg.Country, Raft: m.cfg.RaftAddress, Sync: m.cfg.SyncAddress, HTTP: m.cfg.HTTPAddress}
	err := m.retry(ctx, func() error {
		if err := m.ledger.verify(ctx); err != nil {
			return err
		}
		known, err := m.cluster()
		switch {
		case err != nil || known == m.id.Cluster:
			return err
		case known != "":
			return &crm.Error{Code: crm.CodeExists, Op: "begin cluster", Item: m.cfg.Dir, Message: "the directory is part of cluster " + known}
		}
		_, _, err = m.ledger.propose(ctx, e)
		return err
	})
	if err != nil {
		return err
	}
	return m.ledger.waitRev(ctx, m.ledger.evaluated())
}

func (m *Master) cluster() (id string, err error) {
	err = m.ledger.db().View(func(tx *store.Tx) error {
		b, err := tx.Meta(metaCluster)
		id = string(b)
		return err
	})
	return id, err
}

// establish has a request decided, unless what it makes is there.
func (m *Master) establish(ctx context.Context, req crm.Request) error {
	r, err := m.Commit(ctx, req)
	if err == nil {
		err = rejected(req.Intent, r.Outcome)
	}
	if code := crm.CodeOf(err); code == crm.CodeExists || code == crm.CodeDuplicateKey {
		return nil
	}
	return err
}

// requests are all that an Initial asks for, in order.
func (init Initial) requests(m *Master) []crm.Request {
	out := append([]crm.Request(nil), init.Catalogue...)
	for _, t := range init.Territories {
		out = append(out, m.creation("territory.create", crm.EntityTerritory, []crm.Input{
			{Field: crm.TerritoryCode, Value: crm.TextValue(t.Code)}, {Field: crm.TerritoryName, Value: crm.TextValue(t.Name)}}))
	}
	for _, s := range init.Sites {
		if s.Name == m.id.Site {
			continue // made with the cluster; it holds what masters hold: everything
		}
		out = append(out, m.creation("site.create", crm.EntitySite, []crm.Input{
			{Field: crm.SiteName, Value: crm.TextValue(s.Name)}, {Field: crm.SiteCity, Value: crm.TextValue(s.City)},
			{Field: crm.SiteTerritories, Value: crm.ChoicesValue(s.Territories...)}, {Field: crm.SiteHome, Value: crm.TextValue(s.Home)},
			{Field: crm.SiteCountry, Value: crm.TextValue(s.Country)}}))
	}
	return out
}

func (m *Master) creation(intent string, e crm.EntityID, cells []crm.Input) crm.Request {
	return crm.Request{Actor: "cluster", Intent: intent, Ops: []crm.Op{{Kind: crm.OpCreate, Entity: e, Record: m.newRecordID(), Cells: cells}}}
}
