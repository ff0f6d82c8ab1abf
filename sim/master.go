package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// cluster is the name of every simulated cluster.
const cluster = "sim"

// How long a master takes over things, at most.
const (
	applyPace  = 2 * time.Millisecond
	flushPace  = 20 * time.Millisecond
	greetLimit = 10 * time.Second // of a handshake
	askLimit   = 10 * time.Second // of a question to another master
	reportPace = 30 * time.Second // between two entries of reports
)

// A masterNode is a master: the FSM and the serving half of package session, with
// the ledger where production has Raft.
type masterNode struct {
	server
	fsm     *master.FSM
	reports map[crm.NodeID]master.NodeReport

	known    uint64 // entries of the log up to here are known here
	applied  uint64 // and applied, flushed or not
	slow     time.Duration
	carrying bool // an entry is on its way here
	applying bool
	flushing bool
	waiters  map[uint64]*proposal // who waits for an entry to be applied
	author   author
}

// start opens the master's file and takes up where it stands.
func (m *masterNode) start() error {
	m.life++
	m.reports, m.waiters = map[crm.NodeID]master.NodeReport{}, map[uint64]*proposal{}
	m.applying, m.flushing, m.author = false, false, author{m: m}
	var err error
	m.fsm, err = master.OpenFSM(master.FSMConfig{Path: filepath.Join(m.dir, "master.db"), Store: m.options(), Now: m.now, Logger: m.w.logger(m.name),
		Fatal: func(err error) { m.w.fail("%s has halted: %v", m.name, err) }})
	if err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	m.up, m.applied = true, m.fsm.Applied()
	m.known = max(m.applied, m.known)
	srv := session.New(session.Config{Cluster: cluster, DB: m.fsm.DB(), Upstream: noUpstream{}, Head: m.fsm.Head, Changed: m.fsm.Changed,
		Leader: m.leader, LeaderChanged: func() <-chan struct{} { return nil }, Reported: m.reported, Now: m.now, Jitter: m.jitter, Logger: m.w.logger(m.name)})
	m.begin(srv, m, m.fsm.Head, greetLimit)
	m.note("starts at entry %d, rev %d", m.applied, m.fsm.Head())
	m.w.ledger.Check()
	m.w.ledger.carry(m)
	m.catchUp()
	m.after(reportPace, m.report)
	m.headMoved()
	return nil
}

// noUpstream is for a Server that is never asked to run goroutines of its own.
type noUpstream struct{}

var errNoUpstream = errors.New("the simulator asks upstream itself")

func (noUpstream) Greet(context.Context, *syncproto.Hello) (syncproto.Frame, error) {
	return nil, errNoUpstream
}
func (noUpstream) Submit(context.Context, session.Submission) (session.Reply, error) {
	return session.Reply{}, errNoUpstream
}
func (noUpstream) Ask(context.Context, syncproto.AskKind) (*syncproto.Answer, error) {
	return nil, errNoUpstream
}

// stop closes the file: in order, or as a crash leaves it.
func (m *masterNode) stop(orderly bool) error {
	if m.fsm == nil {
		return nil
	}
	defer func() { m.fsm = nil }()
	if orderly {
		return m.fsm.Close()
	}
	return m.fsm.Abandon()
}

func (m *masterNode) leader() (crm.NodeID, bool) {
	l := m.w.ledger.leader
	if l == nil {
		return 0, false
	}
	return l.id, l == m
}

// learn notes that entries up to index are in the log.
func (m *masterNode) learn(index uint64) {
	m.known = max(m.known, index)
	m.catchUp()
}

// catchUp applies what is known, a little later.
func (m *masterNode) catchUp() {
	if m.applying || m.applied >= m.known || !m.up {
		return
	}
	m.applying = true
	m.after(m.slow+upTo(m.w.dice.For("apply "+m.name), applyPace), func() {
		m.applying = false
		for m.applied < m.known && m.w.failed == nil {
			m.apply(m.applied + 1)
		}
		m.flushSoon()
	})
}

func (m *masterNode) apply(index uint64) {
	e := &m.w.ledger.entries[index-1]
	v := m.fsm.Apply(index, e.term, e.bytes)
	m.applied = index
	if m.w.model != nil {
		m.compare(index, e, v)
	}
	if p := m.waiters[index]; p != nil {
		delete(m.waiters, index)
		p.answer(v, index, v.Err)
	}
}

// compare records what this master makes of an entry, beside what the model does.
func (m *masterNode) compare(index uint64, e *logged, v master.Verdict) {
	m.w.record.Rulings = append(m.w.record.Rulings, Applied{At: m.w.agenda.now, Master: m.id, Index: index, Got: rulingsOf(v), Want: e.ruling,
		GotNo: crm.CodeOf(v.Err), WantNo: e.no})
	if index%accumulateEvery == 0 {
		m.accumulate(index)
	}
	m.w.judge(onRuling)
}

