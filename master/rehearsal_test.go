package master

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// A crashSite is a leader whose process ends whenever it judges a poisonous edit:
// its FSM and its file of suspects, and a follower that gets what is logged.
type crashSite struct {
	*bench
	follower *bench
	dir      string
	poison   map[crm.Seq]bool
	lives    int
	at       session.Submission
}

func newCrashSite(t *testing.T, poison ...crm.Seq) *crashSite {
	c := &crashSite{bench: newBench(t), follower: newBench(t), dir: t.TempDir(), poison: map[crm.Seq]bool{}}
	for _, s := range poison {
		c.poison[s] = true
	}
	for _, b := range []*bench{c.bench, c.follower} {
		b.decide = func(v crm.View, m *crm.Mutation, e crm.Env) (crm.Decision, error) {
			if c.poison[m.Seq] {
				t.Errorf("edit %d was logged and judged", m.Seq)
			}
			return crm.Decide(v, m, e)
		}
	}
	c.log(ActivateEntry{Level: levelPoison})
	return c
}

// log has both masters apply an entry.
func (c *crashSite) log(e Entry) []Decided {
	c.t.Helper()
	out := c.must(e)
	c.follower.must(e)
	for _, b := range []*bench{c.bench, c.follower} {
		if err := b.Flush(); err != nil {
			c.t.Fatal(err)
		}
	}
	return out
}

// live is one life of the leader's process: it goes on with the Submission and
// reports whether it came to the end.
func (c *crashSite) live() (survived bool) {
	c.lives++
	r, err := openRehearsal(c.dir, c.data, &session.Rosters{}, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			c.t.Error(err)
		}
	}()
	r.decide = func(v crm.View, m *crm.Mutation, e crm.Env) (crm.Decision, error) {
		if c.poison[m.Seq] {
			runtime.Goexit() // nothing recovers from it, as nothing does from an overflowing stack
		}
		return crm.Decide(v, m, e)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for len(c.at.Mutations) > 0 {
			part, rest, err := r.first(c.at, 1_700_000_000_000)
			if err != nil {
				c.t.Error(err)
				return
			}
			for _, d := range c.log(PushOf(part, 1_700_000_000_000)) {
				if d.Gap != 0 || d.Fork || d.Fenced != 0 || d.Duplicate {
					c.t.Errorf("edit %d: %+v", d.Seq, d)
				}
			}
			c.at = rest
		}
		survived = true
	}()
	<-ended
	return survived
}

// TestRehearsal_RejectsPoison: wherever the poison stands, all other edits are
// decided, each poisonous one is rejected once and shown with its values, no
// master ever judges it, and the process ends twice for each.
func TestRehearsal_RejectsPoison(t *testing.T) {
	const n = 40
	for name, poison := range map[string][]crm.Seq{
		"none": nil, "head": {1}, "middle": {20}, "tail": {n}, "side by side": {7, 8, 9}, "everywhere": {1, 2, 19, 20, 21, n - 1, n},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrashSite(t, poison...)
			w := first()
			c.at = session.Submission{Node: 1, Incarnation: 1, First: 1}
			for i := range n {
				c.at.Mutations = append(c.at.Mutations, w.mutation(territoryOp(fmt.Sprint("t", i+1))))
			}
			before := c.rev
			for !c.live() {
				if c.lives > poisonAfter*len(poison)+1 {
					t.Fatalf("the process has ended %d times", c.lives)
				}
			}
			if want := poisonAfter*len(poison) + 1; c.lives != want {
				t.Errorf("it took %d lives, want %d", c.lives, want)
			}
			if got := c.rev - before; got != n {
				t.Errorf("%d edits are decided, want %d", got, n)
			}
			if c.sum() != c.follower.sum() {
				t.Error("the follower has another state")
			}
			for seq := crm.Seq(1); seq <= n; seq++ {
				c.wantOutcome(t, seq, slices.Contains(poison, seq))
			}
			if notes := c.notes(t); len(notes) != len(poison) {
				t.Errorf("%d notes on the attention list, want %d", len(notes), len(poison))
			}
		})
	}
}

