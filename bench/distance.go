package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/wansim"
)

const (
	opVisible    = "edit visible at another branch"
	opEverywhere = "edit saved everywhere, as its author sees it"
)

// distance measures edits between two branches that are equally far from the
// masters and from each other, over the simulated WAN in real time.
var distance = section{operations: []string{opVisible, opEverywhere}, measure: (*bench).measureDistance}

func (b *bench) measureDistance(ctx context.Context) error {
	for _, rtt := range b.rtts {
		if err := b.measureRTT(ctx, rtt); err != nil {
			return fmt.Errorf("%v away: %w", rtt, err)
		}
	}
	return nil
}

// farMatrix puts three masters 1 ms from each other, and two branches rtt from
// everybody.
func farMatrix(rtt time.Duration) (*wansim.Matrix, error) {
	text := "from,to,rtt_ms\nm1,m2,1\nm1,m3,1\nm2,m3,1\n"
	ms := float64(rtt) / 1e6
	for _, far := range []string{"m1,a", "m2,a", "m3,a", "m1,b", "m2,b", "m3,b", "a,b"} {
		text += fmt.Sprintf("%s,%g\n", far, ms)
	}
	return wansim.ParseMatrix(strings.NewReader(text), "bench")
}

func (b *bench) measureRTT(ctx context.Context, rtt time.Duration) (err error) {
	m, err := farMatrix(rtt)
	if err != nil {
		return err
	}
	dir, err := b.subdir("distance-" + rtt.String())
	if err != nil {
		return err
	}
	c := &cluster{dir: dir, wan: wansim.New(wansim.Config{Matrix: m})}
	defer func() { err = errors.Join(err, c.close()) }()
	from, to, err := c.twoBranches(ctx)
	if err != nil {
		return err
	}
	var visible, everywhere []time.Duration
	for range b.edits {
		v, e, err := follow(ctx, from, to)
		if err != nil {
			return err
		}
		visible, everywhere = append(visible, v), append(everywhere, e)
	}
	for _, r := range []struct {
		operation string
		times     []time.Duration
		budget    time.Duration
	}{{opVisible, visible, 2*rtt + 20*time.Millisecond}, {opEverywhere, everywhere, 0}} {
		slices.Sort(r.times)
		p50 := r.times[len(r.times)/2]
		out := row{operation: fmt.Sprintf("%s, round trip %v", r.operation, rtt), clients: 1,
			ours: fmt.Sprintf("p50 %s, worst of %d %s", span(p50), len(r.times), span(r.times[len(r.times)-1]))}
		if r.budget > 0 {
			out.budget, out.met = "p50 ≤ "+span(r.budget), p50 <= r.budget
		}
		b.add(out)
	}
	return nil
}

// twoBranches begins a cluster with a few records and a branch in each of two
// far cities.
func (c *cluster) twoBranches(ctx context.Context) (from, to *replica.Replica, err error) {
	if err := c.masters(ctx, 3, func(n int) *wansim.Host { name := fmt.Sprintf("m%d", n+1); return c.wan.Host(name, name) }); err != nil {
		return nil, nil, err
	}
	leader, err := c.leader(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := c.territories(ctx); err != nil {
		return nil, nil, err
	}
	if _, err := fill(ctx, leader, fewData().few(false)); err != nil {
		return nil, nil, err
	}
	var both []*replica.Replica
	for _, name := range []string{"near", "opposite"} {
		if err := c.site(ctx, name); err != nil {
			return nil, nil, err
		}
		r, err := c.branch(ctx, name, c.wan.Host(map[string]string{"near": "a", "opposite": "b"}[name], name))
		if err != nil {
			return nil, nil, err
		}
		both = append(both, r)
	}
	return both[0], both[1], nil
}

// follow makes an edit and returns how long after its acknowledgement it could
// be read at the other branch, and how long after it its author knew that it
// was decided.
func follow(ctx context.Context, from, to *replica.Replica) (visible, everywhere time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	changes := to.Subscribe(ctx)
	req := newActivity(1, body120)
	receipt, err := from.Commit(ctx, req)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	decided := make(chan error, 1)
	go func() {
		_, err := from.Await(ctx, receipt.Seq)
		everywhere = time.Since(began)
		decided <- err
	}()
	err = seen(changes, req.Ops[0].Record)
	visible = time.Since(began)
	return visible, everywhere, errors.Join(err, <-decided)
}

// seen waits for a change of the record.
func seen(changes <-chan crm.Change, id crm.RecordID) error {
	for c := range changes {
		if c.Record == id {
			return nil
		}
	}
	return errors.New("the change was not seen at the other branch")
}
