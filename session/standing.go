package session

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// FrozenAdvice is why a node whose history forked is frozen.
const FrozenAdvice = "two disks have made edits under this node's number; an administrator must choose one and freeze the other"

const fencedAdvice = "this disk is an old copy of the node's: stop the other process that runs with this node's certificate, or let this one rebuild its base and be admitted again"

// A Standing is what the decided records say of a node. Its methods are pure.
type Standing struct {
	Timeline uint64
	Lineage  crm.Lineage // of Timeline
	Level    uint16      // the newest version of the protocol that the log has activated
	Backup   Covered     // by the last backup
	Head     crm.Rev
	Facts    NodeFacts
	Listed   bool // Facts is set
	State    store.NodeState
	Admitted bool // State is set
	Roster   *Roster
	Trail    []crm.ChainHash // for the Welcome of the disk that was asked for
}

// Standing reads where a node stands at the transaction's Rev.
func (c *Rosters) Standing(tx *store.Tx, n crm.NodeID) (s Standing, err error) {
	if s.Lineage, err = tx.Lineage(); err != nil {
		return s, err
	}
	s.Timeline = s.Lineage.Timeline
	if s.Level, err = LevelIn(tx); err != nil {
		return s, err
	}
	if s.Backup, err = BackupIn(tx); err != nil {
		return s, err
	}
	if s.Head, err = tx.Rev(); err != nil {
		return s, err
	}
	if s.Roster, err = c.At(tx); err != nil {
		return s, err
	}
	s.Facts, s.Listed = s.Roster.Nodes[n]
	s.State, s.Admitted, err = tx.Node(n)
	return s, err
}

// MetaLevel is the name of the store's blob that holds the level that the log
// has activated: 8 bytes. Without it that is 1.
const MetaLevel = "level"

// LevelIn reads MetaLevel.
func LevelIn(tx *store.Tx) (uint16, error) {
	b, err := tx.Meta(MetaLevel)
	if err != nil || len(b) != 8 {
		return 1, err
	}
	return uint16(min(binary.BigEndian.Uint64(b), math.MaxUint16)), nil
}

// RaiseLevel sets MetaLevel, which never falls.
func RaiseLevel(tx *store.Tx, level uint16) error {
	was, err := LevelIn(tx)
	if err != nil || level <= was {
		return err
	}
	return tx.SetMeta(MetaLevel, binary.BigEndian.AppendUint64(nil, uint64(level)))
}

// MetaBackup is the name of the store's blob that says what the last backup
// covers: rev 8 ‖ when it was taken, Unix milliseconds 8, big-endian.
const MetaBackup = "backup"

// A Covered says what a backup of the masters holds.
type Covered struct {
	Rev    crm.Rev // everything decided up to here; 0: there is no backup
	Millis int64   // when it was taken
}

