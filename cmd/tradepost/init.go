package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/node"
)

type identityText struct {
	SchemaVersion int      `json:"schema_version"`
	Cluster       string   `json:"cluster"`
	Role          string   `json:"role"`
	Site          string   `json:"site"`
	Node          uint32   `json:"node"`
	Masters       []string `json:"masters,omitempty"`
	Dir           string   `json:"dir"`
}

func (c *cli) printIdentity(id node.Identity, dir string) error {
	t := identityText{schemaVersion, id.Cluster, string(id.Role), id.Site, uint32(id.Node), id.Masters, dir}
	return c.print(t, func(w io.Writer) {
		fmt.Fprintf(w, "%s %d at %s of cluster %s, in %s\n", t.Role, t.Node, t.Site, t.Cluster, t.Dir)
	})
}

func (c *cli) initCommand() *cobra.Command {
	var sf settingsFlags
	var o node.InitOptions
	cmd := &cobra.Command{
		Use: "init --site NAME", Short: "Make the first master of a new cluster",
		Long: `Make the directory of the first master of a new cluster: its CA, the node's
certificate, a gossip key and the first API token (admin.token). The cluster
starts when the directory is first run with tradepost serve.`,
		Example: `  tradepost init --site hq --city Lisbon --dir /var/lib/tradepost
  tradepost serve --dir /var/lib/tradepost`,
		Args: want(),
	}
	sf.register(cmd)
	cmd.Flags().StringVar(&o.Site, "site", "", "name of head office's site, such as hq")
	cmd.Flags().StringVar(&o.Cluster, "cluster", "", "id of the cluster (default: a random one)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Site == "" {
			return usage("--site", "name the site of head office, such as --site hq")
		}
		var err error
		if o.Settings, err = c.settings(&sf, cmd.Flags()); err != nil {
			return err
		}
		id, err := node.Init(cmd.Context(), o, node.Env{Now: c.now})
		if err != nil {
			return err
		}
		c.note("Next: %s", sf.next(o.Settings.Dir, cmd.Flags()))
		return c.printIdentity(id, o.Settings.Dir)
	}
	return cmd
}
