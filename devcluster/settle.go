package devcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Settle waits until every node that is up has nothing pending, stands where the
// leader does and holds what it is granted, and then compares them; see
// [Cluster.Compare].
func (c *Cluster) Settle(ctx context.Context) error {
	var views []View
	err := c.await(ctx, "the cluster to settle", func() (err error) {
		if _, err = c.rest(ctx); err != nil {
			return err
		}
		if views, err = c.views(ctx); err != nil {
			return err
		}
		return purged(views)
	})
	if err != nil {
		return err
	}
	return compare(views)
}

// rest returns the Rev at which every node that is up stands, with nothing
// pending, or an error that names one that does not. The leader is asked for
// what it has decided, not for what its file shows already.
func (c *Cluster) rest(ctx context.Context) (crm.Rev, error) {
	leader := c.leader()
	if leader == nil {
		return 0, errNoLeader
	}
	head, err := position(ctx, leader, crm.Leader)
	if err != nil {
		return 0, err
	}
	for _, m := range c.Members() {
		if !m.Up() {
			continue
		}
		f, err := position(ctx, m, crm.Local)
		if err != nil {
			return 0, err
		}
		if f.Rev != head.Rev || f.Pending > 0 {
			return 0, fmt.Errorf("%s is at %d with %d edits pending, and %s at %d", m.Name, f.Rev, f.Pending, leader.Name, head.Rev)
		}
	}
	return head.Rev, nil
}

func position(ctx context.Context, m *Member, level crm.Level) (crm.Freshness, error) {
	api, err := m.API()
	if err != nil {
		return crm.Freshness{}, err
	}
	return api.Read(ctx, crm.Demand{Level: level}, func(*store.Reader) error { return nil })
}

// Compare reads every node that is up and returns an error that names the first
// node and territory which differ from the leader's, or which a branch holds
// without a grant. The sums are made from the records as they are read, not taken
// from the digests that the nodes keep. It is for a cluster at rest.
func (c *Cluster) Compare(ctx context.Context) error {
	views, err := c.views(ctx)
	if err != nil {
		return err
	}
	return compare(views)
}

var errNoLeader = errors.New("no master leads")

// A View is what a node shows.
type View struct {
	Member  *Member
	Pending int
	Rev     crm.Rev
	Sums    map[crm.TerritoryID]Sum
	Granted []crm.TerritoryID // of a branch, with Shared; of a master nil: it holds all
}

// A Sum stands for the live records of a territory.
type Sum struct {
	Hash    [sha256.Size]byte
	Records int
}

// views reads the nodes that are up, the leader first, all at one Rev.
func (c *Cluster) views(ctx context.Context) ([]View, error) {
	leader := c.leader()
	if leader == nil {
		return nil, errNoLeader
	}
	members := slices.DeleteFunc(c.Members(), func(m *Member) bool { return m == leader || !m.Up() })
	var views []View
	for _, m := range slices.Insert(members, 0, leader) {
		v, err := c.View(ctx, m)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
		if v.Rev != views[0].Rev || v.Pending > 0 {
			return nil, fmt.Errorf("%s is at %d with %d edits pending, and %s at %d", m.Name, v.Rev, v.Pending, leader.Name, views[0].Rev)
		}
	}
	return views, nil
}

// View reads the node.
func (c *Cluster) View(ctx context.Context, m *Member) (View, error) {
	v := View{Member: m}
	api, err := m.API()
	if err != nil {
		return v, err
	}
	f, err := api.Read(ctx, crm.Demand{Level: crm.Local}, func(r *store.Reader) (err error) {
		if v.Sums, err = sums(r); err != nil || m.Role == auth.RoleMaster {
			return err
		}
		v.Granted, err = granted(r, m.Site)
		return err
	})
	v.Pending, v.Rev = f.Pending, f.Rev
	return v, err
}

// sums hashes the records of each territory in the order of entity and id.
func sums(r *store.Reader) (map[crm.TerritoryID]Sum, error) {
	hashes := map[crm.TerritoryID][]byte{}
	counts := map[crm.TerritoryID]int{}
	var b []byte
	for _, e := range r.Schema().Entities {
		for rec, err := range r.Scan(e) {
			if err != nil {
				return nil, err
			}
			b = append(append(b[:0], byte(e.ID>>8), byte(e.ID)), rec.ID[:]...)
			sum := sha256.Sum256(append(crm.AppendRecord(b, rec), hashes[rec.Territory]...))
			hashes[rec.Territory] = append(hashes[rec.Territory][:0], sum[:]...)
			counts[rec.Territory]++
		}
	}
	out := map[crm.TerritoryID]Sum{}
	for t, h := range hashes {
		out[t] = Sum{[sha256.Size]byte(h), counts[t]}
	}
	return out, nil
}

// granted returns what the site may hold, as its own record says.
func granted(r *store.Reader, site string) ([]crm.TerritoryID, error) {
	e := r.Schema().EntityByID(crm.EntitySite)
	id, ok, err := r.Lookup(e, e.FieldByID(crm.SiteName), crm.TextValue(site))
	if err != nil || !ok {
		return []crm.TerritoryID{crm.Shared}, err
	}
	rec, err := r.Record(crm.EntitySite, id)
	if err != nil {
		return nil, err
	}
	out := []crm.TerritoryID{crm.Shared}
	for _, code := range rec.Value(crm.SiteTerritories).Set() {
		t, known, err := r.TerritoryByCode(code)
		if err != nil {
			return nil, err
		}
		if known {
			out = append(out, t)
		}
	}
	return out, nil
}

// purged reports whether every branch has dropped what it is not granted any
// more.
func purged(views []View) error {
	for _, v := range views {
		for t := range v.Sums {
			if v.Granted != nil && !slices.Contains(v.Granted, t) {
				return fmt.Errorf("%s still holds territory %d", v.Member.Name, t)
			}
		}
	}
	return nil
}

// compare compares every view with the first, the leader's.
func compare(views []View) error {
	differ := func(v View, t crm.TerritoryID) error {
		have, want := v.Sums[t], views[0].Sums[t]
		if have.Records == want.Records && bytes.Equal(have.Hash[:], want.Hash[:]) {
			return nil
		}
		return &crm.Error{
			Code: crm.CodeCorrupt, Op: "compare nodes", Item: v.Member.Name,
			Message: fmt.Sprintf("territory %d holds %d records (%x), and %d (%x) at %s", t, have.Records, have.Hash[:4], want.Records, want.Hash[:4], views[0].Member.Name),
		}
	}
	for _, v := range views[1:] {
		held := v.Granted
		if held == nil {
			for t := range views[0].Sums {
				held = append(held, t)
			}
		}
		for _, t := range held {
			if err := differ(v, t); err != nil {
				return err
			}
		}
		for t := range v.Sums {
			if !slices.Contains(held, t) {
				return &crm.Error{
					Code: crm.CodeCorrupt, Op: "compare nodes", Item: v.Member.Name,
					Message: fmt.Sprintf("it holds %d records of territory %d, which it is not granted", v.Sums[t].Records, t),
				}
			}
		}
	}
	return nil
}
