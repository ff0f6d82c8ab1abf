package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/tradepost-crm/tradepost/crm"
)

type statusText struct {
	SchemaVersion int             `json:"schema_version"`
	Ready         bool            `json:"ready"`
	NotReady      string          `json:"not_ready,omitempty"` // why
	Status        json.RawMessage `json:"status"`
}

func (c *cli) statusCommand() *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{Use: "status", Short: "Show the state of the node on one page", Args: want()}
	detailedFlag(cmd, &detailed, "the node is not ready")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		t := statusText{SchemaVersion: schemaVersion, Ready: true}
		if err := api.Status(cmd.Context(), &t.Status); err != nil {
			return err
		}
		if err := api.Ready(cmd.Context()); err != nil {
			t.Ready, t.NotReady = false, plain(err).Message
		}
		if err := c.print(t, t.write); err != nil {
			return err
		}
		return attention(detailed && !t.Ready)
	}
	return cmd
}

// attention ends a command with exit code 2.
func attention(needed bool) error {
	if !needed {
		return nil
	}
	return &crm.Error{Code: codeAttention, Message: "there is something to look at"}
}

func detailedFlag(cmd *cobra.Command, into *bool, when string) {
	cmd.Flags().BoolVar(into, "detailed-exitcode", false, "exit with 2 if "+when)
}

func (t statusText) write(w io.Writer) {
	g := columns("what", "value")
	ready := "yes"
	if !t.Ready {
		ready = "no: " + t.NotReady
	}
	g.add("ready", ready)
	var n yaml.Node // JSON is YAML, and a node keeps the order
	if err := yaml.Unmarshal(t.Status, &n); err == nil && len(n.Content) == 1 {
		flatten(g, "", n.Content[0])
	}
	g.render(w)
}

// flatten adds a row for each value of a tree.
func flatten(g *grid, path string, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			flatten(g, strings.TrimPrefix(path+"."+n.Content[i].Value, "."), n.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, k := range n.Content {
			flatten(g, fmt.Sprintf("%s[%d]", path, i), k)
		}
	default:
		name, value := path, n.Value
		if d, err := time.ParseDuration(value + "ns"); err == nil && strings.HasSuffix(path, "_ns") {
			name, value = strings.TrimSuffix(path, "_ns"), d.Round(10*time.Microsecond).String()
		}
		g.add(strings.ReplaceAll(name, "_", " "), value)
	}
}
