package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	opReopen  = "start of a branch that was offline for 72 hours, its outbox folded anew"
	opCatchUp = "outbox of a branch that was offline for 72 hours decided by 3 masters, loopback"
	opServed  = "point read and list of 50 at the branch meanwhile"
	opWritten = "durable write at the branch meanwhile"
)

// catchUp measures a branch that comes back with many edits.
var catchUp = section{operations: []string{opReopen, opCatchUp, opServed, opWritten, opUpkeep}, measure: (*bench).measureCatchUp}

// offline is how long the branch is away.
const offline = 72 * time.Hour

// An away is a branch without a master, and the cluster that goes on.
type away struct {
	*bench
	cluster *cluster
	member  *member
	size    sizes
	early   atomic.Int64 // how far the clocks of all nodes are behind, in nanoseconds
}

// env is this machine, with the clock of the story.
func (a *away) env() node.Env {
	env := a.cluster.env(nil)
	env.Now = func() time.Time { return time.Now().Add(-time.Duration(a.early.Load())) }
	return env
}

func (b *bench) measureCatchUp(ctx context.Context) (err error) {
	dir, err := b.subdir("catch-up")
	if err != nil {
		return err
	}
	a := &away{bench: b, cluster: &cluster{dir: dir}}
	defer func() { err = errors.Join(err, a.cluster.close()) }()
	for _, step := range []func(context.Context) error{a.begin, a.queue, a.headOffice, a.back} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// begin fills masters and a branch with customers.
func (a *away) begin(ctx context.Context) error {
	c := a.cluster
	a.early.Store(int64(offline))
	for n := range 3 {
		m, err := c.join(ctx, fmt.Sprintf("m%d", n+1), auth.RoleMaster, headOffice, a.env())
		if err != nil {
			return err
		}
		if err := m.ready(ctx); err != nil {
			return err
		}
	}
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	if err := c.territories(ctx); err != nil {
		return err
	}
	if err := c.site(ctx, siteName); err != nil {
		return err
	}
	d := makeData(42, a.scale/5, 0)
	a.size = sizes{contacts: len(d.contacts) - 1, big: min(bigOnes, len(d.accounts)-1)}
	if _, err := fill(ctx, leader, d.few(false)); err != nil {
		return err
	}
	if a.member, err = c.join(ctx, siteName, auth.RoleReplica, siteName, a.env()); err != nil {
		return err
	}
	return a.member.ready(ctx)
}

// queue makes the branch's edits while it reaches nobody.
func (a *away) queue(ctx context.Context) error {
	if err := a.member.stop(); err != nil {
		return err
	}
	env := a.env()
	env.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("the line is down") }
	if err := a.start(ctx, env); err != nil {
		return err
	}
	began := time.Now()
	if err := a.each(ctx, a.backlog, func(ctx context.Context, _ int) error {
		_, err := a.member.Replica().Commit(ctx, a.edit())
		return err
	}); err != nil {
		return err
	}
	a.note("the branch that goes offline queued %s edits, %d KiB, in %s with 64 clients", grouped(float64(a.backlog)), a.member.Replica().Status().Outbox.Bytes>>10, span(time.Since(began)))
	a.early.Store(0)
	return a.member.stop()
}

func (a *away) start(ctx context.Context, env node.Env) error {
	if err := a.member.start(env); err != nil {
		return err
	}
	return a.member.ready(ctx)
}

