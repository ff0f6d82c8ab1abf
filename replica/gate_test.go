package replica

import (
	"errors"
	"testing"

	"github.com/tradepost-crm/tradepost/store"
)

// Nobody begins to read, and no edit is judged, between the two halves of a turn;
// after it, and after one that came to nothing, everybody does. Who reads from
// before a turn on does not hold it up.
func TestGate_IsShutBetweenTheHalves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, newScripted(t), t.TempDir())
		free := func() bool {
			ok := b.gate.opening.TryRLock()
			if ok {
				b.gate.opening.RUnlock()
			}
			return ok
		}
		halves := 0
		turn := func(failing error) error {
			return b.turn(func(tx *store.Tx) error {
				halves++
				if !free() {
					t.Error("shut before anything was decided")
				}
				return failing
			}, func() error {
				halves++
				if free() {
					t.Error("open between the halves")
				}
				return b.journal.Update(func(j *store.JTx) error { return j.SetMeta("test/turn", []byte{1}) })
			})
		}
		lost := errors.New("no")
		if err := turn(lost); !errors.Is(err, lost) || halves != 1 || !free() {
			t.Errorf("a turn that failed: %v, %d halves, open %v", err, halves, free())
		}
		err := b.both(func(*store.JTx, *store.Tx) error { return turn(nil) })
		if err != nil || halves != 3 || !free() {
			t.Errorf("a turn under a reader: %v, %d halves, open %v", err, halves, free())
		}
	})
}
