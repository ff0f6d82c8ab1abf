package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/httpapi"
)

func (c *cli) tokenCommand() *cobra.Command {
	return grouped(&cobra.Command{Use: "token", Short: "Admit new nodes"}, c.tokenCreate())
}

func (c *cli) tokenCreate() *cobra.Command {
	var site, role string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create --site NAME", Short: "Print a join string, which lets one new node join, once",
		Long: `Print a join string for tradepost join. It is a secret until used, and works once
and only until --ttl has passed. Ask a master.`,
		Example: `  tradepost token create --site lisbon --ttl 2h >join.txt`,
		Args:    want(),
	}
	f := cmd.Flags()
	f.StringVar(&site, "site", "", "site of the new node")
	f.StringVar(&role, "role", "replica", "role of the new node: replica or master")
	f.DurationVar(&ttl, "ttl", 24*time.Hour, "how long the join string is valid")
	complete(cmd, "role", "replica", "master")
	c.completeFlag(cmd, "site", named("site", "name"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if site == "" {
			return usage("--site", "name the site of the new node; tradepost site list shows them")
		}
		api, err := c.client()
		if err != nil {
			return err
		}
		t, err := api.CreateToken(cmd.Context(), site, role, ttl)
		if err != nil {
			return err
		}
		v := struct {
			SchemaVersion int `json:"schema_version"`
			httpapi.JoinToken
		}{schemaVersion, t}
		return c.print(v, func(w io.Writer) { fmt.Fprintln(w, t.Token) })
	}
	return cmd
}
