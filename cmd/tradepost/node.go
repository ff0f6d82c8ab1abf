package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
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
			rtt, heard := "unmeasured", words(n.State, "nothing")
			switch {
			case n.Self:
				rtt, heard = "", "this node"
			case n.RTTMillis > 0:
				rtt = fmt.Sprintf("%.1f ms", n.RTTMillis)
			}
			g.add(n.Node, n.Site, n.Role, n.City, n.Status, heard, rtt, n.HTTP)
		}
		return c.print(list(nodes), g.render)
	}}
	return grouped(&cobra.Command{Use: "node", Short: "The nodes of the cluster"}, listCmd, c.nodeRemove(), c.nodePromote())
}

func (c *cli) nodeRemove() *cobra.Command {
	var wait waitFlag
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "Remove a replica from the cluster for good",
		Long: `Remove a replica, by the number that node list shows, so that its site can have
another: its certificate is refused from then on. What it has saved and no master
has decided is lost with it, so let its outbox run empty first if it still runs.
Ask a master. A master is removed with tradepost operator raft remove-peer.`,
		Args: want("NODE"),
	}
	wait.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		number, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return usage(args[0], "want the number of a node; tradepost node list shows them")
		}
		if err := c.confirm("remove node " + args[0] + " for good"); err != nil {
			return err
		}
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			it, err := replicaRecord(ctx, api, crm.NodeID(number))
			if err != nil {
				return httpapi.Edited{}, err
			}
			return api.Patch(ctx, "node", it.ID, it.Token, httpapi.Fields{"status": "removed"}, w)
		})
	}
	return cmd
}

func (c *cli) nodePromote() *cobra.Command {
	var wait waitFlag
	cmd := &cobra.Command{
		Use: "promote NODE", Short: "Let a master that joined as a relay vote",
		Long: `Let a master that joined with --role relay vote, by the number that node list
shows. It becomes a voter once it has caught up; tradepost operator raft list-peers
shows when. Ask a master. Give an odd number of masters a vote: two of three or
three of five must reach each other to decide.`,
		Args: want("NODE"),
	}
	wait.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		number, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return usage(args[0], "want the number of a node; tradepost node list shows them")
		}
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			it, err := activeNode(ctx, api, crm.NodeID(number))
			switch {
			case err != nil:
				return httpapi.Edited{}, err
			case it.Text("role") != "master":
				return httpapi.Edited{}, usage(args[0], "it is a replica; only a master can vote")
			case it.Text("suffrage") != "nonvoter":
				return httpapi.Edited{}, &crm.Error{Code: crm.CodeGuard, Item: args[0], Message: "the master votes already, or will once it has caught up"}
			}
			return api.Patch(ctx, "node", it.ID, it.Token, httpapi.Fields{"suffrage": "voter"}, w)
		})
	}
	return cmd
}

// replicaRecord returns the record of an active replica.
func replicaRecord(ctx context.Context, api *httpapi.Client, number crm.NodeID) (httpapi.Item, error) {
	it, err := activeNode(ctx, api, number)
	if err == nil && it.Text("role") == "master" {
		return it, usage(fmt.Sprint(number), "it is a master; remove it with tradepost operator raft remove-peer node-%d", number)
	}
	return it, err
}

// activeNode returns the record of a node that was not removed.
func activeNode(ctx context.Context, api *httpapi.Client, number crm.NodeID) (httpapi.Item, error) {
	item := strconv.FormatUint(uint64(number), 10)
	page, _, err := api.Page(ctx, "node", httpapi.Query{Filter: "number == " + item})
	switch {
	case err != nil:
		return httpapi.Item{}, err
	case len(page.Items) == 0:
		return httpapi.Item{}, &crm.Error{Code: crm.CodeNotFound, Item: item, Message: "no such node; tradepost node list shows them"}
	case page.Items[0].Text("status") == "removed":
		return page.Items[0], &crm.Error{Code: crm.CodeGuard, Item: item, Message: "the node is removed already"}
	}
	return page.Items[0], nil
}
