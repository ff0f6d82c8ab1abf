package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/store"
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
node that is stopped. The files are only read. The exit code is 1 if anything is
wrong, with --detailed-exitcode 2, so that a script can tell it from a check that
could not be made.`,
		Args: want(),
	}
	cmd.Flags().StringVar(&dir, "dir", "", "check the files of a stopped node in this directory")
	detailedFlag(cmd, &detailed, "anything is wrong")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		findings, err := c.findings(cmd.Context(), dir)
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
	g := columns("kind", "item", "message")
	for _, f := range t.Findings {
		g.add(f.Kind, f.Item, f.Message)
	}
	g.render(w)
}

func (c *cli) findings(ctx context.Context, dir string) ([]httpapi.Finding, error) {
	if dir != "" {
		return checkDir(ctx, dir)
	}
	api, err := c.client()
	if err != nil {
		return nil, err
	}
	api.HTTP.Timeout = 0 // the node reads its whole store
	return api.Check(ctx)
}

// checkDir checks the files of a stopped node: of a master its one base file, of
// a replica the base and the journal over it.
func checkDir(ctx context.Context, dir string) ([]httpapi.Finding, error) {
	id, err := node.ReadIdentity(dir)
	if err != nil {
		return nil, err
	}
	if id.Role == auth.RoleMaster {
		found, _, err := checkBase(ctx, filepath.Join(dir, "master.db"))
		return found, err
	}
	found, schema, err := checkBase(ctx, filepath.Join(dir, "base.db"))
	if err != nil {
		return nil, err
	}
	j, err := store.OpenJournal(filepath.Join(dir, "journal.db"), store.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer j.Close()
	err = j.View(func(tx *store.JTx) error {
		more, err := tx.Check(ctx, schema)
		found = append(found, findingTexts("journal.db", more)...)
		return err
	})
	return found, err
}

func checkBase(ctx context.Context, path string) (found []httpapi.Finding, schema *crm.Schema, err error) {
	db, err := store.Open(path, store.Options{ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	err = db.View(func(tx *store.Tx) error {
		schema = tx.Schema()
		list, err := tx.Check(ctx)
		found = findingTexts(filepath.Base(path), list)
		return err
	})
	return found, schema, err
}

func findingTexts(file string, list []store.Finding) []httpapi.Finding {
	var out []httpapi.Finding
	for _, f := range list {
		out = append(out, httpapi.Finding{Kind: file + "/" + f.Bucket, Item: f.Item, Message: f.Detail})
	}
	return out
}
