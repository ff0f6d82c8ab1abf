package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) nodeCommand() *cobra.Command {
	listCmd := &cobra.Command{Use: "list", Short: "List the nodes of the cluster and what this node hears of them", Args: want(), RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		nodes, err := api.Nodes(cmd.Context())
		if err != nil {
			return err
		}
		g := columns("node", "site", "role", "city", "status", "heard", "rtt", "http")
		for _, n := range nodes {
			rtt := "unmeasured"
			if n.RTTMillis > 0 {
				rtt = fmt.Sprintf("%.1f ms", n.RTTMillis)
			}
			g.add(n.Node, n.Site, n.Role, n.City, n.Status, n.State, rtt, n.HTTP)
		}
		return c.print(list(nodes), g.render)
	}}
	return grouped(&cobra.Command{Use: "node", Short: "The nodes of the cluster"}, listCmd)
}
