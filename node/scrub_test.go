package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/store"
)

// A scrubbed file has ten steps to a round.
type scrubbed struct {
	scrubber
	at      []byte // where each step began
	when    []time.Time
	commits func(time.Time) uint64
}

func newScrubbed(t *testing.T, size int64) *scrubbed {
	f := &scrubbed{commits: func(time.Time) uint64 { return 7 }}
	f.scrubber = scrubber{name: "base", every: 10 * time.Hour, rate: 1 << 20, place: filepath.Join(t.TempDir(), "base.scrub"), log: slog.New(slog.DiscardHandler),
		ended: prometheus.NewGauge(prometheus.GaugeOpts{Name: "test"}),
		stats: func() store.Stats { return store.Stats{Bytes: size, Commits: f.commits(time.Now())} },
		step: func(_ context.Context, from []byte, _ int) ([]byte, int, error) {
			at := byte(0)
			if len(from) > 0 {
				at = from[0]
			}
			f.at, f.when = append(f.at, at), append(f.when, time.Now())
			if at == 9 {
				return nil, 0, nil
			}
			return []byte{at + 1}, 0, nil
		}}
	return f
}

// runFor scrubs for some time of the bubble, and stops.
func (f *scrubbed) runFor(t *testing.T, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := f.run(ctx); err != nil {
		t.Error(err)
	}
}

// A round takes its time, once it is known how many steps it has.
func TestScrub_SpreadsARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScrubbed(t, 20*scrubBudget*entrySize) // guesses 20 steps
		f.runFor(t, 40*time.Hour)
		first, second := f.when[9].Sub(f.when[0]), f.when[19].Sub(f.when[10])
		if first != 9*30*time.Minute || second != 9*time.Hour {
			t.Errorf("nine steps took %v and then %v", first, second)
		}
	})
}

// A large file is read no faster than allowed, however long that takes.
func TestScrub_KeepsToTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScrubbed(t, 100<<30)
		f.runFor(t, 30*24*time.Hour)
		perStep := float64(100<<30) / 10 / float64(1<<20)
		if got := f.when[19].Sub(f.when[18]).Seconds(); got < perStep-1 || got > perStep+1 {
			t.Errorf("a step each %v s, want %v", got, perStep)
		}
	})
}

// A busy node puts a step off, for an hour at most.
func TestScrub_WaitsForTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScrubbed(t, 10*scrubBudget*entrySize)
		begun := time.Now()
		f.commits = func(now time.Time) uint64 {
			if now.Sub(begun) < 90*time.Minute {
				return uint64(now.Sub(begun).Milliseconds()) // a thousand a second
			}
			return 0
		}
		f.runFor(t, 100*time.Hour)
		if got := f.when[0].Sub(begun); got < 90*time.Minute || got > 91*time.Minute {
			t.Errorf("the first step came after %v", got)
		}
		f = newScrubbed(t, 10*scrubBudget*entrySize)
		begun = time.Now()
		f.commits = func(now time.Time) uint64 { return uint64(now.Sub(begun).Milliseconds()) }
		f.runFor(t, 100*time.Hour)
		if got := f.when[0].Sub(begun); got < 2*time.Hour || got > 2*time.Hour+2*time.Second {
			t.Errorf("under load without end the first step came after %v", got)
		}
	})
}

// A node that is switched off every night gets through its files all the same.
func TestScrub_GoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScrubbed(t, 10*scrubBudget*entrySize)
		for range 4 {
			f.runFor(t, 3*time.Hour+time.Minute)
		}
		if want := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1}; !slices.Equal(f.at, want) {
			t.Errorf("steps began at %v, want %v", f.at, want)
		}
	})
}