// each calls do for 0 to n-1, 64 at a time.
func (a *away) each(ctx context.Context, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// edit is what a branch does all day: three of ten edits note an activity, the
// others change a contact.
func (a *away) edit() crm.Request {
	if rand.IntN(10) < 3 {
		return newActivity(1+rand.IntN(a.size.big), body120)
	}
	return a.contactEdit("title", titles[rand.IntN(len(titles))])
}

// contactEdit sets a field of some contact and counts a point.
func (a *away) contactEdit(field, value string) crm.Request {
	fields := map[string]crm.FieldID{"title": 24, "department": 25}
	id := recordID(catalog.Contact, 1+rand.IntN(a.size.contacts))
	return crm.Request{Actor: "bench", Intent: "contact.patch", Ops: []crm.Op{
		{Kind: crm.OpPatch, Entity: catalog.Contact, Record: id, Cells: []crm.Input{{Field: fields[field], Value: crm.TextValue(value)}}},
		{Kind: crm.OpCounterAdd, Entity: catalog.Contact, Record: id, Cells: []crm.Input{{Field: 38, Value: crm.IntegerValue(1)}}}}}
}

// headOffice edits the same contacts, in another field.
func (a *away) headOffice(ctx context.Context) error {
	leader, err := a.cluster.leader(ctx)
	if err != nil {
		return err
	}
	return a.each(ctx, a.backlog/10, func(ctx context.Context, _ int) error {
		_, err := commit(ctx, leader, a.contactEdit("department", "key accounts"))
		return err
	})
}

// back lets the branch reach its masters again.
func (a *away) back(ctx context.Context) error {
	stop, err := a.profile("reopen")
	if err != nil {
		return err
	}
	began := time.Now()
	err = a.start(ctx, a.env())
	opened := time.Since(began)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	samples := filepath.Join(cmp.Or(a.profiles, a.dir), "catch-up.prof")
	if stop, err = profileTo(samples); err != nil {
		return err
	}
	d, err := a.drain(ctx)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	digests, err := upkeepIn(samples)
	if err != nil {
		return err
	}
	edits := float64(a.backlog)
	for _, r := range []row{
		{operation: opReopen, ours: fmt.Sprintf("%s edits in %s", grouped(edits), span(opened))},
		{operation: opCatchUp, ours: fmt.Sprintf("%s edits in %s: %s/s; %s of processor time in all", grouped(edits), span(d.took), grouped(edits/d.took.Seconds()), span(d.used)),
			budget: "≤ 60 s", met: d.took <= time.Minute},
		{operation: opServed, clients: 1, ours: d.reads.String()},
		{operation: opWritten, clients: 1, ours: d.writes.String()},
		{operation: opUpkeep, ours: digests.String(), budget: "≤ 5 %", met: digests.within(5)},
	} {
		if a.wants(r.operation) {
			a.add(r)
		}
	}
	return nil
}

// A drained is how a backlog was decided.
type drained struct {
	took, used    time.Duration // on the clock, and of all processors
	reads, writes service
}

// A service is what somebody at the branch got.
type service struct {
	figure
	worst time.Duration
}

func (s service) String() string {
	return fmt.Sprintf("%s/s, p50 %s, p99 %s, worst %s", grouped(s.rate), span(s.p50), span(s.p99), span(s.worst))
}

// How often a reader asks and a clerk writes: a busy branch.
const (
	readEvery  = 5 * time.Millisecond
	writeEvery = 20 * time.Millisecond
)

// drain reads and writes at the branch until the edits that it came back with are
// decided, as it knows. It fails where somebody is refused, or unless the branch
// agrees with the masters in the end.
func (a *away) drain(ctx context.Context) (d drained, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	serve := func(got *service, every time.Duration, do func(context.Context) error) {
		wg.Go(func() {
			var err error
			if *got, err = serveEvery(ctx, stop, every, do); err != nil {
				cancel(err)
			}
		})
	}
	r := a.member.Replica()
	began, used := time.Now(), processorTime()
	serve(&d.reads, readEvery, a.read)
	serve(&d.writes, writeEvery, func(ctx context.Context) error { _, err := r.Commit(ctx, a.edit()); return err })
	err = until(ctx, r, func(s replica.Status) bool { return int(s.Decided) >= a.backlog })
	d.took, d.used = time.Since(began), processorTime()-used
	close(stop)
	wg.Wait()
	if err != nil {
		return d, err
	}
	if err := until(ctx, r, func(s replica.Status) bool { return s.Outbox.Entries == 0 && s.Cursor >= s.Head }); err != nil {
		return d, err
	}
	return d, a.agree(r)
}

// until waits for a state of the branch.
func until(ctx context.Context, r *replica.Replica, reached func(replica.Status) bool) error {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for !reached(r.Status()) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// serveEvery has somebody do something again and again.
func serveEvery(ctx context.Context, stop <-chan struct{}, every time.Duration, do func(context.Context) error) (service, error) {
	var times []time.Duration
	began := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		start := time.Now()
		if err := do(ctx); err != nil {
			return service{}, fmt.Errorf("at the branch: %w", err)
		}
		times = append(times, time.Since(start))
		select {
		case <-stop:
			f := figureOf(times, float64(len(times))/time.Since(began).Seconds())
			return service{f, times[len(times)-1]}, nil
		case <-tick.C:
		}
	}
}

// read reads a contact, and the contacts of an account.
func (a *away) read(ctx context.Context) error {
	k := desk{branch: a.member.Replica(), size: a.size}
	return k.read(ctx, func(r *store.Reader) error {
		_, err := list(r, "contact", fmt.Sprintf("account == %q", recordID(catalog.Account, 1+rand.IntN(a.size.big))), "last_name,first_name", 50)
		return errors.Join(err, k.point(r))
	})
}

// agree fails unless the branch's edits took effect as they were made.
func (a *away) agree(r *replica.Replica) error {
	if s := r.Status(); int(s.Decided) < a.backlog || len(s.Suspect) > 0 || s.Verified != s.Cursor {
		return fmt.Errorf("the branch does not agree with the masters: %+v", s)
	}
	return nil
}
