package main

import (
	"fmt"
	"os"
	"regexp"
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

// An upkeep is the share of each work that goes into digests, in percent. Waits
// for the disk count as nothing, so the share of the time on the clock is smaller.
type upkeep []float64

func (u upkeep) String() string {
	var parts []string
	for n, share := range u {
		parts = append(parts, fmt.Sprintf("%.1f %% of %s", share, upkeepOf[n].name))
	}
	return strings.Join(parts, ", ")
}

// most returns the largest share.
func (u upkeep) most() (most float64) {
	for _, share := range u {
		most = max(most, share)
	}
	return most
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
		all, digests := 0.0, 0.0
		for _, s := range p.Sample {
			if !in(s, of.work) {
				continue
			}
			all += float64(s.Value[0])
			if in(s, digestWork) {
				digests += float64(s.Value[0])
			}
		}
		u = append(u, 100*digests/max(all, 1))
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
