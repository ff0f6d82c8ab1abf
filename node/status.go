package node

import (
	"context"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/replica"
)

// A Status is how a node is now, as /api/v1/status writes it. Exactly one of
// MasterStatus and ReplicaStatus is there.
type Status struct {
	Role       string     `json:"role"` // master or replica
	Node       crm.NodeID `json:"node"`
	Site       string     `json:"site"`
	City       string     `json:"city,omitempty"`
	Cluster    string     `json:"cluster"`
	Version    string     `json:"version"` // of the program
	Ready      bool       `json:"ready"`
	NotReady   string     `json:"not_ready,omitempty"` // why
	Timeline   uint64     `json:"timeline,omitempty"`
	Head       crm.Rev    `json:"head"`           // of the masters, as far as known here
	AsOf       time.Time  `json:"as_of,omitzero"` // everything decided by then is here
	LagSeconds float64    `json:"lag_seconds"`    // since AsOf
	Seq        crm.Seq    `json:"seq"`            // of this node's newest edit; at a master, of its newest decided one
	*MasterStatus
	*ReplicaStatus
}

// A MasterStatus is what only a master has to say.
type MasterStatus struct {
	Leader   crm.NodeID        `json:"leader,omitempty"` // 0: none is known
	Leads    bool              `json:"leads"`
	Level    uint16            `json:"level"`    // the version of the protocol that the masters have activated
	Sessions int               `json:"sessions"` // replicas connected to this master
	Backup   crm.Rev           `json:"backup"`   // what the last announced backup holds; 0: there is none
	BackupAt time.Time         `json:"backup_at,omitzero"`
	Store    StoreStatus       `json:"store"`
	Raft     master.RaftStatus `json:"raft"`
}

// A StoreStatus is the state of a database file and of its commits since the
// node started. Times are in milliseconds.
type StoreStatus struct {
	Bytes            int64   `json:"bytes"`
	FreePages        int     `json:"free_pages"`
	OpenReads        int     `json:"open_reads"`
	Commits          uint64  `json:"commits"`
	LastCommitMillis float64 `json:"last_commit_ms"`
	MeanCommitMillis float64 `json:"mean_commit_ms"`
	MaxCommitMillis  float64 `json:"max_commit_ms"`
}

// A ReplicaStatus is what only a replica has to say.
type ReplicaStatus struct {
	Connected       bool              `json:"connected"`
	Master          string            `json:"master,omitempty"`     // address of the master or relay in session, or of the last one
	Candidates      []CandidateStatus `json:"candidates,omitempty"` // masters and relays that may serve this node
	Moves           int               `json:"moves,omitempty"`      // sessions left for a nearer one of them, since the node started
	Relay           *RelayStatus      `json:"relay,omitempty"`      // nil: it serves no other
	Trouble         string            `json:"trouble,omitempty"`    // why there is no session
	Code            crm.Code          `json:"code,omitempty"`       // of Trouble
	RTTMillis       float64           `json:"rtt_ms,omitempty"`     // to the master; 0: unmeasured
	OffsetMillis    float64           `json:"offset_ms,omitempty"`  // how far the master's clock is ahead
	Cursor          crm.Rev           `json:"cursor"`               // the base holds everything up to here
	Protocol        uint16            `json:"protocol,omitempty"`   // the version spoken with the master last
	Decided         crm.Seq           `json:"decided"`              // this node's edits up to here are decided
	Outbox          OutboxStatus      `json:"outbox"`
	Verified        crm.Rev           `json:"verified"`                   // the last Rev at which digests were compared and equal
	Suspect         []crm.TerritoryID `json:"suspect,omitempty"`          // territories found to differ, not repaired yet
	SuspectSince    time.Time         `json:"suspect_since,omitzero"`     // the first of them
	SuspectBuckets  int               `json:"suspect_buckets,omitempty"`  // of them known to be wrong
	Stuck           bool              `json:"stuck,omitempty"`            // repairs do not cure them
	Repaired        int               `json:"repaired,omitempty"`         // territories repaired since the node started
	RepairedRecords int               `json:"repaired_records,omitempty"` // that these repairs changed
	Damage          string            `json:"damage,omitempty"`           // of the journal, or of the base as a whole
	Moving          bool              `json:"moving,omitempty"`           // the base goes over to the timeline of restored masters: the one before is shown until it has
	Staged          crm.Rev           `json:"staged,omitempty"`           // a catch-up or bootstrap has come this far
	Target          crm.Rev           `json:"target,omitempty"`           // where it leads
}

