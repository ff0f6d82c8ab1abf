package replica

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// CodeDiverged is the code of a territory that repairs did not make the master's.
const CodeDiverged crm.Code = "diverged"

// A divergence says that the base is not what the master believes it to be.
type divergence struct {
	found  buckets
	what   string
	proven bool // by digest
}

func (d *divergence) Error() string {
	return fmt.Sprintf("this node does not hold what the masters do in territories %v: %s", d.territories(), d.what)
}

func (d *divergence) territories() []crm.TerritoryID { return slices.Sorted(maps.Keys(d.found)) }

func isDivergence(err error) bool {
	_, ok := errors.AsType[*divergence](err)
	return ok
}

// diverged makes what was found suspect, and raises the alarm for what was not
// suspect before: once for a territory, until it is cured.
func (r *Replica) diverged(d *divergence) error {
	fresh, err := r.suspect(d.found)
	if err != nil || len(fresh) == 0 {
		return err
	}
	reason := "missing"
	if d.proven {
		reason = "digest"
		r.cfg.Metrics.mismatch.Add(float64(len(fresh)))
	}
	r.cfg.Metrics.resync.WithLabelValues(reason).Inc()
	r.dismiss("this relay's base differs from the masters'")
	r.cfg.Logger.Error("ALARM: the base differs from the masters; what differs is fetched again", "territories", fresh, "cause", d.what, "cursor", r.position().rev)
	return nil
}

// incurable raises the second alarm, about territories that repairs have not
// cured. It returns the error that ends the session: another master may be right.
func (r *Replica) incurable(d *divergence) error {
	told, addr := true, ""
	r.change(func(l *link) { l.avoid, addr = l.addr, l.addr })
	err := r.changeSuspicions(func(list []suspicion) []suspicion {
		for i := range list {
			if _, ok := d.found[list[i].territory]; ok {
				told = told && list[i].stuck
				list[i].stuck = true
			}
		}
		return list
	})
	e := &crm.Error{Code: CodeDiverged, Op: "repair", Item: fmt.Sprintf("territories %v", d.territories()), Err: d,
		Message: fmt.Sprintf("fetching them again does not make them what master %s says they are, so nothing of it is kept and this node stays at rev %d; run `tradepost check` at that master, it may be the one that is wrong; if it finds nothing, stop this node, move its base.db away and start it", addr, r.position().rev)}
	if !told {
		r.cfg.Metrics.incurable.Inc()
		r.cfg.Logger.Error("ALARM: a repair does not cure", "territories", d.territories(), "master", addr, "cause", d.what, "advice", e.Message)
	}
	return errors.Join(e, err)
}

// met looks at the error of somebody who read the files: what is damaged in the
// base is fetched again from the masters. It returns the error to be shown.
func (r *Replica) met(err error) error {
	e, ok := errors.AsType[*crm.Error](err)
	if !ok || e.Code != crm.CodeCorrupt {
		return err
	}
	d, ok := errors.AsType[*store.Damage](err)
	switch {
	case ok:
		r.cfg.Metrics.damage.WithLabelValues("base").Inc()
		if err := r.damaged(d); err != nil {
			r.cfg.Logger.Error("a damaged record could not be made suspect", "record", d.Record, "error", err)
		}
		return &crm.Error{Code: crm.CodeCorrupt, Op: "read", Item: d.Record.String(),
			Message: "it is damaged on this node; it is fetched again as soon as a master can be reached, all else can be read", Err: err}
	case e.Item == r.journal.Path():
		r.doubtJournal(err.Error())
	case e.Item == r.base.Path():
		r.spoil(err.Error())
	}
	return err
}

// damaged makes the bucket of a damaged record suspect. What is in none is
// dropped: a tombstone, which a branch that was filled later has not either.
func (r *Replica) damaged(d *store.Damage) error {
	if r.knownDamaged(d.Record) {
		return nil
	}
	var found buckets
	var ok bool
	err := r.base.View(func(tx *store.Tx) (err error) {
		found, ok, err = locate(tx, d.Record)
		return err
	})
	switch {
	case err != nil:
		return err
	case ok:
		return r.diverged(&divergence{found: found, what: fmt.Sprintf("%s: %v", d.Record, d)})
	}
	return r.dropDamaged(d.Record, d.Error())
}

