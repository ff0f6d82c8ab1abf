package master

import (
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

// withheld stands for the writer's next edit, whose content is gone.
func (c *writer) withheld(after crm.ChainHash) []byte {
	c.seq++
	raw := crm.AppendWithheld(nil, crm.Withheld{Node: c.node, Incarnation: c.inc, Seq: c.seq, Prev: c.prev, After: after})
	c.prev = after
	return raw
}

// A Mutation whose content was purged takes its number and is rejected, and the
// edits behind it are chained to the hash that it left.
func TestFSM_TakesAWithheldMutation(t *testing.T) {
	b := newBench(t)
	b.must(ActivateEntry{levelTimelines})
	c := first()
	b.accept(c, territoryOp("north"))
	gone := c.withheld(crm.ChainHash{1})
	d := b.must(c.push(gone))[0]
	if d.Kind != crm.Rejected || d.Code != crm.CodeWithheld || d.Seq != 2 {
		t.Errorf("%+v", d)
	}
	b.accept(c, territoryOp("south"))
	if n := b.node(1); n.LastSeq != 3 || n.LastHash != c.prev {
		t.Errorf("%+v", n)
	}
	if d := b.must(c.push(gone)); !d[0].Duplicate || d[0].Code != crm.CodeWithheld {
		t.Errorf("a repeat: %+v", d)
	}
}

// It stands for the Mutation that the masters have under its number; another hash
// is another history.
func TestFSM_AWithheldMutationDoesNotHideAFork(t *testing.T) {
	b := newBench(t)
	b.must(ActivateEntry{levelTimelines})
	c := first()
	b.accept(c, territoryOp("north"))
	has := c.prev
	repeat := func(after crm.ChainHash) Decided {
		w := crm.Withheld{Node: c.node, Incarnation: c.inc, Seq: 1, After: after}
		return b.must(c.push(crm.AppendWithheld(nil, w)))[0]
	}
	if d := repeat(has); !d.Duplicate || d.Kind != crm.Accepted {
		t.Errorf("the edit that is decided, withheld: %+v", d)
	}
	if d := repeat(crm.ChainHash{9}); !d.Fork {
		t.Errorf("another one: %+v", d)
	}
	if n := b.node(1); n.Frozen == "" {
		t.Errorf("the node is not frozen: %+v", n)
	}
}

// It breaks the chain as any Mutation would, and speaks for its own node only.
func TestFSM_AWithheldMutationIsChained(t *testing.T) {
	b := newBench(t)
	c := first()
	if v := b.apply(c.push(c.withheld(crm.ChainHash{1}))); crm.CodeOf(v.Err) != crm.CodeInvalid {
		t.Errorf("before every master reads it: %+v", v)
	}
	b.must(ActivateEntry{levelTimelines})
	c = first()
	w := crm.Withheld{Node: c.node, Incarnation: c.inc, Seq: 1, Prev: crm.ChainHash{7}, After: crm.ChainHash{1}}
	if d := b.must(c.push(crm.AppendWithheld(nil, w)))[0]; !d.Fork {
		t.Errorf("after another hash: %+v", d)
	}
	b = newBench(t)
	b.must(ActivateEntry{levelTimelines})
	w.Node, w.Prev = c.node+1, crm.ChainHash{}
	if v := b.apply(c.push(crm.AppendWithheld(nil, w))); crm.CodeOf(v.Err) != crm.CodeInvalid {
		t.Errorf("of another node: %+v", v)
	}
}
