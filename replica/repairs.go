package replica

import (
	"errors"
	"maps"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// repairVersion is the version of the protocol that Repair came with.
const repairVersion = 3

// maxTries is how often what does not match is fetched in one session: some
// buckets, some buckets, the whole territory. Once a person was told that this
// does not cure it, a session tries once.
const maxTries = 3

// repairs is what a session asks for to mend territories. It follows from what is
// suspect, whenever that is looked at: nothing is lost with a session.
//
//	suspect ── no bucket known ──> sums ── these differ ──> buckets ── right ──> cured
//	                                                            └── wrong ──> again, whole, incurable
type repairs struct {
	version uint16                  // of the protocol
	resent  []crm.TerritoryID       // version 1 and 2: asked for whole by the Hello
	number  uint32                  // of the last Repair; 0: none was sent
	wants   buckets                 // of it, until it was answered; nil: none waits for an answer
	failed  map[crm.TerritoryID]int // answers with buckets that did not cure
}

// ask returns what is to be asked for now, nil if nothing is: while the base is
// moved to another timeline all of it comes anyway. What waits to be
// written or is staged was sent before, and is forgotten. The error ends the
// session: only the next can ask.
func (p *pull) ask() (*syncproto.Repair, error) {
	pos, q := p.r.position(), &p.repairs
	if what := p.r.isSpoiled(); what != "" && pos.rev > 0 {
		return nil, &crm.Error{Code: crm.CodeCorrupt, Op: "continue", Item: p.r.base.Path(), Message: "the base is damaged (" + what + ") and is fetched anew"}
	}
	wants := q.wanted(p.r.suspected())
	if len(wants) == 0 || pos.rev == 0 || pos.isMoving() || maps.Equal(wants, q.wants) {
		return nil, nil
	}
	if q.version < repairVersion {
		return nil, q.resend(wants)
	}
	if len(wants) > syncproto.MaxWants {
		p.r.cfg.Logger.Error("ALARM: the base differs from the masters in so many territories that it is fetched anew", "territories", len(wants))
		return nil, errors.Join(&divergence{found: wants, what: "too many territories differ to be repaired one by one; the base is fetched anew"}, p.r.resetBase())
	}
	p.drop()
	if err := p.r.unstage(); err != nil {
		return nil, err
	}
	q.number++
	q.wants = wants
	f := &syncproto.Repair{Number: q.number, Cursor: pos.rev}
	for _, t := range slices.Sorted(maps.Keys(wants)) {
		f.Wants = append(f.Wants, syncproto.Want{Territory: t, Buckets: wants[t]})
	}
	return f, nil
}

// asks reports whether ask has something to say.
func (p *pull) asks() bool {
	wants, pos := p.repairs.wanted(p.r.suspected()), p.r.position()
	return len(wants) > 0 && pos.rev > 0 && !pos.isMoving() && p.repairs.version >= repairVersion && !maps.Equal(wants, p.repairs.wants)
}

// wanted returns what would cure.
func (q *repairs) wanted(list []suspicion) buckets {
	out := buckets{}
	for _, s := range list {
		out[s.territory] = s.buckets
		if q.failed[s.territory] == maxTries-1 {
			out[s.territory] = syncproto.AllBuckets()
		}
	}
	return out
}

// resend returns an error if something is wanted that the Hello did not ask for.
func (q *repairs) resend(wants buckets) error {
	for t := range wants {
		if !slices.Contains(q.resent, t) {
			return &divergence{found: wants, what: "the territories are asked for whole in the next session"}
		}
	}
	return nil
}

// judge looks at what became of a final batch. One that was not kept because it
// does not make the base the master's leads to a repair.
func (p *pull) judge(c *change, err error) error {
	d, diverged := errors.AsType[*divergence](err)
	switch {
	case diverged && (c.batch.From == 0 || p.r.position().isMoving()):
		p.r.cfg.Logger.Error("ALARM: the base that was filled is not the masters'; it is filled anew", "territories", d.territories(), "cause", d.what)
		p.r.cfg.Metrics.mismatch.Add(float64(len(d.found)))
		p.r.cfg.Metrics.resync.WithLabelValues("bootstrap").Inc()
		return errors.Join(err, p.r.resetBase())
	case diverged && p.repairs.version < repairVersion:
		return errors.Join(err, p.r.diverged(d), p.r.unstage())
	case diverged:
		return p.reject(d)
	case err != nil:
		return p.r.met(err)
	}
	return p.kept()
}

// reject notes what a batch that was not kept has shown to be wrong.
func (p *pull) reject(d *divergence) error {
	again := p.repairs.fail(d.found)
	if err := p.r.diverged(d); err != nil {
		return err
	}
	if len(again) == 0 {
		return nil
	}
	return p.retry(again, d.what)
}

// kept looks whether a batch that was kept has cured what it was asked to.
func (p *pull) kept() error {
	asked := p.repairs.wants
	p.repairs.wants = nil
	left := buckets{}
	for _, s := range p.r.suspected() {
		if _, ok := asked[s.territory]; ok {
			left[s.territory] = s.buckets
			p.repairs.count(s.territory)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return p.retry(left, "the master did not send what it was asked for")
}

// fail counts the buckets that came and did not cure, and returns which they were.
func (q *repairs) fail(found buckets) buckets {
	failed := buckets{}
	for t := range found {
		if set := q.wants[t]; !set.IsEmpty() {
			failed[t] = set
			q.count(t)
		}
	}
	q.wants = nil
	return failed
}

func (q *repairs) count(t crm.TerritoryID) {
	if q.failed == nil {
		q.failed = map[crm.TerritoryID]int{}
	}
	q.failed[t]++
}

// retry has the sums of territories asked for that were not cured, or gives up.
func (p *pull) retry(failed buckets, what string) error {
	end := &divergence{found: buckets{}, what: what, proven: true}
	for _, s := range p.r.suspected() {
		if n := p.repairs.failed[s.territory]; n >= maxTries || s.stuck && n > 0 {
			end.found[s.territory] = s.buckets
		}
	}
	if len(end.found) > 0 {
		return p.r.incurable(end)
	}
	return p.r.changeSuspicions(func(list []suspicion) []suspicion {
		for i := range list {
			if _, ok := failed[list[i].territory]; ok {
				list[i].buckets = syncproto.BucketSet{}
			}
		}
		return list
	})
}

// tolerate lets a change stand whose journal could not be brought up to it because
// of damage: to a record of the base, then the repair folds all anew; or to the
// journal itself, then the overlay stays as it was until it can be written again.
func (r *Replica) tolerate(err error) error {
	e, ok := errors.AsType[*crm.Error](err)
	if !ok || e.Code != crm.CodeCorrupt {
		return err
	}
	r.setUnfolded()
	if d, ok := errors.AsType[*store.Damage](err); ok {
		return r.damaged(d)
	}
	if e.Item != r.journal.Path() {
		return err
	}
	r.doubtJournal(err.Error())
	return nil
}
