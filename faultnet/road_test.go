package faultnet

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

var epoch = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// TestRoad_Bucket: what a line carries after n bytes is never more than its
// burst and its rate allow, and never less than it could.
func TestRoad_Bucket(t *testing.T) {
	r := newRoad(1, 0, up)
	l := Line{Rate: 1000, Burst: 500}
	for i, c := range []struct {
		sent, n int // at ms, bytes
		want    int // arrival, ms
	}{
		{0, 500, 0},     // the burst
		{0, 100, 100},   // then at the rate
		{50, 100, 200},  // behind what is still on the line
		{200, 100, 300}, // an empty bucket again
		{700, 300, 700}, // refilled by 400
		{700, 200, 800},
		{60_000, 600, 60_100}, // a pause refills the burst and no more
	} {
		if got := int(r.carry(epoch.Add(time.Duration(c.sent)*ms), l, c.n).Sub(epoch) / ms); got != c.want {
			t.Errorf("step %d: %d bytes at %d ms arrive at %d ms, want %d", i, c.n, c.sent, got, c.want)
		}
	}
}

func TestRoad_KeepsOrderOfAStream(t *testing.T) {
	r := newRoad(7, 3, down)
	l := Line{Delay: 10 * ms, Jitter: 50 * ms, Loss: 0.2}
	last, late, lost := epoch, time.Duration(0), 0
	for i := range 2000 {
		now := epoch.Add(time.Duration(i) * ms)
		at, n := r.segments(now, l, 3000)
		if at.Before(last) || at.Sub(now) < l.Delay {
			t.Fatalf("piece %d arrives at %v, the one before at %v", i, at.Sub(now), last.Sub(now))
		}
		last, late, lost = at, max(late, at.Sub(now)), lost+n
	}
	// 2000 pieces of 3 segments, of which a fifth is lost, and a fifth of the retransmissions.
	if lost < 1200 || lost > 1800 {
		t.Errorf("%d segments lost, want about 1500", lost)
	}
	if late < defaultRTO {
		t.Errorf("the longest stall was %v, less than one timeout", late)
	}
}

func TestRoad_RetransmissionTimeoutDoubles(t *testing.T) {
	r := newRoad(1, 0, up)
	stall, lost := r.stall(Line{Loss: 1, RTO: ms}, 1)
	if stall != 255*ms || lost != maxRetries {
		t.Errorf("a segment lost %d times stalls for %v, want 1+2+4+…+128 ms for %d", lost, stall, maxRetries)
	}
}

func TestRoad_SharesOfDatagrams(t *testing.T) {
	r := newRoad(1, 0, up)
	l := Line{Loss: 0.3, Duplicate: 0.2, Reorder: 0.1, ReorderBy: time.Second}
	const n = 10_000
	var lost, twice, late int
	for range n {
		f := r.datagram(epoch, l, 100)
		switch len(f.arrivals) {
		case 0:
			lost++
			continue
		case 2:
			twice++
		}
		if f.reordered != f.arrivals[0].Equal(epoch.Add(time.Second)) {
			t.Fatalf("reordered %v, but arrives at %v", f.reordered, f.arrivals[0].Sub(epoch))
		}
		if f.reordered {
			late++
		}
	}
	for name, c := range map[string]struct{ got, want int }{"lost": {lost, 3000}, "twice": {twice, 1400}, "late": {late, 700}} {
		if c.got < c.want*9/10 || c.got > c.want*11/10 {
			t.Errorf("%s: %d of %d, want about %d", name, c.got, n, c.want)
		}
	}
}

// TestRoad_Seed: equal seeds draw equal faults; another seed, connection or
// direction draws others.
func TestRoad_Seed(t *testing.T) {
	draw := func(r road) (all []time.Time) {
		for range 50 {
			at, _ := r.segments(epoch, Line{Jitter: time.Hour}, 1)
			all = append(all, at)
		}
		return all
	}
	want := draw(newRoad(1, 1, up))
	if !slices.Equal(draw(newRoad(1, 1, up)), want) {
		t.Error("one seed drew twice differently")
	}
	for name, r := range map[string]road{"seed": newRoad(2, 1, up), "connection": newRoad(1, 2, up), "direction": newRoad(1, 1, down)} {
		if slices.Equal(draw(r), want) {
			t.Errorf("another %s drew the same", name)
		}
	}
}
