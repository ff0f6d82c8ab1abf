package sim

import (
	"math/rand/v2"
	"time"
)

// faults puts down what breaks. Each fault ends by itself some time later, or is
// mended at the end of the run.
func (g *generator) faults() {
	r := g.dice.For("faults")
	for range g.size.Faults {
		at := time.Second + upTo(r, g.size.Length)
		g.fault(r, at)
	}
	g.rare(g.dice.For("rare faults"))
	if g.restored {
		g.restore(g.dice.For("restores"))
	}
}

// node is any node, a replica more often.
func (g *generator) node(r *rand.Rand) string {
	if r.IntN(3) == 0 {
		return g.master(r)
	}
	return g.replica(r)
}

// above is a node that others are in session with.
func (g *generator) above(r *rand.Rand) string {
	m := g.master(r)
	if g.relay != "" && r.IntN(3) == 0 {
		return g.relay
	}
	return m
}

func (g *generator) fault(r *rand.Rand, at time.Duration) {
	end := at + upTo(r, 40*time.Second)
	switch a, m, n := g.replica(r), g.above(r), g.node(r); r.IntN(22) {
	case 0:
		g.add(at, "cut %s %s", a, m)
		g.add(end, "mend %s %s", a, m)
	case 1:
		g.add(at, "cut %s %s", m, a)
		g.add(end, "mend %s %s", m, a)
	case 2:
		g.add(at, "isolate %s", a)
		g.add(end, "heal %s", a)
	case 3:
		g.add(at, "isolate %s", m)
		g.add(end, "heal %s", m)
	case 4:
		b := g.master(r)
		if b != m {
			g.add(at, "split %s %s", m, b)
			g.add(end, "mend %s %s", m, b)
		}
	case 5:
		g.add(at, "slow %s %s %d", a, m, 100+r.IntN(1900))
		g.add(end, "mend %s %s", a, m)
	case 6:
		g.add(at, "lossy %s %s %d", a, m, 5+r.IntN(30))
		g.add(end, "mend %s %s", a, m)
	case 7:
		g.add(at, "reset %s %s", a, m)
	case 8:
		g.add(at, "forget %s %s", pick(r, []string{a, a, m}), pick(r, []string{m, m, a}))
	case 9:
		g.add(at, "replay %s %d", a, r.IntN(8))
	case 10, 11:
		g.add(at, "%s %s", pick(r, []string{"kill", "power"}), n)
		g.add(end, "start %s", n)
	case 12, 13, 14, 15:
		g.add(at, "trap %s %s %s %d", n, g.file(r, n), pick(r, []string{dieBefore, dieTorn, dieTorn, dieAfter, dieKilled}), r.IntN(6))
		g.add(end, "start %s", n)
	case 16:
		g.add(at, "full %s", a)
		g.add(end, "room %s", a)
	case 17:
		g.add(at, "stall %s %d", n, 1000+r.IntN(30000))
	case 18:
		g.add(at, "clock %s %d", n, g.offset(r))
	case 19:
		g.add(at, "elect")
	case 20:
		g.add(at, "log %s", pick(r, []fate{fateLost, fateUnknown, fateTwice, fateLate}))
	case 21:
		g.add(at, "lag %s %d", m, 100+r.IntN(3000))
		g.add(end, "lag %s 0", m)
	}
}

// file is one that the node has.
func (g *generator) file(r *rand.Rand, node string) string {
	if node[0] == 'm' {
		return "master.db"
	}
	return pick(r, []string{"any", "journal.db", "base.db"})
}

// offset is how far a clock is off, in milliseconds: a little, much, or absurdly.
func (g *generator) offset(r *rand.Rand) int {
	most := pick(r, []int{400, 5_000, 86_400_000})
	return r.IntN(2*most) - most
}

// restore puts down a restore of the masters.
func (g *generator) restore(r *rand.Rand) {
	at := g.size.Length/4 + upTo(r, g.size.Length/2)
	g.add(at-upTo(r, 30*time.Second), "backup %s", g.master(r))
	g.add(at, "rewind")
}

// rare puts down what few runs should have, because it takes things out of play.
func (g *generator) rare(r *rand.Rand) {
	at := g.size.Length/4 + upTo(r, g.size.Length/2)
	a := g.replica(r)
	switch r.IntN(7) {
	case 0:
		g.add(at-upTo(r, 30*time.Second), "copy %s", a)
		g.add(at, "putback %s", a)
	case 1:
		g.add(at, "clone %s", a)
	case 2:
		g.add(at, "lose %s", a)
	case 3, 6:
		kinds := []string{"flip", "flip", "tamper", "drop"}
		if a == g.relay {
			kinds = kinds[:1]
		}
		for range 1 + r.IntN(3) {
			g.add(at, "%s %s %s", pick(r, kinds), a, g.some(r, pick(r, []string{"account", "contact", "opportunity"})))
			at += upTo(r, 10*time.Second)
		}
	case 5:
		g.add(at, "eio %s %s", a, pick(r, []string{"journal.db", "base.db"}))
		if r.IntN(2) == 0 {
			end := at + upTo(r, 40*time.Second)
			g.add(end, "kill %s", a)
			g.add(end+upTo(r, 5*time.Second), "start %s", a)
		}
	case 4:
		if as := g.replica(r); as != a {
			g.edit++
			g.add(at, "lie %s %d %s", a, g.edit, as)
		}
	}
}