// BackupIn reads MetaBackup.
func BackupIn(tx *store.Tx) (c Covered, err error) {
	b, err := tx.Meta(MetaBackup)
	if err != nil || len(b) != 16 {
		return c, err
	}
	return Covered{crm.Rev(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

// SetBackup writes MetaBackup.
func SetBackup(tx *store.Tx, c Covered) error {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.Rev))
	return tx.SetMeta(MetaBackup, binary.BigEndian.AppendUint64(b, uint64(c.Millis)))
}

// A Judgement is what a Hello deserves by the newest decided state.
type Judgement struct {
	Answer syncproto.Frame // Welcome, Fenced, Frozen or Refused; nil if Admit is not ""
	Freeze string          // if not "": why the node is frozen before it is answered
	Admit  string          // if not "": why the disk gets a new incarnation before the Standing that it then has makes its Welcome
}

// Judge judges a Hello. Only the newest state tells an old copy of a disk.
func (s Standing) Judge(h *syncproto.Hello) Judgement {
	if !s.Listed || !s.Facts.Active {
		return Judgement{Answer: Refusal(s.Belongs(auth.Identity{Node: uint32(h.Node)}))}
	}
	if f := s.outcast(h); f != nil {
		return Judgement{Answer: f}
	}
	if s.forked(h) {
		return Judgement{Answer: &syncproto.Frozen{Reason: FrozenAdvice}, Freeze: FrozenAdvice}
	}
	if reason := s.mustAdmit(h); reason != "" {
		return Judgement{Admit: reason}
	}
	return Judgement{Answer: s.Welcome()}
}

// JudgeAlone is Judge by what may not be the newest state, while nobody leads.
// Its error has code no_leader if only a leader can tell, also which of two
// timelines the masters are in: nobody is taken back to one that they have left.
func (s Standing) JudgeAlone(h *syncproto.Hello) (syncproto.Frame, error) {
	if f := s.outcast(h); f != nil {
		return f, nil
	}
	if s.mustAdmit(h) != "" || s.forked(h) || s.elsewhere(h) {
		return nil, NoLeader("admit the node")
	}
	return s.Welcome(), nil
}

// Belongs judges whether a certificate's bearer is part of the cluster now.
func (s Standing) Belongs(id auth.Identity) error {
	item := fmt.Sprintf("node %d", id.Node)
	switch {
	case !s.Listed:
		return &crm.Error{Code: crm.CodeForbidden, Op: "connect", Item: item, Message: "the cluster has no such node; join it again with a new join string, in a new directory, and keep the old one: edits in its outbox are nowhere else"}
	case !s.Facts.Active:
		return &crm.Error{Code: crm.CodeRemoved, Op: "connect", Item: fmt.Sprintf("node %d", s.Facts.Node), Message: "the node was removed from the cluster; join it again with a new join string, in a new directory, and keep the old one: edits in its outbox are nowhere else"}
	case s.Facts.Site != id.Site || s.Facts.Role != id.Role:
		return &crm.Error{Code: crm.CodeForbidden, Op: "connect", Item: item,
			Message: fmt.Sprintf("the certificate is of a %s of site %s, the node is a %s of site %s now; join it again in a new directory, and keep the old one: edits in its outbox are nowhere else", id.Role, id.Site, s.Facts.Role, s.Facts.Site)}
	}
	return nil
}

// outcast returns Frozen or Fenced, or nil.
func (s Standing) outcast(h *syncproto.Hello) syncproto.Frame {
	switch {
	case s.State.Frozen != "":
		return &syncproto.Frozen{Reason: s.State.Frozen}
	case h.Incarnation != 0 && h.Incarnation < s.State.Incarnation:
		return &syncproto.Fenced{Incarnation: s.State.Incarnation, Reason: fencedAdvice}
	}
	return nil
}

// mustAdmit says why the disk needs a new incarnation, or "".
func (s Standing) mustAdmit(h *syncproto.Hello) string {
	switch {
	case !s.Admitted || h.Incarnation == 0:
		return "the disk is new"
	case h.Incarnation > s.State.Incarnation:
		return "the masters were restored from a backup"
	case h.NextSeq-1 < s.State.LastSeq:
		return "the disk was rolled back"
	}
	return ""
}

// forked reports whether the disk's last edit is another one than the masters
// have under its number.
func (s Standing) forked(h *syncproto.Hello) bool {
	return h.Incarnation == s.State.Incarnation && h.NextSeq-1 == s.State.LastSeq && h.Chain != s.State.LastHash
}

// elsewhere reports whether the replica holds something of another timeline.
func (s Standing) elsewhere(h *syncproto.Hello) bool {
	return h.Timeline != s.Timeline && (h.Cursor > 0 || h.Staged > 0)
}

// Cursor is the replica's Cursor in the masters' timeline.
func (s Standing) Cursor(h *syncproto.Hello) crm.Rev {
	if h.Timeline != s.Timeline {
		return 0
	}
	return h.Cursor
}

// Welcome accepts the node as it stands, in the newest version that the log has
// activated. Who sends it adds its own head, times and the masters, and lowers
// the version to what the node speaks.
func (s Standing) Welcome() *syncproto.Welcome {
	w := &syncproto.Welcome{Proto: s.Level, Timeline: s.Timeline, Incarnation: s.State.Incarnation,
		LastSeq: s.State.LastSeq, LastHash: s.State.LastHash, Head: s.Head, Backup: s.Backup.Rev, Trail: s.Trail}
	for _, f := range s.Lineage.Forks {
		w.Lineage = append(w.Lineage, syncproto.Fork(f))
	}
	return lowered(w, w.Proto)
}

// versionTimelines is the version from which on a Welcome carries the lineage.
const versionTimelines = 2

// versionTrail is the version from which on a Welcome says where histories part.
const versionTrail = 3

// lowered makes w one of a version that is not above its own.
func lowered(w *syncproto.Welcome, version uint16) *syncproto.Welcome {
	if w.Proto = version; version < versionTimelines {
		w.Lineage = nil
	}
	if version < versionTrail {
		w.Trail = nil
	}
	return w
}
