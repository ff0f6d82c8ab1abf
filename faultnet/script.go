package faultnet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Script is what befalls named proxies, and when. Its text has a step a line;
// empty lines and what follows a # do not count:
//
//	at TIME LINK [up|down] FAULT [VALUE] [DURATION]
//
//	at 2s lisbon blackhole 5s     # both ways, for five seconds
//	at 8s lisbon up loss 30%      # until a later step or the end
//	at 9s * delay 80ms 2s         # every link
//	at 12s porto reset            # each connection of now, once
//
// TIME counts from the start of [Script.Run]; times and durations are written as
// for [time.ParseDuration]. These are the faults:
//
//	delay TIME · jitter TIME · rate BYTES (a second) · loss SHARE · reorder TIME · duplicate SHARE
//	cut · blackhole · truncate BYTES · reset · heal
//
// A SHARE is a percentage such as 30%; BYTES may end in kB or MB. "reorder TIME"
// holds back half of the datagrams by TIME. "up" is from those who connect to the
// target, "down" from the target back; without either, both ways are meant.
// "reset" and "heal", which takes back all faults of a link, know no DURATION,
// and "reset" no way. When a DURATION is over, that fault is taken back, whatever
// set it last.
type Script []Step

// A Step is one line of a script.
type Step struct {
	At    time.Duration // since the start
	Link  string        // name of a proxy; "*": all
	Way   string        // "up", "down", "": both
	Fault string        // as listed at Script
	Value string        // as written, "" for faults that take none
	For   time.Duration // 0: until another step
}

// String is the line that parses to s.
func (s Step) String() string {
	words := []string{"at", s.At.String(), s.Link, s.Way, s.Fault, s.Value, ""}
	if s.For > 0 {
		words[6] = s.For.String()
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// String is the text that parses to s.
func (s Script) String() string {
	var b strings.Builder
	for _, step := range s {
		fmt.Fprintln(&b, step)
	}
	return b.String()
}

// Run carries the script out over proxies by their names, and returns after the
// last step and the end of the last duration, or when ctx ends with its error.
// It refuses a script that names an unknown proxy, before the first step. A step
// finds the faults that others set with Spoil and changes only its own.
func (s Script) Run(ctx context.Context, proxies map[string]*Proxy) error {
	for _, step := range s {
		if _, ok := proxies[step.Link]; !ok && step.Link != "*" {
			known := strings.Join(slices.Sorted(maps.Keys(proxies)), ", ")
			return fmt.Errorf("faultnet: script: %q: no link is called %s; use * or one of %s", step, step.Link, known)
		}
	}
	acts, err := s.acts()
	if err != nil {
		return err
	}
	start := time.Now()
	for _, a := range acts {
		if err := sleepUntil(ctx, start.Add(a.at)); err != nil {
			return err
		}
		for name, p := range proxies {
			if a.link == name || a.link == "*" {
				if err := a.do(p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func sleepUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return ctx.Err()
	}
}

// An act is a moment of a script: a fault comes or goes.
type act struct {
	at   time.Duration
	link string
	do   func(*Proxy) error
}

// acts puts what happens in the order of time; at one time, in that of the lines.
func (s Script) acts() ([]act, error) {
	var acts []act
	for _, step := range s {
		kind, change, err := step.change()
		if err != nil {
			return nil, fmt.Errorf("faultnet: script: %w", err)
		}
		acts = append(acts, act{step.At, step.Link, step.apply(change)})
		if step.For > 0 {
			acts = append(acts, act{step.At + step.For, step.Link, step.apply(kind.clear)})
		}
	}
	slices.SortStableFunc(acts, func(a, b act) int { return int(a.at - b.at) })
	return acts, nil
}

// apply makes a change of a line one of a proxy. A nil change is a reset.
func (s Step) apply(change func(*Line)) func(*Proxy) error {
	return func(p *Proxy) error {
		if change == nil {
			p.Reset()
			return nil
		}
		return p.alter(func(f *Faults) {
			if s.Way != "down" {
				change(&f.Up)
			}
			if s.Way != "up" {
				change(&f.Down)
			}
		})
	}
}
