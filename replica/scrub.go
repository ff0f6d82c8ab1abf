package replica

import (
	"cmp"
	"context"

	"github.com/tradepost-crm/tradepost/store"
)

// ScrubBase is one step of a background verification of the base, as
// [store.DB.Scrub] describes it. What is damaged in a territory's records is made
// suspect, and fetched again from a master; a damaged tombstone is dropped; damage
// elsewhere means that the base is fetched anew. It returns how many findings there were.
func (r *Replica) ScrubBase(ctx context.Context, from []byte, budget int) (next []byte, n int, err error) {
	r.measureSuspicion()
	next, found, err := r.base.Scrub(ctx, from, budget)
	if len(found) == 0 {
		return next, 0, err
	}
	r.cfg.Metrics.damage.WithLabelValues("base").Add(float64(len(found)))
	for _, f := range found {
		switch {
		case f.Territory != 0:
		case f.Record != store.RecordKey{}:
			if lost := r.dropDamaged(f.Record, "scrub: "+f.Detail); lost != nil {
				return from, len(found), lost
			}
		default:
			r.spoil("scrub: " + f.String())
		}
	}
	if lost := r.found(found); lost != nil {
		return from, len(found), lost
	}
	return next, len(found), err
}

// found makes the buckets suspect that findings in the base concern.
func (r *Replica) found(list []store.Finding) error {
	in := &divergence{found: buckets{}}
	for _, f := range list {
		if f.Territory != 0 {
			in.found.addBucket(f.Territory, f.DigestBucket)
			in.what = cmp.Or(in.what, f.String())
		}
	}
	if len(in.found) == 0 {
		return nil
	}
	return r.diverged(in)
}

// ScrubJournal is the same for the journal. A journal in which something was
// found takes no more edits; a round without findings lifts that.
func (r *Replica) ScrubJournal(ctx context.Context, from []byte, budget int) (next []byte, n int, err error) {
	next, found, err := r.journal.Scrub(ctx, from, budget)
	if from == nil {
		r.scrubbed = 0
	}
	r.scrubbed += len(found)
	if len(found) > 0 {
		r.cfg.Metrics.damage.WithLabelValues("journal").Add(float64(len(found)))
		r.doubtJournal("scrub: " + found[0].String())
	}
	if next == nil && err == nil && r.scrubbed == 0 {
		r.trustJournal()
		if r.isUnfolded() {
			err = r.reconcile()
		}
	}
	return next, len(found), err
}

// FileStats describes the journal and the base.
func (r *Replica) FileStats() (journal, base store.Stats) { return r.journal.Stats(), r.base.Stats() }
