package main

import (
	"context"
	"errors"
	"math/rand/v2"
)

const opDecided = "decided write of an activity of 250 B through 3 masters, loopback TCP with TLS, raft-wal"

// decided measures edits until the masters have decided them.
var decided = section{operations: []string{opDecided}, measure: (*bench).measureDecided}

func (b *bench) measureDecided(ctx context.Context) (err error) {
	dir, err := b.subdir("decided")
	if err != nil {
		return err
	}
	c := &cluster{dir: dir}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.masters(ctx, 3, local); err != nil {
		return err
	}
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	if _, err := fill(ctx, leader, fewData().few(true)); err != nil {
		return err
	}
	for _, clients := range []int{1, 16, 64} {
		want := budget{}
		if clients == 64 {
			want = budget{"≥ 5,000/s", func(r result) bool { return r.figures[ours].rate >= 5000 }}
		}
		err := b.contest(ctx, opDecided, clients, want, side{ours, func(ctx context.Context, _ int) error {
			_, err := commit(ctx, leader, newActivity(1+rand.IntN(bigOnes), body120))
			return err
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// fewData is the data set cut down to what activities refer to.
func fewData() *data { return makeData(42, 0.0045, 0) }
