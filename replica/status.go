package replica

import (
	"cmp"
	"errors"
	"io"
	"net"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Status says how the node is. Times are UTC; zero times and Revs mean never.
type Status struct {
	Site      string     `json:"site"`
	Node      crm.NodeID `json:"node"`
	Ready     bool       `json:"ready"`
	Connected bool       `json:"connected"`
	Master    string     `json:"master,omitempty"`  // address of the master in session, or of the last one
	Trouble   string     `json:"trouble,omitempty"` // why there is no session
	Code      crm.Code   `json:"code,omitempty"`    // of Trouble: fenced and frozen need a person

	Candidates []Candidate  `json:"candidates,omitempty"` // who may serve this node
	Moves      int          `json:"moves,omitempty"`      // sessions left for a nearer node, since Open
	Relay      *RelayStatus `json:"relay,omitempty"`      // nil: it serves no other

	RTT    time.Duration `json:"rtt_ns"`
	Offset time.Duration `json:"offset_ns"` // how far the master's clock is ahead

	Protocol   uint16    `json:"protocol"` // the version spoken with the masters last
	Timeline   uint64    `json:"timeline"`
	Cursor     crm.Rev   `json:"cursor"`
	Moving     bool      `json:"moving,omitempty"` // the base goes over to Timeline: readers are still shown the one that is left
	Head       crm.Rev   `json:"head"`             // of the masters, as far as heard
	AsOf       time.Time `json:"as_of,omitzero"`
	LagSeconds float64   `json:"lag_seconds"` // since AsOf

	Seq     crm.Seq `json:"seq"`     // of the newest edit of this node
	Decided crm.Seq `json:"decided"` // edits up to here are decided
	Outbox  struct {
		Entries int       `json:"entries"`
		Bytes   int       `json:"bytes"`
		Oldest  time.Time `json:"oldest,omitzero"`
	} `json:"outbox"`

	Verified        crm.Rev           `json:"verified"`                   // the last Rev at which digests were compared and equal
	Suspect         []crm.TerritoryID `json:"suspect,omitempty"`          // territories found to differ, not repaired yet
	SuspectSince    time.Time         `json:"suspect_since,omitzero"`     // the first of them
	SuspectBuckets  int               `json:"suspect_buckets,omitempty"`  // of them known to be wrong
	Stuck           bool              `json:"stuck,omitempty"`            // repairs do not cure them: see the log
	Repaired        int               `json:"repaired,omitempty"`         // territories repaired since Open
	RepairedRecords int               `json:"repaired_records,omitempty"` // that these repairs changed
	Damage          string            `json:"damage,omitempty"`           // of the journal, or of the base as a whole
	Staged          crm.Rev           `json:"staged,omitempty"`           // a catch-up or bootstrap has come this far
	Target          crm.Rev           `json:"target,omitempty"`           // where it leads
}

// Status returns how the node is now.
func (r *Replica) Status() Status {
	ready := r.Ready() == nil
	relay := r.relayStatus()
	r.mu.Lock()
	defer r.mu.Unlock()
	l, p := &r.link, r.pos
	s := Status{Site: r.cfg.ID.Site, Node: r.cfg.ID.Node, Ready: ready, Connected: l.talk != nil, Master: l.addr, Candidates: l.choice.candidates(), Moves: l.moves, Relay: relay, RTT: l.rtt, Offset: l.offset,
		Protocol: l.spoken, Timeline: p.timeline, Cursor: p.rev, Moving: p.isMoving(), Head: max(l.head, p.rev), AsOf: l.asOf, Seq: p.last, Decided: p.decided,
		Verified: l.verified, Repaired: l.repaired, RepairedRecords: l.repairedRecords, Damage: cmp.Or(r.journalDamage, r.spoiled), Staged: p.staged, Target: p.target}
	for _, at := range r.suspicions {
		s.Suspect = append(s.Suspect, at.territory)
		s.SuspectBuckets += at.buckets.Len()
		s.Stuck = s.Stuck || at.stuck
		if since := time.UnixMilli(at.since).UTC(); s.SuspectSince.IsZero() || since.Before(s.SuspectSince) {
			s.SuspectSince = since
		}
	}
	if l.trouble != nil {
		s.Trouble, s.Code = l.trouble.Error(), troubleCode(l.trouble)
	}
	if !l.asOf.IsZero() {
		s.LagSeconds = max(0, r.cfg.Now().Sub(l.asOf).Seconds())
	}
	s.Outbox.Entries, s.Outbox.Bytes = r.outbox.Entries, r.outbox.Bytes
	if r.outbox.Oldest != 0 {
		s.Outbox.Oldest = time.UnixMilli(r.outbox.Oldest).UTC()
	}
	return s
}

// troubleCode is the code of why there is no session: a line that fails is not a
// bug.
func troubleCode(err error) crm.Code {
	code := crm.CodeOf(err)
	_, line := errors.AsType[net.Error](err)
	if code == crm.CodeInternal && (line || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)) {
		return crm.CodeUnavailable
	}
	return code
}
