package master

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A Restoration makes a master's files from a database.
type Restoration struct {
	From     string // a backup, or the master.db of a master that is stopped
	Size     int64  // of the database at the beginning of From, in bytes
	Dir      string // where master.db and raft/ are made; must be empty
	Node     crm.NodeID
	Raft     string    // host:port under which masters reach the node
	LogStore string    // of Config
	Taken    time.Time // when the backup was taken; zero: From is none
	Now      time.Time
	Rand     io.Reader
}

// A Restored says what a Restoration made.
type Restored struct {
	Timeline uint64       `json:"timeline,string"`
	Parent   uint64       `json:"parent,string"` // the timeline that was left
	Rev      crm.Rev      `json:"rev"`           // of Parent, the last one that both have
	Removed  []crm.NodeID `json:"removed"`       // the other masters: they must join anew
	Tokens   int          `json:"tokens"`        // join tokens that were open and are used up now
}

// Run makes the files. They begin a new timeline with the node as its only
// master. Its first decision removes the other masters, whose files are of the
// timeline that is left, and uses up every open join token, because who joined
// with it since is not known any more. If Run fails the directory is to be
// thrown away.
func (o Restoration) Run(ctx context.Context) (Restored, error) {
	path := filepath.Join(o.Dir, "master.db")
	if err := o.copy(ctx, path); err != nil {
		return Restored{}, fmt.Errorf("restore: copy the database: %w", err)
	}
	db, err := store.Open(path, store.Options{})
	if err != nil {
		return Restored{}, err
	}
	var done Restored
	var at position
	err = db.Update(func(tx *store.Tx) (err error) {
		if done, err = o.begin(tx); err != nil {
			return err
		}
		at, err = appliedIn(tx)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return done, fmt.Errorf("restore: begin a timeline: %w", err)
	}
	if err := o.beginLog(at); err != nil {
		return done, fmt.Errorf("restore: begin the raft log: %w", err)
	}
	return done, nil
}

func (o Restoration) copy(ctx context.Context, path string) error {
	in, err := os.Open(o.From)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(&patient{ctx: ctx, w: out}, in, o.Size)
	return errors.Join(err, out.Sync(), out.Close())
}

// begin makes the database that of the new timeline.
func (o Restoration) begin(tx *store.Tx) (Restored, error) {
	l, err := tx.Lineage()
	if err != nil {
		return Restored{}, err
	}
	rev, err := tx.Rev()
	if err != nil {
		return Restored{}, err
	}
	next, err := o.branch(l, rev)
	if err != nil {
		return Restored{}, err
	}
	done := Restored{Timeline: next.Timeline, Parent: l.Timeline, Rev: rev}
	for _, step := range []func() error{
		func() error { return o.checkNode(tx) },
		func() error { return tx.SetLineage(next) },
		func() error { return o.setLevel(tx) },
		func() error { return o.setServers(tx) },
		func() error { return o.setBackup(tx, rev) },
		func() error { return o.retire(tx, &done) },
	} {
		if err := step(); err != nil {
			return done, err
		}
	}
	return done, tx.SetRev(rev + 1)
}

// checkNode refuses a node that the database does not list as an active master:
// its records would give nobody the right to administer the cluster.
func (o Restoration) checkNode(tx *store.Tx) error {
	var masters []crm.NodeID
	for rec, err := range tx.Scan(crm.EntityNode) {
		if err != nil {
			return err
		}
		if rec.Value(crm.NodeRole).Str() == string(auth.RoleMaster) && rec.Value(crm.NodeStatus).Str() == "active" {
			masters = append(masters, crm.NodeID(rec.Value(crm.NodeNumber).Int()))
		}
	}
	if slices.Contains(masters, o.Node) {
		return nil
	}
	slices.Sort(masters)
	return &crm.Error{Code: crm.CodeForbidden, Op: "restore", Item: fmt.Sprintf("node %d", o.Node),
		Message: fmt.Sprintf("the database does not know it as a master: it joined later, or was removed before; restore in the directory of one that is: %v", masters)}
}

// branch draws a timeline until one is not mistaken for another.
func (o Restoration) branch(l crm.Lineage, rev crm.Rev) (next crm.Lineage, err error) {
	const draws = 64
	for range draws {
		timeline, err := drawTimeline(o.Rand)
		if err != nil {
			return next, err
		}
		if next, err = l.Restored(rev, timeline); err == nil {
			return next, nil
		}
	}
	return next, err
}

// drawTimeline returns a random timeline; none is 0.
func drawTimeline(from io.Reader) (uint64, error) {
	var b [8]byte
	_, err := io.ReadFull(from, b[:])
	return binary.BigEndian.Uint64(b[:])>>1 | 1, err
}

// setLevel activates what this program knows: there is no other master, and
// branches may have written in any version that the masters spoke.
func (o Restoration) setLevel(tx *store.Tx) error {
	level, err := session.LevelIn(tx)
	if err != nil {
		return err
	}
	return tx.SetMeta(session.MetaLevel, binary.BigEndian.AppendUint64(nil, uint64(max(level, syncproto.MaxVersion))))
}

// setServers makes the node Raft's only voter, from the entry on that the
// database ends with.
func (o Restoration) setServers(tx *store.Tx) error {
	at, err := appliedIn(tx)
	if err != nil {
		return err
	}
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: serverID(o.Node), Address: raft.ServerAddress(o.Raft)}}}
	return tx.SetMeta(metaServers, servers{at.index, alone}.encode())
}

