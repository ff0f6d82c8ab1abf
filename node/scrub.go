package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/store"
)

const (
	// scrubBudget is how many entries a step verifies, in about a millisecond.
	scrubBudget = 1000
	// entrySize is about how many bytes of a file an entry takes, for the first
	// round's guess at how many steps it will have.
	entrySize = 128
	// busyCommits is how many commits a second are a load under which a step is put
	// off, and scrubPatience for how long at most.
	busyCommits   = 50
	scrubPatience = time.Hour
	// noteEvery is the time after which the place in the round is noted.
	noteEvery = 5 * time.Minute
)

// A scrubber verifies one file, round after round, in small steps spread over the
// time of a round, so that damage is found before somebody needs what is damaged.
type scrubber struct {
	name  string
	step  func(ctx context.Context, from []byte, budget int) (next []byte, found int, err error)
	stats func() store.Stats // of the file
	every time.Duration      // of a round
	rate  int64              // bytes a second at most
	place string             // file that keeps the place in a round over a restart
	log   *slog.Logger
	ended prometheus.Gauge // when the last round ended
}

// run scrubs until ctx ends. A step that fails is tried again in its turn.
func (s *scrubber) run(ctx context.Context) error {
	at, err := os.ReadFile(s.place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the scrub begins anew", "file", s.name, "error", err)
	}
	noted, found, steps, taken := time.Now(), 0, 0, 0
	whole := len(at) == 0 // this round is seen from its beginning
	for s.wait(ctx, s.pause(steps)) {
		next, n, err := s.step(ctx, at, scrubBudget)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("a step of the scrub failed", "file", s.name, "error", err)
			}
			continue
		}
		at, found, taken = next, found+n, taken+1
		if len(at) == 0 {
			if whole {
				steps = taken
			}
			s.ended.Set(float64(time.Now().Unix()))
			s.log.Info("the scrub has read the whole file", "file", s.name, "findings", found, "steps", taken)
			found, taken, whole = 0, 0, true
		}
		if len(at) == 0 || time.Since(noted) > noteEvery {
			noted = time.Now()
			s.note(at)
		}
	}
	s.note(at)
	return nil
}

// pause is the time between two steps of a round of so many; 0: it is not known
// how many.
func (s *scrubber) pause(steps int) time.Duration {
	size := s.stats().Bytes
	if steps == 0 {
		steps = int(size / (scrubBudget * entrySize))
	}
	steps = max(steps, 1)
	return max(s.every/time.Duration(steps), time.Duration(float64(size)/float64(steps)/float64(s.rate)*float64(time.Second)))
}

// wait waits for the pause to end, and then for the load to, but not for ever. It
// returns false when ctx ends.
func (s *scrubber) wait(ctx context.Context, pause time.Duration) bool {
	const look = time.Second
	begun := time.Now()
	if !sleep(ctx, pause-look) {
		return false
	}
	for {
		before := s.stats().Commits
		if !sleep(ctx, look) {
			return false
		}
		if s.stats().Commits-before < busyCommits || time.Since(begun) > pause+scrubPatience {
			return true
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// note keeps the place. Losing it costs time only.
func (s *scrubber) note(at []byte) {
	err := os.WriteFile(s.place, at, 0o600)
	if len(at) == 0 {
		err = os.Remove(s.place)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the place of the scrub could not be noted", "file", s.name, "error", err)
	}
}

// scrubbers returns the loops that scrub the node's files; none if that is off.
func (n *Node) scrubbers() (loops []func(context.Context) error) {
	if n.set.Scrub.Every == 0 {
		return nil
	}
	ended := scrubEnded()
	n.registry.MustRegister(ended)
	add := func(name string, step func(context.Context, []byte, int) ([]byte, int, error), stats func() store.Stats) {
		s := &scrubber{name: name, step: step, stats: stats, every: n.set.Scrub.Every, rate: int64(n.set.Scrub.MBPerSecond) << 20,
			place: n.set.path(name + ".scrub"), log: n.log(), ended: ended.WithLabelValues(name)}
		loops = append(loops, s.run)
	}
	if n.master != nil {
		add("master", n.master.Scrub, n.master.FileStats)
		return loops
	}
	add("journal", n.replica.ScrubJournal, func() store.Stats { journal, _ := n.replica.FileStats(); return journal })
	add("base", n.replica.ScrubBase, func() store.Stats { _, base := n.replica.FileStats(); return base })
	return loops
}

func scrubEnded() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tradepost", Name: "scrub_round_timestamp_seconds", Help: "When the scrub had last read the whole file, Unix time; 0 before that."}, []string{"db"})
}