// dropDamaged drops a tombstone that cannot be read, or what is left of a record.
func (r *Replica) dropDamaged(k store.RecordKey, what string) error {
	err := r.base.Update(func(tx *store.Tx) error {
		if _, err := tx.Record(k.Entity, k.ID); crm.CodeOf(err) != crm.CodeCorrupt {
			return errors.Join(err, errNothing)
		}
		_, err := tx.Drop(k.Entity, k.ID)
		return err
	})
	if errors.Is(err, errNothing) {
		return nil // it was mended meanwhile
	}
	r.setUnfolded()
	r.cfg.Logger.Error("ALARM: a damaged tombstone is dropped", "record", k, "cause", what, "error", err)
	return err
}

// spoil notes damage to the base that is in no territory's records: it can only
// be fetched whole. That waits for a master: until then what can be read is of use.
func (r *Replica) spoil(what string) {
	r.mu.Lock()
	known := r.spoiled != ""
	r.spoiled = what
	r.mu.Unlock()
	if known {
		return
	}
	r.cfg.Metrics.resync.WithLabelValues("corrupt").Inc()
	r.cfg.Logger.Error("ALARM: the base is damaged; it is fetched anew from the masters when one can be reached, edits are safe in the journal", "cause", what, "file", r.base.Path())
	r.moved.fire()
	nudge(r.doubt)
}

// isSpoiled returns what is wrong with the base as a whole, or "".
func (r *Replica) isSpoiled() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spoiled
}

// doubtJournal notes damage to the journal. No more edits are taken: a disk that
// spoils what was acknowledged must not be trusted with more. What can be read is
// pushed, and the feed goes on.
func (r *Replica) doubtJournal(what string) {
	r.mu.Lock()
	known := r.journalDamage != ""
	r.journalDamage = what
	r.mu.Unlock()
	if known {
		return
	}
	r.cfg.Logger.Error("ALARM: the journal is damaged; this node takes no more edits", "cause", what, "file", r.journal.Path(),
		"advice", "keep a copy of the directory; let the node push what it can, then restore the journal from a backup or let the node join anew on another disk")
	r.moved.fire()
}

// trustJournal takes edits again: all of the journal was read, and nothing found.
func (r *Replica) trustJournal() {
	r.mu.Lock()
	doubted := r.journalDamage != ""
	r.journalDamage = ""
	r.mu.Unlock()
	if doubted {
		r.cfg.Logger.Warn("the journal was read whole and is sound; this node takes edits again", "file", r.journal.Path())
		r.moved.fire()
	}
}

// journalSound returns nil unless the journal is known to be damaged.
func (r *Replica) journalSound() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.journalDamage == "" {
		return nil
	}
	return &crm.Error{Code: crm.CodeCorrupt, Op: "save", Item: r.journal.Path(),
		Message: "this node takes no more edits, because its journal is damaged (" + r.journalDamage + "); reading goes on, and what can be read is pushed; restore the journal from a backup or let the node join anew on another disk"}
}

// resetBase puts an empty base in place of the one that cannot be carried on.
func (r *Replica) resetBase() error {
	path := r.base.Path() + ".empty"
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	empty, err := store.Open(path, r.options("base"))
	if err != nil {
		return err
	}
	if err := empty.Close(); err != nil {
		return err
	}
	if err := r.journal.Update(markTail); err != nil {
		return err
	}
	if err := r.base.Replace(path); err != nil {
		return err
	}
	r.dismiss("this relay's base begins anew")
	r.change(func(l *link) { l.heads, l.head, l.asOf = nil, 0, time.Time{} })
	r.advance(func(p *position) { *p = position{last: p.last} })
	r.mu.Lock()
	r.spoiled = ""
	r.mu.Unlock()
	return r.readSuspicions()
}
