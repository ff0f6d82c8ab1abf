package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
)

const opBootstrap = "bootstrap of an empty replica over loopback"

// branch measures the life of one large branch: it is filled, fed and started
// again.
var branch = section{
	operations: []string{opBootstrap, opWireField, opWireActivity, opIdle, opRestart, opMemory, opMemoryReports},
	measure:    (*bench).measureBranch,
}

// recordsAtOne is how many records the data set has at scale 1, users and
// products included.
const recordsAtOne = 871_883

// A fed branch is a replica, its master and what goes over the link between
// them.
type fed struct {
	*bench
	master  *master.Master
	member  *member
	replica *replica.Replica
	link    *meter
	size    sizes
}

func (b *bench) measureBranch(ctx context.Context) (err error) {
	dir, err := b.subdir("large")
	if err != nil {
		return err
	}
	c := &cluster{dir: dir}
	defer func() { err = errors.Join(err, c.close()) }()
	f := &fed{bench: b, link: &meter{}}
	if f.master, err = c.metered(ctx, f.link); err != nil {
		return err
	}
	if err := f.fill(ctx, c); err != nil {
		return err
	}
	if err := f.bootstrap(ctx, c); err != nil {
		return err
	}
	if err := f.wire(ctx); err != nil {
		return err
	}
	if err := f.idle(ctx); err != nil {
		return err
	}
	if err := f.member.stop(); err != nil {
		return err
	}
	return f.restarted(ctx)
}

// metered begins a cluster of one master whose sync port counts what it sends.
func (c *cluster) metered(ctx context.Context, link *meter) (*master.Master, error) {
	env := c.env(nil)
	env.Listen = func(addr string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		return meteredListener{l, &link.down}, nil
	}
	m, err := c.join(ctx, "m1", auth.RoleMaster, headOffice, env)
	if err != nil {
		return nil, err
	}
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	return m.Master(), nil
}

// fill puts the records of the large branch into the master.
func (f *fed) fill(ctx context.Context, c *cluster) error {
	if err := c.territories(ctx); err != nil {
		return err
	}
	if err := c.site(ctx, siteName); err != nil {
		return err
	}
	d := makeData(42, float64(f.node)/recordsAtOne, 0)
	f.size = sizes{contacts: len(d.contacts) - 1, orders: len(d.orders) - 1, big: min(bigOnes, len(d.accounts)-1)}
	stop, err := f.profile("fill")
	if err != nil {
		return err
	}
	began := time.Now()
	n, err := fill(ctx, f.master, d.items(stock()))
	if err = errors.Join(err, stop()); err == nil {
		f.note("one master decided %s records, %d KiB of values an edit, in %s: %s records/s", grouped(float64(n)), fillSize>>10, span(time.Since(began)), grouped(float64(n)/time.Since(began).Seconds()))
	}
	return err
}

// bootstrap fills an empty replica.
func (f *fed) bootstrap(ctx context.Context, c *cluster) (err error) {
	env := c.env(nil)
	env.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return meteredConn{conn, &f.link.up}, nil
	}
	stop, err := f.profile("bootstrap")
	if err != nil {
		return err
	}
	before := f.link.read()
	began := time.Now()
	if f.member, err = c.join(ctx, siteName, auth.RoleReplica, siteName, env); err == nil {
		err = f.member.ready(ctx)
	}
	took := time.Since(began)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	f.replica = f.member.Replica()
	n, err := f.count(ctx)
	if err != nil {
		return err
	}
	sent := f.link.read().minus(before)
	f.note("the bootstrap sent %.1f MiB, %d B a record", float64(sent.down.bytes)/(1<<20), sent.down.bytes/int64(n))
	if f.wants(opBootstrap) {
		rate := float64(n) / took.Seconds()
		f.add(row{operation: opBootstrap, clients: 1, ours: fmt.Sprintf("%s records in %s: %s records/s", grouped(float64(n)), span(took), grouped(rate)),
			budget: "≥ 100,000 records/s", met: rate >= 100_000})
	}
	return nil
}

// count returns how many records the replica holds.
func (f *fed) count(ctx context.Context) (n int, err error) {
	_, err = f.replica.Read(ctx, crm.Demand{Level: crm.Local}, func(r *store.Reader) error {
		for _, e := range r.Schema().Entities {
			of, err := r.Count(e.ID)
			if err != nil {
				return err
			}
			n += of
		}
		return nil
	})
	return n, err
}

// settings are those of the branch's node for a process of its own.
func (f *fed) settings() node.Settings { return f.member.settings }
