package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/tradepost-crm/tradepost/node"
)

// Run is `tradepost dev`: it starts a cluster, writes to w where its nodes are
// and what to try, and keeps it running until ctx ends, which is no error. With
// Options.Story it tells the story instead and ends with it.
func Run(ctx context.Context, o Options, env node.Env, w io.Writer) (err error) {
	o = o.withDefaults()
	fmt.Fprintf(w, "Starting %d masters and %d branches with %d accounts …\n", o.Masters, o.Sites, o.Accounts)
	start := time.Now()
	if o.Progress == nil && o.Accounts >= 1000 {
		o.Progress = func(n int) {
			if n%(o.Accounts/5) == 0 {
				fmt.Fprintf(w, "  %d accounts decided after %s\n", n, ms(time.Since(start)))
			}
		}
	}
	c, err := New(ctx, o, env)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	fmt.Fprintf(w, "Ready after %s, in %s\n\n", ms(time.Since(start)), c.dir)
	if err := c.introduce(ctx, w); err != nil {
		return err
	}
	if o.Story {
		fmt.Fprintln(w)
		return Story(ctx, c, w)
	}
	c.suggest(w)
	return c.Run(ctx)
}

// introduce writes one line a node.
func (c *Cluster) introduce(ctx context.Context, w io.Writer) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%-16s %-8s %-16s %10s  %-28s %s\n", "NODE", "ROLE", "CITY", "RTT", "ADDRESS", "TOKEN FILE")
	for _, m := range c.Members() {
		n, err := m.Node()
		if err != nil {
			return err
		}
		rtt := c.net.Matrix().RTT(m.Place.Name, leader.Place.Name)
		fmt.Fprintf(w, "%-16s %-8s %-16s %10s  %-28s %s\n", m.Name, m.Role, m.Place.City, ms(rtt), "http://"+n.HTTPAddr(), m.tokenFile())
	}
	fmt.Fprintf(w, "RTT is the round trip to the leading master, %s.\n", leader.Name)
	return nil
}

func (m *Member) tokenFile() string { return filepath.Join(m.Dir(), "admin.token") }

// suggest writes a few commands to try at the first branch.
func (c *Cluster) suggest(w io.Writer) {
	b := c.Branches()[0]
	n, err := b.Node()
	if err != nil {
		return
	}
	fmt.Fprintf(w, `
In another terminal, as %[1]s:

  export TRADEPOST_ADDR=http://%[2]s
  export TRADEPOST_TOKEN_FILE=%[3]s
  tradepost record list account --sort name --limit 10
  tradepost report order --group status --measure count
  tradepost wan cut %[1]s        # the branch goes on without head office
  tradepost record create account name="Corner Shop"
  tradepost outbox list
  tradepost wan heal %[1]s

Stop with Ctrl-C.
`, b.Name, n.HTTPAddr(), b.tokenFile())
}