func (c *crashSite) wantOutcome(t *testing.T, seq crm.Seq, poison bool) {
	t.Helper()
	err := c.data.View(func(tx *store.Tx) error {
		o, kept, err := tx.Outcome(1, seq)
		if err == nil && kept != poison || poison && (o.Kind != crm.Rejected || o.Code != crm.CodePoison) {
			t.Errorf("edit %d: %+v", seq, o)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// notes returns the attention list's open entries with code poison.
func (c *crashSite) notes(t *testing.T) (out []*crm.Record) {
	t.Helper()
	err := c.data.View(func(tx *store.Tx) error {
		for r, err := range tx.Scan(crm.EntityAttention) {
			if err != nil {
				return err
			}
			seq := r.Value(crm.AttentionSeq).Int()
			if r.Value(crm.AttentionCode).Str() != string(crm.CodePoison) {
				t.Errorf("a note with code %s", r.Value(crm.AttentionCode).Str())
			}
			if ops, name := r.Value(crm.AttentionOps).Str(), fmt.Sprintf(`"t%d"`, seq); !strings.Contains(ops, name) {
				t.Errorf("the note on edit %d does not show %s: %s", seq, name, ops)
			}
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRehearsal_OneCrashIsNoProof: a process that was killed by chance while it
// judged an edit costs that edit nothing.
func TestRehearsal_OneCrashIsNoProof(t *testing.T) {
	c := newCrashSite(t, 2)
	w := first()
	c.at = session.Submission{Node: 1, Incarnation: 1, First: 1, Mutations: [][]byte{w.mutation(territoryOp("a")), w.mutation(territoryOp("b")), w.mutation(territoryOp("c"))}}
	if c.live() {
		t.Fatal("the process did not end")
	}
	clear(c.poison)
	if !c.live() {
		t.Fatal("the process ended")
	}
	for seq := crm.Seq(1); seq <= 3; seq++ {
		c.wantOutcome(t, seq, false)
	}
}

// TestRehearsal_SequelsSeeWhatWentBefore: a Mutation that builds on the one
// before is judged with that one's record at hand.
func TestRehearsal_SequelsSeeWhatWentBefore(t *testing.T) {
	c := newCrashSite(t)
	w := first()
	op := territoryOp("a")
	patch := crm.Op{Kind: crm.OpPatch, Entity: op.Entity, Record: op.Record, Cells: []crm.Input{{Field: crm.TerritoryName, Value: crm.TextValue("A")}}}
	s := session.Submission{Node: 1, Incarnation: 1, First: 1, Mutations: [][]byte{w.mutation(op), w.mutation(patch)}}
	r, err := openRehearsal(c.dir, c.data, &session.Rosters{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var got []crm.OutcomeKind
	r.decide = func(v crm.View, m *crm.Mutation, e crm.Env) (crm.Decision, error) {
		dec, err := crm.Decide(v, m, e)
		got = append(got, dec.Outcome.Kind)
		return dec, err
	}
	if _, _, err := r.first(s, 1); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || slices.Contains(got, crm.Rejected) {
		t.Errorf("rehearsed as %v", got)
	}
}

// TestRehearsal_PanicsAreNoCrash: evaluation recovers from a panic, so it is
// logged and judged as ever.
func TestRehearsal_PanicsAreNoCrash(t *testing.T) {
	c := newCrashSite(t)
	r, err := openRehearsal(c.dir, c.data, &session.Rosters{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.decide = func(crm.View, *crm.Mutation, crm.Env) (crm.Decision, error) { panic("a bug") }
	s := session.Submission{Node: 1, Incarnation: 1, First: 1, Mutations: [][]byte{first().mutation(territoryOp("a"))}}
	part, rest, err := r.first(s, 1)
	if err != nil || len(part.Mutations) != 1 || len(rest.Mutations) != 0 || part.Mutations[0][0] >= bareMark {
		t.Errorf("to be logged: %v, later %v, error %v", part, rest, err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	k, err := openSuspects(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	if len(k.known) != 0 {
		t.Errorf("suspects %+v", k.known)
	}
}

// TestRehearsal_TakesNobodysWord: only the leader marks an edit.
func TestRehearsal_TakesNobodysWord(t *testing.T) {
	c := newCrashSite(t)
	r, err := openRehearsal(c.dir, c.data, &session.Rosters{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for _, mark := range []byte{poisonMark, bareMark} {
		raw := append([]byte{mark}, first().mutation(territoryOp("a"))...)
		_, _, err = r.first(session.Submission{Node: 1, Incarnation: 1, First: 1, Mutations: [][]byte{raw}}, 1)
		wantCode(t, err, crm.CodeForbidden)
	}
}

// TestFSM_RejectsBarePoison: an edit whose values cannot even be listed is
// rejected without them, and its bytes are kept.
func TestFSM_RejectsBarePoison(t *testing.T) {
	c := newCrashSite(t, 1)
	raw := first().mutation(territoryOp("a"))
	d := c.log(PushEntry{Node: 1, Incarnation: 1, Mutations: [][]byte{append([]byte{bareMark}, raw...)}})
	if len(d) != 1 || d[0].Kind != crm.Rejected || d[0].Code != crm.CodePoison {
		t.Fatalf("decided %+v", d)
	}
	if d := c.log(PushEntry{Node: 1, Incarnation: 1, Mutations: [][]byte{raw}}); len(d) != 1 || !d[0].Duplicate || d[0].Code != crm.CodePoison {
		t.Errorf("pushed again: %+v", d)
	}
	err := c.data.View(func(tx *store.Tx) error {
		b, err := tx.Meta(quarantineName(1, 1))
		if string(b) != string(raw) {
			t.Error("the bytes are not kept")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSuspects_Survive: torn and empty entries count for nothing, the rest is
// there again, and the file stays bounded.
func TestSuspects_Survive(t *testing.T) {
	dir := t.TempDir()
	for i := range crm.Seq(2 * maxSuspects) {
		s, err := openSuspects(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.begin(suspect{node: 7, seq: i + 1}); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, suspectsName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := (1 + maxSuspects) * suspectSize; len(b) != want {
		t.Errorf("the file has %d bytes, want %d", len(b), want)
	}
	b[suspectSize] ^= 1                                             // the oldest is torn
	if err := os.WriteFile(path, b[:len(b)-1], 0o600); err != nil { // and so is the newest
		t.Fatal(err)
	}
	s, err := openSuspects(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for seq, want := range map[crm.Seq]uint8{2 * maxSuspects: 1, 2*maxSuspects - 1: 0, maxSuspects + 2: 1, maxSuspects: 0, maxSuspects - 1: 0} {
		if got := s.times(suspect{node: 7, seq: seq}); got != want {
			t.Errorf("edit %d is blamed %d times, want %d", seq, got, want)
		}
	}
	if got := s.times(suspect{node: 7, seq: 2 * maxSuspects, after: crm.ChainHash{1}}); got != 0 {
		t.Error("another edit of that number is blamed too")
	}
}

// BenchmarkSubmission measures what the rehearsal adds to a push of 64 edits.
func BenchmarkSubmission(b *testing.B) {
	for _, rehearsed := range []bool{false, true} {
		b.Run(fmt.Sprintf("rehearsed=%t", rehearsed), func(b *testing.B) {
			fsm, err := OpenFSM(FSMConfig{Path: filepath.Join(b.TempDir(), "master.db"), Store: store.Options{NoSync: true}})
			if err != nil {
				b.Fatal(err)
			}
			defer fsm.Close()
			fsm.Apply(1, 1, mustEncode(b, TimelineEntry{Timeline: 7, Cluster: "c1", Node: 1, ReceivedMillis: 1000, Site: "hq"}))
			if err := fsm.Flush(); err != nil {
				b.Fatal(err)
			}
			r, err := openRehearsal(b.TempDir(), fsm.DB(), &session.Rosters{}, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer r.close()
			w, index := first(), uint64(1)
			for b.Loop() {
				s := session.Submission{Node: 1, Incarnation: 1, First: w.seq + 1}
				for range 64 {
					s.Mutations = append(s.Mutations, w.mutation(createOp(crm.EntityJoinToken, map[crm.FieldID]crm.Value{
						crm.JoinTokenID: crm.TextValue(fmt.Sprint("t", w.seq)), crm.JoinTokenSite: crm.TextValue("hq"), crm.JoinTokenRole: crm.ChoiceValue("replica")})))
				}
				if rehearsed {
					if s, _, err = r.first(s, 1_700_000_000_000); err != nil {
						b.Fatal(err)
					}
				}
				index++
				if v := fsm.Apply(index, 1, mustEncode(b, PushOf(s, 1_700_000_000_000))); v.Err != nil {
					b.Fatal(v.Err)
				}
				if index%16 == 0 {
					if err := fsm.Flush(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
