package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (c *cli) operatorCommand() *cobra.Command {
	raft := grouped(&cobra.Command{Use: "raft", Short: "The masters' Raft configuration"}, c.raftList(), c.raftRemove(), c.raftTransfer())
	return grouped(&cobra.Command{Use: "operator", Short: "Operations on the cluster's machinery"}, raft)
}

func (c *cli) raftList() *cobra.Command {
	return &cobra.Command{Use: "list-peers", Short: "List the masters in Raft, and which of them vote", Args: want(), RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		peers, err := api.Peers(cmd.Context())
		if err != nil {
			return err
		}
		g := columns("id", "address", "suffrage", "leader")
		for _, p := range peers {
			g.add(p.ID, p.Address, p.Suffrage, p.Leader)
		}
		return c.print(list(peers), g.render)
	}}
}

// A done says what a command did that has nothing else to print.
type done struct {
	SchemaVersion int    `json:"schema_version"`
	Done          string `json:"done"`
	Subject       string `json:"subject,omitempty"`
}

func (c *cli) printDone(what, subject string) error {
	return c.print(done{schemaVersion, what, subject}, func(w io.Writer) { fmt.Fprintln(w, cell(what+" "+subject)) })
}

func (c *cli) raftRemove() *cobra.Command {
	return &cobra.Command{Use: "remove-peer ID", Short: "Remove a master from Raft for good", Args: want("ID"), RunE: func(cmd *cobra.Command, args []string) error {
		if err := c.confirm("remove master " + args[0] + " from Raft"); err != nil {
			return err
		}
		api, err := c.client()
		if err != nil {
			return err
		}
		if err := api.RemovePeer(cmd.Context(), args[0]); err != nil {
			return err
		}
		return c.printDone("removed", args[0])
	}}
}

func (c *cli) raftTransfer() *cobra.Command {
	return &cobra.Command{Use: "transfer-leader [ID]", Short: "Hand leadership to a master, or to whom Raft likes", Args: want("[ID]"), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		to := ""
		if len(args) == 1 {
			to = args[0]
		}
		if err := api.TransferLeader(cmd.Context(), to); err != nil {
			return err
		}
		return c.printDone("leadership transferred", to)
	}}
}
