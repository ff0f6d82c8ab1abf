package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// TestPush_FillsOneEntry: what one push carries goes into one entry of the
// masters' log, and one Mutation more would not.
func TestPush_FillsOneEntry(t *testing.T) {
	r, err := Open(tangleConfig(newTangleFiles(t).dir, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const edits = 700
	for n := range edits {
		op := account(fmt.Sprint("new ", n), text(accDescription, strings.Repeat("x", 600)))
		if _, err := r.Commit(t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: []crm.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	p := push{r: r, next: 1}
	out, err := p.pushes(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	left, next := 0, crm.Seq(1)
	for _, f := range out {
		f := f.(*syncproto.Push)
		if first := len(f.Mutations[0]) + serving.RoomHead; f.First != next || next > 1 && first <= left {
			t.Errorf("push from %d, want %d; its first takes %d bytes and the one before has %d left", f.First, next, first, left)
		}
		left = serving.Room
		for _, m := range f.Mutations {
			left -= len(m) + serving.RoomHead
		}
		if left < 0 {
			t.Errorf("the push from %d takes %d bytes too many for one entry", f.First, -left)
		}
		next += crm.Seq(len(f.Mutations))
	}
	if next != edits+1 {
		t.Errorf("pushed up to %d, want %d", next-1, edits)
	}
}