// A CandidateStatus is a node that may serve this one.
type CandidateStatus struct {
	Address   string  `json:"address"`
	RTTMillis float64 `json:"rtt_ms,omitempty"` // smoothed; 0: unmeasured
	InUse     bool    `json:"in_use,omitempty"`
	Down      bool    `json:"down,omitempty"` // it did not answer when it was last asked
}

// A RelayStatus says how a relay serves.
type RelayStatus struct {
	Address string `json:"address"`
	Nodes   int    `json:"nodes"`             // in session
	Trouble string `json:"trouble,omitempty"` // why nobody is served
}

// An OutboxStatus sums up the edits that no master has decided.
type OutboxStatus struct {
	Entries int       `json:"entries"`
	Bytes   int       `json:"bytes"`
	Oldest  time.Time `json:"oldest,omitzero"`
}

// Status returns how the node is now.
func (n *Node) Status(context.Context) (Status, error) {
	s := Status{Role: string(n.id.Role), Node: n.id.Node, Site: n.id.Site, City: n.set.City, Cluster: n.id.Cluster, Version: n.env.Version}
	if n.master != nil {
		s.ofMaster(n.master.Status())
	} else {
		s.ofReplica(n.replica.Status())
	}
	if err := n.API().Ready(); err != nil {
		s.NotReady = err.Error()
	}
	s.Ready = s.NotReady == ""
	if !s.AsOf.IsZero() {
		s.LagSeconds = max(0, n.env.Now().Sub(s.AsOf).Seconds())
	}
	return s, nil
}

func (s *Status) ofMaster(m master.Status) {
	s.Timeline, s.Head, s.AsOf, s.Seq = m.Timeline, m.Head, m.AsOf, m.Seq
	st := m.Store
	s.MasterStatus = &MasterStatus{Leader: m.Leader, Leads: m.Leads, Level: m.Level, Sessions: m.Sessions, Backup: m.Backup, BackupAt: m.BackupAt, Raft: m.Raft, Store: StoreStatus{
		Bytes: st.Bytes, FreePages: st.FreePages, OpenReads: st.OpenReads, Commits: st.Commits,
		LastCommitMillis: milliseconds(st.LastCommit), MaxCommitMillis: milliseconds(st.MaxCommit),
		MeanCommitMillis: milliseconds(st.TotalCommit / time.Duration(max(st.Commits, 1))),
	}}
}

func (s *Status) ofReplica(r replica.Status) {
	s.Timeline, s.Head, s.AsOf, s.Seq = r.Timeline, r.Head, r.AsOf, r.Seq
	s.ReplicaStatus = &ReplicaStatus{
		Connected: r.Connected, Master: r.Master, Trouble: r.Trouble, Code: r.Code, RTTMillis: milliseconds(r.RTT), OffsetMillis: milliseconds(r.Offset),
		Cursor: r.Cursor, Protocol: r.Protocol, Decided: r.Decided, Outbox: OutboxStatus(r.Outbox), Verified: r.Verified, Suspect: r.Suspect, SuspectSince: r.SuspectSince, SuspectBuckets: r.SuspectBuckets, Stuck: r.Stuck,
		Repaired: r.Repaired, RepairedRecords: r.RepairedRecords, Damage: r.Damage, Moving: r.Moving, Staged: r.Staged, Target: r.Target,
		Moves: r.Moves, Relay: (*RelayStatus)(r.Relay),
	}
	for _, c := range r.Candidates {
		s.Candidates = append(s.Candidates, CandidateStatus{c.Address, milliseconds(c.RTT), c.InUse, c.Down})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
