package sim

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// Nodes of a chronicle.
const (
	nodeM1 crm.NodeID = 1
	nodeR1 crm.NodeID = 2
	nodeR2 crm.NodeID = 3
)

// A chronicle is a History made by hand: people at two branches edit, one master
// decides.
type chronicle struct {
	*History
	m    *model
	now  time.Duration
	next map[crm.NodeID]crm.Mutation // Seq and Prev of a node's next Mutation
}

// founded is a cluster in memory, as one master has decided its founding.
var founded = sync.OnceValues(func() (*model, crm.Mutation) {
	first := []*crm.Record{
		founding(crm.EntitySite, "site/hq", crm.SiteName, crm.TextValue(headOffice)),
		founding(crm.EntityNode, "node/m1", crm.NodeNumber, crm.IntegerValue(int64(nodeM1)), crm.NodeSite, crm.TextValue(headOffice), crm.NodeRole, crm.ChoiceValue(roleMaster)),
	}
	m := newModel(newTimeline(7, 1, slices.Values(first)), slices.Values(first))
	m.admit(nodeM1, [16]byte{1})
	c := &chronicle{m: m, next: map[crm.NodeID]crm.Mutation{}}
	for _, req := range (plan{masters: 1, replicas: 2, accounts: 5}).requests() {
		if o := c.decideNow(nodeM1, crm.Mutation{Actor: req.Actor, Intent: req.Intent, Ops: req.Ops}); o.Kind != crm.Accepted {
			panic("the founding is " + o.Kind.String() + ": " + o.Message)
		}
	}
	return m, c.next[nodeM1]
})

func newChronicle() *chronicle {
	f, next := founded()
	m := &model{Timeline: newTimeline(7, f.Head(), maps.Values(f.records)), shelf: f.shelf.clone(), nodes: map[crm.NodeID]*modelNode{}, edits: map[crm.ChainHash]EditID{}}
	m.nodes[nodeM1] = newModelNode(1, next.Seq, next.Prev, 0)
	m.admit(nodeR1, [16]byte{2})
	m.admit(nodeR2, [16]byte{3})
	return &chronicle{m: m, now: time.Minute, next: map[crm.NodeID]crm.Mutation{nodeM1: next}, History: &History{
		Timelines: []*Timeline{m.Timeline}, Sites: map[crm.NodeID]Site{
			nodeM1: {"m1", headOffice, roleMaster}, nodeR1: {"r1", "r1", roleReplica}, nodeR2: {"r2", "r2", roleReplica}}}}
}

func founding(e crm.EntityID, name string, cells ...any) *crm.Record {
	r := &crm.Record{Entity: e, ID: idOf(name), Territory: crm.Shared, Stamp: crm.Stamp{Rev: 1, Actor: "cluster"}, Entered: 1}
	for i := 0; i < len(cells); i += 2 {
		r.Cells = append(r.Cells, crm.Cell{Field: cells[i].(crm.FieldID), Value: cells[i+1].(crm.Value), Stamp: r.Stamp})
	}
	return r
}

// decideNow has a Mutation decided.
func (c *chronicle) decideNow(n crm.NodeID, m crm.Mutation) crm.Outcome {
	c.now += time.Second
	m.Node, m.Incarnation, m.Seq, m.Prev, m.HLC = n, 1, c.next[n].Seq+1, c.next[n].Prev, crm.NewHLC(c.now.Milliseconds())
	m.Schema = 1
	raw := crm.AppendMutation(nil, &m)
	c.next[n] = crm.Mutation{Seq: m.Seq, Prev: crm.Chain(m.Prev, raw)}
	rulings, refused := c.m.push(c.now, uint64(m.Seq), n, 1, c.now.Milliseconds(), 0, [][]byte{raw})
	if refused != "" || len(rulings) != 1 || rulings[0].Outcome.Rev == 0 {
		panic(fmt.Sprintf("the model rules %v %s", rulings, refused))
	}
	return rulings[0].Outcome
}

// ask has an edit acknowledged, which saw the records as of rev, and decided.
func (c *chronicle) ask(n crm.NodeID, saw crm.Rev, ops ...crm.Op) *Edit {
	e := &Edit{ID: EditID(len(c.Edits) + 1), At: c.now, Node: n, Disk: DiskID{Node: n}, Acked: true, Seq: c.next[n].Seq + 1, Screens: map[store.RecordKey]Screen{}}
	for i := range ops {
		if r := c.m.State(recordOf(ops[i]), saw); r != nil {
			ops[i].Seen = crm.Token{Timeline: uint32(c.m.ID), Rev: saw}
			e.Screens[recordOf(ops[i])] = screenOf(r, ops[i].Seen, e.At)
		}
	}
	e.Ops = ops
	c.Edits = append(c.Edits, e)
	o := c.decideNow(n, crm.Mutation{Actor: e.ID.Actor(), Intent: "test", Ops: ops, Guards: e.Guards})
	c.Answers = append(c.Answers, Answer{Edit: e.ID, Disk: e.Disk, Seq: e.Seq, Decided: true, Outcome: o})
	return e
}

// settle ends the run: every node holds what it should.
func (c *chronicle) settle() *chronicle {
	c.Quiet, c.Settled = c.now, c.now+time.Second
	for _, n := range slices.Sorted(maps.Keys(c.Sites)) {
		c.stock(n).Last = true
	}
	return c
}

// stock reads what a node should hold now.
func (c *chronicle) stock(n crm.NodeID) *Stock {
	site := c.Sites[n]
	holds := func(crm.TerritoryID) bool { return true }
	if site.Role == roleReplica {
		holds = c.m.right(site.Site, c.m.Head()).holds
	}
	s := &Stock{At: c.now, Disk: DiskID{Node: n}, Role: site.Role, Timeline: c.m.ID, Rev: c.m.Head()}
	live := c.m.Live(c.m.Head(), holds)
	for _, k := range slices.SortedFunc(maps.Keys(live), compareKeys) {
		s.Base = append(s.Base, live[k])
	}
	c.Stocks = append(c.Stocks, s)
	return s
}

// position is where a replica should be now.
func (c *chronicle) position(n crm.NodeID) Position {
	g := c.m.right(c.Sites[n].Site, c.m.Head())
	p := Position{At: c.now, Disk: DiskID{Node: n}, Timeline: c.m.ID, Rev: c.m.Head(), Decided: c.next[n].Seq, Last: c.next[n].Seq, Digests: map[crm.TerritoryID]store.Digest{}}
	for _, t := range append(g.granted, crm.Shared) {
		p.Digests[t] = c.m.Digest(t, p.Rev)
	}
	return p
}

// Ops for tests.
func setText(e crm.EntityID, name string, f crm.FieldID, text string) crm.Op {
	return crm.Op{Kind: crm.OpPatch, Entity: e, Record: idOf(name), Cells: []crm.Input{{Field: f, Value: crm.TextValue(text)}}}
}

func addPoints(name string, n int64) crm.Op {
	return crm.Op{Kind: crm.OpCounterAdd, Entity: catalog.Contact, Record: idOf(name), Cells: []crm.Input{{Field: counterField, Value: crm.IntegerValue(n)}}}
}

func setTags(name string, tags ...string) crm.Op {
	return crm.Op{Kind: crm.OpPatch, Entity: catalog.Account, Record: idOf(name), Cells: []crm.Input{{Field: 34, Value: crm.ChoicesValue(tags...)}}}
}
