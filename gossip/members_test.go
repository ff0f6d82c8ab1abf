package gossip

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTable_MissesTheDeadAndTheSeeds(t *testing.T) {
	now := time.Unix(0, 0)
	tab := newTable()
	for node, gossip := range map[uint32]string{1: "live:1", 2: "dead:1", 3: "left:1", 4: "suspect:1"} {
		tab.put(nodeName(node), announcement{Meta: Meta{Node: node}, Gossip: gossip, Leaving: node == 3}, now)
	}
	tab.bury(nodeName(2), now)
	tab.bury(nodeName(3), now)
	tab.suspect(nodeName(4), now)

	got := tab.missing([]string{"seed:1", "live:1", "dead:1", "suspect:1", ""})
	if diff := cmp.Diff([]string{"dead:1", "seed:1"}, got); diff != "" {
		t.Error(diff)
	}
	if known, live := tab.counts(nodeName(1)); known != 3 || live != 1 {
		t.Errorf("%d known, %d live; want 3 and 1", known, live)
	}
}

func TestTable_ForgetsAfterADay(t *testing.T) {
	now := time.Unix(0, 0)
	tab := newTable()
	tab.put("node-1", announcement{Meta: Meta{Node: 1}}, now)
	tab.put("node-2", announcement{Meta: Meta{Node: 2}}, now)
	tab.bury("node-2", now)
	tab.forget(now.Add(forgetAfter))
	if got := len(tab.list()); got != 2 {
		t.Errorf("%d members after a day, want 2", got)
	}
	tab.forget(now.Add(forgetAfter + 1))
	if list := tab.list(); len(list) != 1 || list[0].Node != 1 {
		t.Errorf("members = %+v, want node 1 alone", list)
	}
}

func TestTable_SmoothsRTT(t *testing.T) {
	tab := newTable()
	tab.put("node-1", announcement{Meta: Meta{Node: 1}}, time.Unix(0, 0))
	for _, step := range []struct{ sample, want time.Duration }{
		{80 * time.Millisecond, 80 * time.Millisecond},
		{160 * time.Millisecond, 90 * time.Millisecond},
		{-time.Second, 90 * time.Millisecond},
		{10 * time.Millisecond, 80 * time.Millisecond},
	} {
		tab.sample("node-1", step.sample)
		if got, ok := tab.rtt("node-1"); !ok || got != step.want {
			t.Errorf("after %v: %v, %v, want %v", step.sample, got, ok, step.want)
		}
	}
}

func TestTable_FrozenStaysAsItWas(t *testing.T) {
	now := time.Unix(0, 0)
	tab := newTable()
	tab.put("node-1", announcement{Meta: Meta{Node: 1}}, now)
	before := tab.list()
	tab.freeze()
	tab.suspect("node-1", now)
	tab.bury("node-1", now)
	tab.sample("node-1", time.Second)
	tab.put("node-2", announcement{Meta: Meta{Node: 2}}, now)
	if diff := cmp.Diff(before, tab.list()); diff != "" {
		t.Error(diff)
	}
}
