package syncproto

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A wire is a transport whose bytes are only counted.
type wire struct{}

func (wire) Read([]byte) (int, error)    { return 0, io.EOF }
func (wire) Write(p []byte) (int, error) { return len(p), nil }

// edits makes the one-field changes of an office at work: five clerks, any
// record, short values.
type edits struct {
	random *rand.ChaCha8
	rng    *rand.Rand
	hlc    crm.HLC
	seq    crm.Seq
	chain  crm.ChainHash
}

func newEdits() *edits {
	random := rand.NewChaCha8([32]byte{1})
	return &edits{random: random, rng: rand.New(random), hlc: crm.NewHLC(1_760_000_000_000), seq: 4000}
}

var (
	stages = []string{"qualification", "proposal", "negotiation", "won", "lost"}
	clerks = []string{"u-anna", "u-bo", "u-carla", "u-dimitri", "u-eve"}
)

func (e *edits) next() ([]byte, *crm.Record) {
	e.seq++
	e.hlc = e.hlc.Next(e.hlc.Millis() + e.rng.Int64N(60_000))
	made := time.UnixMilli(e.hlc.Millis() - e.rng.Int64N(1e10))
	id, root := crm.NewRecordID(made, e.random), crm.NewRecordID(made, e.random)
	value := crm.ChoiceValue(stages[e.rng.IntN(len(stages))])
	rev, actor := crm.Rev(1_000_000+uint64(e.seq)*7), clerks[e.rng.IntN(len(clerks))]
	m := &crm.Mutation{Node: 12, Incarnation: 1, Seq: e.seq, Prev: e.chain, HLC: e.hlc, Actor: actor, Schema: 40,
		Intent: "opportunity.update", Ops: []crm.Op{{Kind: crm.OpPatch, Entity: 20, Record: id,
			Seen: crm.Token{Rev: rev - 100}, Cells: []crm.Input{{Field: 21, Value: value}}}}}
	encoded := crm.AppendMutation(nil, m)
	e.chain = crm.Chain(e.chain, encoded)
	stamp := crm.Stamp{Rev: rev, HLC: e.hlc, Node: 12, Seq: e.seq, Actor: actor}
	return encoded, &crm.Record{Entity: 20, ID: id, Territory: 17, Root: root, Schema: 40, Stamp: stamp, Entered: 900,
		Cells: []crm.Cell{{Field: 21, Value: value, Stamp: stamp}}}
}

// group returns n changes as they are pushed and as the feed returns them.
func (e *edits) group(n int) (*Push, *Batch) {
	p := &Push{First: e.seq + 1}
	b := &Batch{Timeline: 1, From: crm.Rev(1_000_000 + uint64(e.seq)*7), Final: true}
	for range n {
		encoded, r := e.next()
		p.Mutations = append(p.Mutations, encoded)
		b.Items = append(b.Items, Item{Kind: ItemRecord, Partial: true, Entity: r.Entity, ID: r.ID, Body: crm.AppendRecord(nil, r)})
		b.To = r.Stamp.Rev
	}
	b.Upto, b.Decided = b.To, e.seq
	var sum [16]byte
	_, _ = e.random.Read(sum[:])
	b.Digests = []TerritoryDigest{{17, sum}}
	return p, b
}

func mustSend(tb testing.TB, c *Conn, frames ...Frame) (bytes int64) {
	tb.Helper()
	before := c.BytesOut()
	if err := c.Send(frames...); err != nil {
		tb.Fatal(err)
	}
	return c.BytesOut() - before
}

func mustAppend(tb testing.TB, f Frame, version uint16) []byte {
	tb.Helper()
	b, err := AppendFrame(nil, version, f)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// What a change costs on a connection that has carried 32 like it. The bounds
// are the sizes measured when the format was made, and a tenth.
func TestConn_BytesOfSmallChanges(t *testing.T) {
	for _, tt := range []struct{ changes, push, feed int64 }{{1, 72, 108}, {16, 910, 930}, {256, 13_700, 13_600}} {
		t.Run(fmt.Sprint(tt.changes), func(t *testing.T) {
			e, push, feed := newEdits(), NewConn(wire{}), NewConn(wire{})
			const rounds = 32
			for range rounds {
				p, b := e.group(int(tt.changes))
				mustSend(t, push, p)
				mustSend(t, feed, b)
			}
			pushed, fed := push.BytesOut()/rounds, feed.BytesOut()/rounds
			p, b := e.group(int(tt.changes))
			t.Logf("%d changes: push %d bytes of %d, feed %d of %d", tt.changes, pushed, len(mustAppend(t, p, MinVersion)), fed, len(mustAppend(t, b, MinVersion)))
			if pushed > tt.push || fed > tt.feed {
				t.Errorf("push %d, feed %d bytes; at most %d and %d expected", pushed, fed, tt.push, tt.feed)
			}
		})
	}
}
