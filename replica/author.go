package replica

import (
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// An author is what the site may write, as far as this node knows. The master
// judges again.
type author struct {
	home  crm.TerritoryID // where records without an account live
	holds []crm.TerritoryID
	known bool // the site has a record
}

// authorOf reads the site's record. A site without a territory has its home
// where it cannot write.
func authorOf(v crm.View, site string) (author, error) {
	a := author{home: crm.HeadOffice, holds: []crm.TerritoryID{crm.Shared}}
	e := v.Schema().EntityByID(crm.EntitySite)
	id, ok, err := v.Lookup(e, e.FieldByID(crm.SiteName), crm.TextValue(site))
	if err != nil || !ok {
		return a, err
	}
	rec, err := v.Record(crm.EntitySite, id)
	if err != nil || rec == nil {
		return a, err
	}
	a.known = true
	home := rec.Value(crm.SiteHome).Str()
	for _, code := range append([]string{home}, rec.Value(crm.SiteTerritories).Set()...) {
		t, known, err := v.TerritoryByCode(code)
		if err != nil {
			return a, err
		}
		if known && code != "" {
			a.add(t, code != home || slices.Contains(rec.Value(crm.SiteTerritories).Set(), code))
		}
	}
	return a, nil
}

// add notes a territory; the first one is the home.
func (a *author) add(t crm.TerritoryID, granted bool) {
	if a.home == crm.HeadOffice {
		a.home = t
	}
	if granted && !slices.Contains(a.holds, t) {
		a.holds = append(a.holds, t)
	}
}

func (a author) writable(t crm.TerritoryID) bool { return slices.Contains(a.holds, t) }

// env returns the circumstances of a Mutation that no master has decided.
func (a author) env(at crm.HLC) crm.Env {
	return crm.Env{Rev: crm.Pending, HLC: at, Home: a.home, Writable: a.writable, Level: syncproto.MaxVersion}
}
