package master

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

const (
	// reportEvery is the least time between two entries that say how far the
	// replicas are. They are hints, so they may be lost.
	reportEvery = 30 * time.Second
	// reportAge is the oldest report worth logging: another master may know better.
	// It leaves time for a report to come up through relays and a follower.
	reportAge = 2 * time.Minute
	// trimEvery is the time between two looks at what nobody needs any more.
	trimEvery = time.Hour
	// silentAfter is when a replica is no longer waited for: its base is sent whole
	// when it comes back; its edits are taken as ever.
	silentAfter = 90 * 24 * time.Hour
	// reportsPerEntry keeps an entry of reports well below MaxEntry.
	reportsPerEntry = 4096
)

// reports collects how far replicas say they are until the leader logs it, or a
// follower tells the leader.
type reports struct {
	mu      sync.Mutex // protects pending
	pending map[crm.NodeID]NodeReport
}

func (r *reports) note(n crm.NodeID, cursor, lowBase crm.Rev, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = map[crm.NodeID]NodeReport{}
	}
	if r.pending[n].SeenMillis > now {
		return // it came by a longer way than a newer one
	}
	r.pending[n] = NodeReport{Node: n, Cursor: cursor, LowBase: lowBase, SeenMillis: now}
}

// take removes and returns the reports heard since oldest.
func (r *reports) take(oldest int64) []NodeReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []NodeReport
	for _, id := range sortedKeys(r.pending) {
		if p := r.pending[id]; p.SeenMillis >= oldest && len(out) < reportsPerEntry {
			out = append(out, p)
		}
		delete(r.pending, id)
	}
	return out
}

// heard notes a report that came from another node. None is of the future: one by a
// fast clock would hide all that are right until then.
func (m *Master) heard(n crm.NodeID, cursor, lowBase crm.Rev, seenMillis int64) {
	m.reports.note(n, cursor, lowBase, min(seenMillis, m.millis()))
}

// reportLoop logs reports while this master leads.
func (m *Master) reportLoop(ctx context.Context) error {
	return every(ctx, reportEvery, func() {
		if err := m.countOpen(); err != nil {
			m.log.Warn("the attention list could not be counted", "error", err)
		}
		if err := m.measureBackup(); err != nil {
			m.log.Warn("the age of the last backup could not be read", "error", err)
		}
		m.noteSessions()
		list := m.reports.take(m.now().Add(-reportAge).UnixMilli())
		if err := m.report(ctx, list); err != nil {
			m.log.Debug("reports of replicas were not logged", "error", err)
		}
	})
}

// report logs reports, or tells the leader.
func (m *Master) report(ctx context.Context, list []NodeReport) error {
	leader, _, self := m.ledger.leader()
	switch {
	case len(list) == 0:
		return nil
	case !self && leader == "":
		return session.NoLeader("report")
	case !self:
		return m.links.to(nodeOf(leader)).Report(ctx, reportsOf(list))
	}
	list, err := m.news(list)
	if err != nil || len(list) == 0 {
		return err
	}
	_, _, err = m.ledger.propose(ctx, ReportsEntry{Reports: list})
	return err
}

func reportsOf(list []NodeReport) []syncproto.Report {
	out := make([]syncproto.Report, 0, len(list))
	for _, r := range list {
		out = append(out, syncproto.Report(r))
	}
	return out
}

// news leaves out what is older than what is logged: a node may have told more
// elsewhere, and a report of before would hide what it still refers to. What is
// logged as of the future, by a leader whose clock was fast, hides nothing.
func (m *Master) news(list []NodeReport) (out []NodeReport, err error) {
	now := m.millis()
	err = m.ledger.db().View(func(tx *store.Tx) error {
		for _, r := range list {
			st, _, err := tx.Node(r.Node)
			if err != nil {
				return err
			}
			if r.SeenMillis >= st.SeenMillis || st.SeenMillis > now {
				out = append(out, r)
			}
		}
		return nil
	})
	return out, err
}

// noteSessions reports the replicas that have nothing new to say but live.
func (m *Master) noteSessions() {
	for _, s := range m.server.Sessions() {
		m.reports.note(s.Node, s.Applied, s.LowBase, s.Heard.UnixMilli())
	}
}

// every calls fn now and then until ctx ends.
func every(ctx context.Context, d time.Duration, fn func()) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			fn()
		}
	}
}

// trimLoop drops tombstones and markers that every replica has passed.
func (m *Master) trimLoop(ctx context.Context) error {
	return every(ctx, trimEvery, func() {
		if err := m.trim(ctx); err != nil {
			m.log.Debug("nothing was trimmed", "error", err)
		}
	})
}

func (m *Master) trim(ctx context.Context) error {
	if _, _, self := m.ledger.leader(); !self {
		return nil
	}
	var low, trimmed crm.Rev
	err := m.ledger.db().View(func(tx *store.Tx) (err error) {
		if trimmed, err = session.TrimmedIn(tx); err != nil {
			return err
		}
		ros, err := m.server.Rosters().At(tx)
		if err != nil {
			return err
		}
		low, err = Watermark(tx, ros, m.now())
		return err
	})
	if err != nil || low <= trimmed {
		return err
	}
	m.log.Info("tombstones and markers are dropped", "upto", low)
	_, _, err = m.ledger.propose(ctx, TrimEntry{Rev: low})
	return err
}

// Watermark returns the highest Rev at or below which no replica needs
// tombstones or markers: the least of what any active replica that was ever
// admitted has applied, or may still refer to. One that bootstraps holds it at
// 0, because records it has staged may be deleted meanwhile; one that was silent
// for long before now is not waited for.
func Watermark(tx *store.Tx, ros *session.Roster, now time.Time) (crm.Rev, error) {
	low, err := tx.Rev()
	if err != nil {
		return 0, err
	}
	longAgo := now.Add(-silentAfter).UnixMilli()
	for _, n := range ros.Nodes {
		if !n.Active || n.Role != auth.RoleReplica {
			continue
		}
		st, admitted, err := tx.Node(n.Node)
		if err != nil {
			return 0, err
		}
		if !admitted || st.SeenMillis != 0 && st.SeenMillis < longAgo {
			continue
		}
		low = min(low, st.Cursor)
		if st.LowBase != 0 {
			low = min(low, st.LowBase)
		}
	}
	return low, nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
