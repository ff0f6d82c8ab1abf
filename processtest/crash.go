package processtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Crash is a cluster whose processes are killed while clerks edit at every
// node.
type Crash struct {
	Cluster  *Cluster
	Masters  []*Post
	Replicas []*Post
	Figures  *Figures
	Logf     func(format string, args ...any)

	pace   *Pace
	clerks []*Clerk
	before map[*Post]crm.Seq // the node's newest edit before the clerks began
}

// NewCrash returns the posts of a running cluster; nobody works there yet.
func NewCrash(c *Cluster, logf func(string, ...any)) *Crash {
	r := &Crash{Cluster: c, Figures: NewFigures(), Logf: logf, before: map[*Post]crm.Seq{}}
	for _, p := range c.Masters {
		r.Masters = append(r.Masters, newPost(p, true))
	}
	for _, p := range c.Replicas {
		r.Replicas = append(r.Replicas, newPost(p, false))
	}
	return r
}

// Hire puts n clerks to work at a post, for customers of a territory. It is
// called once a post.
func (r *Crash) Hire(ctx context.Context, at *Post, n int, territory string) error {
	client, err := at.clients(n)
	if err != nil {
		return err
	}
	for i := range n {
		c, err := hire(ctx, at, client, fmt.Sprintf("%s-%d", at.Name, i), territory)
		if err != nil {
			return fmt.Errorf("hire a clerk at %s: %w", at.Name, err)
		}
		r.clerks = append(r.clerks, c)
	}
	var s struct{ Seq crm.Seq }
	err = client.Status(ctx, &s)
	r.before[at] = s.Seq
	return err
}

// posts returns all of them.
func (r *Crash) posts() []*Post { return append(append([]*Post{}, r.Masters...), r.Replicas...) }

// Run makes the edits and kills of a pace, and returns when all nodes serve
// again and all clerks have gone home.
func (r *Crash) Run(ctx context.Context, p *Pace) error {
	r.pace = p
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range r.clerks {
		g.Go(func() error { return c.work(ctx, p) })
	}
	for _, at := range r.Replicas {
		g.Go(func() error { return r.killReplicas(ctx, at) })
	}
	g.Go(func() error { return r.killMasters(ctx) })
	return g.Wait()
}

// killReplicas kills one replica whenever a kill is due.
func (r *Crash) killReplicas(ctx context.Context, at *Post) error {
	for r.pace.TakeKill(ctx) {
		waitUpTo(ctx, 600*time.Millisecond)
		if err := r.cycle(ctx, "replica", at); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// cycle kills a node and starts it; sometimes it kills it again while it starts.
func (r *Crash) cycle(ctx context.Context, what string, at *Post) error {
	twice := rand.IntN(8) == 0 && r.pace.TakeKill(ctx)
	if err := errors.Join(r.kill(what, at), at.Start()); err != nil {
		return err
	}
	if twice {
		waitUpTo(ctx, 200*time.Millisecond)
		if err := errors.Join(r.kill("starting", at), at.Start()); err != nil {
			return err
		}
		defer r.counted()
	}
	return r.ready(ctx, what, at)
}

func (r *Crash) kill(what string, at *Post) error {
	r.Figures.Kill(what)
	if err := at.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w; its log is %s", at.Name, err, at.log.Name())
	}
	return nil
}

// counted counts a kill that is over and tells of every 50th.
func (r *Crash) counted() {
	n := r.pace.Killed()
	if n%50 != 0 {
		return
	}
	for _, p := range r.posts() {
		r.Figures.Look(p)
	}
	_, kinds := r.Figures.Kills()
	r.Logf("%v: %d kills (%s), %d edits acknowledged, %d decided; start to serving p50/p99: %s; largest: %s",
		r.Figures.Elapsed(), n, kinds, r.pace.Edits(), r.decided(), r.Figures.Starts(), r.Figures.Sizes())
}

// decided returns how many edits of the replicas are decided, as far as the nodes
// answer.
func (r *Crash) decided() (n crm.Seq) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, p := range r.Replicas {
		var s struct{ Decided crm.Seq }
		if c, err := p.Client(); err == nil && c.Status(ctx, &s) == nil {
			n += s.Decided - min(s.Decided, r.before[p])
		}
	}
	return n
}

// killMasters kills masters in turn: a follower, the leader, now and then the
// leader and another one, so that nobody can decide.
func (r *Crash) killMasters(ctx context.Context) error {
	for r.pace.TakeKill(ctx) {
		leader, rest, err := r.leader(ctx)
		if err != nil {
			return err
		}
		waitUpTo(ctx, time.Second)
		switch n := rand.IntN(10); {
		case n < 2 && len(rest) > 1 && r.pace.TakeKill(ctx):
			r.Figures.Majority()
			err = r.together(ctx, leader, rest[0])
		case n < 6 || len(rest) == 0:
			err = r.cycle(ctx, "leader", leader)
		default:
			err = r.cycle(ctx, "follower", rest[rand.IntN(len(rest))])
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// together kills the leader and a follower before either is started again.
func (r *Crash) together(ctx context.Context, leader, follower *Post) error {
	if err := errors.Join(r.kill("leader", leader), r.kill("follower", follower)); err != nil {
		return err
	}
	waitUpTo(ctx, time.Second)
	if err := errors.Join(leader.Start(), follower.Start()); err != nil {
		return err
	}
	return errors.Join(r.ready(ctx, "leader", leader), r.ready(ctx, "follower", follower))
}

// ready waits until a node that was killed serves again.
func (r *Crash) ready(ctx context.Context, what string, at *Post) error {
	took, err := at.AwaitReady(ctx)
	if err != nil {
		return err
	}
	r.Figures.Start(what, took)
	r.counted()
	return nil
}

// leader returns the master that leads and the others.
func (r *Crash) leader(ctx context.Context) (leader *Post, rest []*Post, err error) {
	p, err := r.Cluster.Leader(ctx)
	for _, m := range r.Masters {
		if m.Process == p {
			leader = m
		} else {
			rest = append(rest, m)
		}
	}
	return leader, rest, err
}

// waitUpTo waits a random time below most, so that kills fall anywhere.
func waitUpTo(ctx context.Context, most time.Duration) {
	t := time.NewTimer(rand.N(most))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
