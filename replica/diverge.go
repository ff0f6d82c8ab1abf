package replica

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A divergence says that the base is not what the master believes it to be.
type divergence struct {
	territories []crm.TerritoryID
	what        string
	proven      bool // by digest
}

func (d *divergence) Error() string {
	return fmt.Sprintf("this node does not hold what the masters do in territories %v: %s", d.territories, d.what)
}

func isDivergence(err error) bool {
	_, ok := errors.AsType[*divergence](err)
	return ok
}

// diverged raises the alarm if err is a divergence. The batch that showed it is
// not kept; the next session asks for the territories whole. It returns err.
func (r *Replica) diverged(err error) error {
	d, ok := errors.AsType[*divergence](err)
	if !ok {
		return err
	}
	reason := "missing"
	if d.proven {
		reason = "digest"
		r.cfg.Metrics.mismatch.Add(float64(len(d.territories)))
	}
	r.cfg.Metrics.resync.WithLabelValues(reason).Inc()
	r.cfg.Logger.Error("ALARM: the base differs from the masters; the territories are fetched again", "territories", d.territories, "cause", d.what, "cursor", r.position().rev)
	if r.position().rev == 0 {
		return errors.Join(err, r.resetBase())
	}
	r.change(func(l *link) {
		if l.suspect == nil {
			l.suspect = map[crm.TerritoryID]bool{}
		}
		for _, t := range d.territories {
			l.suspect[t] = true
		}
	})
	return errors.Join(err, r.unstage())
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
	r.change(func(l *link) { l.suspect, l.heads, l.head, l.asOf = nil, nil, 0, time.Time{} })
	r.advance(func(p *position) { *p = position{last: p.last} })
	return nil
}
