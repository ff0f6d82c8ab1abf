package main

import (
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) outboxCommand() *cobra.Command {
	listCmd := &cobra.Command{Use: "list", Short: "List this node's edits that the master has not decided", Args: want()}
	var detailed bool
	detailedFlag(listCmd, &detailed, "there are any")
	listCmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		entries, err := api.Outbox(cmd.Context())
		if err != nil {
			return err
		}
		g := columns("seq", "age", "actor", "intent", "ops", "bytes")
		g.right = []int{0, 4, 5}
		for _, e := range entries {
			g.add(e.Seq, c.now().Sub(e.At).Round(time.Second), e.Actor, e.Intent, len(e.Ops), e.Bytes)
		}
		if err := c.print(list(entries), g.render); err != nil {
			return err
		}
		return attention(detailed && len(entries) > 0)
	}
	return grouped(&cobra.Command{Use: "outbox", Short: "Edits on their way to the master"}, listCmd)
}
