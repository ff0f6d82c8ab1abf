package syncproto

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

func TestClock_Ticks(t *testing.T) {
	wall := time.UnixMilli(1_000_000)
	c := &Clock{Now: func() time.Time { return wall }}
	want := func(step string, want crm.HLC) {
		t.Helper()
		if got := c.Tick(); got != want {
			t.Errorf("%s: %d+%d, want %d+%d", step, got.Millis(), got&0xffff, want.Millis(), want&0xffff)
		}
	}
	want("first", crm.NewHLC(1_000_000))
	want("same instant", crm.NewHLC(1_000_000)+1)
	wall = wall.Add(5 * time.Millisecond)
	want("later", crm.NewHLC(1_000_005))
	wall = wall.Add(-time.Hour)
	want("set back", crm.NewHLC(1_000_005)+1)
	wall = time.UnixMilli(-1)
	want("before 1970", crm.NewHLC(1_000_005)+2)
	c.Observe(crm.NewHLC(1_000_900))
	want("observed far ahead of a clock before 1970", crm.NewHLC(1_000_005)+3)
	wall = time.UnixMilli(1_000_005)

	c.Observe(crm.NewHLC(1_000_005 + 400))
	want("observed", crm.NewHLC(1_000_405)+1)
	c.Observe(crm.NewHLC(3))
	want("observed the past", crm.NewHLC(1_000_405)+2)
	c.Observe(crm.NewHLC(1_000_005 + 501))
	want("observed beyond the drift", crm.NewHLC(1_000_405)+3)
	c.Observe(math.MaxUint64)
	want("observed nonsense", crm.NewHLC(1_000_405)+4)
	c.Restore(crm.NewHLC(2_000_000))
	want("restored", crm.NewHLC(2_000_000)+1)
	c.Restore(1)
	want("restored less", crm.NewHLC(2_000_000)+2)
}

func TestClock_ConcurrentTicksDiffer(t *testing.T) {
	c := &Clock{Now: func() time.Time { return time.UnixMilli(7) }}
	readings := make([][]crm.HLC, 4)
	var wg sync.WaitGroup
	for i := range readings {
		wg.Go(func() {
			for range 500 {
				readings[i] = append(readings[i], c.Tick())
				c.Observe(crm.NewHLC(6))
			}
		})
	}
	wg.Wait()
	seen := map[crm.HLC]bool{}
	for _, list := range readings {
		for _, h := range list {
			if seen[h] {
				t.Fatalf("%d was given twice", h)
			}
			seen[h] = true
		}
	}
}

func TestOffset(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name           string
		t1, t2, t3, t4 int64
		offset, rtt    time.Duration
	}{
		{"equal clocks", 100, 140, 150, 190, 0, 80 * ms},
		{"answerer ahead", 100, 1140, 1150, 190, 1000 * ms, 80 * ms},
		{"answerer behind", 5000, 40, 50, 5090, -5000 * ms, 80 * ms},
		{"one way only", 100, 180, 180, 180, 40 * ms, 80 * ms},
		{"clock set back", 100, 140, 900, 190, 375 * ms, 0},
		{"nonsense", 0, maxMillis, maxMillis, 0, (1 << 43) * ms, 0},
	}
	for _, tt := range tests {
		if offset, rtt := Offset(tt.t1, tt.t2, tt.t3, tt.t4); offset != tt.offset || rtt != tt.rtt {
			t.Errorf("%s: offset %v, rtt %v, want %v, %v", tt.name, offset, rtt, tt.offset, tt.rtt)
		}
	}
}
