package master

import (
	"context"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// A Status says how a master is. Zero values mean unknown or never.
type Status struct {
	Cluster  string      `json:"cluster"`
	Site     string      `json:"site"`
	City     string      `json:"city,omitempty"`
	Node     crm.NodeID  `json:"node"`
	Ready    bool        `json:"ready"`
	Trouble  string      `json:"trouble,omitempty"` // why it is not ready
	Leader   crm.NodeID  `json:"leader,omitempty"`
	Leads    bool        `json:"leads"`
	Level    uint16      `json:"level"` // the version of the protocol that the log has activated
	Timeline uint64      `json:"timeline,omitempty"`
	Head     crm.Rev     `json:"head"`   // committed here
	Backup   crm.Rev     `json:"backup"` // what the last announced backup holds; 0: there is none
	BackupAt time.Time   `json:"backup_at,omitzero"`
	AsOf     time.Time   `json:"as_of,omitzero"` // everything decided by then is committed here
	Seq      crm.Seq     `json:"seq"`            // of this master's newest decided edit
	Sessions int         `json:"sessions"`       // replicas connected here
	Store    store.Stats `json:"store"`
	Raft     RaftStatus  `json:"raft"`
}

// A RaftStatus is a master's part in Raft.
type RaftStatus struct {
	State   string `json:"state"` // Leader, Follower, Candidate or Shutdown
	Term    string `json:"term"`
	Last    string `json:"last_log_index"`
	Applied string `json:"applied_index"`
	Contact string `json:"last_contact"` // since the leader was heard
}

// Status returns how this master is now.
func (m *Master) Status() Status {
	s := Status{Cluster: m.id.Cluster, Site: m.id.Site, City: m.cfg.City, Node: m.node, Head: m.ledger.head(), AsOf: m.asOf(),
		Sessions: len(m.server.Sessions()), Store: m.ledger.db().Stats()}
	leader, _, self := m.ledger.leader()
	s.Leader, s.Leads = nodeOf(leader), self
	stats := m.ledger.stats()
	s.Raft = RaftStatus{State: stats["state"], Term: stats["term"], Last: stats["last_log_index"], Applied: stats["applied_index"], Contact: stats["last_contact"]}
	if err := m.Ready(); err != nil {
		s.Trouble = err.Error()
	}
	s.Ready = s.Trouble == ""
	err := m.ledger.db().View(func(tx *store.Tx) (err error) {
		f, err := m.freshness(tx)
		if err != nil {
			return err
		}
		s.Timeline, s.Seq = f.Timeline, f.Seq
		if s.Level, err = session.LevelIn(tx); err != nil {
			return err
		}
		b, err := session.BackupIn(tx)
		if b.Rev != 0 {
			s.Backup, s.BackupAt = b.Rev, time.UnixMilli(b.Millis).UTC()
		}
		return err
	})
	if err != nil && s.Trouble == "" {
		s.Trouble = err.Error()
	}
	return s
}

// Ready returns nil if this master can read and have edits decided, else an
// error with code unavailable or no_leader that says what it waits for.
func (m *Master) Ready() error {
	if m.ledger.head() == 0 {
		return &crm.Error{Code: crm.CodeUnavailable, Op: "serve", Message: "this master has no data yet; it waits for the others, or for `tradepost init`; after a loss of all masters stop it and bring back a backup with `tradepost restore`"}
	}
	if id, _, _ := m.ledger.leader(); id == "" {
		return session.NoLeader("serve")
	}
	return nil
}

// Check compares everything derived in the store with what it is derived from
// and returns what does not agree. It reads the whole file.
func (m *Master) Check(ctx context.Context) (found []store.Finding, err error) {
	err = m.ledger.db().View(func(tx *store.Tx) (err error) {
		found, err = tx.Check(ctx)
		return err
	})
	return found, err
}

// Outcome returns what became of this master's own edit, and whether it is
// decided as far as this master sees.
func (m *Master) Outcome(seq crm.Seq) (o crm.Outcome, ok bool, err error) {
	err = m.ledger.db().View(func(tx *store.Tx) error {
		st, _, err := tx.Node(m.node)
		if err != nil || st.LastSeq < seq {
			return err
		}
		ok = true
		o, err = decidedOutcome(tx, m.node, seq, nil)
		return err
	})
	return o, ok, err
}
