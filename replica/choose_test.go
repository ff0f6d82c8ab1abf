package replica

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A trial plays rounds of measurements, probeEvery apart.
type trial struct {
	choice
	now time.Time
}

func newTrial(addrs ...string) *trial {
	tr := &trial{now: time.UnixMilli(1_700_000_000_000)}
	tr.know(addrs)
	return tr
}

// round measures the nodes, 0 for one that does not answer, and moves as told.
func (tr *trial) round(rtts map[string]time.Duration) (moved bool) {
	tr.now = tr.now.Add(probeEvery)
	for addr, rtt := range rtts {
		if rtt == 0 {
			tr.unreachable(addr, tr.now)
			continue
		}
		tr.measured(addr, rtt, tr.now)
	}
	to := tr.look(tr.now)
	if to == "" {
		return false
	}
	tr.moved = tr.now
	tr.begun(to)
	return true
}

const ms = time.Millisecond

func TestChoice_Look(t *testing.T) {
	for _, tt := range []struct {
		name        string
		far, near   time.Duration // of the one in use and of another
		moves       bool
		withinTimes int
	}{
		{"much nearer", 180 * ms, 20 * ms, true, 4},
		{"a fifth nearer", 100 * ms, 80 * ms, true, 4},
		{"less than a fifth nearer", 100 * ms, 81 * ms, false, 0},
		{"half, but by less than 5 ms", 8 * ms, 4 * ms, false, 0},
		{"as near", 50 * ms, 50 * ms, false, 0},
		{"farther", 20 * ms, 100 * ms, false, 0},
		{"unreachable", 100 * ms, 0, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTrial("far", "near")
			tr.begun("far")
			moved := 0
			for n := 1; n <= 20 && moved == 0; n++ {
				if tr.round(map[string]time.Duration{"far": tt.far, "near": tt.near}) {
					moved = n
				}
			}
			if tt.moves != (moved > 0) || moved > tt.withinTimes {
				t.Errorf("moved in round %d, want within %d", moved, tt.withinTimes)
			}
			if moved == 1 {
				t.Error("moved at the first look")
			}
		})
	}
}

// Whatever the noise, and even where two nodes change places every few minutes,
// the node does not go to and fro.
func TestChoice_NeverFlaps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noisy := func(d time.Duration) time.Duration { return time.Duration(float64(d) * (0.85 + 0.3*rng.Float64())) }
	tr := newTrial("a", "b")
	tr.begun("a")
	moves := 0
	for range 1000 {
		if tr.round(map[string]time.Duration{"a": noisy(50 * ms), "b": noisy(48 * ms)}) {
			moves++
		}
	}
	if moves != 0 {
		t.Errorf("%d moves between equals", moves)
	}
	begun := tr.now
	for n := range 1000 {
		a, b := 30*ms, 90*ms
		if n%4 < 2 {
			a, b = b, a
		}
		if tr.round(map[string]time.Duration{"a": a, "b": b}) {
			moves++
		}
	}
	if most := int(tr.now.Sub(begun)/dwell) + 1; moves > most {
		t.Errorf("%d moves in %v", moves, tr.now.Sub(begun))
	}
}

func TestChoice_Order(t *testing.T) {
	tr := newTrial("first", "second", "third", "fourth")
	want := func(what string, addrs ...string) {
		t.Helper()
		if got := tr.order(tr.now); !slices.Equal(got, addrs) {
			t.Errorf("%s: %v, want %v", what, got, addrs)
		}
	}
	want("nothing is known", "first", "second", "third", "fourth")
	tr.measured("third", 30*ms, tr.now)
	tr.measured("second", 40*ms, tr.now)
	want("some are measured", "third", "second", "first", "fourth")
	tr.begun("third")
	tr.failed("third", tr.now)
	want("the nearest was lost", "second", "first", "fourth", "third")
	tr.unreachable("second", tr.now)
	want("another is down", "first", "fourth", "third", "second")
	tr.now = tr.now.Add(restAfter)
	want("a little later", "third", "first", "fourth", "second")
	tr.failed("third", tr.now)
	tr.now = tr.now.Add(restAfter)
	want("it failed again", "first", "fourth", "third", "second")
	tr.now = tr.now.Add(restAfter)
	want("and rests longer", "third", "first", "fourth", "second")
	tr.measured("second", 10*ms, tr.now)
	want("one is back", "second", "third", "first", "fourth")
	tr.avoid = "second"
	want("one is avoided", "third", "first", "fourth", "second")
	tr.know([]string{"fourth", "third"})
	want("some are gone", "third", "fourth")
}

