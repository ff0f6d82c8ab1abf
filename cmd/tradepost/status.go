package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/node"
)

func (c *cli) statusCommand() *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{Use: "status", Short: "Show the state of the node on one page", Args: want()}
	detailedFlag(cmd, &detailed, "the node is not ready")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		var s node.Status
		if err := api.Status(cmd.Context(), &s); err != nil {
			return err
		}
		if err := c.print(one(s), func(w io.Writer) { statusGrid(s, c.now()).render(w) }); err != nil {
			return err
		}
		return attention(detailed && !s.Ready)
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

// statusGrid is the page of one node: what a person asks first comes first.
func statusGrid(s node.Status, now time.Time) *grid {
	g := columns("what", "state")
	g.whole = true
	place := s.Site
	if s.City != "" {
		place += ", " + s.City
	}
	g.add("node", fmt.Sprintf("%s %d at %s", s.Role, s.Node, place))
	g.add("cluster", s.Cluster)
	g.add("program", "tradepost "+s.Version)
	ready := "yes"
	if !s.Ready {
		ready = "no: " + s.NotReady
	}
	g.add("ready", ready)
	if s.MasterStatus != nil {
		masterRows(g, s, now)
	}
	if s.ReplicaStatus != nil {
		replicaRows(g, s, now)
	}
	if !s.AsOf.IsZero() {
		g.add("up to date", fmt.Sprintf("as of %s, %s ago", s.AsOf.UTC().Format("2006-01-02 15:04:05 UTC"), ago(s.LagSeconds)))
	}
	return g
}

// oldBackup is the age at which the last backup is called old.
const oldBackup = 36 * time.Hour

func backupState(s *node.MasterStatus, now time.Time) string {
	if s.BackupAt.IsZero() {
		return "none: make one with tradepost backup"
	}
	age := now.Sub(s.BackupAt)
	text := fmt.Sprintf("rev %d, taken %s ago", s.Backup, ago(age.Seconds()))
	if age > oldBackup {
		text += ": old"
	}
	return text
}

func masterRows(g *grid, s node.Status, now time.Time) {
	leader := "none is known"
	switch {
	case s.Leads:
		leader = "this master"
	case s.Leader != 0:
		leader = fmt.Sprintf("master %d", s.Leader)
	}
	g.add("leader", leader)
	g.add("replicas", fmt.Sprintf("%d connected here", s.Sessions))
	g.add("position", fmt.Sprintf("rev %d", s.Head))
	raft := fmt.Sprintf("%s in term %s, log up to %s, applied up to %s", strings.ToLower(s.Raft.State), s.Raft.Term, s.Raft.Last, s.Raft.Applied)
	if !s.Leads && s.Raft.Contact != "" {
		raft += ", last heard from the leader: " + s.Raft.Contact
	}
	g.add("raft", raft)
	g.add("last backup", backupState(s.MasterStatus, now))
	st := s.Store
	g.add("store", fmt.Sprintf("%s, %d commits, of %.1f ms each and %.1f ms at most", size(st.Bytes), st.Commits, st.MeanCommitMillis, st.MaxCommitMillis))
}

func replicaRows(g *grid, s node.Status, now time.Time) {
	g.add("masters", lineState(s.ReplicaStatus))
	if len(s.Candidates) > 1 {
		g.add("nearest", candidatesText(s.Candidates))
	}
	if s.Relay != nil {
		g.add("relay", relayText(s.Relay))
	}
	if s.Trouble != "" {
		g.add("trouble", s.Trouble+" ["+string(s.Code)+"]")
	}
	g.add("position", positionText(s))
	outbox := "empty: all edits of this node are decided"
	if s.Outbox.Entries > 0 {
		outbox = fmt.Sprintf("%d edits on their way, %s", s.Outbox.Entries, size(int64(s.Outbox.Bytes)))
		if !s.Outbox.Oldest.IsZero() {
			outbox += ", the oldest made " + ago(now.Sub(s.Outbox.Oldest).Seconds()) + " ago"
		}
	}
	g.add("outbox", outbox)
	g.add("digests", digestText(s.ReplicaStatus, now))
	if s.Damage != "" {
		g.add("damage", s.Damage)
	}
}

// digestText says whether the node holds what the masters do.
func digestText(r *node.ReplicaStatus, now time.Time) string {
	out := fmt.Sprintf("equal to the masters' at rev %d", r.Verified)
	switch {
	case len(r.Suspect) > 0:
		out = fmt.Sprintf("suspect for %s: the territories %v", ago(now.Sub(r.SuspectSince).Seconds()), r.Suspect)
		if r.SuspectBuckets > 0 {
			out += fmt.Sprintf(", %d of their buckets", r.SuspectBuckets)
		}
		if out += "; what differs is fetched again"; r.Stuck {
			out += ", which does not cure it: run `tradepost check` at the master"
		}
	case r.Verified == 0:
		out = "not compared yet"
	}
	if r.Repaired > 0 {
		out += fmt.Sprintf("; %d territories repaired since the node started, %d records", r.Repaired, r.RepairedRecords)
	}
	return out
}

// candidatesText lists who may serve the node, the nearest first.
func candidatesText(list []node.CandidateStatus) string {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b node.CandidateStatus) int {
		unknown := func(c node.CandidateStatus) bool { return c.Down || c.RTTMillis == 0 }
		if unknown(a) != unknown(b) {
			return map[bool]int{false: -1, true: 1}[unknown(a)]
		}
		return cmp.Compare(a.RTTMillis, b.RTTMillis)
	})
	var out []string
	for _, c := range list {
		text := fmt.Sprintf("%s %.1f ms", c.Address, c.RTTMillis)
		switch {
		case c.Down:
			text = c.Address + " does not answer"
		case c.RTTMillis == 0:
			text = c.Address + " unmeasured"
		}
		if c.InUse {
			text += " (in use)"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func relayText(r *node.RelayStatus) string {
	text := fmt.Sprintf("serves %d nodes at %s", r.Nodes, r.Address)
	if r.Trouble != "" {
		text = fmt.Sprintf("serves nobody at %s: %s", r.Address, r.Trouble)
	}
	return text
}

func lineState(r *node.ReplicaStatus) string {
	if !r.Connected {
		if r.Master == "" {
			return "not connected"
		}
		return "not connected; last tried or heard " + r.Master
	}
	out := "connected to " + r.Master
	if r.RTTMillis > 0 {
		out += fmt.Sprintf(", round trip %.1f ms", r.RTTMillis)
	}
	if r.OffsetMillis != 0 {
		out += fmt.Sprintf(", its clock is %+.1f ms off this one", r.OffsetMillis)
	}
	return out
}

func positionText(s node.Status) string {
	switch {
	case s.Moving:
		return fmt.Sprintf("moves to timeline %d of restored masters, the one before is shown; they have rev %d", s.Timeline, s.Head)
	case s.Target > s.Cursor:
		return fmt.Sprintf("rev %d; catching up, %d of %d fetched", s.Cursor, s.Staged, s.Target)
	case s.Head > s.Cursor:
		return fmt.Sprintf("rev %d, %d behind the masters", s.Cursor, s.Head-s.Cursor)
	}
	return fmt.Sprintf("rev %d, the newest known", s.Cursor)
}

// ago says a time in seconds for people.
func ago(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// size says a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
