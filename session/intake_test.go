package session

import (
	"slices"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// What the leader did not take of a Submission goes up again: then it says itself
// why it is refused, and the replica has heard what is decided.
func TestIntake_GoesOnBehindWhatWasTaken(t *testing.T) {
	i := &intake{srv: New(Config{}), first: 5, rest: [][]byte{{1}, {2}, {3}}, flight: 3}
	for _, c := range []struct {
		last  crm.Seq
		first crm.Seq // of what goes up next
		left  int
	}{{6, 7, 1}, {7, 0, 0}} {
		act, err := i.replied(Reply{Last: c.last}, nil, 0)
		if err != nil || !slices.ContainsFunc(act.Send, func(f syncproto.Frame) bool { p, ok := f.(*syncproto.Pushed); return ok && p.Seq == c.last }) {
			t.Fatalf("taken up to %d: %+v, %v", c.last, act, err)
		}
		switch next := act.Submit; {
		case (next != nil) != (c.left > 0):
			t.Fatalf("taken up to %d, then %+v", c.last, next)
		case next != nil && (next.First != c.first || len(next.Mutations) != c.left):
			t.Fatalf("taken up to %d, then %+v", c.last, next)
		}
	}
}
