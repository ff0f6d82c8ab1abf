package replica

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// What head office edited itself after the backup is nowhere but in the bases of
// branches, which are about to follow the restored masters. A person must make
// those edits anew, so before it lets go of them a branch writes down which they
// were: not what was written, because that could not be taken back when the branch
// loses the territory.

// maxLost bounds the edits that are written down one by one.
const maxLost = 10_000

// A Loss is an edit that nobody will send to the restored masters again.
type Loss struct {
	Kind   string     `json:"kind"` // edit, creation or deletion
	Entity string     `json:"entity"`
	Record string     `json:"record"`           // its id as text
	Fields []string   `json:"fields,omitempty"` // that were set
	Actor  string     `json:"actor"`            // of the last of them
	Node   crm.NodeID `json:"node"`
	At     time.Time  `json:"at"`
}

// lost is what the base holds that was decided in the timeline that is left.
type lost struct {
	timeline uint64  // that is left
	fork     crm.Rev //
	records  []*crm.Record
	losses   []Loss
	count    int // of all losses, also those over maxLost
}

// noteLost remembers the records that were decided on above the fork, before they
// are replaced.
func (c *change) noteLost(p position) error {
	if !p.isMoving() {
		return nil
	}
	c.lost = &lost{timeline: p.shown.timeline, fork: p.rev}
	for t := range c.tx.Territories() {
		for e, err := range c.tx.Feed(t, p.rev) {
			if err != nil {
				return err
			}
			rec, err := c.tx.Record(e.Entity, e.ID)
			if err != nil && crm.CodeOf(err) != crm.CodeCorrupt {
				return err
			}
			if err == nil && rec != nil && !e.Left && len(c.lost.records) < maxLost {
				c.lost.records = append(c.lost.records, rec)
			}
		}
	}
	return nil
}

// judgeLost keeps of what was noted the edits that are not there any more and that
// no node will send again.
func (c *change) judgeLost(position) error {
	if c.lost == nil {
		return nil
	}
	back, err := returning(c.tx)
	if err != nil {
		return err
	}
	for _, old := range c.lost.records {
		now, err := c.tx.Record(old.Entity, old.ID)
		if err != nil {
			return err
		}
		c.lost.compare(c.tx.Schema(), old, now, back)
	}
	slices.SortFunc(c.lost.losses, func(a, b Loss) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Record, b.Record))
	})
	return nil
}

// returning returns the nodes that send their edits again: the replicas that are
// part of the cluster.
func returning(tx *store.Tx) (map[crm.NodeID]bool, error) {
	out := map[crm.NodeID]bool{}
	for rec, err := range tx.Scan(crm.EntityNode) {
		if err != nil {
			return nil, err
		}
		if rec.Value(crm.NodeRole).Str() == "replica" && rec.Value(crm.NodeStatus).Str() != "removed" {
			out[crm.NodeID(rec.Value(crm.NodeNumber).Int())] = true
		}
	}
	return out, nil
}

// compare notes what of old was decided above the fork, is not so in now, and will
// not come again.
func (l *lost) compare(schema *crm.Schema, old, now *crm.Record, back map[crm.NodeID]bool) {
	gone := func(s crm.Stamp) bool { return s.Rev > l.fork && !back[s.Node] }
	e := schema.EntityByID(old.Entity)
	if e == nil || old.Entity == crm.EntityAttention || old.Entity == crm.EntityPurge {
		return
	}
	loss := Loss{Kind: "edit", Entity: e.Name, Record: old.ID.String(), Actor: old.Stamp.Actor, Node: old.Stamp.Node, At: old.Stamp.HLC.Time().UTC()}
	if old.Deleted {
		if gone(old.Stamp) && now != nil && !now.Deleted {
			loss.Kind = "deletion"
			l.add(loss)
		}
		return
	}
	if now == nil {
		loss.Kind = "creation"
	}
	var last crm.HLC
	for _, c := range old.Cells {
		f := e.FieldByID(c.Field)
		if f == nil || !gone(c.Stamp) || now != nil && now.Value(c.Field).Equal(c.Value) {
			continue
		}
		loss.Fields = append(loss.Fields, f.Name)
		if c.Stamp.HLC >= last {
			last = c.Stamp.HLC
			loss.Actor, loss.Node, loss.At = c.Stamp.Actor, c.Stamp.Node, last.Time().UTC()
		}
	}
	if len(loss.Fields) > 0 {
		l.add(loss)
	}
}

func (l *lost) add(loss Loss) {
	if l.count++; len(l.losses) < maxLost {
		l.losses = append(l.losses, loss)
	}
}

// tellLost says what was lost: in the log, as a metric, and in a file for the
// person who makes it good. The base has moved already, so a failure to write is
// only told.
func (r *Replica) tellLost(c *change) {
	if c.lost == nil {
		return
	}
	r.cfg.Metrics.lostEdits.Add(float64(c.lost.count))
	path, err := r.writeLost(c.lost)
	log := r.cfg.Logger.Info
	if c.lost.count > 0 {
		log = r.cfg.Logger.Error
	}
	log("the base follows the restored masters", "left", c.lost.timeline, "fork", c.lost.fork, "at", c.batch.To, "lost_for_good", c.lost.count, "list", path, "error", err)
}

// LostPath returns the file in a replica's directory that lists what was lost when
// it left the timeline: a Loss a line, as JSON.
func LostPath(dir string, timeline uint64) string {
	return filepath.Join(dir, "lost-"+strconv.FormatUint(timeline, 36)+".jsonl")
}

func (r *Replica) writeLost(l *lost) (path string, err error) {
	if len(l.losses) == 0 {
		return "", nil
	}
	path = LostPath(r.cfg.Dir, l.timeline)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return path, err
	}
	enc := json.NewEncoder(f)
	for _, loss := range l.losses {
		err = errors.Join(err, enc.Encode(loss))
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return path, fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}
