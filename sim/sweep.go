package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Sweep is what came of a row of seeds.
type Sweep struct {
	First   uint64
	Seeds   int
	Edits   int // asked for
	Acked   int
	Frames  int
	Virtual time.Duration
	Wall    time.Duration
	Counts  map[string]int // what happened, by kind
	Hash    string         // SHA-256 of the traces' hashes, in the order of the seeds
	Failed  []*Result      // by seed
}

// Sweep plays the seeds from first on, as many at once as there are processors:
// each world has a goroutine to itself.
func (t *Template) Sweep(first uint64, seeds int, size Size, o Options) (*Sweep, error) {
	start := time.Now()
	results, errs := make([]*Result, seeds), make([]error, seeds)
	next := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				results[i], errs[i] = t.Play(Generate(first+uint64(i), size), o)
				if r := results[i]; r != nil && r.Err == nil {
					r.History = nil // it is large, and nothing is wrong with it
				}
			}
		})
	}
	for i := range seeds {
		next <- i
	}
	close(next)
	wg.Wait()
	s := &Sweep{First: first, Seeds: seeds, Counts: map[string]int{}}
	h := sha256.New()
	for i, r := range results {
		if errs[i] != nil {
			return nil, fmt.Errorf("seed %d: %w", first+uint64(i), errs[i])
		}
		s.add(r)
		h.Write([]byte(r.Hash))
	}
	s.Hash, s.Wall = hex.EncodeToString(h.Sum(nil)), time.Since(start)
	return s, nil
}

func (s *Sweep) add(r *Result) {
	s.Edits += r.Script.Edits()
	s.Acked += r.Acked
	s.Frames += r.Frames
	s.Virtual += r.Virtual
	for k, n := range r.Counts {
		s.Counts[k] += n
	}
	if r.Err != nil {
		s.Failed = append(s.Failed, r)
	}
}

// String writes the sweep for people.
func (s *Sweep) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seeds %d to %d: %d edits asked for, %d acknowledged, %d frames, %v of virtual time in %v\n",
		s.First, s.First+uint64(s.Seeds)-1, s.Edits, s.Acked, s.Frames, s.Virtual.Round(time.Second), s.Wall.Round(time.Millisecond))
	groups := map[string][]string{}
	for _, k := range slices.Sorted(maps.Keys(s.Counts)) {
		group, name := "other", k
		for _, prefix := range []string{"fault ", "edit ", "look ", "error ", "death "} {
			if rest, ok := strings.CutPrefix(k, prefix); ok {
				group, name = prefix, rest
			}
		}
		groups[strings.TrimSpace(group)] = append(groups[strings.TrimSpace(group)], fmt.Sprintf("%s %d", name, s.Counts[k]))
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		fmt.Fprintf(&b, "%s: %s\n", g, strings.Join(groups[g], ", "))
	}
	fmt.Fprintf(&b, "failed: %d\nhash of all traces: %s\n", len(s.Failed), s.Hash)
	return b.String()
}