// accumulateEvery is the distance of the entries after which masters are
// compared.
const accumulateEvery = 16

func (m *masterNode) accumulate(index uint64) {
	sum, err := m.fsm.Accumulator()
	if err != nil {
		m.w.fail("%s does not accumulate: %v", m.name, err)
		return
	}
	m.w.record.Marks = append(m.w.record.Marks, Mark{m.id, m.w.model.ID, index, sum})
}

func rulingsOf(v master.Verdict) (out []Ruling) {
	for _, d := range v.Results {
		if d.Admitted != 0 {
			continue
		}
		out = append(out, Ruling{Outcome: d.Outcome, Duplicate: d.Duplicate, Gap: d.Gap, Fork: d.Fork, Fenced: d.Fenced})
	}
	return out
}

// awaitEntry has the proposal answered when the entry is applied here.
func (m *masterNode) awaitEntry(index uint64, p *proposal) {
	if m.up && m.life == p.life {
		m.waiters[index] = p
	}
}

// flushSoon commits what is applied, with what is applied until then.
func (m *masterNode) flushSoon() {
	if m.flushing {
		return
	}
	m.flushing = true
	m.after(upTo(m.w.dice.For("flush "+m.name), flushPace), func() {
		m.flushing = false
		if err := m.fsm.Flush(); err != nil {
			m.w.fail("%s does not commit: %v", m.name, err)
			return
		}
		m.headMoved()
	})
}

// headMoved notes a commit and tells all who wait for one.
func (m *masterNode) headMoved() {
	head := m.fsm.Head()
	m.w.record.Heads = append(m.w.record.Heads, Head{m.w.agenda.now, m.id, m.timeline(), head})
	m.note("shows rev %d, entry %d", head, m.fsm.Applied())
	m.committed()
}

func (m *masterNode) timeline() (id uint64) {
	if err := m.fsm.DB().View(func(tx *store.Tx) (err error) { id, err = tx.Timeline(); return err }); err != nil {
		m.w.fail("%s: %v", m.name, err)
	}
	return id
}

// verify is told whether this master leads and shows everything that was decided
// before: then a read of its file is linearizable.
func (m *masterNode) verify(then func(error)) {
	l := m.w.ledger
	at, term := uint64(len(l.entries)), l.term
	rtt, ok := l.majority(m)
	if l.leader != m || !ok {
		m.after(0, func() { then(session.NoLeader("verify leader")) })
		return
	}
	m.after(rtt, func() {
		if l.leader != m || l.term != term {
			then(session.NoLeader("verify leader"))
			return
		}
		m.expect(askLimit, func() bool { return m.fsm.Applied() >= at }, func(ok bool) {
			if !ok {
				then(&crm.Error{Code: crm.CodeStale, Op: "verify leader", Message: "this master is behind"})
				return
			}
			then(nil)
		})
	})
}

// reported notes how far a replica says it is, until that is logged.
func (m *masterNode) reported(n crm.NodeID, cursor, lowBase crm.Rev, seenMillis int64) {
	m.reports[n] = master.NodeReport{Node: n, Cursor: cursor, LowBase: lowBase, SeenMillis: seenMillis}
}

// report logs the reports if this master leads; else they are lost, as in
// production, until the next Hello.
func (m *masterNode) report() {
	m.after(reportPace, m.report)
	var list []master.NodeReport
	for _, id := range slices.Sorted(maps.Keys(m.reports)) {
		list = append(list, m.reports[id])
	}
	clear(m.reports)
	if m.w.ledger.leader == m && len(list) > 0 {
		m.w.ledger.Propose(m, master.ReportsEntry{Reports: list}, func(master.Verdict, uint64, error) {})
	}
}

// trim logs that tombstones and markers go that nobody needs.
func (m *masterNode) trim() {
	var low crm.Rev
	err := m.fsm.DB().View(func(tx *store.Tx) error {
		ros, err := m.srv.Rosters().At(tx)
		if err != nil {
			return err
		}
		low, err = master.Watermark(tx, ros, m.now())
		return err
	})
	if err != nil {
		m.w.fail("%s finds no watermark: %v", m.name, err)
		return
	}
	if low == 0 {
		return
	}
	m.w.record.Trims = append(m.w.record.Trims, Trim{At: m.w.agenda.now, Rev: low, Needs: m.w.needs()})
	m.w.judge(onTrim)
	m.w.ledger.Propose(m, master.TrimEntry{Rev: low}, func(master.Verdict, uint64, error) {})
}
