package wansim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// defaultLocalRTT is the round trip within a site where none was measured.
const defaultLocalRTT = 300 * time.Microsecond

// A Site is a place of a Matrix.
type Site struct {
	Name     string  // unique in its matrix, whatever the case
	City     string  // as people write it; the name where nothing else is known
	Country  string  // ISO 3166 alpha-2; empty if unknown
	Lat, Lon float64 // degrees; both 0 if unknown
}

// A Matrix holds the round trips between sites. Each direction has its own, as
// measured from its first site; within a site too there is one. A Matrix does not
// change; names are found whatever their case and spaces.
type Matrix struct {
	Sites []Site
	rtt   [][]time.Duration // by index in Sites, from and to
}

// Uniform returns a matrix in which any two of the named sites, which must
// differ, are rtt apart, and a site's hosts 0.3 ms or rtt, whichever is less.
func Uniform(rtt time.Duration, names ...string) *Matrix {
	m := &Matrix{}
	for i, name := range names {
		m.Sites = append(m.Sites, Site{Name: name, City: name})
		row := slices.Repeat([]time.Duration{rtt}, len(names))
		row[i] = min(rtt, defaultLocalRTT)
		m.rtt = append(m.rtt, row)
	}
	return m
}

// RTT returns the round trip that a measures to b. It panics if m lacks one of
// them; [Matrix.Find] asks first.
func (m *Matrix) RTT(a, b string) time.Duration {
	i, err := m.find(a)
	if err != nil {
		panic("wansim: " + err.Error())
	}
	j, err := m.find(b)
	if err != nil {
		panic("wansim: " + err.Error())
	}
	return m.rtt[i][j]
}

// Find returns the site called name, or an error that lists names spelled like it.
func (m *Matrix) Find(name string) (Site, error) {
	i, err := m.find(name)
	if err != nil {
		return Site{}, fmt.Errorf("wansim: %w", err)
	}
	return m.Sites[i], nil
}

// Subset returns the matrix of the named sites, in their order. An unknown name
// or one given twice is an error.
func (m *Matrix) Subset(names ...string) (*Matrix, error) {
	var chosen []int
	for _, name := range names {
		i, err := m.find(name)
		if err != nil {
			return nil, fmt.Errorf("wansim: subset: %w", err)
		}
		if slices.Contains(chosen, i) {
			return nil, fmt.Errorf("wansim: subset: site %s is named twice", m.Sites[i].Name)
		}
		chosen = append(chosen, i)
	}
	sub := &Matrix{}
	for _, i := range chosen {
		row := make([]time.Duration, 0, len(chosen))
		for _, j := range chosen {
			row = append(row, m.rtt[i][j])
		}
		sub.Sites = append(sub.Sites, m.Sites[i])
		sub.rtt = append(sub.rtt, row)
	}
	return sub, nil
}

// Region returns the three sites with the least sum of round trips among them, a
// home for three masters, in the order of m; all sites if there are fewer. Of
// equal trios it takes the first.
func (m *Matrix) Region() []string {
	best := []int{0, 1, 2}
	if len(m.Sites) <= len(best) {
		return m.names(best[:len(m.Sites)])
	}
	least := time.Duration(-1)
	for i := range m.Sites {
		for j := i + 1; j < len(m.Sites); j++ {
			for k := j + 1; k < len(m.Sites); k++ {
				sum := m.round(i, j) + m.round(j, k) + m.round(i, k)
				if least < 0 || sum < least {
					least, best = sum, []int{i, j, k}
				}
			}
		}
	}
	return m.names(best)
}

// Spread returns n sites far from each other and from [Matrix.Region], for
// branches: each is the one whose nearest site chosen before, the region's first
// included, is farthest by round trip. The other sites of the region come only
// when nothing else is left; its first comes last. Ties go to the earlier site of
// m. If n is more than there are sites, all are returned.
func (m *Matrix) Spread(n int) []string {
	var region []int
	for _, name := range m.Region() {
		i, _ := m.find(name)
		region = append(region, i)
	}
	var chosen []int
	for len(chosen) < min(n, len(m.Sites)) {
		next := m.farthest(append(region[:1:1], chosen...), append(region, chosen...))
		if next < 0 {
			next = m.farthest(append(region[:1:1], chosen...), append(region[:1:1], chosen...))
		}
		if next < 0 {
			next = region[0]
		}
		chosen = append(chosen, next)
	}
	return m.names(chosen)
}

// farthest returns the site, none of skip, whose nearest of from is farthest, or
// -1 if skip holds all.
func (m *Matrix) farthest(from, skip []int) int {
	best, far := -1, time.Duration(-1)
	for i := range m.Sites {
		if slices.Contains(skip, i) {
			continue
		}
		near := m.round(i, from[0])
		for _, j := range from[1:] {
			near = min(near, m.round(i, j))
		}
		if near > far {
			best, far = i, near
		}
	}
	return best
}

// round is what a packet there and back takes: half of each direction's figure.
func (m *Matrix) round(i, j int) time.Duration { return m.rtt[i][j]/2 + m.rtt[j][i]/2 }

func (m *Matrix) names(indexes []int) []string {
	names := make([]string, 0, len(indexes))
	for _, i := range indexes {
		names = append(names, m.Sites[i].Name)
	}
	return names
}

func (m *Matrix) find(name string) (int, error) {
	folded := fold(name)
	for i, s := range m.Sites {
		if fold(s.Name) == folded || fold(s.City) == folded {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no site %q; names like it: %s", name, strings.Join(m.similar(folded), ", "))
}

// similar returns up to three names, the most alike first.
func (m *Matrix) similar(folded string) []string {
	names := m.names(indexes(len(m.Sites)))
	slices.SortStableFunc(names, func(a, b string) int {
		return edits(fold(a), folded) - edits(fold(b), folded)
	})
	return names[:min(3, len(names))]
}

func indexes(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func fold(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, " ", ""))
}

// edits counts the letters to insert, delete or replace to make b of a (Levenshtein).
func edits(a, b string) int {
	row := indexes(len(b) + 1)
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
