package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Size says how much a generated Script holds.
type Size struct {
	Masters  int
	Replicas int
	Edits    int
	Faults   int
	Looks    int
	Length   time.Duration // over which all of it is spread
	Relays   int           // in one of so many Scripts a branch serves others; 0: in none
	Restores int           // in one of so many the masters are restored from a backup; 0: in none
}

// DefaultSize is what a history is worth something from.
var DefaultSize = Size{Masters: 3, Replicas: 5, Edits: 300, Faults: 20, Looks: 40, Length: 4 * time.Minute, Relays: 4, Restores: 5}

// Generate makes a Script from a seed: bursts of edits at all branches and at
// head office, on few enough records that they meet, readers who look in
// between, and faults with their ends.
func Generate(seed uint64, size Size) *Script {
	g := &generator{size: size, dice: newDice(seed), s: &Script{Seed: seed, Masters: size.Masters, Replicas: size.Replicas},
		records: map[string][]string{}, lives: map[string]string{}}
	territories := (plan{replicas: size.Replicas}).territories()
	for i := range accounts {
		n := strconv.Itoa(i)
		g.made("account/a"+n, territories[i%len(territories)])
		g.made("contact/c"+n, "account/a"+n)
		g.made("opportunity/o"+n, "account/a"+n)
	}
	g.restored = oneIn(g.dice.For("restored"), size.Restores)
	g.versions()
	g.relays()
	g.edits()
	g.looks()
	g.faults()
	slices.SortStableFunc(g.s.Steps, func(a, b Step) int { return int(a.At - b.At) })
	return g.s
}

// A generator writes a Script.
type generator struct {
	size    Size
	dice    *dice
	s       *Script
	records map[string][]string // by entity
	lives   map[string]string   // record → account, and account → territory, as far as edits are decided as asked
	edit    int
	fields  int
	relay   string // the branch that serves others; "": none does

	restored bool // the masters are restored: no branch runs an old program, which could not say what it has purged
}

func (g *generator) made(name, home string) {
	entity, _, _ := strings.Cut(name, "/")
	g.records[entity] = append(g.records[entity], name)
	g.lives[name] = home
}

// holder returns a replica that holds the record a wish is about, as far as the
// generator can tell, and now and then one that does not.
func (g *generator) holder(r *rand.Rand, wish string) string {
	words := strings.Fields(wish)
	at := words[1]
	if words[0] == "make" {
		_, at, _ = strings.Cut(words[2], "=")
	}
	for g.lives[at] != "" {
		at = g.lives[at]
	}
	var holders []string
	for i := range g.size.Replicas {
		if _, granted := holdings(i); slices.Contains(granted, at) {
			holders = append(holders, replicaName(i))
		}
	}
	if len(holders) == 0 || r.IntN(12) == 0 {
		return g.replica(r)
	}
	return pick(r, holders)
}

// versions puts down which version is spoken: mostly the newest from the start;
// else an older one, for good or until it is raised, by all or by one branch.
func (g *generator) versions() {
	r := g.dice.For("versions")
	newest := int(syncproto.MaxVersion)
	level, to := newest, newest
	if r.IntN(2) == 0 {
		level = 1 + r.IntN(newest)
		to = level + r.IntN(newest-level+1)
	}
	g.add(0, "activate %d", level)
	for level < to {
		level++
		g.add(upTo(r, g.size.Length), "activate %d", level)
	}
	if r.IntN(4) == 0 && !g.restored {
		a, old := g.replica(r), 1+r.IntN(newest-1)
		g.add(0, "release %s %d", a, old)
		if r.IntN(3) > 0 {
			g.add(upTo(r, g.size.Length), "release %s %d", a, newest)
		}
	}
}

// oneIn reports whether this is the one of n; of 0 none is.
func oneIn(r *rand.Rand, n int) bool { return n > 0 && r.IntN(n) == 0 }

// relays puts down, in some Scripts, that a branch becomes a relay: it is granted
// what two others hold, and the masters come to speak the version of relays.
func (g *generator) relays() {
	r := g.dice.For("relays")
	if g.size.Replicas < 3 || !oneIn(r, g.size.Relays) {
		return
	}
	branches := r.Perm(g.size.Replicas)
	g.relay = replicaName(branches[0])
	for _, t := range append(slices.Clone(regions), replicaName(branches[1]), replicaName(branches[2])) {
		g.edit++
		g.add(time.Second+upTo(r, 2*time.Second), "edit %s %d grant %s %s", headOffice, g.edit, g.relay, t)
	}
	g.add(upTo(r, g.size.Length/4), "activate %d", int(syncproto.MaxVersion))
	g.add(4*time.Second+upTo(r, g.size.Length/8), "relay %s", g.relay)
}

// add puts a step down. Milliseconds are as fine as a Script is.
func (g *generator) add(at time.Duration, format string, args ...any) {
	g.s.Steps = append(g.s.Steps, Step{At: at.Round(time.Millisecond), Words: strings.Fields(fmt.Sprintf(format, args...))})
}

func (g *generator) replica(r *rand.Rand) string { return replicaName(r.IntN(g.size.Replicas)) }
func (g *generator) master(r *rand.Rand) string  { return masterName(r.IntN(g.size.Masters)) }

