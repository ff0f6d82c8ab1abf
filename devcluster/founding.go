package devcluster

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/sample"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/wansim"
)

// KeyAccounts is the territory that every branch holds besides its own, which
// has the code of its site.
const KeyAccounts = "key-accounts"

// actor is who founds the cluster.
const actor = "dev"

// seeders is how many sample requests are under way at once. The masters decide
// them in batches, so the time goes by round trips between masters, not requests.
const seeders = 64

// found makes the masters, the sites and the data, and only then the branches,
// which get it all as a bootstrap.
func (c *Cluster) found(ctx context.Context, p plan) error {
	if err := c.prepareDir(); err != nil {
		return err
	}
	if err := c.foundMasters(ctx, p.masters); err != nil {
		return err
	}
	if err := c.foundSites(ctx, p.branches); err != nil {
		return err
	}
	if err := c.seed(ctx, p.branches); err != nil {
		return fmt.Errorf("sample data: %w", err)
	}
	if err := c.foundBranches(ctx, p.branches); err != nil {
		return err
	}
	return c.Settle(ctx)
}

func (c *Cluster) foundMasters(ctx context.Context, places []wansim.Site) error {
	for i, place := range places {
		m := c.add(fmt.Sprintf("m%d", i+1), auth.RoleMaster, headOffice, place)
		if i > 0 {
			if err := c.admit(ctx, m); err != nil {
				return err
			}
			continue
		}
		if _, err := node.Init(ctx, node.InitOptions{Settings: m.settings, Site: headOffice}, m.env(m.host)); err != nil {
			return err
		}
		if err := c.launch(ctx, m); err != nil {
			return err
		}
	}
	return c.await(ctx, "the masters to vote", func() error { return c.voting(ctx, len(places)) })
}

// voting returns nil once so many masters vote.
func (c *Cluster) voting(ctx context.Context, want int) error {
	leader := c.leader()
	if leader == nil {
		return errNoLeader
	}
	n, err := leader.Node()
	if err != nil {
		return err
	}
	peers, err := n.Master().ListPeers(ctx)
	voters := len(slices.DeleteFunc(peers, func(p master.Peer) bool { return p.Suffrage != "voter" }))
	if err == nil && voters != want {
		err = fmt.Errorf("%d of %d masters vote", voters, want)
	}
	return err
}

// admit makes m's directory with a token of the leader and starts it.
func (c *Cluster) admit(ctx context.Context, m *Member) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	n, err := leader.Node()
	if err != nil {
		return err
	}
	token, err := n.Master().CreateToken(ctx, actor, m.Site, m.Role, time.Hour)
	if err != nil {
		return err
	}
	text, err := token.Encode()
	if err != nil {
		return err
	}
	role := m.Role
	if m.Follows() {
		role = auth.RoleRelay
	}
	if _, err := node.Join(ctx, m.settings, role, text, m.env(m.host)); err != nil {
		return err
	}
	return m.Start()
}

// join admits m and waits until it can serve.
func (c *Cluster) join(ctx context.Context, m *Member) error {
	if err := c.admit(ctx, m); err != nil {
		return err
	}
	return c.launch(ctx, m)
}

// launch starts m, unless it is up, and waits until it can serve.
func (c *Cluster) launch(ctx context.Context, m *Member) error {
	if err := m.Start(); err != nil {
		return err
	}
	return c.await(ctx, m.Name+" to be ready", func() error {
		api, err := m.API()
		if err != nil {
			return err
		}
		return api.Ready()
	})
}

// foundSites makes a site and a territory of its own a branch, and the territory
// that all share.
func (c *Cluster) foundSites(ctx context.Context, places []wansim.Site) error {
	if err := c.AddTerritory(ctx, KeyAccounts, "Key accounts"); err != nil {
		return err
	}
	for _, at := range places {
		name := siteName(at.City)
		if err := c.AddTerritory(ctx, name, at.City); err != nil {
			return err
		}
		if err := c.AddSite(ctx, name, at, name, KeyAccounts); err != nil {
			return err
		}
	}
	return nil
}

// AddTerritory makes a territory.
func (c *Cluster) AddTerritory(ctx context.Context, code, name string) error {
	return c.decide(ctx, "territory.add", crm.Op{Kind: crm.OpCreate, Entity: crm.EntityTerritory, Record: c.newID(), Cells: []crm.Input{
		{Field: crm.TerritoryCode, Value: crm.TextValue(code)}, {Field: crm.TerritoryName, Value: crm.TextValue(name)},
	}})
}

