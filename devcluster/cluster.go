package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/wansim"
)

// headOffice is the site of the masters.
const headOffice = "head-office"

// A Cluster is masters and replicas in this process.
type Cluster struct {
	opts    Options
	env     node.Env // what the nodes have in common
	net     *wansim.Network
	dir     string
	madeDir bool           // dir is to be removed at the end
	running sync.WaitGroup // the nodes' Run
	failed  chan error     // capacity 1: the first node that ended by itself

	mu      sync.Mutex // protects members against New and Add
	members []*Member  // masters first, in the order they joined
}

// New makes the directories of a new cluster, starts the nodes and waits until
// every branch holds its records. The nodes run until Close; ctx bounds New
// only. Time, dialling and listening of env are replaced. If New fails, nothing
// runs and a temporary directory is gone.
func New(ctx context.Context, o Options, env node.Env) (*Cluster, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	m, err := o.matrix()
	if err != nil {
		return nil, err
	}
	p, err := o.plan(m)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		opts: o, env: env, failed: make(chan error, 1),
		net: wansim.New(wansim.Config{Matrix: m, Seed: o.Seed, Bandwidth: o.Bandwidth, Loss: o.Loss}),
	}
	if err := c.found(ctx, p); err != nil {
		return nil, errors.Join(fmt.Errorf("start dev cluster: %w", err), c.Close())
	}
	return c, nil
}

// prepareDir chooses the directory that holds the nodes' ones.
func (c *Cluster) prepareDir() (err error) {
	c.dir = c.opts.Dir
	if c.dir == "" {
		c.madeDir = !c.opts.Keep
		c.dir, err = os.MkdirTemp("", "tradepost-dev-")
		return err
	}
	return os.MkdirAll(c.dir, 0o700)
}

// Close stops every node and returns when all their goroutines have ended. It
// removes the directory if it was a temporary one and is not to be kept.
func (c *Cluster) Close() error {
	members := c.Members()
	errs := make([]error, len(members))
	var stopping sync.WaitGroup
	for i, m := range members {
		stopping.Go(func() { errs[i] = m.Stop() })
	}
	stopping.Wait()
	c.running.Wait()
	errs = append(errs, c.net.Close())
	if c.madeDir {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// Run waits until ctx ends, which is no error, or a node stops by itself.
func (c *Cluster) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.failed:
		return err
	}
}

// fail ends Run.
func (c *Cluster) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// Network returns the WAN.
func (c *Cluster) Network() *wansim.Network { return c.net }

// Members returns the nodes, masters first, up or down.
func (c *Cluster) Members() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// Masters returns the masters, up or down.
func (c *Cluster) Masters() []*Member { return c.of(auth.RoleMaster) }

// Branches returns the replicas, up or down.
func (c *Cluster) Branches() []*Member { return c.of(auth.RoleReplica) }

func (c *Cluster) of(role auth.Role) []*Member {
	return slices.DeleteFunc(c.Members(), func(m *Member) bool { return m.Role != role })
}

// Member returns the node of that name: "m1" for the first master, the site's
// name for a branch.
func (c *Cluster) Member(name string) (*Member, error) {
	for _, m := range c.Members() {
		if m.Name == name {
			return m, nil
		}
	}
	return nil, &crm.Error{Code: crm.CodeNotFound, Op: "find node", Item: name, Message: "no such node in this cluster"}
}

// add enters a node that does not run yet.
func (c *Cluster) add(name string, role auth.Role, site string, place wansim.Site) *Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &Member{Name: name, Role: role, Site: site, Place: place, c: c}
	m.host = c.net.Host(place.Name, name)
	m.settings = c.settings(m, len(c.members))
	c.members = append(c.members, m)
	return m
}

// settings returns what an admin would have chosen for the n-th node.
func (c *Cluster) settings(m *Member, n int) node.Settings {
	s := node.DefaultSettings()
	s.Dir, s.City, s.Country = filepath.Join(c.dir, m.Name), m.Place.City, m.Place.Country
	s.Listen, s.Protocol = node.Addresses{HTTP: m.Name + wanHTTP}, c.opts.Protocol
	if !c.opts.Virtual {
		s.Listen.Gossip = m.Name + ":7946"
		s.Listen.HTTP = "127.0.0.1:0"
		if c.opts.HTTPPort > 0 {
			s.Listen.HTTP = fmt.Sprintf("127.0.0.1:%d", c.opts.HTTPPort+n)
		}
	}
	s.Listen.Sync, s.Listen.Raft = m.Name+wanSync, m.Name+":7401"
	return s
}

// wanSync is the port on the simulated WAN where masters and relays serve.
const wanSync = ":7400"

// wanHTTP is the port of every node's HTTP API on the simulated WAN.
const wanHTTP = ":8400"

// Failure returns why a node stopped by itself, nil if none did.
func (c *Cluster) Failure() error {
	select {
	case err := <-c.failed:
		c.fail(err)
		return err
	default:
		return nil
	}
}
