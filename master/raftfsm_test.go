package master

import (
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// TestRest: a slow disk does not hold up people at work longer than CommitEvery,
// and a flood no longer than maxRest.
func TestRest(t *testing.T) {
	f := &fsm{every: 20 * time.Millisecond}
	for _, c := range []struct {
		took    time.Duration
		decided crm.Rev
		want    time.Duration
	}{
		{time.Millisecond, 1, 4 * time.Millisecond},
		{50 * time.Millisecond, flood - 1, 20 * time.Millisecond},
		{50 * time.Millisecond, flood, 200 * time.Millisecond},
		{time.Second, flood, maxRest},
	} {
		if got := f.rest(c.took, c.decided); got != c.want {
			t.Errorf("after %v for %d decisions it rests %v, want %v", c.took, c.decided, got, c.want)
		}
	}
}
