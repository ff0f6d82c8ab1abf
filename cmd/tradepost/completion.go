package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// completionTime bounds what a shell waits for names from the node.
const completionTime = 500 * time.Millisecond

type completer = func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective)

// live makes a completion from words of the live node. It is silent when the
// node is not: then there are no words.
func (c *cli) live(words func(ctx context.Context, api *httpapi.Client, args []string) []string) completer {
	return func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if c.settle(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		api, err := c.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		api.HTTP = &http.Client{Timeout: completionTime}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var out []string
		for _, w := range words(ctx, api, args) {
			if strings.HasPrefix(w, part) {
				out = append(out, w)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace&directive(out)
	}
}

// directive keeps the cursor at a word that is only begun, such as name=.
func directive(words []string) cobra.ShellCompDirective {
	for _, w := range words {
		if !strings.HasSuffix(w, "=") {
			return 0
		}
	}
	return cobra.ShellCompDirectiveNoSpace
}

// entityNames complete the first argument, and fields, each with a "=", the
// later ones.
func entityNames(ctx context.Context, api *httpapi.Client, args []string) []string {
	schema, err := api.Schema(ctx)
	if err != nil || len(args) > 0 {
		return nil
	}
	return schema.Names()
}

// fieldArguments complete "field=" after an entity and skip arguments more.
func fieldArguments(skip int) func(ctx context.Context, api *httpapi.Client, args []string) []string {
	return func(ctx context.Context, api *httpapi.Client, args []string) []string {
		if len(args) == 0 {
			return entityNames(ctx, api, args)
		}
		if len(args) < 1+skip {
			return nil
		}
		var out []string
		for _, name := range writable(ctx, api, args[0]) {
			out = append(out, name+"=")
		}
		return out
	}
}

// fieldList completes the fields of the entity that the first argument names.
func fieldList(ctx context.Context, api *httpapi.Client, args []string) []string {
	if len(args) == 0 {
		return nil
	}
	return writable(ctx, api, args[0])
}

func writable(ctx context.Context, api *httpapi.Client, entity string) []string {
	schema, err := api.Schema(ctx)
	if err != nil || schema.Entity(entity) == nil {
		return nil
	}
	var out []string
	for _, f := range schema.Entity(entity).Fields {
		if !f.ReadOnly && f.ID >= crm.FirstField {
			out = append(out, f.Name)
		}
	}
	return out
}

// named completes with a field of all records of a system entity.
func named(entity, field string) func(ctx context.Context, api *httpapi.Client, args []string) []string {
	return func(ctx context.Context, api *httpapi.Client, _ []string) []string {
		page, _, err := api.Page(ctx, entity, httpapi.Query{Limit: 200, Asked: httpapi.Asked{Fields: []string{field}}})
		if err != nil {
			return nil
		}
		var out []string
		for i := range page.Items {
			out = append(out, page.Items[i].Text(field))
		}
		return out
	}
}

// grantNames complete a site and then territories.
func grantNames(ctx context.Context, api *httpapi.Client, args []string) []string {
	if len(args) == 0 {
		return named("site", "name")(ctx, api, args)
	}
	return named("territory", "code")(ctx, api, args)
}

func (c *cli) completeFlag(cmd *cobra.Command, flag string, words func(ctx context.Context, api *httpapi.Client, args []string) []string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, c.live(words)); err != nil {
		panic(err) // the flag does not exist
	}
}
