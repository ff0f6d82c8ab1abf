package replica

import "context"

// ScrubBase is one step of a background verification of the base, as
// [store.DB.Scrub] describes it. What is damaged in a territory's records is made
// suspect, and fetched again from a master; damage elsewhere means that the base
// is fetched anew. It returns how many findings there were.
func (r *Replica) ScrubBase(ctx context.Context, from []byte, budget int) (next []byte, n int, err error) {
	next, found, err := r.base.Scrub(ctx, from, budget)
	if len(found) == 0 {
		return next, 0, err
	}
	r.cfg.Metrics.damage.WithLabelValues("base").Add(float64(len(found)))
	in := &divergence{found: buckets{}, what: "scrub: " + found[0].String()}
	for _, f := range found {
		if f.Territory == 0 {
			r.spoil("scrub: " + f.String())
			continue
		}
		in.found.addBucket(f.Territory, f.DigestBucket)
	}
	if len(in.found) > 0 {
		if err := r.diverged(in); err != nil {
			return from, len(found), err
		}
	}
	return next, len(found), err
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
	}
	return next, len(found), err
}
