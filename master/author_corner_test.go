package master

import (
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
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

// Numbers that a refused batch may have used are not given again: the cluster
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
		wantCode(t, (<-half.answer).err, crm.CodeInvalid)
		if !a.admitted {
			if err := a.beAdmitted(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		a.decide(t.Context(), gathered(t, a, next))
		wantCode(t, (<-next.answer).err, "")
	})
}
