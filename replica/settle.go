package replica

import (
	"errors"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// settle brings the clock and the journal up to the base.
func (c *change) settle() error {
	c.r.clock.Observe(c.newest)
	return c.r.tolerate(c.r.settle(c))
}

// settle brings the journal up to the base after a change. It looks whether
// anything is pending only once it holds the journal: an edit that is being
// written may have been judged on the base before the change.
func (r *Replica) settle(c *change) error {
	err := r.folding(func(all bool) error {
		c.all = c.all || all
		return r.journal.Update(func(j *store.JTx) error {
			d, err := j.Depth()
			if err != nil {
				return err
			}
			if d.Entries == 0 && !j.HasOverlay() && !c.begins() {
				return errNothing
			}
			return r.base.View(func(tx *store.Tx) error { return r.follow(j, tx, c) })
		})
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// follow does the work of the journal's transaction.
func (r *Replica) follow(j *store.JTx, tx *store.Tx, c *change) error {
	f, err := r.newFolder(j, tx)
	if err != nil {
		return err
	}
	keys, err := f.settle(c.batch.Decided, c.batch.To)
	if err != nil {
		return err
	}
	if c.begins() {
		if _, err := reopen(j, c.batch.Decided, c.batch.To); err != nil {
			return err
		}
	}
	own := slices.DeleteFunc(slices.Clone(c.notes), func(o crm.Outcome) bool { return o.Node != r.cfg.ID.Node })
	if err := dropForbidden(j, own); err != nil {
		return err
	}
	if c.all || c.batch.From == 0 {
		return f.all()
	}
	return f.around(append(keys, c.touched...))
}

// applied makes a change known.
func (r *Replica) applied(c *change) error {
	for _, o := range c.notes {
		if o.Node != r.cfg.ID.Node {
			continue
		}
		if o.Kind == crm.Rejected {
			r.cfg.Metrics.rejected.WithLabelValues(string(o.Code)).Inc()
		}
		c.left = c.left || o.Code == crm.CodeTerritory
	}
	for k, d := range c.dropped {
		c.changed = append(c.changed, crm.Change{Entity: k.Entity, Record: k.ID, Rev: c.batch.To, Left: true})
		if _, ok := c.buckets[d.territory]; ok {
			c.mend(d.territory, 0)
		}
	}
	r.cfg.Metrics.batchSize.WithLabelValues("base").Observe(float64(len(c.items)))
	r.cfg.Metrics.appliedIndex.Set(float64(c.batch.To))
	if len(c.batch.Digests) > 0 {
		r.cfg.Metrics.verified.Set(float64(c.batch.To))
	}
	r.change(func(l *link) {
		l.head = max(l.head, c.batch.To)
		if len(c.batch.Digests) > 0 {
			l.verified = c.batch.To
		}
	})
	r.advance(func(p *position) {
		p.timeline, p.rev, p.decided, p.staged, p.target = c.batch.Timeline, c.batch.To, c.batch.Decided, 0, 0
		p.shown = shown{}
	})
	r.changes.Publish(c.changed)
	if err := r.tellCured(c); err != nil {
		return err
	}
	r.tellLost(c)
	r.measureLag()
	nudge(r.kick)
	if c.batch.From > 0 && len(c.whole)+len(c.buckets) > 0 {
		r.dismiss("what this relay holds was sent to it anew")
	}
	if c.left || c.batch.From == 0 {
		nudge(r.dirty)
	}
	return r.tolerate(r.measureOutbox())
}
