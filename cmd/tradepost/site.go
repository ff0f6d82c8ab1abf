package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

func (c *cli) siteCommand() *cobra.Command {
	return grouped(&cobra.Command{Use: "site", Short: "The places where people work", Long: "The places where people work. Only a master changes them."}, c.siteAdd(),
		c.recordsOf("site", "List the sites", "name", "city", "country", "home_territory", "territories"))
}

func (c *cli) siteAdd() *cobra.Command {
	var city, country, home string
	var territories []string
	var wait waitFlag
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Add a site",
		Example: `  tradepost site add lisbon --city Lisbon --country Portugal --territories iberia --home iberia`, Args: want("NAME"),
	}
	f := cmd.Flags()
	f.StringVar(&city, "city", "", "where it is")
	f.StringVar(&country, "country", "", "in which country")
	f.StringVar(&home, "home", "", "code of the territory of records made there that belong to no account")
	f.StringSliceVar(&territories, "territories", nil, "codes of the territories it holds")
	wait.register(cmd)
	c.completeFlag(cmd, "home", named("territory", "code"))
	c.completeFlag(cmd, "territories", named("territory", "code"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		fields := httpapi.Fields{"name": args[0]}
		for name, value := range map[string]string{"city": city, "country": country, "home_territory": home} {
			if value != "" {
				fields[name] = value
			}
		}
		if len(territories) > 0 {
			fields["territories"] = territories
		}
		return c.edit(cmd, &wait, func(ctx context.Context, api *httpapi.Client, w httpapi.Wait) (httpapi.Edited, error) {
			return api.Create(ctx, "site", fields, w)
		})
	}
	return cmd
}

// recordsOf lists all records of a system entity with the fields as columns.
func (c *cli) recordsOf(entity, short string, fields ...string) *cobra.Command {
	return &cobra.Command{Use: "list", Short: short, Args: want(), RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		var items []httpapi.Item
		for it, err := range api.List(cmd.Context(), entity, httpapi.Query{Sort: fields[0]}) {
			if err != nil {
				return err
			}
			items = append(items, it)
		}
		return c.print(list(items), itemGrid(items, fields).render)
	}}
}

// itemGrid shows fields of records; "id" is the record's own.
func itemGrid(items []httpapi.Item, fields []string) *grid {
	g := columns(fields...)
	for i := range items {
		row := make([]any, len(fields))
		for j, f := range fields {
			if row[j] = items[i].Text(f); f == "id" {
				row[j] = items[i].ID
			}
		}
		g.add(row...)
	}
	return g
}

// siteID finds a site by its name.
func siteID(ctx context.Context, api *httpapi.Client, name string) (httpapi.Item, error) {
	page, _, err := api.Page(ctx, "site", httpapi.Query{Filter: "name == " + quote(name)})
	if err != nil {
		return httpapi.Item{}, err
	}
	if len(page.Items) == 0 {
		return httpapi.Item{}, &crm.Error{Code: crm.CodeNotFound, Item: name, Message: "no such site; tradepost site list shows them"}
	}
	return page.Items[0], nil
}
