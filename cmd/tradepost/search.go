package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// maxHits is how many records a node names at most.
const maxHits = 100

func (c *cli) searchCommand() *cobra.Command {
	var entities []string
	var limit int
	cmd := &cobra.Command{
		Use: "search WORD...", Short: "Find records by the beginnings of words", Args: want("WORD..."),
		Example: `  tradepost search hausler --entity account,contact`,
	}
	cmd.Flags().StringSliceVar(&entities, "entity", nil, "entities to look in (default: all)")
	cmd.Flags().IntVar(&limit, "limit", 20, "records at most, up to 100")
	c.completeFlag(cmd, "entity", entityNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 || limit > maxHits {
			return usage("--limit", "%d is not from 1 to %d", limit, maxHits)
		}
		api, err := c.client()
		if err != nil {
			return err
		}
		hits, err := api.Search(cmd.Context(), strings.Join(args, " "), entities, limit)
		if err != nil {
			return err
		}
		g := columns("entity", "id", "title")
		for _, h := range hits {
			g.add(h.Entity, h.ID, h.Title)
		}
		return c.print(list(hits), g.render)
	}
	return cmd
}
