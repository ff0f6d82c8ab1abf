package wansim

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxSites = 1000
	maxRTT   = 10 * time.Minute
	unknown  = time.Duration(-1) // not measured
)

// ParseMatrix reads round trips in milliseconds from CSV of one of two shapes:
//
//	region,oslo,pune       from,to,rtt_ms
//	oslo,0.3,141.5         oslo,pune,141.5
//	pune,140.9,0.2         pune,oslo,140.9
//
// Rows are where the ping started. An empty cell or a missing line is a pair not
// measured: it takes the figure of the other direction, and 0.3 ms within a site.
// A pair measured in neither direction is an error that names it. Lines that
// begin with # are comments.
//
// name, usually the file's, begins every error, followed by line and column where
// there is one. Matrices of more than 1000 sites and round trips over 10 minutes
// are refused.
func ParseMatrix(r io.Reader, name string) (*Matrix, error) {
	p := &parser{csv: csv.NewReader(r), file: name}
	p.csv.Comment = '#'
	p.csv.FieldsPerRecord = -1
	p.csv.TrimLeadingSpace = true
	m, err := p.matrix()
	if err != nil {
		return nil, fmt.Errorf("wansim: %w", err)
	}
	return m, nil
}

type parser struct {
	csv  *csv.Reader
	file string
	m    Matrix
	seen map[string]int // folded name to index of site
}

// record returns the next record with its fields trimmed, or io.EOF.
func (p *parser) record() ([]string, error) {
	rec, err := p.csv.Read()
	if bad, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, fmt.Errorf("%s:%d:%d: %w", p.file, bad.Line, bad.Column, bad.Err)
	}
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", p.file, err)
	}
	for i := range rec {
		rec[i] = strings.TrimSpace(strings.TrimPrefix(rec[i], "\ufeff"))
	}
	return rec, err
}

// errorf makes an error at field i of the record read last.
func (p *parser) errorf(i int, format string, args ...any) error {
	line, column := p.csv.FieldPos(i)
	return fmt.Errorf("%s:%d:%d: %s", p.file, line, column, fmt.Sprintf(format, args...))
}

func (p *parser) matrix() (*Matrix, error) {
	p.seen = map[string]int{}
	header, err := p.record()
	if err == io.EOF {
		return nil, fmt.Errorf("%s: no header line", p.file)
	}
	if err != nil {
		return nil, err
	}
	read := p.square
	if slices.Equal(header, []string{"from", "to", "rtt_ms"}) {
		read = p.long
	}
	if err := read(header); err != nil {
		return nil, err
	}
	return p.complete()
}

func (p *parser) square(header []string) error {
	for i, name := range header[1:] {
		if _, ok := p.seen[fold(name)]; ok {
			return p.errorf(i+1, "column %q is there twice", name)
		}
		if _, err := p.site(i+1, name); err != nil {
			return err
		}
	}
	rows := map[int]bool{}
	for {
		rec, err := p.record()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.row(rec, len(header), rows); err != nil {
			return err
		}
	}
}

func (p *parser) row(rec []string, width int, rows map[int]bool) error {
	from, ok := p.seen[fold(rec[0])]
	switch {
	case !ok:
		return p.errorf(0, "row %q has no column of that name", rec[0])
	case rows[from]:
		return p.errorf(0, "row %q is there twice", rec[0])
	case len(rec) != width:
		return p.errorf(len(rec)-1, "row %q ends after %d fields, want %d as in the header", rec[0], len(rec), width)
	}
	rows[from] = true
	for to, cell := range rec[1:] {
		rtt, err := p.rtt(to+1, cell)
		if err != nil {
			return err
		}
		p.m.rtt[from][to] = rtt
	}
	return nil
}

func (p *parser) long([]string) error {
	for {
		rec, err := p.record()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.pair(rec); err != nil {
			return err
		}
	}
}

func (p *parser) pair(rec []string) error {
	if len(rec) != 3 {
		return p.errorf(len(rec)-1, "%d fields, want from,to,rtt_ms", len(rec))
	}
	from, err := p.site(0, rec[0])
	if err != nil {
		return err
	}
	to, err := p.site(1, rec[1])
	if err != nil {
		return err
	}
	rtt, err := p.rtt(2, rec[2])
	if err != nil {
		return err
	}
	if p.m.rtt[from][to] != unknown {
		return p.errorf(0, "%s to %s is there twice", rec[0], rec[1])
	}
	p.m.rtt[from][to] = rtt
	return nil
}

// site returns the index of the site that field i names, new or not.
func (p *parser) site(i int, name string) (int, error) {
	if at, ok := p.seen[fold(name)]; ok {
		return at, nil
	}
	if name == "" {
		return 0, p.errorf(i, "a site without a name")
	}
	at := len(p.m.Sites)
	if at == maxSites {
		return 0, p.errorf(i, "more than %d sites", maxSites)
	}
	p.seen[fold(name)] = at
	p.m.Sites = append(p.m.Sites, Site{Name: name, City: name})
	for j := range p.m.rtt {
		p.m.rtt[j] = append(p.m.rtt[j], unknown)
	}
	p.m.rtt = append(p.m.rtt, slices.Repeat([]time.Duration{unknown}, at+1))
	return at, nil
}

// rtt returns the round trip in field i, unknown if the cell is empty.
func (p *parser) rtt(i int, cell string) (time.Duration, error) {
	if cell == "" {
		return unknown, nil
	}
	ms, err := strconv.ParseFloat(cell, 64)
	limit := float64(maxRTT / time.Millisecond)
	switch {
	case err != nil || math.IsNaN(ms):
		return 0, p.errorf(i, "round trip %q is not a number of milliseconds", cell)
	case ms < 0:
		return 0, p.errorf(i, "round trip %q is negative", cell)
	case ms > limit:
		return 0, p.errorf(i, "round trip %q is over %.0f ms", cell, limit)
	}
	return time.Duration(math.Round(ms * float64(time.Millisecond))), nil
}

// complete fills in what was not measured.
func (p *parser) complete() (*Matrix, error) {
	if len(p.m.Sites) == 0 {
		return nil, fmt.Errorf("%s: no sites", p.file)
	}
	for i := range p.m.Sites {
		if p.m.rtt[i][i] == unknown {
			p.m.rtt[i][i] = defaultLocalRTT
		}
		for j := range i {
			there, back := &p.m.rtt[i][j], &p.m.rtt[j][i]
			switch {
			case *there == unknown && *back == unknown:
				return nil, fmt.Errorf("%s: no round trip between %s and %s in either direction", p.file, p.m.Sites[j].Name, p.m.Sites[i].Name)
			case *there == unknown:
				*there = *back
			case *back == unknown:
				*back = *there
			}
		}
	}
	return &p.m, nil
}
