package crm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A town is masters that are restored from backups now and then, and branches
// that edit one record meanwhile, on- and offline, from screens of any node and
// any age. Every value is written once, so that each can be followed.
type town struct {
	*rapid.T
	tb       testing.TB
	masters  office
	backups  []office
	branches []*branch
	screens  []screen
	written  int
	timeline uint64
}

// An office is what masters hold.
type office struct {
	*book
	lineage Lineage
	past    map[string]bool // values that stood in this history or lost in it, which the attention list showed
}

// A branch is a node that masters decide for.
type branch struct {
	node    NodeID
	named   bool // it writes version 2
	base    office
	decided Seq      // that its base knows of
	sent    [][]byte // every Mutation it ever made, by Seq
	chain   ChainHash
	hlc     HLC
}

// A screen is what somebody has in front of them. What is not in its past is
// concurrent with an edit made before it.
type screen struct {
	token Token
	shown map[string]bool // values of the record
	past  map[string]bool // those, and all that stood or lost before
}

const (
	townText = FieldID(16)
	townTags = FieldID(19)
	townHome = NodeID(1) // the masters' own node
)

var townRecord = rid(1)

func (o office) clone() office {
	b := *o.book
	b.records, b.last, b.refused = maps.Clone(b.records), maps.Clone(b.last), maps.Clone(b.refused)
	return office{&b, o.lineage, maps.Clone(o.past)}
}

// values returns what the record shows.
func (b *book) values() map[string]bool {
	r := b.records[townRecord]
	out := map[string]bool{r.Value(townText).Str(): true}
	for _, e := range r.Value(townTags).Set() {
		out[e] = true
	}
	return out
}

// kept returns the values on the attention list.
func (b *book) kept(tb testing.TB) map[string]bool {
	out := map[string]bool{}
	for _, n := range slices.Concat(b.attention("conflict"), b.attention("parked")) {
		var s Side
		mustUnmarshal(tb, n.Value(AttentionLost).Str(), &s)
		out[strings.Trim(string(s.Value), `"`)] = true
	}
	return out
}

// show returns the branch's base with its pending edits over it.
func (w *town) show(br *branch) office {
	o := br.base.clone()
	for _, raw := range br.sent[br.decided:] {
		w.judge(o, raw, Pending)
	}
	return o
}

// judge decides a Mutation in o.
func (w *town) judge(o office, raw []byte, rev Rev) Decision {
	m, err := DecodeMutation(raw)
	if err != nil {
		w.Fatal(err)
	}
	d, err := Decide(o, m, Env{Rev: rev, HLC: m.HLC, Home: north, Lineage: o.lineage})
	if err != nil {
		w.Fatal(err)
	}
	for _, r := range d.Writes {
		o.records[r.ID] = r
	}
	for _, c := range m.Ops[0].Cells {
		o.past[c.Value.Str()] = true
		for _, v := range c.Value.Set() {
			o.past[v] = true
		}
	}
	return d
}

// decide has the masters judge a Mutation. What stood before and does not now is
// in the past of its author's screen, or on the attention list.
func (w *town) decide(raw []byte, seen screen) {
	m, _ := DecodeMutation(raw)
	before := w.masters.values()
	w.masters.rev++
	d := w.judge(w.masters, raw, w.masters.rev)
	w.masters.last[m.Node] = m.Seq
	if d.Outcome.Kind == Rejected {
		w.Fatalf("%+v", d.Outcome)
	}
	after, kept := w.masters.values(), w.masters.kept(w.tb)
	for v := range before {
		if !after[v] && !seen.past[v] && !kept[v] {
			w.Fatalf("%q was overwritten silently by edit %d of node %d, whose author had seen %v as %+v, in %+v", v, m.Seq, m.Node, seen.past, m.Ops[0].Seen, w.masters.lineage)
		}
	}
	for _, c := range m.Ops[0].Cells {
		if v := c.Value.Str(); c.Field == townText && !after[v] && !kept[v] {
			w.Fatalf("%q, edit %d of node %d, is nowhere", v, m.Seq, m.Node)
		}
	}
}

// authors keeps the screen behind each Mutation, by its bytes.
type authors map[string]screen

