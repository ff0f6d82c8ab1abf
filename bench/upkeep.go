package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

const opUpkeep = "digest upkeep meanwhile, share of processor time"

// digestWork is what the store does for digests and would not do without them.
var digestWork = regexp.MustCompile(`/store\.(recordHash|DigestOf|\(\*Tx\)\.(addSum|subtractSum|writeSums|Digest|Buckets))$`)

// upkeepOf is the work that digests are part of.
var upkeepOf = []struct {
	name string
	work *regexp.Regexp
}{
	{"feed applied", regexp.MustCompile(`/replica\.\(\*pull\)\.take$`)},
	{"local writes", regexp.MustCompile(`/replica\.\(\*Replica\)\.write$`)},
	{"decisions", regexp.MustCompile(`/master\.\(\*FSM\)\.(Apply|Flush)$`)},
}

// An upkeep is the share of each work that goes into digests. Waits for the disk
// count as nothing, so the share of the time on the clock is smaller.
type upkeep []share

// A share is counted in samples, of 10 ms each.
type share struct{ digests, all int64 }

func (s share) percent() float64 { return 100 * float64(s.digests) / float64(max(s.all, 1)) }

func (u upkeep) String() string {
	var parts []string
	for n, s := range u {
		parts = append(parts, fmt.Sprintf("%.1f %% of %s (%d samples)", s.percent(), upkeepOf[n].name, s.all))
	}
	return strings.Join(parts, ", ")
}

// within reports whether no share is above a number of percent, and whether
// enough samples of the feed say so.
func (u upkeep) within(percent float64) bool {
	over := func(s share) bool { return s.percent() > percent }
	return u[0].all >= 100 && !slices.ContainsFunc(u, over)
}

// upkeepIn reads a CPU profile.
func upkeepIn(path string) (upkeep, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("read profile %s: %w", path, err)
	}
	var u upkeep
	for _, of := range upkeepOf {
		var sum share
		for _, s := range p.Sample {
			if !in(s, of.work) {
				continue
			}
			sum.all += s.Value[0]
			if in(s, digestWork) {
				sum.digests += s.Value[0]
			}
		}
		u = append(u, sum)
	}
	return u, nil
}

// in reports whether the sample was taken within a function that matches.
func in(s *profile.Sample, function *regexp.Regexp) bool {
	for _, at := range s.Location {
		for _, l := range at.Line {
			if function.MatchString(l.Function.Name) {
				return true
			}
		}
	}
	return false
}
