package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"
)

// A side is one engine in a race. run does one operation for client n, which
// counts from 0; calls of different clients are concurrent.
type side struct {
	name string
	run  func(ctx context.Context, n int) error
}

// The names of sides.
const (
	ours     = "ours"
	sqliteDB = "SQLite"
	postgres = "PostgreSQL"
	bare     = "bare handler"
)

// A figure is what one side did.
type figure struct {
	rate     float64 // operations a second, all clients together
	p50, p99 time.Duration
}

func (f figure) String() string {
	return fmt.Sprintf("%s/s, %s / %s", grouped(f.rate), span(f.p50), span(f.p99))
}

// A result is the outcome of a race.
type result struct {
	figures map[string]figure // medians over rounds
	ratio   float64           // median over rounds of our rate to the best other one; 0: there was none
}

// race lets the sides, of which ours is one, take turns for some rounds.
func (b *bench) race(ctx context.Context, operation string, clients int, sides ...side) (result, error) {
	for _, s := range sides { // caches, plans and connections
		if _, err := loop(ctx, s, clients, b.slice/4); err != nil {
			return result{}, fmt.Errorf("%s: %s: %w", operation, s.name, err)
		}
	}
	rounds := map[string][]figure{}
	var ratios []float64
	for n := range b.rounds {
		best := 0.0
		for _, s := range sides {
			stop := func() error { return nil }
			if s.name == ours && n == 0 {
				var err error
				if stop, err = b.profile(fmt.Sprintf("%s %d", operation, clients)); err != nil {
					return result{}, err
				}
			}
			f, err := loop(ctx, s, clients, b.slice)
			if err := errors.Join(err, stop()); err != nil {
				return result{}, fmt.Errorf("%s: %s: %w", operation, s.name, err)
			}
			rounds[s.name] = append(rounds[s.name], f)
			if s.name != ours {
				best = max(best, f.rate)
			}
		}
		if best > 0 {
			ratios = append(ratios, rounds[ours][n].rate/best)
		}
	}
	r := result{figures: map[string]figure{}}
	for name, list := range rounds {
		r.figures[name] = medianFigure(list)
	}
	if len(ratios) > 0 {
		r.ratio = median(ratios)
	}
	return r, nil
}

// loop runs a side with clients that each begin an operation when the one
// before has ended.
func loop(ctx context.Context, s side, clients int, d time.Duration) (figure, error) {
	runtime.GC()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([][]time.Duration, clients)
	start := time.Now()
	var wg sync.WaitGroup
	for n := range clients {
		times[n] = make([]time.Duration, 0, 1<<14)
		wg.Go(func() {
			for last := start; last.Sub(start) < d && ctx.Err() == nil; {
				if err := s.run(ctx, n); err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				times[n] = append(times[n], now.Sub(last))
				last = now
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return figure{}, err
	}
	took := time.Since(start)
	all := slices.Concat(times...)
	return figureOf(all, float64(len(all))/took.Seconds()), nil
}

func figureOf(times []time.Duration, rate float64) figure {
	slices.Sort(times)
	return figure{rate: rate, p50: times[len(times)/2], p99: times[len(times)*99/100]}
}

func medianFigure(list []figure) figure {
	var f figure
	f.rate = median(each(list, func(f figure) float64 { return f.rate }))
	f.p50 = median(each(list, func(f figure) time.Duration { return f.p50 }))
	f.p99 = median(each(list, func(f figure) time.Duration { return f.p99 }))
	return f
}

func each[T, V any](list []T, of func(T) V) []V {
	out := make([]V, 0, len(list))
	for _, v := range list {
		out = append(out, of(v))
	}
	return out
}

// median returns the upper median of a list that is not empty.
func median[V float64 | time.Duration](list []V) V {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// profile takes a CPU profile until stop, if asked for profiles.
func (b *bench) profile(name string) (stop func() error, err error) {
	if b.profiles == "" {
		return func() error { return nil }, nil
	}
	return profileTo(filepath.Join(b.profiles, notName.ReplaceAllString(strings.ToLower(name), "-")+".prof"))
}

// profileTo writes a CPU profile to a file until stop.
func profileTo(path string) (stop func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}

// A budget is what DESIGN.md §9 asks of an operation.
type budget struct {
	text string
	met  func(result) bool
}

// within asks for a p50 of at most d.
func within(d time.Duration) budget {
	return budget{"p50 ≤ " + span(d), func(r result) bool { return r.figures[ours].p50 <= d }}
}

// contest runs a race and adds its row.
func (b *bench) contest(ctx context.Context, operation string, clients int, want budget, sides ...side) error {
	if !b.wants(operation) {
		return nil
	}
	r, err := b.race(ctx, operation, clients, sides...)
	if err != nil {
		return err
	}
	out := row{operation: operation, clients: clients, budget: want.text, met: want.met != nil && want.met(r)}
	for name, f := range r.figures {
		switch name {
		case ours:
			out.ours = f.String()
		case sqliteDB:
			out.sqlite = f.String()
		case postgres:
			out.postgres = f.String()
		case bare:
			out.sqlite = "(bare handler) " + f.String()
		}
	}
	if r.ratio > 0 {
		out.ratio = digits(r.ratio)
	}
	b.add(out)
	return nil
}
