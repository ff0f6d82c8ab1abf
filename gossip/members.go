package gossip

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// State is what this node believes about another.
type State int

const (
	// Alive nodes answer, or are said to answer by those who ask them.
	Alive State = iota
	// Suspect nodes did not answer this node's last probe, neither directly,
	// nor through others, nor over a stream. Suspicions of other nodes are not
	// shown: memberlist keeps them to itself.
	Suspect
	// Dead nodes were suspected and did not object in time.
	Dead
	// Left nodes said good-bye.
	Left
)

// String returns "alive", "suspect", "dead" or "left".
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return "unknown"
}

// gone reports whether memberlist no longer counts a node in state s.
func (s State) gone() bool { return s == Dead || s == Left }

// A Member is a node of the cluster as this node sees it.
type Member struct {
	Meta
	State    State
	RTT      time.Duration // smoothed round trip from here; meaningful if RTTKnown
	RTTKnown bool          // false for this node itself and until a probe was answered
	Since    time.Time     // when State last changed, by this node's clock
}

// forgetAfter is how long a dead or left node stays listed.
const forgetAfter = 24 * time.Hour

// rttGain is the weight of a new sample in the smoothed RTT, as in TCP
// (RFC 6298, alpha).
const rttGain = 1.0 / 8

// A table holds the members by memberlist name. It keeps what memberlist does
// not show: suspicion, the difference between dead and left, and the dead
// themselves.
type table struct {
	changed chan struct{} // capacity 1; holds a token if anything but an RTT changed

	mu      sync.Mutex // protects what follows; taken under memberlist's node lock
	members map[string]*member
	frozen  bool // memberlist's timers outlive it; what they say then is ignored
}

type member struct {
	Member
	gossip string // address of the gossip port
}

func newTable() *table {
	return &table{changed: make(chan struct{}, 1), members: make(map[string]*member)}
}

// put records what memberlist accepted from the node itself.
func (t *table) put(name string, a announcement, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frozen {
		return
	}
	m, ok := t.members[name]
	if !ok {
		m = &member{Member: Member{Since: now}}
		t.members[name] = m
	}
	m.Meta, m.gossip = a.Meta, a.Gossip
	state := Alive
	if a.Leaving {
		state = Left
	}
	m.become(state, now)
	t.signal()
}

// bury records that memberlist gave a node up.
func (t *table) bury(name string, now time.Time) {
	t.change(name, now, func(m *member) State {
		if m.State == Left {
			return Left
		}
		return Dead
	})
}

// suspect records that a probe of ours failed.
func (t *table) suspect(name string, now time.Time) {
	t.change(name, now, func(m *member) State {
		if m.State == Alive {
			return Suspect
		}
		return m.State
	})
}

// vindicate records a sign of life.
func (t *table) vindicate(name string, now time.Time) {
	t.change(name, now, func(m *member) State {
		if m.State == Suspect {
			return Alive
		}
		return m.State
	})
}

// sample records one answered probe, which took rtt.
func (t *table) sample(name string, rtt time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.members[name]
	if !ok || t.frozen || rtt < 0 {
		return
	}
	if !m.RTTKnown {
		m.RTT, m.RTTKnown = rtt, true
		return
	}
	m.RTT += time.Duration(rttGain * float64(rtt-m.RTT))
}

func (t *table) change(name string, now time.Time, next func(*member) State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.members[name]
	if !ok || t.frozen {
		return
	}
	if m.become(next(m), now) {
		t.signal()
	}
}

func (m *member) become(s State, now time.Time) bool {
	if m.State == s {
		return false
	}
	m.State, m.Since = s, now
	return true
}

// signal leaves a token for Changes; t.mu is held.
func (t *table) signal() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// forget drops the nodes that have been gone for longer than forgetAfter.
func (t *table) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.members)
	maps.DeleteFunc(t.members, func(_ string, m *member) bool {
		return m.State.gone() && now.Sub(m.Since) > forgetAfter
	})
	if len(t.members) != before {
		t.signal()
	}
}

func (t *table) freeze() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frozen = true
}

// list returns the members by node id.
func (t *table) list() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Member, 0, len(t.members))
	for _, m := range t.members {
		list = append(list, m.Member)
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

func (t *table) rtt(name string) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.members[name]
	if !ok || !m.RTTKnown {
		return 0, false
	}
	return m.RTT, true
}

// counts tells how many nodes other than self are listed, and how many of
// those are not gone.
func (t *table) counts(self string) (known, live int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, m := range t.members {
		if name == self {
			continue
		}
		known++
		if !m.State.gone() {
			live++
		}
	}
	return known, live
}

// missing returns, sorted and without repeats, the seeds and the addresses of
// dead nodes at which no live node is known. Nodes that left are not missed.
func (t *table) missing(seeds []string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := slices.Clone(seeds)
	live := make(map[string]bool)
	for _, m := range t.members {
		switch {
		case m.State == Dead:
			wanted = append(wanted, m.gossip)
		case !m.State.gone():
			live[m.gossip] = true
		}
	}
	wanted = slices.DeleteFunc(wanted, func(addr string) bool { return addr == "" || live[addr] })
	slices.Sort(wanted)
	return slices.Compact(wanted)
}
