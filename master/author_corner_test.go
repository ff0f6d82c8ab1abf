package master

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
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

// A master whose peer takes nothing any more must not hold a call for longer
// than the caller waits.
func TestLinks_APeerThatTakesNothing(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		mine, theirs := net.Pipe()
		defer theirs.Close()
		l := &link{ready: make(chan struct{}), done: make(chan struct{}), calls: map[uint64]chan syncproto.Frame{}, conn: syncproto.NewConn(mine)}
		close(l.ready)
		m.links.mu.Lock()
		m.links.open[99] = l
		m.links.mu.Unlock()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		watchdog := time.AfterFunc(time.Minute, func() { theirs.Close() })
		defer watchdog.Stop()
		_, err := m.links.call(ctx, 99, func(id uint64) syncproto.Frame { return &syncproto.Ask{ID: id, What: syncproto.AskLeader} })
		if took := time.Since(start); took > 5*time.Second || !errors.Is(err, errUnknown) {
			t.Errorf("the call took %v: %v", took, err)
		}
	})
}
