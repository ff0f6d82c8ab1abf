package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// A waitFlag says whether an edit waits for the master.
type waitFlag string

func (f *waitFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVar((*string)(f), "wait", "", "decided: wait until the master has decided the edit")
	complete(cmd, "wait", "decided")
}

// time returns how long to wait: less than the client itself waits for the
// answer, and no longer than a node allows.
func (f waitFlag) time(timeout time.Duration) (httpapi.Wait, error) {
	switch f {
	case "":
		return 0, nil
	case "decided":
		return httpapi.Wait(min(timeout*9/10, httpapi.MaxWait)), nil
	}
	return 0, usage("--wait", "%q is not decided", string(f))
}

// writtenText is what a command that edits one record prints.
type writtenText struct {
	SchemaVersion int                  `json:"schema_version"`
	Saved         string               `json:"saved"` // here or everywhere
	Node          crm.NodeID           `json:"node"`
	Seq           crm.Seq              `json:"seq"`
	Outcome       *httpapi.OutcomeText `json:"outcome"`
	Record        *httpapi.Item        `json:"record"`
}

// edit makes an edit and prints how far it came.
func (c *cli) edit(cmd *cobra.Command, wait *waitFlag, do func(context.Context, *httpapi.Client, httpapi.Wait) (httpapi.Edited, error)) error {
	w, err := wait.time(c.timeout)
	if err != nil {
		return err
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	e, err := do(cmd.Context(), api, w)
	if err != nil {
		return err
	}
	t := writtenText{schemaVersion, e.Saved, e.Node, e.Seq, e.Outcome, e.Item}
	if err := c.print(t, t.write); err != nil {
		return err
	}
	return undecided(w, e.Outcome)
}

// undecided is the error of an edit that waited for its outcome in vain.
func undecided(w httpapi.Wait, outcome *httpapi.OutcomeText) error {
	if w == 0 || outcome != nil {
		return nil
	}
	return &crm.Error{Code: crm.CodeTimeout, Message: "the edit is saved here and not decided yet"}
}

func (t writtenText) write(w io.Writer) {
	if t.Record != nil {
		fmt.Fprintf(w, "%s %s\n", cell(t.Record.Entity), cell(t.Record.ID))
	}
	fmt.Fprintf(w, "saved %s (node %d, seq %d)", t.Saved, t.Node, t.Seq)
	if t.Outcome != nil {
		fmt.Fprintf(w, ": %s", cell(t.Outcome.Kind))
		if t.Outcome.Message != "" {
			fmt.Fprintf(w, ", %s", cell(t.Outcome.Message))
		}
	}
	fmt.Fprintln(w)
}

// deadline bounds work that is not one request.
func (c *cli) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}
