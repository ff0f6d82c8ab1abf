package devcluster

import (
	"context"
	"fmt"
	"io"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/node"
)

// Backup writes a backup of the master that leads to path and announces it.
func (c *Cluster) Backup(ctx context.Context, path string) (master.BackupInfo, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return master.BackupInfo{}, err
	}
	n, err := leader.Node()
	if err != nil {
		return master.BackupInfo{}, err
	}
	b, err := node.SaveBackup(ctx, path, func(w io.Writer) error {
		_, err := n.Master().Backup(ctx, w)
		return err
	})
	if err != nil {
		return b, err
	}
	return b, n.Master().Announce(ctx, b)
}

// Restore restores the backup at path on a master that is down and starts it.
func (c *Cluster) Restore(ctx context.Context, m *Member, path string) (node.Restored, error) {
	return c.beginAnew(ctx, m, func(s node.Settings, env node.Env) (node.Restored, error) { return node.Restore(ctx, s, path, env) })
}

// Promote makes a master that is down the only one, with its own data, and starts
// it.
func (c *Cluster) Promote(ctx context.Context, m *Member) (node.Restored, error) {
	return c.beginAnew(ctx, m, func(s node.Settings, env node.Env) (node.Restored, error) { return node.Promote(ctx, s, env) })
}

func (c *Cluster) beginAnew(ctx context.Context, m *Member, begin func(node.Settings, node.Env) (node.Restored, error)) (node.Restored, error) {
	m.mu.Lock()
	s, h := m.settings, m.host
	m.mu.Unlock()
	done, err := begin(s, m.env(h))
	if err != nil {
		return done, err
	}
	m.setFollows(false)
	return done, c.launch(ctx, m)
}

// AddMaster lets another master join where the first one stands, and waits until
// it votes.
func (c *Cluster) AddMaster(ctx context.Context) (*Member, error) {
	all := c.Masters()
	m := c.add(fmt.Sprintf("m%d", len(all)+1), auth.RoleMaster, headOffice, all[0].Place)
	if err := c.join(ctx, m); err != nil {
		return m, err
	}
	up := 0
	for _, m := range c.Masters() {
		if m.Up() && !m.Follows() {
			up++
		}
	}
	return m, c.await(ctx, m.Name+" to vote", func() error { return c.voting(ctx, up) })
}
