package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/devcluster"
	"github.com/tradepost-crm/tradepost/node"
)

func (c *cli) devCommand() *cobra.Command {
	var o devcluster.Options
	var level string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a whole cluster on this machine, over a simulated WAN",
		Long: `Run three masters and several branches in this process, each with its own data
directory and HTTP port, joined over a WAN with the round trips of real cities, and
filled with the data of a sample company. It goes on until interrupted.

With --story it tells a story instead: a branch is cut off, goes on working,
crashes, comes back, and nothing is lost. The exit code is 0 only if every line of
the story held.`,
		Example: `  tradepost dev
  tradepost dev --sites 5 --accounts 20000 --dir ./demo
  tradepost dev --story`,
		Args: want(),
	}
	f := cmd.Flags()
	f.IntVar(&o.Sites, "sites", devcluster.DefaultSites, "branches")
	f.StringVar(&o.WAN, "wan", "world", "world, or a CSV file of round trips between cities")
	f.IntVar(&o.Accounts, "accounts", devcluster.DefaultAccounts, "accounts of the sample company; 0: no data")
	f.StringVar(&o.Dir, "dir", "", "where the nodes' directories are made (default: a temporary directory)")
	f.BoolVar(&o.Keep, "keep", false, "leave the temporary directory there at the end")
	f.BoolVar(&o.Story, "story", false, "tell the story and exit")
	f.IntVar(&o.HTTPPort, "http-port", 8400, "HTTP port of the first node, the others count on; 0: any free ports, as with --story")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the sample data")
	f.StringVar(&level, "log-level", "off", "logs of the nodes on standard error: off, debug, info, warn or error")
	complete(cmd, "wan", "world")
	complete(cmd, "log-level", "off", "debug", "info", "warn", "error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := c.devLog(level)
		if err != nil {
			return err
		}
		if o.Story && !cmd.Flags().Changed("http-port") {
			o.HTTPPort = 0
		}
		if o.Sites < 1 {
			return usage("--sites", "%d is not 1 or more", o.Sites)
		}
		stopping := context.AfterFunc(cmd.Context(), func() { c.note("Stopping; Ctrl-C once more ends it at once") })
		defer stopping()
		return devcluster.Run(cmd.Context(), o, node.Env{Now: c.now, Version: programVersion(), Logger: log}, c.stdout)
	}
	return cmd
}

// devLog returns the log of all nodes. It is off by default: when nodes are cut
// off and killed for show, what they have to say of it is not what to look at.
func (c *cli) devLog(level string) (*slog.Logger, error) {
	if level == "off" {
		return slog.New(slog.DiscardHandler), nil
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usage("--log-level", "%q is not off, debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: l})), nil
}
