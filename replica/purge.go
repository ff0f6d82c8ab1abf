package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A purge is a territory that this node had to give up and has dropped.
type purge struct {
	Territory crm.TerritoryID
	Code      string
	Rev       crm.Rev // at which it left
	Count     int     // records dropped
}

// dropForeign drops the territories that the site may not hold any more, and
// notes that each is to be proven. A site without a record holds none.
func (c *change) dropForeign(position) error {
	a, err := authorOf(c.tx, c.r.cfg.ID.Site)
	if err != nil {
		return err
	}
	for _, t := range slices.Collect(c.tx.Territories()) {
		if a.writable(t) || c.compared(t) {
			continue
		}
		if err := c.giveUp(t); err != nil {
			return err
		}
	}
	return nil
}

// compared reports whether the master counts t among those of this node.
func (c *change) compared(t crm.TerritoryID) bool {
	for _, d := range c.batch.Digests {
		if d.Territory == t {
			return true
		}
	}
	return false
}

func (c *change) giveUp(t crm.TerritoryID) error {
	code, err := territoryCode(c.tx, t)
	if err != nil {
		return err
	}
	n, err := c.dropTerritory(t)
	if err != nil {
		return err
	}
	c.left = true
	c.r.cfg.Logger.Warn("the site lost a territory; its records are purged", "territory", code, "records", n, "rev", c.batch.To)
	list, err := purges(c.tx)
	if err != nil {
		return err
	}
	return setPurges(c.tx, append(list, purge{t, code, c.batch.To, n}))
}

func territoryCode(tx *store.Tx, t crm.TerritoryID) (string, error) {
	for rec, err := range tx.Scan(crm.EntityTerritory) {
		if err != nil {
			return "", err
		}
		if crm.TerritoryID(rec.Value(crm.TerritoryNumber).Int()) == t {
			return rec.Value(crm.TerritoryCode).Str(), nil
		}
	}
	return fmt.Sprint(t), nil
}

func purges(tx *store.Tx) (list []purge, err error) {
	v, err := tx.Meta(metaPurge)
	if err != nil || len(v) == 0 {
		return nil, err
	}
	return list, json.Unmarshal(v, &list)
}

func setPurges(tx *store.Tx, list []purge) error {
	if len(list) == 0 {
		return tx.SetMeta(metaPurge, nil)
	}
	v, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return tx.SetMeta(metaPurge, v)
}

// keepPurged tidies whenever there may be something to tidy.
func (r *Replica) keepPurged(ctx context.Context) error {
	for ctx.Err() == nil {
		again, err := r.Tidy(ctx)
		if err != nil && ctx.Err() == nil {
			r.cfg.Logger.Error("purged bytes could not be removed; will be tried again", "error", err)
		}
		if again != 0 {
			r.awaitDirty(ctx, again, err != nil)
		}
	}
	return nil
}

// Tidy takes the bytes of purged records out of the files: at once after a
// territory was lost, else at most every Config.CompactEvery. What is to be done
// is read from the files each time, so nothing is forgotten over a crash. Run
// calls it; without Run, call it after what Hear has brought, and again after the
// time that it returns, if that is not negative. One goroutine at a time.
func (r *Replica) Tidy(ctx context.Context) (again time.Duration, err error) {
	todo, err := r.unpurged()
	if err == nil && !todo.any() {
		return -1, nil
	}
	wait := r.cfg.CompactEvery - r.cfg.Now().Sub(r.tidied)
	if err == nil && len(todo.lost) == 0 && wait > 0 {
		return wait, nil
	}
	if err == nil {
		err = r.purge(ctx, todo)
	}
	r.tidied = r.cfg.Now()
	if err != nil {
		return r.cfg.CompactEvery, err
	}
	return 0, nil
}

// awaitDirty waits for more to purge, for wait if that is not negative, or, after
// a failure, for wait only.
func (r *Replica) awaitDirty(ctx context.Context, wait time.Duration, failed bool) {
	var after <-chan time.Time
	if wait >= 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		after = t.C
	}
	dirty := r.dirty
	if failed {
		dirty = nil
	}
	select {
	case <-ctx.Done():
	case <-dirty:
	case <-after:
	}
}

