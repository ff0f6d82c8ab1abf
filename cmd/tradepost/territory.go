package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

func (c *cli) territoryCommand() *cobra.Command {
	return grouped(&cobra.Command{Use: "territory", Short: "The sets of records that travel together", Long: "The sets of records that travel together. Only a master changes them."}, c.territoryAdd(),
		c.recordsOf("territory", "List the territories", "code", "name", "number"), c.territoryGrant(), c.territoryRevoke())
}

func (c *cli) territoryAdd() *cobra.Command {
	var name string
	var wait waitFlag
	cmd := &cobra.Command{Use: "add CODE", Short: "Add a territory", Example: `  tradepost territory add iberia --name "Spain and Portugal"`, Args: want("CODE")}
	cmd.Flags().StringVar(&name, "name", "", "what people call it (default: its code)")
	wait.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if name == "" {
			name = args[0]
		}
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			return api.Create(ctx, "territory", httpapi.Fields{"code": args[0], "name": name}, w)
		})
	}
	return cmd
}

func (c *cli) territoryGrant() *cobra.Command {
	var wait waitFlag
	cmd := &cobra.Command{
		Use: "grant SITE CODE...", Short: "Let a site hold territories", Args: want("SITE", "CODE..."), ValidArgsFunction: c.live(grantNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.changeGrants(cmd, &wait, "add", args[0], args[1:])
		},
	}
	wait.register(cmd)
	return cmd
}

func (c *cli) territoryRevoke() *cobra.Command {
	var wait waitFlag
	cmd := &cobra.Command{Use: "revoke SITE CODE...", Short: "Take territories from a site, whose replica then purges them", Args: want("SITE", "CODE..."), ValidArgsFunction: c.live(grantNames)}
	wait.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.confirm("purge " + strings.Join(args[1:], ", ") + " from the replicas of " + args[0]); err != nil {
			return err
		}
		return c.changeGrants(cmd, &wait, "remove", args[0], args[1:])
	}
	return cmd
}

// changeGrants adds to or removes from the set of a site's territories.
func (c *cli) changeGrants(cmd *cobra.Command, wait *waitFlag, verb, site string, codes []string) error {
	return c.edit(cmd, wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
		for _, code := range codes {
			page, _, err := api.Page(ctx, "territory", httpapi.Query{Filter: "code == " + quote(code)})
			if err != nil {
				return httpapi.Edited{}, err
			}
			if len(page.Items) == 0 && code != "shared" {
				return httpapi.Edited{}, &crm.Error{Code: crm.CodeNotFound, Item: code, Message: "no such territory; tradepost territory list shows them"}
			}
		}
		it, err := siteID(ctx, api, site)
		if err != nil {
			return httpapi.Edited{}, err
		}
		return api.Patch(ctx, "site", it.ID, it.Token, httpapi.Fields{"territories": map[string][]string{verb: codes}}, w)
	})
}
