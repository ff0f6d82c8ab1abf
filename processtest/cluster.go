package processtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/httpapi"
)

// A Cluster is masters and replicas as processes.
type Cluster struct {
	Masters  []*Process
	Replicas []*Process
	bin      string
	base     string
	place    func(name string) (Place, error)
}

// Build builds the binary into dir, with these flags of go build.
func Build(ctx context.Context, dir string, flags ...string) (string, error) {
	bin := filepath.Join(dir, "tradepost")
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-o", bin}, flags, []string{"github.com/tradepost-crm/tradepost/cmd/tradepost"})...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tradepost: %w: %s", err, out)
	}
	return bin, nil
}

// NewCluster starts masters that agree and one replica for each site, granted
// the territories named for it.
func NewCluster(ctx context.Context, bin, base string, masters int, sites map[string][]string) (*Cluster, error) {
	return NewClusterAt(ctx, bin, base, masters, sites, func(string) (Place, error) { return Place{}, nil })
}

// NewClusterAt starts a cluster like NewCluster. It asks for the place of each
// process by its name: m1, m2, … for masters, r-SITE for replicas.
func NewClusterAt(ctx context.Context, bin, base string, masters int, sites map[string][]string, place func(name string) (Place, error)) (*Cluster, error) {
	c := &Cluster{bin: bin, base: base, place: place}
	if err := c.startMasters(ctx, masters); err != nil {
		return c, err
	}
	for site, territories := range sites {
		if err := c.addSite(ctx, site, territories); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *Cluster) startMasters(ctx context.Context, n int) error {
	first, err := c.newProcess("m1")
	if err != nil {
		return err
	}
	if _, err := first.run(ctx, "init", append([]string{"--site", "hq"}, first.args...)...); err != nil {
		return err
	}
	if err := c.serve(ctx, first, &c.Masters); err != nil {
		return err
	}
	for i := 2; i <= n; i++ {
		if err := c.join(ctx, fmt.Sprintf("m%d", i), "hq", "master", &c.Masters); err != nil {
			return err
		}
	}
	return c.AwaitVoters(ctx, n)
}

// AwaitVoters waits until so many masters vote.
func (c *Cluster) AwaitVoters(ctx context.Context, n int) error {
	return Await(ctx, "all masters to vote", func() (bool, error) {
		client, err := c.Masters[0].Client()
		if err != nil {
			return false, err
		}
		peers, err := client.Peers(ctx)
		voters := 0
		for _, p := range peers {
			if p.Suffrage == "voter" || p.Suffrage == "Voter" {
				voters++
			}
		}
		return voters == n, err
	})
}

func (c *Cluster) newProcess(name string) (*Process, error) {
	at, err := c.place(name)
	if err != nil {
		return nil, err
	}
	return newProcess(c.bin, c.base, name, at)
}

func (c *Cluster) serve(ctx context.Context, p *Process, list *[]*Process) error {
	if err := p.Start(); err != nil {
		return err
	}
	*list = append(*list, p)
	return p.AwaitReady(ctx)
}

// at returns the flags with which a command reaches a process.
func at(p *Process, args ...string) []string {
	return append([]string{"--addr", "http://" + p.http, "--token-file", filepath.Join(p.Dir, "admin.token")}, args...)
}

func (c *Cluster) join(ctx context.Context, name, site, role string, list *[]*Process) error {
	first, kind := c.Masters[0], role
	if role == "relay" {
		kind = "master"
	}
	token, err := first.run(ctx, "token create", at(first, "--site", site, "--role", kind)...)
	if err != nil {
		return err
	}
	file := filepath.Join(c.base, name+".join")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return err
	}
	p, err := c.newProcess(name)
	if err != nil {
		return err
	}
	if _, err := p.run(ctx, "join", append([]string{"--role", role, "--file", file}, p.args...)...); err != nil {
		return err
	}
	return c.serve(ctx, p, list)
}

func (c *Cluster) addSite(ctx context.Context, site string, territories []string) error {
	first := c.Masters[0]
	if _, err := first.run(ctx, "site add", at(first, site)...); err != nil {
		return err
	}
	for _, t := range territories {
		client, err := first.Client()
		if err != nil {
			return err
		}
		known, _, err := client.Page(ctx, "territory", httpapi.Query{Filter: fmt.Sprintf("code == %q", t)})
		if err != nil {
			return err
		}
		if len(known.Items) == 0 {
			if _, err := first.run(ctx, "territory add", at(first, t)...); err != nil {
				return err
			}
		}
		if _, err := first.run(ctx, "territory grant", at(first, site, t)...); err != nil {
			return err
		}
	}
	return c.join(ctx, "r-"+site, site, "replica", &c.Replicas)
}

// Leader returns the master that leads.
func (c *Cluster) Leader(ctx context.Context) (*Process, error) {
	var leader *Process
	err := Await(ctx, "a leader", func() (bool, error) {
		for _, p := range c.Masters {
			client, err := p.Client()
			if err != nil {
				return false, err
			}
			var s struct{ Leads, Ready bool }
			if err := client.Status(ctx, &s); err == nil && s.Leads && s.Ready {
				leader = p
				return true, nil
			}
		}
		return false, nil
	})
	return leader, err
}

// Stop ends every process in order, replicas first.
func (c *Cluster) Stop() error {
	var errs []error
	for _, p := range append(append([]*Process{}, c.Replicas...), c.Masters...) {
		if err := p.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", p.Name, err))
		}
	}
	return errors.Join(errs...)
}

// settleTimeout bounds how long a healthy cluster takes to drain and agree.
const settleTimeout = 60 * time.Second
