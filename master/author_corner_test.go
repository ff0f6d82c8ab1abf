package master

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
)

func gathered(t *testing.T, a *author, first *intake) *batch {
	t.Helper()
	b, err := a.newBatch()
	if err != nil {
		t.Fatal(err)
	}
	a.gather(b, first)
	return b
}

// One request that no master could decode must not take the others of its batch
// along, nor leave their numbers to be given twice.
func TestAuthor_RefusesWhatCannotBeRead(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		a := newAuthor(m.Master)
		if err := a.beAdmitted(t.Context()); err != nil {
			t.Fatal(err)
		}
		ask := func(intent string) *intake {
			return &intake{answer: make(chan authored, 1), request: crm.Request{Actor: "boss", Intent: intent, Ops: []crm.Op{createAccount(newID(), "acme", "north")}}}
		}
		good, bad, late := ask("test"), ask("\xff"), ask("test")
		a.queue <- bad
		a.queue <- late
		a.decide(t.Context(), gathered(t, a, good))
		for _, c := range []struct {
			in   *intake
			want crm.Code
		}{{good, ""}, {bad, crm.CodeInvalid}, {late, ""}} {
			wantCode(t, (<-c.in.answer).err, c.want)
		}
	})
}

// Numbers that a batch used before what is refused are not given again: the cluster
// would take the second use for a fork.
func TestAuthor_GivesNoNumberTwice(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		a := newAuthor(m.Master)
		if err := a.beAdmitted(t.Context()); err != nil {
			t.Fatal(err)
		}
		ask := func() *intake {
			return &intake{answer: make(chan authored, 1), request: crm.Request{Actor: "boss", Intent: "test", Ops: []crm.Op{createAccount(newID(), "acme", "north")}}}
		}
		half, next := ask(), ask()
		b := gathered(t, a, half)
		b.sub.Mutations = append(b.sub.Mutations, []byte("damaged")) // the leader decides the first and refuses the second
		a.decide(t.Context(), b)
		wantCode(t, (<-half.answer).err, "")
		if !a.admitted {
			if err := a.beAdmitted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		a.decide(t.Context(), gathered(t, a, next))
		wantCode(t, (<-next.answer).err, "")
	})
}

// A caller whose edit was decided hears how, even if one behind it in the same
// entry is refused: told of the refusal, it would repeat the edit.
func TestAuthor_TellsWhatWasDecidedBeforeARefusal(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		for _, m := range []*rigMaster{r.follower(), r.leader()} {
			facts, _ := m.facts(m.node)
			a := newAuthor(m.Master)
			if err := a.beAdmitted(t.Context()); err != nil {
				t.Fatal(err)
			}
			ask := func(op crm.Op) *intake {
				return &intake{answer: make(chan authored, 1), request: crm.Request{Actor: "boss", Intent: "test", Ops: []crm.Op{op}}}
			}
			before := ask(createAccount(newID(), "acme", "north"))
			leave := ask(patch(crm.EntityNode, facts.Record, crm.NodeStatus, crm.ChoiceValue("removed")))
			leave.request.Ops[0].Seen = facts.Token
			after := ask(createAccount(newID(), "late", "north"))
			a.queue <- leave
			a.queue <- after
			a.decide(t.Context(), gathered(t, a, before))
			for what, in := range map[string]*intake{"before": before, "removal": leave} {
				if d := <-in.answer; d.err != nil || d.outcome.Kind != crm.Accepted {
					t.Errorf("%s, at a master of which leading is %v: %+v", what, m.Leading(), d)
				}
			}
			wantCode(t, (<-after.answer).err, crm.CodeForbidden)
		}
	})
}

// The rest of a batch is failed without those that were decided before it, and
// the next number follows them.
func TestBatch_Split(t *testing.T) {
	raws := [][]byte{{1}, {2}, {3}}
	b := &batch{intakes: make([]*intake, 3), sub: session.Submission{First: 5, Mutations: raws}}
	for last, n := range map[crm.Seq]int{0: 0, 4: 0, 5: 1, 6: 2, 7: 3, 99: 3} {
		done, rest := b.split(last, crm.ChainHash{9})
		want := crm.ChainHash{9}
		for _, raw := range raws[:n] {
			want = crm.Chain(want, raw)
		}
		if len(done.intakes) != n || len(done.sub.Mutations) != n || len(rest.intakes) != 3-n || len(rest.sub.Mutations) != 3-n ||
			rest.sub.First != 5+crm.Seq(n) || done.chain != want {
			t.Errorf("up to %d: %+v and %+v", last, done, rest)
		}
	}
}

// What may yet be decided is not asked for again and again without a pause.
func TestResolve_PausesBetweenAttempts(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m, attempts, start := r.leader(), 0, time.Now()
		err := m.resolve(t.Context(), func() error {
			if attempts++; attempts < 3 {
				return unknown("test", nil)
			}
			return nil
		})
		if took := time.Since(start); err != nil || took != 2*retryAfter {
			t.Errorf("%d attempts took %v: %v", attempts, took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), retryAfter/2)
		defer cancel()
		if err := m.resolve(ctx, func() error { return unknown("test", nil) }); !errors.Is(err, errUnknown) || ctx.Err() == nil {
			t.Errorf("given up: %v", err)
		}
	})
}
