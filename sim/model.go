package sim

import (
	"iter"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A model decides what the log holds by the rules of DESIGN §5.2, with records
// in memory and in code of its own wherever the FSM's is not a function of
// package crm. What the FSM does differently is a fault of one of them.
type model struct {
	*Timeline
	*shelf
	nodes map[crm.NodeID]*modelNode
	level uint64                   // that the log has activated
	edits map[crm.ChainHash]EditID // by the hash that they left in their node's chain, in any timeline
}

// levelTimelines is the level from which on Mutations may name their timeline.
const levelTimelines = 2

// A modelNode is what is known of a node.
type modelNode struct {
	incarnation crm.Incarnation
	last        crm.Seq
	hash        crm.ChainHash
	hlc         crm.HLC
	frozen      bool
	nonce       [16]byte
	hashes      map[crm.Seq]crm.ChainHash
	outcomes    map[crm.Seq]crm.Outcome
}

// A Ruling is what became of one Mutation of a push. At most one of Duplicate,
// Gap, Fork and Fenced is set, and then Outcome is not a new decision.
type Ruling struct {
	Outcome   crm.Outcome
	Duplicate bool
	Gap       crm.Seq
	Fork      bool
	Fenced    crm.Incarnation
}

func newModel(t *Timeline, records iter.Seq[*crm.Record]) *model {
	return &model{Timeline: t, shelf: shelve(records), nodes: map[crm.NodeID]*modelNode{}, level: 1, edits: map[crm.ChainHash]EditID{}}
}

// restored has m go on in another timeline, which begins where m stands, at the
// newest level.
func (m *model) restored(timeline uint64) {
	m.level = uint64(syncproto.MaxVersion)
	m.Timeline = m.Timeline.fork(timeline, 0, m.Head())
}

func newModelNode(inc crm.Incarnation, last crm.Seq, hash crm.ChainHash, hlc crm.HLC) *modelNode {
	return &modelNode{incarnation: inc, last: last, hash: hash, hlc: hlc, hashes: map[crm.Seq]crm.ChainHash{}, outcomes: map[crm.Seq]crm.Outcome{}}
}

// A member is a node's record with what its site may do.
type member struct {
	role    string
	site    string
	removed bool
	right
}

// member returns the node's record, nil if there is none.
func (m *model) member(id crm.NodeID) *member {
	for _, r := range m.live(crm.EntityNode) {
		if crm.NodeID(r.Value(crm.NodeNumber).Int()) != id {
			continue
		}
		site := r.Value(crm.NodeSite).Str()
		return &member{role: r.Value(crm.NodeRole).Str(), site: site, removed: r.Value(crm.NodeStatus).Str() == "removed", right: rightOf(site, m.live)}
	}
	return nil
}

// push judges a batch of a node's Mutations up to the first that cannot be
// taken. refused is the code if even that is not said of one of them.
func (m *model) push(at time.Duration, index uint64, node crm.NodeID, inc crm.Incarnation, received, offset int64, mutations [][]byte) (out []Ruling, refused crm.Code) {
	n := m.nodes[node]
	if n == nil {
		return nil, crm.CodeForbidden
	}
	for _, raw := range mutations {
		who := m.member(node)
		if who == nil || who.removed {
			return out, crm.CodeForbidden
		}
		mut, err := readPushed(raw)
		if err != nil || mut.Node != node || mut.Seq == 0 || (mut.Timeline != 0 || mut.withheld != nil) && m.level < levelTimelines {
			return out, crm.CodeInvalid
		}
		r := Ruling{Outcome: crm.Outcome{Node: node, Seq: mut.Seq}}
		switch known, seen := n.hashes[mut.Seq], mut.Seq <= n.last; {
		case inc != n.incarnation:
			r.Fenced = n.incarnation
		case n.frozen, seen && known != mut.after && known != (crm.ChainHash{}), mut.Seq == n.last+1 && mut.Prev != n.hash:
			r.Fork, n.frozen = true, true
		case seen:
			r.Duplicate, r.Outcome = true, n.outcome(node, mut.Seq)
		case mut.Seq > n.last+1:
			r.Gap = n.last + 1
		default:
			r.Outcome = m.next(at, index, n, who, mut, received, offset)
		}
		out = append(out, r)
		if r.Gap != 0 || r.Fork || r.Fenced != 0 {
			return out, ""
		}
	}
	return out, ""
}

// outcome returns what was decided before. Of plain acceptances the masters keep
// nothing.
func (n *modelNode) outcome(node crm.NodeID, seq crm.Seq) crm.Outcome {
	if o, ok := n.outcomes[seq]; ok && o.Kind != crm.Accepted {
		return o
	}
	return crm.Outcome{Node: node, Seq: seq, Kind: crm.Accepted}
}

// A pushed is a Mutation of a push, or what stands for one that its branch has
// purged: then only the number and the hashes are known.
type pushed struct {
	*crm.Mutation
	withheld *crm.Withheld // nil: it is whole
	after    crm.ChainHash // of the node's chain
}

func readPushed(raw []byte) (pushed, error) {
	if !crm.IsWithheld(raw) {
		mut, err := crm.DecodeMutation(raw)
		if err != nil {
			return pushed{}, err
		}
		return pushed{mut, nil, crm.Chain(mut.Prev, raw)}, nil
	}
	w, err := crm.DecodeWithheld(raw)
	return pushed{&crm.Mutation{Node: w.Node, Incarnation: w.Incarnation, Seq: w.Seq, Prev: w.Prev}, &w, w.After}, err
}

func (p pushed) decide(v crm.View, env crm.Env) (crm.Decision, error) {
	if p.withheld != nil {
		return crm.DecideWithheld(v, *p.withheld, env)
	}
	return crm.Decide(v, p.Mutation, env)
}

// next decides the Mutation that follows.
func (m *model) next(at time.Duration, index uint64, n *modelNode, who *member, mut pushed, received, offset int64) crm.Outcome {
	env := crm.Env{Rev: m.Head() + 1, HLC: effective(mut.HLC, offset, received, n.hlc), Home: who.home, Admin: who.role == roleMaster, Lineage: m.Lineage, Level: uint16(m.level)}
	if !env.Admin {
		env.Writable = who.holds
	}
	dec, err := mut.decide(m.shelf, env)
	if err != nil {
		panic("sim: a shelf fails: " + err.Error())
	}
	for _, r := range dec.Writes {
		m.shelf.put(r)
	}
	for _, r := range dec.Refused {
		m.shelf.refused[r.Record] = r.Attention
	}
	if mut.withheld == nil {
		m.edits[mut.after] = editBy(mut.Actor)
	}
	n.last, n.hash, n.hlc = mut.Seq, mut.after, env.HLC
	n.hashes[mut.Seq], n.outcomes[mut.Seq] = n.hash, dec.Outcome
	m.decide(Decision{At: at, Index: index, Rev: env.Rev, Node: mut.Node, Incarnation: n.incarnation, Seq: mut.Seq, Edit: m.edits[mut.after],
		Mutation: mut.Mutation, Outcome: dec.Outcome, Writes: dec.Writes})
	return dec.Outcome
}

// admit gives a node's disk the next incarnation, or the last one again if the
// nonce is that of the last admission.
func (m *model) admit(node crm.NodeID, nonce [16]byte) (given crm.Incarnation, again bool, refused crm.Code) {
	who := m.member(node)
	if who == nil || who.removed {
		return 0, false, crm.CodeForbidden
	}
	n := m.nodes[node]
	if n == nil {
		n = newModelNode(0, 0, crm.ChainHash{}, 0)
		m.nodes[node] = n
	}
	if n.incarnation > 0 && n.nonce == nonce {
		return n.incarnation, true, ""
	}
	n.incarnation++
	n.nonce = nonce
	return n.incarnation, false, ""
}

// freeze refuses a node's Mutations, or takes them again.
func (m *model) freeze(node crm.NodeID, frozen bool) {
	if n := m.nodes[node]; n != nil {
		n.frozen = frozen
	}
}

// effective is when an edit counts as made: by its own clock corrected by the
// clock's measured offset, but for offsets that may be errors of measurement,
// not after the leader received it, and after the node's edit before.
func effective(h crm.HLC, offset, received int64, last crm.HLC) crm.HLC {
	const farthest = 1<<48 - 1
	if offset > -500 && offset < 500 {
		offset = 0
	}
	ms := min(max(h.Millis()+min(max(offset, -farthest), farthest), 0), farthest)
	own := crm.NewHLC(ms) + crm.HLC(uint16(h))
	return max(min(own, crm.NewHLC(received)), last+1)
}

// apply rules on an entry of the log.
func (m *model) apply(at time.Duration, index uint64, e master.Entry) ([]Ruling, crm.Code) {
	switch e := e.(type) {
	case master.PushEntry:
		return m.push(at, index, e.Node, e.Incarnation, e.ReceivedMillis, e.OffsetMillis, e.Mutations)
	case master.AdmitEntry:
		_, _, refused := m.admit(e.Node, e.Nonce)
		return nil, refused
	case master.ActivateEntry:
		m.level = max(m.level, e.Level)
	case master.TrimEntry:
		m.shelf.trim(e.Rev)
	case master.FreezeEntry:
		if m.nodes[e.Node] == nil {
			return nil, crm.CodeNotFound
		}
		m.freeze(e.Node, e.Reason != "")
	}
	return nil, ""
}
