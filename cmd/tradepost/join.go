package main

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/node"
)

// maxJoinFile bounds what is read as a join string, in bytes.
const maxJoinFile = 64 << 10

func (c *cli) joinCommand() *cobra.Command {
	var sf settingsFlags
	var from, role string
	cmd := &cobra.Command{
		Use: "join [JOINSTRING | -]", Short: "Make a node of an existing cluster with a join string",
		Long: `Make the directory of a node of an existing cluster. The join string comes from
tradepost token create at a master; it is used up by this, and secret until then.
Other users of this machine can see arguments: - reads it from standard input, and
--file from a file. A token for a master also makes a relay: a master that serves
the replicas near it, and becomes a voter only when node promote says so.`,
		Example: `  tradepost token create --site lisbon | ssh lisbon tradepost join - --dir /var/lib/tradepost`,
		Args:    want("[JOINSTRING]"),
	}
	sf.register(cmd)
	cmd.Flags().StringVar(&from, "file", "", "read the join string from this file, - for standard input")
	cmd.Flags().StringVar(&role, "role", string(auth.RoleReplica), "replica or master, as the token says; relay: a master that serves replicas and never votes")
	complete(cmd, "role", string(auth.RoleReplica), string(auth.RoleMaster), string(auth.RoleRelay))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]auth.Role{auth.RoleReplica, auth.RoleMaster, auth.RoleRelay}, auth.Role(role)) {
			return usage("--role", "%q is not replica, master or relay", role)
		}
		text, err := c.joinString(args, from)
		if err != nil {
			return err
		}
		s, err := c.settings(&sf, cmd.Flags())
		if err != nil {
			return err
		}
		ctx, cancel := c.deadline(cmd.Context())
		defer cancel()
		id, err := node.Join(ctx, s, auth.Role(role), text, node.Env{Now: c.now, Logger: c.logger(s)})
		if err != nil {
			return err
		}
		c.note("Next: %s", sf.next(s.Dir, cmd.Flags()))
		return c.printIdentity(id, s.Dir)
	}
	return cmd
}

func (c *cli) joinString(args []string, from string) (string, error) {
	switch {
	case len(args) == 1 && from != "":
		return "", usage("--file", "the join string is given twice")
	case len(args) == 1 && args[0] != "-":
		return args[0], nil
	case len(args) == 0 && from == "":
		return "", usage("JOINSTRING", "give the join string, - to read it from standard input, or --file")
	}
	b, err := c.input(from, maxJoinFile)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// input reads a file, or standard input for "" and "-".
func (c *cli) input(name string, most int64) ([]byte, error) {
	var r io.Reader = c.stdin
	if name != "" && name != "-" {
		f, err := c.open(name)
		if err != nil {
			return nil, failed("read", name, err)
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, failed("read", name, err)
	}
	if int64(len(b)) > most {
		return nil, usage(name, "more than %d bytes", most)
	}
	return b, nil
}
