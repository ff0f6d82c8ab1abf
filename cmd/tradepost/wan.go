package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/httpapi"
)

func (c *cli) wanCommand() *cobra.Command {
	return grouped(&cobra.Command{Use: "wan", Short: "The simulated WAN of a cluster started by tradepost dev"},
		c.wanChange("cut SITE", "Cut a site off", want("SITE"), "cut", (*httpapi.Client).CutWan),
		c.wanChange("heal [SITE]", "Mend the lines of a site, or all", want("[SITE]"), "healed", (*httpapi.Client).HealWan),
		c.wanShow())
}

func (c *cli) wanChange(use, short string, args cobra.PositionalArgs, word string, change func(*httpapi.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, ValidArgsFunction: c.live(named("site", "name")), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		site := ""
		if len(args) == 1 {
			site = args[0]
		}
		if err := change(api, cmd.Context(), site); err != nil {
			return err
		}
		return c.printDone(word, site)
	}}
}

func (c *cli) wanShow() *cobra.Command {
	return &cobra.Command{Use: "show", Short: "Show the lines between the sites", Args: want(), RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		links, err := api.Wan(cmd.Context())
		if err != nil {
			return err
		}
		g := columns("from", "to", "round trip", "state", "bytes")
		g.right = []int{2, 4}
		for _, l := range links {
			state := "up"
			if l.Cut {
				state = "cut"
			}
			g.add(l.A, l.B, fmt.Sprintf("%.1f ms", l.RTTMillis), state, l.Bytes)
		}
		return c.print(list(links), g.render)
	}}
}