func newTown(t *rapid.T, tb testing.TB) *town {
	w := &town{T: t, tb: tb, timeline: 1, masters: office{newBook(tb), Lineage{Timeline: 1}, map[string]bool{}}}
	w.masters.decide(tb, townHome, 1, create(16, townRecord, txt(townText, "start"), Input{townTags, ChoicesValue("first")}))
	maps.Copy(w.masters.past, w.masters.values())
	for i, named := range []bool{true, true, false} {
		w.branches = append(w.branches, &branch{node: NodeID(2 + i), named: named, base: w.masters.clone()})
	}
	w.backups = []office{w.masters.clone()}
	return w
}

// draw returns the op of somebody who has a screen in front of them.
func (w *town) draw(seen screen) Op {
	w.written++
	v := fmt.Sprintf("v%d", w.written)
	op := Op{Kind: OpPatch, Entity: 16, Record: townRecord, Seen: seen.token}
	switch rapid.IntRange(0, 3).Draw(w.T, "kind") {
	case 0:
		op.Kind, op.Cells = OpSetAdd, []Input{{townTags, ChoicesValue("t" + v)}}
	case 1: // the whole set, as the screen shows it, without one element
		tags := slices.Sorted(maps.Keys(seen.shown))
		tags = slices.DeleteFunc(tags, func(s string) bool { return s[0] != 't' })
		if len(tags) > 0 {
			tags[0] = "t" + v
		}
		op.Cells = []Input{{townTags, ChoicesValue(append(tags, "t"+v)...)}}
	default:
		op.Cells = []Input{txt(townText, v)}
	}
	return op
}

// TestFork_NothingIsOverwrittenSilently: whatever the masters forget and in
// whatever order branches push what they made before and after, a value that its
// successor's author had not seen is kept.
func TestFork_NothingIsOverwrittenSilently(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, by := newTown(rt, t), authors{}
		anyBranch := func() *branch { return rapid.SampledFrom(w.branches).Draw(rt, "branch") }
		look := func(o office) {
			w.screens = append(w.screens, screen{o.records[townRecord].TokenAt(o.lineage.Timeline), o.values(), maps.Clone(o.past)})
		}
		look(w.masters)
		anyScreen := func() screen { return rapid.SampledFrom(w.screens).Draw(rt, "screen") }
		rt.Repeat(map[string]func(*rapid.T){
			"look":  func(*rapid.T) { look(w.show(anyBranch())) },
			"visit": func(*rapid.T) { look(w.masters) },
			"edit": func(*rapid.T) {
				br, seen := anyBranch(), anyScreen()
				req := Request{Actor: "ann", Intent: "x", Ops: []Op{w.draw(seen)}}
				m := req.Mutation(br.node, br.base.lineage, br.named)
				br.hlc = br.hlc.Next(int64(rapid.IntRange(0, 50).Draw(rt, "clock")))
				m.Incarnation, m.Seq, m.Prev, m.HLC = 1, Seq(len(br.sent)+1), br.chain, br.hlc
				raw := AppendMutation(nil, m)
				br.sent, br.chain, by[string(raw)] = append(br.sent, raw), Chain(br.chain, raw), seen
			},
			"push": func(*rapid.T) {
				br := anyBranch()
				last := w.masters.last[br.node]
				for _, raw := range br.sent[last:] {
					w.decide(raw, by[string(raw)])
				}
			},
			"pull": func(*rapid.T) {
				br := anyBranch()
				br.base, br.decided = w.masters.clone(), w.masters.last[br.node]
			},
			"headOffice": func(*rapid.T) {
				seen := anyScreen()
				req := Request{Actor: "boss", Intent: "x", Ops: []Op{w.draw(seen)}}
				m := req.Mutation(townHome, w.masters.lineage, true)
				m.Incarnation, m.Seq, m.HLC = 1, w.masters.last[townHome]+1, NewHLC(int64(rapid.IntRange(0, 50).Draw(rt, "clock")))
				w.decide(AppendMutation(nil, m), seen)
			},
			"backUp": func(*rapid.T) { w.backups = append(w.backups, w.masters.clone()) },
			"restore": func(rt *rapid.T) {
				if w.timeline > 4 {
					rt.Skip()
				}
				w.timeline++
				from := rapid.SampledFrom(w.backups).Draw(rt, "backup").clone()
				l, err := from.lineage.Restored(from.rev, w.timeline)
				if err != nil {
					rt.Fatal(err)
				}
				from.lineage = l
				w.masters = from
			},
		})
	})
}
