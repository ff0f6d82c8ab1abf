package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/node"
)

type restoredText struct {
	SchemaVersion int    `json:"schema_version"`
	Dir           string `json:"dir"`
	node.Restored
}

func (c *cli) restoreCommand() *cobra.Command {
	var sf settingsFlags
	var from string
	cmd := &cobra.Command{
		Use: "restore --from FILE", Short: "Begin a cluster anew from a backup, on a master's host",
		Long: `Put a backup in place of what the master in --dir had, when the masters' data is
lost. The master and all other masters must be stopped. This one keeps its identity,
and is the only master when it is run next; the others join anew,
in new directories. What was in the directory is moved aside, not deleted. Give the
flags that the master was run with, such as --sync, here and to serve: a directory
does not keep them.

Everything decided after the backup was taken is gone from the masters. Branches
find that out by themselves: they keep serving, fetch what differs, and send again
every edit of theirs that the backup lacks. What head office edited after the backup
is lost; each branch logs what it held of that. docs/restore.md has the drill.`,
		Example: `  tradepost backup verify /backup/tradepost-2026-11-21.db
  tradepost restore --from /backup/tradepost-2026-11-21.db --dir /var/lib/tradepost
  tradepost serve --dir /var/lib/tradepost`,
		Args: want(),
	}
	sf.register(cmd)
	cmd.Flags().StringVar(&from, "from", "", "backup to restore")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if from == "" {
			return usage("--from", "name the backup, such as --from /backup/tradepost.db")
		}
		s, err := c.settings(&sf, cmd.Flags())
		if err != nil {
			return err
		}
		if err := c.confirm("make the master in " + s.Dir + " the only one, with what the backup holds"); err != nil {
			return err
		}
		done, err := node.Restore(cmd.Context(), s, from, node.Env{Now: c.now})
		if err != nil {
			return err
		}
		return c.printRestored(s.Dir, done, sf.next(s.Dir, cmd.Flags()))
	}
	return cmd
}

// gone is the flag without which nothing is promoted.
const gone = "yes-the-voters-are-gone"

func (c *cli) promoteCommand() *cobra.Command {
	var sf settingsFlags
	var sure bool
	cmd := &cobra.Command{
		Use: "promote --" + gone, Short: "Make a master the only one, when those that vote are lost for good",
		Long: `Make the master in --dir the only one of its cluster, with the data that it has:
when a region is lost with the masters that vote, and one that only follows is left.
The master must be stopped. It keeps its identity; give the flags that it was run
with here and to serve.

Do this only if the masters that vote are gone for good. If they live there are two
clusters from now on, each of which decides for itself: a branch goes on with the
one that it reaches first, changes over to this one when it meets it, and never goes
back. It sends all its edits again that this one lacks, but what is edited at the
old masters meanwhile is lost. If a majority of them can be brought back, do that
instead. See docs/restore.md.`,
		Example: `  tradepost promote --yes-the-voters-are-gone --dir /var/lib/tradepost
  tradepost serve --dir /var/lib/tradepost`,
		Args: want(),
	}
	sf.register(cmd)
	cmd.Flags().BoolVar(&sure, gone, false, "the masters that vote are lost for good, or will never run again")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !sure {
			return usage("--"+gone, "if the masters that vote still run, or will run again, there would be two clusters: stop them for good, and say --%s", gone)
		}
		s, err := c.settings(&sf, cmd.Flags())
		if err != nil {
			return err
		}
		done, err := node.Promote(cmd.Context(), s, node.Env{Now: c.now})
		if err != nil {
			return err
		}
		return c.printRestored(s.Dir, done, sf.next(s.Dir, cmd.Flags()))
	}
	return cmd
}

func (c *cli) printRestored(dir string, done node.Restored, next string) error {
	c.note("Next: %s", next)
	return c.print(restoredText{schemaVersion, dir, done}, func(w io.Writer) {
		g := columns("what", "state")
		g.whole = true
		g.add("holds", fmt.Sprintf("rev %d of timeline %d; timeline %d begins", done.Rev, done.Parent, done.Timeline))
		if !done.Taken.IsZero() {
			g.add("taken", done.Taken.Format("2006-01-02 15:04:05 UTC")+"; what head office edited since is gone")
		}
		g.add("masters", "this one alone"+removedText(done))
		g.add("join tokens", fmt.Sprintf("%d were open and are used up", done.Tokens))
		if done.Aside != "" {
			g.add("old files", done.Aside)
		}
		g.render(w)
	})
}

func removedText(done node.Restored) string {
	if len(done.Removed) == 0 {
		return ""
	}
	var names []string
	for _, n := range done.Removed {
		names = append(names, fmt.Sprint(n))
	}
	return "; removed, to join anew: " + strings.Join(names, ", ")
}
