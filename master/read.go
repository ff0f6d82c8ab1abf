package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

const (
	// readPatience bounds the wait of a read whose ctx has no deadline.
	readPatience = 5 * time.Second
	// lagEvery is how often a following master asks the leader how far it is.
	lagEvery = 2 * time.Second
)

// Read calls fn with a reader of one state that satisfies the demand, and says
// what it was. The reader is valid until fn returns. The error is fn's; of code
// stale if the demand could not be met before ctx ended, or within 5 s if ctx
// has no deadline; or of code no_leader.
func (m *Master) Read(ctx context.Context, d crm.Demand, fn func(*store.Reader) error) (crm.Freshness, error) {
	if err := m.meet(ctx, d); err != nil {
		return crm.Freshness{}, err
	}
	var f crm.Freshness
	err := m.ledger.db().View(func(tx *store.Tx) (err error) {
		if f, err = m.freshness(tx); err != nil {
			return err
		}
		r, err := store.NewReader(tx, nil)
		if err != nil {
			return err
		}
		return fn(r)
	})
	return f, m.met(err)
}

// meet waits until what is committed here satisfies the demand.
func (m *Master) meet(ctx context.Context, d crm.Demand) error {
	switch d.Level {
	case crm.Local, "":
		return nil
	case crm.Session, crm.Bounded, crm.Leader:
	default:
		return &crm.Error{Code: crm.CodeInvalid, Op: "read", Item: "level", Message: fmt.Sprintf("%q is not one of local, session, bounded, leader", d.Level)}
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, readPatience)
		defer cancel()
	}
	switch {
	case d.Level == crm.Session:
		return m.reach(ctx, d.Session)
	case d.Level == crm.Bounded && m.now().Sub(m.asOf()) <= d.MaxStale:
		return nil
	}
	rev, err := m.leaderRev(ctx)
	if err != nil {
		return err
	}
	return m.ledger.waitRev(ctx, rev)
}

// reach waits until this master is at the mark.
func (m *Master) reach(ctx context.Context, at crm.Mark) error {
	return m.waitFor(ctx, "the state that the session has seen", func(tx *store.Tx) (bool, error) {
		timeline, err := tx.Timeline()
		if err != nil {
			return false, err
		}
		if at.Timeline != 0 && at.Timeline != timeline {
			return false, &crm.Error{Code: crm.CodeStale, Op: "read", Item: "session", Message: "the masters were restored from a backup since; begin a new session"}
		}
		rev, err := tx.Rev()
		if err != nil || rev < at.Rev || at.Seq == 0 {
			return rev >= at.Rev, err
		}
		st, _, err := tx.Node(at.Node)
		return st.LastSeq >= at.Seq, err
	})
}

// leaderRev returns a Rev at or above everything decided before the call. The
// error is of code no_leader or stale.
func (m *Master) leaderRev(ctx context.Context) (rev crm.Rev, err error) {
	err = m.retry(ctx, func() (err error) {
		rev, err = m.askLeader(ctx)
		return err
	})
	if errors.Is(err, errUnknown) {
		err = &crm.Error{Code: crm.CodeNoLeader, Op: "ask the leader", Message: "it does not answer", Err: err}
	}
	return rev, err
}

func (m *Master) askLeader(ctx context.Context) (crm.Rev, error) {
	asked := m.now()
	id, _, self := m.ledger.leader()
	if self {
		err := m.ledger.verify(ctx)
		rev := m.ledger.head()
		if err == nil {
			m.lag.heard(rev, asked, m.ledger.head())
		}
		return rev, err
	}
	if id == "" {
		return 0, session.NoLeader("ask the leader")
	}
	a, err := m.askMaster(ctx, nodeOf(id))
	if err != nil {
		return 0, err
	}
	if a.Code != "" {
		return 0, &crm.Error{Code: a.Code, Op: "ask the leader", Message: a.Message}
	}
	m.lag.heard(a.Rev, asked, m.ledger.head())
	return a.Rev, nil
}

func (m *Master) askMaster(ctx context.Context, n crm.NodeID) (*syncproto.Answer, error) {
	return m.links.to(n).Ask(ctx, syncproto.AskLeader)
}

func (m *Master) freshness(tx *store.Tx) (f crm.Freshness, err error) {
	if f.Rev, err = tx.Rev(); err != nil {
		return f, err
	}
	if f.Timeline, err = tx.Timeline(); err != nil {
		return f, err
	}
	st, _, err := tx.Node(m.node)
	f.Node, f.Seq, f.AsOf = m.node, st.LastSeq, m.asOf()
	leader, _, _ := m.ledger.leader()
	f.Connected = leader != ""
	return f, err
}

// A lag remembers when this master was known to be where the leader was.
type lag struct {
	mu      sync.Mutex // protects the rest
	asOf    time.Time  // what is committed here holds everything decided by then
	next    time.Time  // will be asOf once rev is committed here
	rev     crm.Rev
	pending bool
}

// heard notes that the leader was at rev at the time at. What was heard before
// and is not reached yet is kept: it will be reached sooner.
func (l *lag) heard(rev crm.Rev, at time.Time, head crm.Rev) {
	l.settle(head)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.pending {
		l.rev, l.next, l.pending = rev, at, true
	}
}

// settle moves asOf on if head has reached what was heard.
func (l *lag) settle(head crm.Rev) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending && head >= l.rev {
		l.pending = false
		if l.next.After(l.asOf) {
			l.asOf = l.next
		}
	}
	return l.asOf
}

// age is how long ago what is committed here was known to be all that was decided:
// 0 at the leader. A master that was cut off serves its replicas all the same, and
// they must know.
func (m *Master) age() time.Duration {
	if _, _, self := m.ledger.leader(); self {
		return 0
	}
	return max(time.Millisecond, m.now().Sub(m.asOf()))
}

func (m *Master) asOf() time.Time { return m.lag.settle(m.ledger.head()) }

// lagLoop asks the leader now and then, so that this master knows how old its
// answers are.
func (m *Master) lagLoop(ctx context.Context) error {
	tick := time.NewTicker(lagEvery)
	defer tick.Stop()
	for {
		m.lookBehind(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m *Master) lookBehind(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lagEvery)
	defer cancel()
	rev, err := m.askLeader(ctx)
	if err != nil {
		m.log.Debug("the leader did not say how far it is", "error", err)
	} else {
		m.cfg.Metrics.lagEntries.Set(float64(max(rev, m.ledger.head()) - m.ledger.head()))
	}
	if asOf := m.asOf(); !asOf.IsZero() {
		m.cfg.Metrics.lagSeconds.Set(m.now().Sub(asOf).Seconds())
	}
	m.measure()
}

// waitFor returns when ok holds of the committed state. It is asked again after
// each commit.
func (m *Master) waitFor(ctx context.Context, what string, ok func(*store.Tx) (bool, error)) error {
	for {
		changed := m.ledger.changed()
		done := false
		err := m.ledger.db().View(func(tx *store.Tx) (err error) {
			done, err = ok(tx)
			return err
		})
		if err != nil || done {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &crm.Error{Code: crm.CodeStale, Op: "wait for " + what, Message: "this master did not get there in time", Err: ctx.Err()}
		}
	}
}
