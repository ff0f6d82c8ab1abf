package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/node"
)

type backupText struct {
	SchemaVersion int    `json:"schema_version"`
	File          string `json:"file"`
	Announced     bool   `json:"announced,omitempty"` // left out where nobody was told
	master.BackupInfo
}

// runsAlone marks a command that does something itself and has others below.
const runsAlone = "runs-alone"

func (c *cli) backupCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "backup --to FILE", Short: "Back up the masters' data",
		Long: `Write a backup of the masters' data, as the master at --addr holds it, to a file
on this machine: the cluster goes on meanwhile. The file is written under another
name, synced and checked whole, and gets its name only then; a file that exists is
not replaced. Then the cluster is told, so that branches may forget the edits that
the backup holds: keep the file, and keep it elsewhere. After a restore of an older
backup than the last one that was announced a branch may lack edits to send again.

Ask a follower rather than the leader, and one that is near: while the file is
on its way, the master keeps what changes meanwhile beside it.`,
		Example: `  tradepost backup --to /backup/tradepost-2026-11-21.db
  tradepost backup verify /backup/tradepost-2026-11-21.db`,
		Args: want(), Annotations: map[string]string{runsAlone: ""},
	}
	cmd.Flags().StringVar(&to, "to", "", "file to write; must not exist")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return usage("--to", "name the file to write, such as --to /backup/tradepost.db")
		}
		api, err := c.client()
		if err != nil {
			return err
		}
		quick := *api
		unlimited := *api.HTTP
		unlimited.Timeout = 0
		api.HTTP = &unlimited
		info, err := node.SaveBackup(cmd.Context(), to, func(w io.Writer) error { return api.Backup(cmd.Context(), w) })
		if err != nil {
			return err
		}
		if err := quick.AnnounceBackup(cmd.Context(), info); err != nil {
			return fmt.Errorf("%s is a good backup, but branches do not know of it (`tradepost backup announce` tells them): %w", to, err)
		}
		return c.printBackup(to, info, true)
	}
	cmd.AddCommand(c.backupVerify(), c.backupAnnounce())
	return cmd
}

func (c *cli) backupVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE", Short: "Check a backup whole and say what it holds", Args: want("FILE"),
		Long: `Read a backup file on this machine whole: its checksum, its structure, every
invariant of its data, and that it holds what it says. The file is only read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := node.VerifyBackup(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.printBackup(args[0], info, false)
		},
	}
}

func (c *cli) backupAnnounce() *cobra.Command {
	return &cobra.Command{
		Use: "announce FILE", Short: "Tell the cluster of a backup that could not be announced when it was made", Args: want("FILE"),
		Long: `Check a backup file whole and tell the cluster, through the master at --addr, that
it is safe: branches may then forget the edits that it holds. tradepost backup does
this by itself.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := node.VerifyBackup(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			if err := api.AnnounceBackup(cmd.Context(), info); err != nil {
				return err
			}
			return c.printBackup(args[0], info, true)
		},
	}
}

func (c *cli) printBackup(file string, b master.BackupInfo, announced bool) error {
	return c.print(backupText{schemaVersion, file, announced, b}, func(w io.Writer) {
		g := columns("what", "state")
		g.whole = true
		g.add("file", file)
		g.add("cluster", b.Cluster)
		g.add("holds", fmt.Sprintf("rev %d of timeline %d, raft index %d", b.Rev, b.Timeline, b.RaftIndex))
		g.add("taken", b.Taken.Format("2006-01-02 15:04:05 UTC"))
		g.add("database", size(b.Size))
		g.add("sha256 of it", b.SHA256)
		g.add("checked", "whole: every invariant holds")
		if announced {
			g.add("announced", "branches may forget the edits that it holds")
		}
		g.render(w)
	})
}