// An unpurged says what is to be removed.
type unpurged struct {
	lost    []purge
	base    []byte // mark of the base: purged bytes may be in it; nil: none are
	journal []byte // the same of the journal
}

func (u unpurged) any() bool { return len(u.lost) > 0 || u.base != nil || u.journal != nil }

func (r *Replica) unpurged() (u unpurged, err error) {
	err = r.journal.View(func(j *store.JTx) error {
		return r.base.View(func(tx *store.Tx) (err error) {
			if rev, err := tx.Rev(); err != nil || rev == 0 {
				return err
			}
			if u.lost, err = purges(tx); err != nil {
				return err
			}
			if u.base, err = mark(tx); err != nil {
				return err
			}
			u.journal, err = mark(j)
			return err
		})
	})
	return u, err
}

// mark returns the mark that purged bytes are in a file, nil if there is none.
func mark(b blobs) ([]byte, error) {
	v, err := b.Meta(metaCompact)
	if len(v) == 0 {
		v = nil
	}
	return v, err
}

// purge rewrites the files without what was dropped, and then proves it. A mark
// that was renewed meanwhile stays.
func (r *Replica) purge(ctx context.Context, u unpurged) error {
	if err := r.dropOrphans(); err != nil {
		return err
	}
	if err := r.dropWords(); err != nil {
		return err
	}
	if err := r.compact(); err != nil {
		return err
	}
	for _, p := range u.lost {
		if err := r.prove(ctx, p); err != nil {
			return fmt.Errorf("prove the purge of territory %s: %w", p.Code, err)
		}
	}
	err := r.base.Update(func(tx *store.Tx) error {
		list, err := purges(tx)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(p purge) bool { return slices.Contains(u.lost, p) })
		if err := setPurges(tx, list); err != nil {
			return err
		}
		return unmark(tx, u.base)
	})
	if err != nil || u.journal == nil {
		return err
	}
	return r.journal.Update(func(j *store.JTx) error { return unmark(j, u.journal) })
}

// compact rewrites both files without their free pages.
func (r *Replica) compact() error {
	r.gate.files.Lock()
	defer r.gate.files.Unlock()
	if err := r.base.Compact(); err != nil {
		return err
	}
	return r.journal.Compact()
}

func unmark(b blobs, was []byte) error {
	now, err := mark(b)
	if err != nil || now == nil || !bytes.Equal(now, was) {
		return err
	}
	return b.SetMeta(metaCompact, nil)
}

// markTail has the tail looked through once the base is whole again: what its
// Mutations are about may not come back with it.
func markTail(j *store.JTx) error {
	for _, err := range j.Tail(0) {
		if err != nil {
			return err
		}
		return setNumber(j, metaCompact, 0)
	}
	return nil
}

