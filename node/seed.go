package node

import (
	"context"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
)

// Seed fetches the decided records for a master that has joined and not run yet;
// for any other node it does nothing. It comes before Open, and goes on where it
// was interrupted. If nobody gives them Raft will; only a master that must not
// run gets an error, and one that is told to stop.
func Seed(ctx context.Context, s Settings, env Env) error {
	env = env.real()
	id, err := ReadIdentity(s.Dir)
	if err != nil || id.Role != auth.RoleMaster || len(id.RaftPeers) == 0 {
		return err
	}
	ca, err := auth.LoadCA(s.Dir)
	if err != nil {
		return err
	}
	cert, err := auth.LoadNode(s.Dir, ca.Cert, env.Now())
	if err != nil {
		return err
	}
	err = master.Seed(ctx, master.Config{Dir: s.Dir, Node: cert, CA: ca, Dial: env.Dial, Now: env.Now, Logger: env.Logger}, id.RaftPeers)
	if err == nil || ctx.Err() != nil || crm.CodeOf(err) == master.CodeDistrusted {
		return err
	}
	env.Logger.Warn("the records will come through Raft", "error", err)
	return nil
}
