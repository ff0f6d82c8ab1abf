package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Options say how much is measured.
type options struct {
	only     *regexp.Regexp // operations to measure
	profiles string         // directory for CPU profiles of ours; "" none
	rounds   int            // of each race
	slice    time.Duration  // how long one engine runs in a round
	scale    float64        // of the data set; 1 is 20,000 accounts
	accounts int            // of the list over many accounts
	node     int            // records of the node that is bootstrapped and restarted
	backlog  int            // edits of the branch that comes back
	rtts     []time.Duration
	edits    int           // timed one by one over the WAN and on the wire
	idle     time.Duration // how long an idle link is watched
	pause    time.Duration // after an edit, for the wire to fall silent
	restarts int
}

func full() options {
	return options{rounds: 3, slice: 700 * time.Millisecond, scale: 1, accounts: 100_000, node: 500_000, backlog: 100_000,
		rtts: []time.Duration{80 * time.Millisecond, 200 * time.Millisecond}, edits: 20, idle: 30 * time.Second, pause: 60 * time.Millisecond, restarts: 3}
}

func smoke() options {
	return options{rounds: 1, slice: 30 * time.Millisecond, scale: 0.01, accounts: 1000, node: 3000, backlog: 300,
		rtts: []time.Duration{20 * time.Millisecond}, edits: 2, idle: 100 * time.Millisecond, pause: 20 * time.Millisecond, restarts: 1}
}

// A bench is one run.
type bench struct {
	options
	dir     string // of everything written
	machine []string
	notes   []string
	rows    []row
}

// A section measures some operations, if any of them is wanted.
type section struct {
	operations []string
	measure    func(*bench, context.Context) error
}

func run(ctx context.Context, o options) (_ *bench, err error) {
	b := &bench{options: o}
	if b.only == nil {
		b.only = regexp.MustCompile("")
	}
	if b.dir, err = os.MkdirTemp("", "tradepost-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o711); err != nil { // PostgreSQL's own user looks for its directory in here
		return nil, err
	}
	if b.machine, err = describeMachine(b.dir); err != nil {
		return nil, err
	}
	for _, line := range b.machine {
		fmt.Println(line)
	}
	for _, s := range []section{onDisk, decided, distance, branch, catchUp, mending} {
		if !b.wantsAny(s.operations) {
			continue
		}
		if err := s.measure(b, ctx); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) wants(operation string) bool { return b.only.MatchString(operation) }

func (b *bench) wantsAny(operations []string) bool {
	for _, op := range operations {
		if b.wants(op) {
			return true
		}
	}
	return false
}

// subdir makes a directory of the run.
func (b *bench) subdir(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}

func (b *bench) add(r row) {
	b.rows = append(b.rows, r)
	fmt.Println(r)
}

// note keeps a remark for the end of the table.
func (b *bench) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	b.notes = append(b.notes, line)
	fmt.Println(line)
}
