package processtest

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestPace: edits and kills come out as many as asked for, no kill before its
// edits and no edits far before their kills, whoever is quicker.
func TestPace(t *testing.T) {
	for _, c := range []struct{ kills, edits, want int }{{1, 1, 1}, {3, 100, 102}, {40, 1000, 1000}, {100, 5000, 5000}} {
		p := NewPace(c.kills, c.edits)
		var kills, killed, edits atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for p.TakeEdit(t.Context()) {
					if n, most := int(edits.Add(1)), (int(killed.Load())+ahead)*p.each; n > most {
						t.Errorf("edit %d began, at most %d may have", n, most)
					}
					p.Acked()
				}
			})
		}
		for range 4 {
			wg.Go(func() {
				for p.TakeKill(t.Context()) {
					if n, acked := int(kills.Add(1)), p.Edits(); acked < n*p.each {
						t.Errorf("kill %d came after %d edits, not %d", n, acked, n*p.each)
					}
					killed.Add(1)
					p.Killed()
				}
			})
		}
		wg.Wait()
		if int(kills.Load()) != c.kills || int(edits.Load()) != c.want || p.Edits() != c.want {
			t.Errorf("%d kills and %d edits, %d acknowledged, not %d and %d", kills.Load(), edits.Load(), p.Edits(), c.kills, c.want)
		}
	}
}
