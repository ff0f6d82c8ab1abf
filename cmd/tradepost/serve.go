package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/node"
)

func (c *cli) serveCommand() *cobra.Command {
	var sf settingsFlags
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the node of a directory until it is told to stop",
		Long: `Run the node that lives in --dir until SIGTERM or SIGINT. A flag beats a
TRADEPOST_ variable (TRADEPOST_LISTEN_HTTP and so on), which beats the file of
--config, which beats the default.`,
		Example: `  tradepost serve --config /etc/tradepost/tradepost.yaml`,
		Args:    want(),
	}
	sf.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := c.settings(&sf, cmd.Flags())
		if err != nil {
			return err
		}
		log := c.logger(s)
		env := node.Env{Now: c.now, Version: programVersion(), Logger: log, Fatal: func(err error) {
			log.Error("the node cannot go on", "error", err)
			c.exit(exitFailed)
		}}
		if err := node.Seed(cmd.Context(), s, env); err != nil {
			return err
		}
		n, err := node.Open(s, env)
		if err != nil {
			return err
		}
		return errors.Join(n.Run(cmd.Context()), n.Close())
	}
	return cmd
}
