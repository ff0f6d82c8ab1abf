package devcluster

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/wansim"
)

// Bounds of the Options.
const (
	DefaultSites    = 3
	DefaultMasters  = 3
	DefaultAccounts = 5000
	maxMasters      = 7
	maxAccounts     = 1_000_000
)

// Options say what a cluster consists of. The zero Options are 3 masters in
// Europe and 3 branches far from each other, without data.
type Options struct {
	Sites     int                // branches; 0 means 3, or as many as there are Cities
	Cities    []string           // where the branches stand, of the WAN's; empty: far from each other
	WAN       string             // "world", the default, or the path of a CSV table of round trips
	Matrix    *wansim.Matrix     // used instead of WAN, if not nil
	Masters   int                // 0 means 3; at most 7
	Accounts  int                // of the sample data; 0: no data
	Dir       string             // where the nodes' directories are made; "" is a temporary directory
	Keep      bool               // leaves a temporary directory there at the end
	HTTPPort  int                // of the first node on 127.0.0.1, the others count on; 0: any free ports
	Seed      uint64             // of the sample data, and of loss on the WAN
	Bandwidth int64              // bytes/s of each direction between two cities; 0 is unlimited
	Loss      float64            // 0..1, of packets between cities
	Story     bool               // Run tells the story and ends
	Progress  func(accounts int) // told how many sample accounts are decided, from several goroutines; may be nil
	Protocol  uint16             // the version that every node is held at, see node.Settings; 0: the newest
	Virtual   bool               // time is a synctest bubble's: no port outside the simulated WAN is opened
}

func badOption(item, format string, args ...any) error {
	return &crm.Error{Code: crm.CodeInvalid, Op: "start dev cluster", Item: item, Message: fmt.Sprintf(format, args...)}
}

func (o Options) withDefaults() Options {
	if o.Sites == 0 {
		o.Sites = DefaultSites
		if len(o.Cities) > 0 {
			o.Sites = len(o.Cities)
		}
	}
	if o.Masters == 0 {
		o.Masters = DefaultMasters
	}
	if o.WAN == "" {
		o.WAN = "world"
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.Sites < 0:
		return badOption("sites", "%d branches: give 1 or more", o.Sites)
	case len(o.Cities) > 0 && len(o.Cities) != o.Sites:
		return badOption("cities", "%d cities for %d branches; name one city a branch", len(o.Cities), o.Sites)
	case o.Masters < 1 || o.Masters > maxMasters:
		return badOption("masters", "%d masters: give 1 to %d", o.Masters, maxMasters)
	case o.Accounts < 0 || o.Accounts > maxAccounts:
		return badOption("accounts", "%d accounts: give 0 to %d", o.Accounts, maxAccounts)
	case o.HTTPPort < 0 || o.HTTPPort+o.Masters+o.Sites > 1<<16:
		return badOption("http-port", "%d leaves no room for %d ports below 65536", o.HTTPPort, o.Masters+o.Sites)
	case o.Bandwidth < 0:
		return badOption("bandwidth", "%d bytes a second is negative", o.Bandwidth)
	case !(o.Loss >= 0 && o.Loss < 1):
		return badOption("loss", "%v is not at least 0 and below 1", o.Loss)
	case o.Story && o.Sites < 3:
		return badOption("sites", "the story needs 3 branches: one is cut off, and the two others must hear of each other meanwhile")
	case o.Story && o.Masters < 3:
		return badOption("masters", "the story kills the leader, which takes 3 masters to survive")
	}
	return nil
}

// matrix returns the round trips that the options name.
func (o Options) matrix() (*wansim.Matrix, error) {
	if o.Matrix != nil {
		return o.Matrix, nil
	}
	if o.WAN == "world" {
		return wansim.World(), nil
	}
	f, err := os.Open(o.WAN)
	if err != nil {
		return nil, badOption("wan", "%v; give world or the path of a CSV table of round trips", err)
	}
	defer f.Close()
	m, err := wansim.ParseMatrix(f, o.WAN)
	if err != nil {
		return nil, badOption("wan", "%v", err)
	}
	return m, nil
}

// A plan says who stands where.
type plan struct {
	masters  []wansim.Site
	branches []wansim.Site
}

// plan chooses cities. Masters share the cities of a region in turn; a branch has
// its city to itself, so that cutting a city off cuts one node off.
func (o Options) plan(m *wansim.Matrix) (p plan, err error) {
	region := m.Region()
	for i := range o.Masters {
		at, err := m.Find(region[i%len(region)])
		if err != nil {
			return p, badOption("wan", "%v", err)
		}
		p.masters = append(p.masters, at)
	}
	cities := o.Cities
	if len(cities) == 0 {
		cities = m.Spread(len(m.Sites))
		cities = slices.DeleteFunc(cities, p.taken)
		if len(cities) < o.Sites {
			return p, badOption("sites", "the WAN has %d cities besides those of the masters, for %d branches", len(cities), o.Sites)
		}
		cities = cities[:o.Sites]
	}
	return p, p.place(m, cities)
}

func (p *plan) place(m *wansim.Matrix, cities []string) error {
	names := map[string]bool{}
	for _, city := range cities {
		at, err := m.Find(city)
		if err != nil {
			return badOption("cities", "%v", err)
		}
		name := siteName(at.City)
		switch {
		case p.taken(at.Name):
			return badOption("cities", "a master or another branch stands in %s; choose another city", at.City)
		case auth.ValidSite(name) != nil || names[name] || name == headOffice:
			return badOption("cities", "%s makes no site name of its own", at.City)
		}
		names[name] = true
		p.branches = append(p.branches, at)
	}
	return nil
}

// taken reports whether a node stands at the place.
func (p *plan) taken(place string) bool {
	return slices.ContainsFunc(slices.Concat(p.masters, p.branches), func(s wansim.Site) bool { return s.Name == place })
}

// siteName makes "sao-paulo" of "São Paulo".
func siteName(city string) string {
	fields := strings.FieldsFunc(crm.FoldText(city), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return strings.Join(fields, "-")
}
