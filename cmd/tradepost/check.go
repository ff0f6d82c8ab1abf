package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/node"
)

type checkText struct {
	SchemaVersion int               `json:"schema_version"`
	OK            bool              `json:"ok"`
	Findings      []httpapi.Finding `json:"findings"`
}

func (c *cli) checkCommand() *cobra.Command {
	var dir string
	var detailed bool
	cmd := &cobra.Command{
		Use: "check", Short: "Check every invariant of a node's files",
		Long: `Check every invariant of the files of the node at --addr, or, with --dir, of a
node that is stopped: the same checks, but for those that need a running node's
memory (that what was shown never goes back). The files are only read; those of a
replica are copied to the temporary directory first, so there must be room for
them. The exit code is 1 if anything is wrong, with --detailed-exitcode 2, so that
a script can tell it from a check that could not be made.

A finding with a territory and a bucket concerns that part of the digest. A
replica that runs finds such damage by itself and fetches the bucket again from
the masters (see status); there is no command for it, since nothing is left to
decide. A master with findings is replaced.`,
		Args: want(),
	}
	cmd.Flags().StringVar(&dir, "dir", "", "check the files of a stopped node in this directory")
	detailedFlag(cmd, &detailed, "anything is wrong")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		findings, err := c.findings(cmd.Context(), dir)
		if e, ok := errors.AsType[*crm.Error](err); ok && e.Code == crm.CodeCorrupt {
			findings, err = append(findings, httpapi.Finding{Kind: "file", Item: e.Item, Message: e.Message}), nil
		}
		if err != nil {
			return err
		}
		if findings == nil {
			findings = []httpapi.Finding{}
		}
		t := checkText{schemaVersion, len(findings) == 0, findings}
		if err := c.print(t, t.write); err != nil || t.OK {
			return err
		}
		if detailed {
			return attention(true)
		}
		return &crm.Error{Code: crm.CodeCorrupt, Op: "check", Message: fmt.Sprintf("%d findings; keep a copy of the directory before anything else", len(findings))}
	}
	return cmd
}

func (t checkText) write(w io.Writer) {
	if t.OK {
		fmt.Fprintln(w, "ok: every invariant holds")
		return
	}
	g := columns("kind", "territory", "bucket", "item", "message")
	g.whole = true
	for _, f := range t.Findings {
		territory, bucket := "", ""
		if f.Bucket != nil {
			territory, bucket = fmt.Sprint(f.Territory), fmt.Sprint(*f.Bucket)
		}
		g.add(f.Kind, territory, bucket, f.Item, f.Message)
	}
	g.render(w)
}

func (c *cli) findings(ctx context.Context, dir string) ([]httpapi.Finding, error) {
	if dir != "" {
		return node.CheckDir(ctx, dir, "")
	}
	api, err := c.client()
	if err != nil {
		return nil, err
	}
	api.HTTP.Timeout = 0 // the node reads its whole store
	return api.Check(ctx)
}