// setBackup notes that the database is itself in a backup.
func (o Restoration) setBackup(tx *store.Tx, rev crm.Rev) error {
	if o.Taken.IsZero() {
		return nil
	}
	return session.SetBackup(tx, session.Covered{Rev: rev, Millis: o.Taken.UnixMilli()})
}

// retire decides, as the first Rev of the timeline, what is no longer so.
func (o Restoration) retire(tx *store.Tx, done *Restored) error {
	var changed []*crm.Record
	for rec, err := range tx.Scan(crm.EntityNode) {
		if err != nil {
			return err
		}
		n := crm.NodeID(rec.Value(crm.NodeNumber).Int())
		if n == o.Node && rec.Value(crm.NodeSuffrage).Str() == "nonvoter" {
			changed = append(changed, o.amend(rec, done.Rev+1, crm.NodeSuffrage, crm.ChoiceValue("voter")))
		}
		if n == o.Node || rec.Value(crm.NodeRole).Str() != string(auth.RoleMaster) || rec.Value(crm.NodeStatus).Str() == "removed" {
			continue
		}
		done.Removed = append(done.Removed, n)
		changed = append(changed, o.amend(rec, done.Rev+1, crm.NodeStatus, crm.ChoiceValue("removed")))
	}
	for rec, err := range tx.Scan(crm.EntityJoinToken) {
		if err != nil {
			return err
		}
		if rec.Value(crm.JoinTokenStatus).Str() == "open" {
			done.Tokens++
			changed = append(changed, o.amend(rec, done.Rev+1, crm.JoinTokenStatus, crm.ChoiceValue("used")))
		}
	}
	slices.Sort(done.Removed)
	for _, rec := range changed {
		if err := tx.Put(rec); err != nil {
			return err
		}
	}
	return nil
}

// amend returns the record with another value in one field.
func (o Restoration) amend(rec *crm.Record, rev crm.Rev, f crm.FieldID, v crm.Value) *crm.Record {
	out := rec.Clone()
	out.Stamp = crm.Stamp{Rev: rev, HLC: max(rec.Stamp.HLC+1, crm.NewHLC(o.Now.UnixMilli())), Node: o.Node, Actor: "restore"}
	out.Cells = slices.DeleteFunc(out.Cells, func(c crm.Cell) bool { return c.Field == f })
	fill(out, map[crm.FieldID]crm.Value{f: v})
	return out
}

// beginLog makes an empty log whose terms go on above the database's.
func (o Restoration) beginLog(at position) error {
	dir := filepath.Join(o.Dir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := openLogStore(ledgerConfig{Log: logKind(o.LogStore)}.withDefaults(), dir)
	if err != nil {
		return err
	}
	return errors.Join(log.SetUint64([]byte("CurrentTerm"), at.term), log.Close())
}