// dropOrphans withholds the Mutations of the tail that the masters have decided
// and whose records are not here any more: they hold the records' values. Their
// numbers stay, so that masters restored from a backup that lacks them can go on.
// What restored masters have lost is still to be sent.
func (r *Replica) dropOrphans() error {
	return r.journal.Update(func(j *store.JTx) error {
		return r.base.View(func(tx *store.Tx) error {
			p, err := readPosition(tx)
			if err != nil {
				return err
			}
			var orphans []crm.Seq
			for e, err := range j.Tail(0) {
				if err != nil {
					return err
				}
				if e.Seq > p.decided {
					break
				}
				orphan, err := isOrphan(tx, e)
				if err != nil {
					return err
				}
				if orphan {
					orphans = append(orphans, e.Seq)
				}
			}
			for _, seq := range orphans {
				if _, err := j.Withhold(seq); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func isOrphan(tx *store.Tx, e store.Entry) (bool, error) {
	if e.Withheld {
		return false, nil
	}
	m, err := crm.DecodeMutation(e.Bytes)
	if err != nil {
		return false, fmt.Errorf("tail entry %d: %w", e.Seq, err)
	}
	for _, op := range m.Ops {
		rec, err := tx.Record(op.Entity, op.Record)
		if err != nil || rec == nil && op.Entity != crm.EntityPurge {
			return err == nil, err
		}
	}
	return false, nil
}

// dropWords takes the sentence out of outcomes whose note on the attention list is
// not here any more: it names the record.
func (r *Replica) dropWords() error {
	err := r.base.Update(func(tx *store.Tx) error {
		noted, err := r.noted(tx)
		if err != nil {
			return err
		}
		var bare []crm.Outcome
		for o, err := range tx.Outcomes(r.cfg.ID.Node, 0) {
			if err != nil {
				return err
			}
			if o.Message != "" && !noted[o.Seq] {
				o.Message = ""
				bare = append(bare, o)
			}
		}
		if len(bare) == 0 {
			return errNothing
		}
		for _, o := range bare {
			if err := tx.PutOutcome(o); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// noted returns which of this node's Mutations are on the attention list here.
func (r *Replica) noted(tx *store.Tx) (map[crm.Seq]bool, error) {
	out := map[crm.Seq]bool{}
	for rec, err := range tx.Scan(crm.EntityAttention) {
		if err != nil {
			return nil, err
		}
		if crm.NodeID(rec.Value(crm.AttentionNode).Int()) == r.cfg.ID.Node {
			out[crm.Seq(rec.Value(crm.AttentionSeq).Int())] = true
		}
	}
	return out, nil
}

// dropForbidden withholds the Mutations that were rejected because the site has lost
// the territory: nothing of it may stay, not even what was asked for in vain.
func dropForbidden(j *store.JTx, notes []crm.Outcome) error {
	for _, o := range notes {
		if o.Code != crm.CodeTerritory {
			continue
		}
		if _, err := j.Withhold(o.Seq); err != nil {
			return err
		}
		if err := setNumber(j, metaCompact, uint64(o.Rev)); err != nil {
			return err
		}
	}
	return nil
}

// withholdForbidden does the same for Mutations that were just settled, by what
// the base has of their outcomes.
func (r *Replica) withholdForbidden(j *store.JTx, tx *store.Tx, settled []crm.Seq) error {
	if len(settled) == 0 {
		return nil
	}
	var notes []crm.Outcome
	for o, err := range tx.Outcomes(r.cfg.ID.Node, settled[0]-1) {
		if err != nil {
			return err
		}
		if o.Seq > settled[len(settled)-1] {
			break
		}
		notes = append(notes, o)
	}
	return dropForbidden(j, notes)
}

// prove commits the proof of a purge, once.
func (r *Replica) prove(ctx context.Context, p purge) error {
	proven, err := r.proven()
	if err != nil || proven[p.Territory] >= p.Rev {
		return err
	}
	c := &commit{req: r.proof(p), also: func(j *store.JTx) error {
		proven[p.Territory] = p.Rev
		v, err := json.Marshal(proven)
		if err != nil {
			return err
		}
		return j.SetMeta(metaProven, v)
	}}
	_, err = r.commit(ctx, c)
	return err
}

// proven returns the Rev of the last proven purge of each territory.
func (r *Replica) proven() (map[crm.TerritoryID]crm.Rev, error) {
	out := map[crm.TerritoryID]crm.Rev{}
	err := r.journal.View(func(j *store.JTx) error {
		v, err := j.Meta(metaProven)
		if err != nil || len(v) == 0 {
			return err
		}
		return json.Unmarshal(v, &out)
	})
	return out, err
}

// proof is the request that tells head office of a purge.
func (r *Replica) proof(p purge) crm.Request {
	sum := sha256.Sum256(fmt.Appendf(nil, "tradepost purge v1 %d %d %d", r.cfg.ID.Node, p.Territory, p.Rev))
	id := crm.RecordID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // UUIDv8, RFC 9562 §5.8
	return crm.Request{Actor: fmt.Sprintf("node-%d", r.cfg.ID.Node), Intent: "territory.purged", Ops: []crm.Op{{
		Kind: crm.OpCreate, Entity: crm.EntityPurge, Record: id, Cells: []crm.Input{
			{Field: crm.PurgeSite, Value: crm.TextValue(r.cfg.ID.Site)}, {Field: crm.PurgeNode, Value: crm.IntegerValue(int64(r.cfg.ID.Node))},
			{Field: crm.PurgeTerritory, Value: crm.TextValue(p.Code)}, {Field: crm.PurgeRev, Value: crm.IntegerValue(int64(p.Rev))},
			{Field: crm.PurgeCount, Value: crm.IntegerValue(int64(p.Count))}, {Field: crm.PurgeLeft, Value: crm.IntegerValue(0)},
		}}}}
}
