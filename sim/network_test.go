package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A netBench is two nodes, a and b, with a stream between them.
type netBench struct {
	*network
	a, b *end
	got  []string
}

func newNetBench(t *testing.T, seed uint64) *netBench {
	t.Helper()
	b := &netBench{network: newNetwork(&agenda{}, newDice(seed), newTrace(nil))}
	b.Listen("b", func(_ string, e *end) { b.b = e; b.watch(e) })
	b.Dial("a", "b", func(e *end, err error) {
		if err != nil {
			t.Fatal(err)
		}
		b.a = e
		b.watch(e)
	})
	b.run(time.Second)
	if b.a == nil || b.b == nil {
		t.Fatal("no stream came about")
	}
	return b
}

func (b *netBench) run(d time.Duration) {
	for until := b.agenda.now + d; b.agenda.Next(until); {
	}
}

func (b *netBench) watch(e *end) {
	e.Hear = func(f syncproto.Frame) {
		b.got = append(b.got, fmt.Sprintf("%s %d", e.node, f.(*syncproto.Pushed).Seq))
	}
	e.Ended = func(error) { b.got = append(b.got, e.node+" ended") }
}

func (b *netBench) send(t *testing.T, e *end, seqs ...crm.Seq) {
	t.Helper()
	for _, s := range seqs {
		if err := e.Send(&syncproto.Pushed{Seq: s}); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *netBench) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(b.got, want) {
		t.Errorf("got %q, want %q", b.got, want)
	}
	b.got = nil
}

func TestStream_KeepsOrderOverLossAndJitter(t *testing.T) {
	b := newNetBench(t, 1)
	l := b.line("a", "b")
	l.loss, l.jitter = 0.3, 200*time.Millisecond
	var want []string
	for i := range crm.Seq(50) {
		b.send(t, b.a, i+1)
		want = append(want, fmt.Sprintf("b %d", i+1))
	}
	b.run(time.Hour)
	b.want(t, want...)
	if b.lost == 0 {
		t.Error("nothing was lost at 30 % loss")
	}
}

func TestStream_CutHoldsBothWhatWaitsAndWhatIsUnderWay(t *testing.T) {
	b := newNetBench(t, 1)
	b.send(t, b.a, 1)
	b.Cut("a", "b")
	b.send(t, b.a, 2)
	b.send(t, b.b, 9)
	b.run(time.Minute)
	b.want(t, "a 9")
	b.Mend("a", "b")
	b.run(time.Minute)
	b.want(t, "b 1", "b 2")
}

func TestStream_CloseComesAfterWhatWasSent(t *testing.T) {
	b := newNetBench(t, 1)
	b.send(t, b.a, 1, 2)
	b.a.Close()
	b.send(t, b.a, 3)
	b.run(time.Minute)
	b.want(t, "b 1", "b 2", "b ended")
	if len(b.open) != 0 {
		t.Errorf("%d streams are left open", len(b.open))
	}
}

func TestNetwork_ResetDeliversWhatIsUnderWayLate(t *testing.T) {
	b := newNetBench(t, 1)
	b.Cut("a", "b")
	b.send(t, b.a, 1)
	b.Reset("a", "b")
	b.run(time.Minute)
	b.want(t, "a ended")
	b.Mend("a", "b")
	b.run(time.Minute)
	b.want(t, "b 1", "b ended")
}

func TestNetwork_ForgetLeavesTheOtherEndOpen(t *testing.T) {
	b := newNetBench(t, 1)
	b.Forget("a", "b")
	b.run(time.Minute)
	b.want(t, "a ended")
	b.send(t, b.b, 1)
	b.run(time.Minute)
	b.want(t)
	if !b.b.open {
		t.Error("b noticed")
	}
}

func TestNetwork_Vanish(t *testing.T) {
	for _, machineLives := range []bool{false, true} {
		b := newNetBench(t, 1)
		b.Vanish("b", machineLives)
		b.run(time.Minute)
		if machineLives {
			b.want(t, "a ended")
		} else {
			b.want(t)
		}
		var refused error
		b.Dial("a", "b", func(_ *end, err error) { refused = err })
		b.run(time.Minute)
		if refused == nil || !strings.Contains(refused.Error(), "refused") {
			t.Errorf("a dial of a dead node ends in %v", refused)
		}
	}
}

func TestNetwork_DialOverACutTakesItsTime(t *testing.T) {
	b := newNetBench(t, 1)
	b.Cut("b", "a")
	start := b.agenda.now
	var at time.Duration
	b.Dial("a", "b", func(_ *end, err error) {
		if err == nil {
			t.Error("a dial crossed a cut")
		}
		at = b.agenda.now
	})
	b.run(time.Minute)
	if at-start != dialPatience {
		t.Errorf("given up after %v, want %v", at-start, dialPatience)
	}
}
