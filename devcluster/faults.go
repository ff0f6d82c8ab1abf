package devcluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// Cut cuts the node's city off from all others.
func (c *Cluster) Cut(name string) error {
	m, err := c.Member(name)
	if err != nil {
		return err
	}
	return c.net.Isolate(m.Place.Name)
}

// Heal restores every line of the node's city; "" restores every line there is.
func (c *Cluster) Heal(name string) error {
	if name == "" {
		c.net.HealAll()
		return nil
	}
	m, err := c.Member(name)
	if err != nil {
		return err
	}
	return c.net.HealSite(m.Place.Name)
}

// Between applies a fault of [wansim.Network] to the cities of two nodes.
func (c *Cluster) Between(a, b string, fault func(a, b string) error) error {
	from, err := c.Member(a)
	if err != nil {
		return err
	}
	to, err := c.Member(b)
	if err != nil {
		return err
	}
	return fault(from.Place.Name, to.Place.Name)
}

// wan gives the nodes' HTTP API power over the WAN.
func (c *Cluster) wan() *httpapi.Wan {
	return &httpapi.Wan{
		Links: func(context.Context) ([]httpapi.WanLink, error) { return c.links(), nil },
		Cut:   func(_ context.Context, site string) error { return c.Cut(site) },
		Heal:  func(_ context.Context, site string) error { return c.Heal(site) },
	}
}

func (c *Cluster) links() []httpapi.WanLink {
	var out []httpapi.WanLink
	for _, l := range c.net.Links() {
		out = append(out, httpapi.WanLink{A: l.A, B: l.B, RTTMillis: millis(l.RTT), Cut: l.CutAB || l.CutBA, Bytes: l.BytesAB + l.BytesBA})
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// leader returns the master that leads now, nil if none does.
func (c *Cluster) leader() *Member {
	for _, m := range c.Masters() {
		if n, err := m.Node(); err == nil && n.Master().Status().Leads {
			return m
		}
	}
	return nil
}

// Leader waits until a master leads and returns it.
func (c *Cluster) Leader(ctx context.Context) (leader *Member, err error) {
	err = c.await(ctx, "a master to lead", func() error {
		if leader = c.leader(); leader == nil {
			return errNoLeader
		}
		return nil
	})
	return leader, err
}

// KillLeader kills the master that leads and returns it.
func (c *Cluster) KillLeader(ctx context.Context) (*Member, error) {
	m, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	return m, m.Crash()
}

func (c *Cluster) now() time.Time {
	if c.env.Now == nil {
		return time.Now()
	}
	return c.env.Now()
}

func (c *Cluster) random() io.Reader {
	if c.env.Rand == nil {
		return rand.Reader
	}
	return c.env.Rand
}

// pollEvery is how often await looks.
const pollEvery = 20 * time.Millisecond

// await looks until done returns nil, and says what it waited for and why in
// vain if ctx ends first.
func (c *Cluster) await(ctx context.Context, what string, done func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case failure := <-c.failed:
			c.fail(failure)
			return failure
		case <-ctx.Done():
			return &crm.Error{Code: crm.CodeTimeout, Op: "wait for " + what, Message: fmt.Sprintf("%v (%v)", err, context.Cause(ctx)), Err: err}
		}
	}
}
