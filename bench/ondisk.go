package main

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
)

// onDisk measures what one branch does on its own, beside the peers.
var onDisk = section{
	operations: []string{opPoint, opPointView, opPointHTTP, opPlace, opSize, opList, opPage, opRevenue, opMonth, opPipeline,
		opRevenueCold, opMonthCold, opPipelineCold, opRevenueChanged, opCommit},
	measure: (*bench).measureOnDisk,
}

// A desk is one branch and the peers over the same data.
type desk struct {
	*bench
	branch *replica.Replica
	peers  map[string]peer
	size   sizes
}

// sizes are how many rows there are to ask for.
type sizes struct{ contacts, orders, big int }

func (b *bench) measureOnDisk(ctx context.Context) (err error) {
	d := makeData(42, b.scale, b.accounts)
	k := &desk{bench: b, size: sizes{contacts: len(d.contacts) - 1, orders: len(d.orders) - 1, big: bigOnes}}
	if k.branch, err = b.makeBranch(d); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.branch.Close()) }()
	peers, closePeers, err := b.peers(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closePeers()) }()
	k.peers = peers
	want := d.answers()
	for _, measure := range []func(context.Context) error{k.points, k.pointOverHTTP, k.lists, k.pages,
		func(ctx context.Context) error { return k.reports(ctx, want) }, k.commits} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// read runs fn over what people see at the branch now.
func (k *desk) read(ctx context.Context, fn func(*store.Reader) error) error {
	_, err := k.branch.Read(ctx, crm.Demand{Level: crm.Local}, fn)
	return err
}

// sides returns ours and a side for each peer.
func (k *desk) sides(mine func(context.Context, int) error, theirs func(ctx context.Context, p peer, client int) error) []side {
	all := []side{{ours, mine}}
	for _, name := range []string{sqliteDB, postgres} {
		if p := k.peers[name]; p != nil {
			all = append(all, side{name, func(ctx context.Context, client int) error { return theirs(ctx, p, client) }})
		}
	}
	return all
}

// big draws one of the accounts with the most records.
func (k *desk) bigAccount() int { return 1 + rand.IntN(k.size.big) }