// After a fail-over the node comes back to the nearer node, once that has been
// good for a while, and not to one that turns it away again and again.
func TestChoice_ComesBack(t *testing.T) {
	tr := newTrial("relay", "master")
	rtts := map[string]time.Duration{"relay": 5 * ms, "master": 120 * ms}
	tr.begun("relay")
	tr.round(rtts)
	tr.failed("relay", tr.now)
	tr.begun("master")
	for range 3 {
		if tr.round(map[string]time.Duration{"relay": 0, "master": 120 * ms}) {
			t.Fatal("moved to a node that is down")
		}
	}
	back := tr.now
	for !tr.round(rtts) {
		if tr.now.Sub(back) > 3*betterFor {
			t.Fatal("did not come back")
		}
	}
	if took := tr.now.Sub(back); took < betterFor {
		t.Errorf("came back after %v", took)
	}
	begun, moves := tr.now, 0
	for tr.now.Sub(begun) < 24*time.Hour {
		tr.failed("relay", tr.now) // it turns the node away
		tr.begun("master")
		for !tr.round(rtts) {
		}
		moves++
	}
	if moves > 24+10 {
		t.Errorf("%d moves in a day to a node that turns away", moves)
	}
}

// When nobody can be used, each is tried again and again: that makes nobody rest
// for longer than the outage was.
func TestChoice_AnOutageOfAll(t *testing.T) {
	tr := newTrial("relay", "master")
	tr.measured("relay", 5*ms, tr.now)
	tr.measured("master", 120*ms, tr.now)
	began := tr.now
	for tr.now.Sub(began) < 3*time.Minute {
		for _, addr := range tr.order(tr.now) {
			tr.failed(addr, tr.now)
		}
		tr.now = tr.now.Add(5 * time.Second)
	}
	tr.begun("master")
	back := tr.now
	for !tr.round(map[string]time.Duration{"relay": 5 * ms, "master": 120 * ms}) {
		if tr.now.Sub(back) > 10*time.Minute {
			t.Fatal("ten minutes after an outage of three the node is not with the nearer one")
		}
	}
}

// Who was never asked is asked before a session: it may be the nearest.
func TestChoice_Strangers(t *testing.T) {
	tr := newTrial("a")
	want := func(what string, addrs ...string) {
		t.Helper()
		if got := tr.strangers(); !slices.Equal(got, addrs) {
			t.Errorf("%s: %v, want %v", what, got, addrs)
		}
	}
	want("there is no choice")
	tr.know([]string{"a", "b"})
	want("at first", "a", "b")
	tr.measured("a", 50*ms, tr.now)
	tr.unreachable("b", tr.now)
	want("all were asked")
	tr.know([]string{"a", "b", "new"})
	want("one is new", "new")
}

func TestChoice_Due(t *testing.T) {
	tr := newTrial("a", "b", "c", "d")
	tr.begun("a")
	if got := tr.due(); !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Errorf("at first %v", got)
	}
	tr.round(map[string]time.Duration{"a": 50 * ms, "b": 10 * ms, "c": 60 * ms})
	tr.round(map[string]time.Duration{"d": 60 * ms})
	if got := tr.due(); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("the better one and the one measured longest ago: %v", got)
	}
	tr.unreachable("b", tr.now)
	tr.round(map[string]time.Duration{"c": 60 * ms, "d": 60 * ms})
	if got := tr.due(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("one that was down %v", got)
	}
}

// A node that never answers does not keep the others from being measured: one that
// was slow once is found again when it is quick.
func TestChoice_DueBesideOneThatIsDown(t *testing.T) {
	tr := newTrial("in use", "gone", "slow once", "other")
	tr.begun("in use")
	tr.round(map[string]time.Duration{"in use": 50 * ms, "gone": 0, "slow once": 90 * ms, "other": 90 * ms})
	asked := map[string]int{}
	for range 9 {
		answers := map[string]time.Duration{"in use": 50 * ms}
		for _, addr := range tr.due() {
			asked[addr]++
			if answers[addr] = 90 * ms; addr == "gone" {
				answers[addr] = 0
			}
		}
		tr.round(answers)
	}
	for _, addr := range []string{"gone", "slow once", "other"} {
		if asked[addr] != 3 {
			t.Errorf("%s was asked %d times in nine rounds", addr, asked[addr])
		}
	}
}