// AddSite makes a site that holds the territories, of which the first is its
// home.
func (c *Cluster) AddSite(ctx context.Context, name string, at wansim.Site, territories ...string) error {
	cells := []crm.Input{{Field: crm.SiteName, Value: crm.TextValue(name)}, {Field: crm.SiteCity, Value: crm.TextValue(at.City)}}
	if len(territories) > 0 {
		cells = append(cells, crm.Input{Field: crm.SiteTerritories, Value: crm.ChoicesValue(territories...)},
			crm.Input{Field: crm.SiteHome, Value: crm.TextValue(territories[0])})
	}
	if at.Country != "" {
		cells = append(cells, crm.Input{Field: crm.SiteCountry, Value: crm.TextValue(at.Country)})
	}
	return c.decide(ctx, "site.add", crm.Op{Kind: crm.OpCreate, Entity: crm.EntitySite, Record: c.newID(), Cells: cells})
}

func (c *Cluster) newID() crm.RecordID { return crm.NewRecordID(c.now(), c.random()) }

// decide commits an edit at the leader and returns once it stands and is shown
// there.
func (c *Cluster) decide(ctx context.Context, intent string, ops ...crm.Op) error {
	return c.commit(ctx, crm.Request{Actor: actor, Intent: intent, Ops: ops}, true)
}

// commit returns once the edit stands.
func (c *Cluster) commit(ctx context.Context, req crm.Request, shown bool) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	api, err := leader.API()
	if err != nil {
		return err
	}
	receipt, err := api.Commit(ctx, req)
	if err == nil && (shown || receipt.Outcome == nil) {
		var o crm.Outcome
		o, err = api.Await(ctx, receipt.Seq)
		receipt.Outcome = &o
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", req.Intent, err)
	case receipt.Outcome.Kind != crm.Accepted:
		return &crm.Error{Code: receipt.Outcome.Code, Op: req.Intent, Message: receipt.Outcome.Message}
	}
	return nil
}

// seed makes up customers for the sites, or for head office if there are none.
func (c *Cluster) seed(ctx context.Context, places []wansim.Site) error {
	if c.opts.Accounts == 0 {
		return nil
	}
	var sites []sample.Site
	for _, at := range places {
		sites = append(sites, sample.Site{Name: siteName(at.City), City: at.City, Country: at.Country, Territory: siteName(at.City)})
	}
	data := sample.New(c.opts.Seed, c.opts.Accounts, sites, c.now())
	for req := range data.Shared() {
		if err := c.commit(ctx, req, false); err != nil {
			return err
		}
	}
	return c.seedAccounts(ctx, data)
}

// seedAccounts gives each seeder every n-th account: accounts do not refer to
// each other.
func (c *Cluster) seedAccounts(ctx context.Context, data *sample.Data) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var done atomic.Int64
	for first := range seeders {
		wg.Go(func() {
			for i := first; i < c.opts.Accounts; i += seeders {
				for req := range data.Accounts(i, i+1) {
					if err := c.commit(ctx, req, false); err != nil {
						cancel(fmt.Errorf("account %d: %w", i+1, err))
						return
					}
				}
				if n := done.Add(1); c.opts.Progress != nil {
					c.opts.Progress(int(n))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (c *Cluster) foundBranches(ctx context.Context, places []wansim.Site) error {
	var members []*Member
	for _, at := range places {
		members = append(members, c.add(siteName(at.City), auth.RoleReplica, siteName(at.City), at))
	}
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, m := range members {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = c.join(ctx, m)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// AddFollower lets a master join that has no vote and stands at a place of its own.
func (c *Cluster) AddFollower(ctx context.Context, place wansim.Site) (*Member, error) {
	m := c.add(fmt.Sprintf("m%d", len(c.Masters())+1), auth.RoleMaster, headOffice, place)
	m.setFollows(true)
	return m, c.join(ctx, m)
}

// AddBranch makes a replica for a site that AddSite has made and waits until it
// can serve. It serves others itself if relay is set, and tries the nodes called
// via before the masters.
func (c *Cluster) AddBranch(ctx context.Context, name string, place wansim.Site, relay bool, via ...string) error {
	m := c.add(name, auth.RoleReplica, name, place)
	m.settings.Relay = relay
	for _, name := range via {
		m.settings.Masters = append(m.settings.Masters, name+wanSync)
	}
	return c.join(ctx, m)
}