// some returns a record: one of the hot few half of the time.
func (g *generator) some(r *rand.Rand, entity string) string {
	list := g.records[entity]
	if r.IntN(2) == 0 {
		return list[r.IntN(min(3, len(list)))]
	}
	return pick(r, list)
}

// edits puts down bursts of edits: people come in groups, and batches too.
func (g *generator) edits() {
	r := g.dice.For("edits")
	at := time.Second
	pause := g.size.Length * 4 / time.Duration(max(1, g.size.Edits))
	for g.edit < g.size.Edits {
		at += upTo(r, 2*pause)
		for n := 1 + r.IntN(7); n > 0 && g.edit < g.size.Edits; n-- {
			g.oneEdit(r, at+upTo(r, 150*time.Millisecond))
		}
	}
}

func (g *generator) oneEdit(r *rand.Rand, at time.Duration) {
	g.edit++
	what := g.wish(r)
	who := g.holder(r, what)
	if r.IntN(10) == 0 {
		who = headOffice
		if r.IntN(3) == 0 {
			what = g.decree(r)
		}
	}
	old := ""
	if r.IntN(4) == 0 {
		old = fmt.Sprintf("old=%d ", 1+r.IntN(3))
	}
	g.add(at, "edit %s %d %s%s", who, g.edit, old, what)
}

// wish is what a person may ask for.
func (g *generator) wish(r *rand.Rand) string {
	account, contact, sale := g.some(r, "account"), g.some(r, "contact"), g.some(r, "opportunity")
	switch n := r.IntN(100); {
	case n < 20:
		return fmt.Sprintf("set %s description", account)
	case n < 26:
		return fmt.Sprintf("set %s description ; add %s %d", contact, contact, 1+r.IntN(9))
	case n < 38:
		return fmt.Sprintf("add %s %d", contact, 1+r.IntN(9))
	case n < 42:
		return fmt.Sprintf("spend %s %d", contact, 1+r.IntN(20))
	case n < 48:
		return fmt.Sprintf("tag %s %s%s", pick(r, []string{account, contact}), pick(r, []string{"+", "+", "-"}), pick(r, tags))
	case n < 51:
		return fmt.Sprintf("tags %s %s", account, pick(r, tags))
	case n < 57:
		return fmt.Sprintf("move %s stage %d", sale, r.IntN(10))
	case n < 61:
		return fmt.Sprintf("set %s legal_name", account)
	case n < 64:
		return fmt.Sprintf("clear %s description", account)
	case n < 70:
		return fmt.Sprintf("delete %s", pick(r, []string{account, contact, contact, sale, sale, g.some(r, "contact")}))
	case n < 76:
		return fmt.Sprintf("restore %s", pick(r, []string{account, contact, contact, sale, sale, g.some(r, "contact")}))
	case n < 80:
		g.lives[account] = g.territory(r)
		return fmt.Sprintf("set %s territory %s", account, g.lives[account])
	case n < 82:
		return fmt.Sprintf("link %s account %s", contact, account)
	}
	return g.creation(r, account)
}

var tags = []string{"vip", "late", "new", "gold", "press"}

// territory is one of the regions, or a branch's own.
func (g *generator) territory(r *rand.Rand) string {
	if r.IntN(4) == 0 {
		return g.replica(r)
	}
	return pick(r, regions)
}

// creation makes something new; its name is the edit's. External ids are few, so
// that branches give the same one.
func (g *generator) creation(r *rand.Rand, account string) string {
	kind := pick(r, []string{"account", "contact", "contact", "order", "order", "activity", "opportunity", "case"})
	name := fmt.Sprintf("%s/e%d", kind, g.edit)
	home, extra := account, " account="+account
	if kind == "account" {
		home = g.territory(r)
		extra = " territory=" + home
	}
	if r.IntN(5) == 0 {
		extra += fmt.Sprintf(" external_id=x%d", r.IntN(6))
	}
	if len(g.records[kind]) < 40 {
		g.made(name, home)
	}
	return fmt.Sprintf("make %s%s", name, extra)
}

// decree is what only head office may ask for.
func (g *generator) decree(r *rand.Rand) string {
	if g.fields < 4 && r.IntN(4) == 0 {
		g.fields++
		return fmt.Sprintf("field extra%d %d", g.fields, 300+g.fields)
	}
	return fmt.Sprintf("%s %s %s", pick(r, []string{"grant", "grant", "revoke"}), g.replica(r), pick(r, regions))
}

// looks puts down readers, and instants at which a node's state is compared.
func (g *generator) looks() {
	r := g.dice.For("looks")
	for i := range g.size.Looks {
		at := upTo(r, g.size.Length)
		if i%8 == 7 {
			g.add(at, "stock %s", g.replica(r))
			continue
		}
		switch level := pick(r, []string{"local", "local", "session", "session", "leader", "bounded"}); level {
		case "bounded":
			g.add(at, "look %s bounded %d", g.replica(r), 3000+r.IntN(20000))
		default:
			g.add(at, "look %s %s", g.replica(r), level)
		}
	}
	if r.IntN(2) == 0 {
		for range 3 {
			g.add(upTo(r, g.size.Length), "trim")
		}
	}
}
