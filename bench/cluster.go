package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/wansim"
)

// startTimeout bounds how long a node may take until it can serve.
const startTimeout = 2 * time.Minute

const headOffice = "head-office"

// A cluster is masters and replicas in this process, each with a directory of
// its own. They are made and joined as nodes that stand alone are.
type cluster struct {
	dir     string
	wan     *wansim.Network // nil: loopback TCP
	members []*member
}

// A member is a running node.
type member struct {
	*node.Node
	role     auth.Role
	settings node.Settings
	cancel   context.CancelFunc
	done     chan error
}

// env is the world of a node on a host: the simulated WAN's, or this machine.
func (c *cluster) env(h *wansim.Host) node.Env {
	env := node.Env{NoHTTP: true, Logger: slog.New(slog.DiscardHandler)}
	if h == nil {
		return env
	}
	env.Dial = h.Dial
	env.Listen = func(addr string) (net.Listener, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return h.Listen(port)
	}
	return env
}

// settings chooses addresses for a node.
func (c *cluster) settings(name string) (s node.Settings, err error) {
	s = node.DefaultSettings()
	s.Dir = filepath.Join(c.dir, name)
	s.Listen = node.Addresses{Sync: name + ":7400", Raft: name + ":7401", HTTP: "127.0.0.1:0"}
	if c.wan != nil {
		return s, nil
	}
	for _, addr := range []*string{&s.Listen.Sync, &s.Listen.Raft} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return s, err
		}
		*addr = l.Addr().String()
		if err := l.Close(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// join makes a node and starts it. The first one begins the cluster.
func (c *cluster) join(ctx context.Context, name string, role auth.Role, site string, env node.Env) (*member, error) {
	s, err := c.settings(name)
	if err != nil {
		return nil, err
	}
	if len(c.members) == 0 {
		_, err = node.Init(ctx, node.InitOptions{Settings: s, Site: site}, env)
	} else {
		err = c.admit(ctx, s, role, site, env)
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	m := &member{role: role, settings: s}
	c.members = append(c.members, m)
	return m, m.start(env)
}

func (c *cluster) admit(ctx context.Context, s node.Settings, role auth.Role, site string, env node.Env) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	token, err := leader.CreateToken(ctx, "bench", site, role, time.Hour)
	if err != nil {
		return err
	}
	text, err := token.Encode()
	if err != nil {
		return err
	}
	_, err = node.Join(ctx, s, role, text, env)
	return err
}

// start runs the node; stop ends it.
func (m *member) start(env node.Env) (err error) {
	if m.Node, err = node.Open(m.settings, env); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan error, 1)
	go func() { m.done <- m.Run(ctx) }()
	return nil
}

func (m *member) stop() error {
	if m.Node == nil {
		return nil
	}
	m.cancel()
	err := errors.Join(<-m.done, m.Close())
	m.Node = nil
	return err
}

// ready waits until the node can serve.
func (m *member) ready(ctx context.Context) error {
	return poll(ctx, func() error {
		err := m.API().Ready()
		if r := m.Replica(); err != nil && r != nil {
			err = fmt.Errorf("%w; %s", err, r.Status().Trouble)
		}
		return err
	})
}

// poll asks every 2 ms until there is no error, or startTimeout has passed.
func poll(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// leader waits until a master leads.
func (c *cluster) leader(ctx context.Context) (leader *master.Master, err error) {
	err = poll(ctx, func() error {
		for _, m := range c.members {
			if m.Node != nil && m.role == auth.RoleMaster && m.Master().Leading() && m.Master().Ready() == nil {
				leader = m.Master()
				return nil
			}
		}
		return errors.New("no master leads")
	})
	return leader, err
}

// masters begins the cluster with n masters on the hosts, or on this machine.
func (c *cluster) masters(ctx context.Context, n int, host func(int) *wansim.Host) error {
	for i := range n {
		m, err := c.join(ctx, fmt.Sprintf("m%d", i+1), auth.RoleMaster, headOffice, c.env(host(i)))
		if err != nil {
			return err
		}
		if err := m.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

func local(int) *wansim.Host { return nil }

// close stops the nodes, the last first.
func (c *cluster) close() error {
	var errs []error
	for _, m := range slices.Backward(c.members) {
		errs = append(errs, m.stop())
	}
	if c.wan != nil {
		errs = append(errs, c.wan.Close())
	}
	return errors.Join(errs...)
}

// decide has a request decided at the leader. Anything but acceptance is an
// error.
func (c *cluster) decide(ctx context.Context, req crm.Request) (crm.Outcome, error) {
	leader, err := c.leader(ctx)
	if err != nil {
		return crm.Outcome{}, err
	}
	return commit(ctx, leader, req)
}

func commit(ctx context.Context, m *master.Master, req crm.Request) (crm.Outcome, error) {
	receipt, err := m.Commit(ctx, req)
	if err != nil {
		return crm.Outcome{}, err
	}
	if o := *receipt.Outcome; o.Kind != crm.Accepted {
		return o, fmt.Errorf("%s was not accepted: %s %s", req.Intent, o.Kind, o.Message)
	}
	return *receipt.Outcome, nil
}

// site makes a site that holds all territories, after making them if need be.
func (c *cluster) site(ctx context.Context, name string) error {
	var codes []string
	for n := range regions {
		codes = append(codes, territory(n))
	}
	o, err := c.decide(ctx, crm.Request{Actor: "bench", Intent: "site.add", Ops: []crm.Op{{Kind: crm.OpCreate, Entity: crm.EntitySite, Record: recordID(crm.EntitySite, len(name)),
		Cells: []crm.Input{{Field: crm.SiteName, Value: crm.TextValue(name)}, {Field: crm.SiteTerritories, Value: crm.ChoicesValue(codes...)},
			{Field: crm.SiteHome, Value: crm.TextValue(codes[0])}}}}})
	if err != nil {
		return err
	}
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	// A token for the site is made of what readers see.
	_, err = leader.Read(ctx, crm.Demand{Level: crm.Session, Session: crm.Mark{Rev: o.Rev}}, func(*store.Reader) error { return nil })
	return err
}

// territories makes one of each region.
func (c *cluster) territories(ctx context.Context) error {
	for n := range regions {
		_, err := c.decide(ctx, crm.Request{Actor: "bench", Intent: "territory.add", Ops: []crm.Op{{Kind: crm.OpCreate, Entity: crm.EntityTerritory, Record: recordID(crm.EntityTerritory, n+1),
			Cells: []crm.Input{{Field: crm.TerritoryCode, Value: crm.TextValue(territory(n))}, {Field: crm.TerritoryName, Value: crm.TextValue(regions[n])}}}}})
		if err != nil {
			return err
		}
	}
	return nil
}

// branch makes a replica at the site and waits until it can serve.
func (c *cluster) branch(ctx context.Context, site string, h *wansim.Host) (*replica.Replica, error) {
	m, err := c.join(ctx, site, auth.RoleReplica, site, c.env(h))
	if err != nil {
		return nil, err
	}
	return m.Replica(), m.ready(ctx)
}
