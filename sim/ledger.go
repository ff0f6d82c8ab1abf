package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/session"
)

// What the log takes its time for.
const (
	leaseTime  = 1500 * time.Millisecond // after which a leader without a majority steps down, and another is elected
	carryAgain = 250 * time.Millisecond  // between two tries to bring a master what it lacks
)

// A ledger is the log that masters apply, in place of Raft. It keeps what Raft
// promises, that there is one order and what is in it stays, and nothing more:
//
//   - a proposal is in the log once, twice, or not at all, and who made it may be
//     told that, or that nobody knows;
//   - the leader changes, and what was under way then may be in the log or not;
//   - without a majority nothing is decided;
//   - each master learns of entries when it can be reached, and applies them at its
//     own pace.
type ledger struct {
	w       *world
	entries []logged
	term    uint64
	leader  *masterNode // nil: nobody leads
	stuck   []*proposal // of a leader that has lost its majority
	fates   []fate      // of the next proposals; the rest go well
	looking bool        // a check of the leader is due
}

// A logged entry is what every master applies at its index, 1 for the first.
type logged struct {
	term   uint64
	bytes  []byte
	ruling []Ruling // the model's
	no     crm.Code
}

// A fate is what becomes of a proposal.
type fate string

const (
	fateLost     fate = "lost"      // it is not in the log, and nobody can tell
	fateUnknown  fate = "ambiguous" // it is, and nobody can tell
	fateTwice    fate = "twice"     // it is, two times
	fateLate     fate = "late"      // it takes a few seconds
	fateOrdinary fate = ""
)

// A proposal is an entry on its way into the log.
type proposal struct {
	by   *masterNode
	life int
	term uint64
	e    master.Entry
	b    []byte
	done func(master.Verdict, uint64, error)
}

func (p *proposal) unknown() error {
	return &crm.Error{Code: crm.CodeTimeout, Op: "propose entry", Message: "it may yet be decided", Err: session.ErrUnknown}
}

// answer tells who proposed, if they still live.
func (p *proposal) answer(v master.Verdict, index uint64, err error) {
	p.by.resume(p.life, func() { p.done(v, index, err) })
}

// Propose puts an entry before the masters. done is told what the proposing
// master made of it, or why that is not known.
func (l *ledger) Propose(by *masterNode, e master.Entry, done func(master.Verdict, uint64, error)) {
	b, err := master.EncodeEntry(e)
	if err == nil && l.leader != by {
		err = session.NoLeader("propose entry")
	}
	p := &proposal{by: by, life: by.life, term: l.term, e: e, b: b, done: done}
	if err != nil {
		l.w.agenda.After(0, func() { p.answer(master.Verdict{}, 0, err) })
		return
	}
	f := l.nextFate()
	if f != fateOrdinary {
		by.note("proposes what is %s", f)
		l.w.count("fault proposal " + string(f))
	}
	rtt, ok := l.majority(by)
	if !ok {
		l.stuck = append(l.stuck, p)
		return
	}
	if f == fateLate {
		rtt += between(l.w.dice.For("log"), time.Second, 4*time.Second)
	}
	l.w.agenda.After(rtt, func() { l.settle(p, f) })
}

func (l *ledger) nextFate() fate {
	if len(l.fates) == 0 {
		return fateOrdinary
	}
	f := l.fates[0]
	l.fates = l.fates[1:]
	return f
}

// majority returns the round trip to the nearest masters that make a majority
// with the given one, and whether there are enough.
func (l *ledger) majority(m *masterNode) (time.Duration, bool) {
	var trips []time.Duration
	for _, o := range l.w.masters {
		if o != m && o.up && l.w.net.Crosses(m.name, o.name) && l.w.net.Crosses(o.name, m.name) {
			there, _ := l.w.net.line(m.name, o.name).takes()
			back, _ := l.w.net.line(o.name, m.name).takes()
			trips = append(trips, there+back)
		}
	}
	need := len(l.w.masters) / 2
	slices.Sort(trips)
	switch {
	case !m.up || len(trips) < need:
		return 0, false
	case need == 0:
		return time.Millisecond, true
	}
	return trips[need-1], true
}

// settle brings a proposal to its end.
func (l *ledger) settle(p *proposal, f fate) {
	if l.leader != p.by || l.term != p.term || !p.by.up {
		l.orphan(p)
		return
	}
	switch f {
	case fateLost:
		l.w.agenda.After(leaseTime, func() { p.answer(master.Verdict{}, 0, p.unknown()) })
		return
	case fateUnknown:
		l.add(p)
		l.w.agenda.After(leaseTime, func() { p.answer(master.Verdict{}, 0, p.unknown()) })
		return
	}
	index := l.add(p)
	if f == fateTwice {
		l.add(p)
	}
	p.by.awaitEntry(index, p)
}

// orphan decides by lot what becomes of a proposal whose leader leads no more:
// its successor may have got the entry.
func (l *ledger) orphan(p *proposal) {
	if l.leader != nil && l.w.dice.For("log").IntN(2) == 0 {
		l.add(p)
	}
	p.answer(master.Verdict{}, 0, p.unknown())
}

// add puts the entry into the log and returns its index.
func (l *ledger) add(p *proposal) uint64 {
	index := uint64(len(l.entries)) + 1
	e := logged{term: l.term, bytes: p.b}
	if l.w.model != nil {
		e.ruling, e.no = l.w.model.apply(l.w.agenda.now, index, p.e)
	}
	l.entries = append(l.entries, e)
	l.w.trace.Note(l.w.agenda.now, "log", "%d of term %d: %s %s", index, l.term, describeEntry(p.e), digest(p.b))
	l.w.judge(onDecision)
	l.leader.learn(index)
	for _, m := range l.w.masters {
		l.carry(m)
	}
	return index
}

// carry brings a master the entries that it does not know of.
func (l *ledger) carry(m *masterNode) {
	last := uint64(len(l.entries))
	if m.carrying || m.known >= last || !m.up {
		return
	}
	m.carrying = true
	if l.leader == nil || !l.w.net.Crosses(l.leader.name, m.name) {
		l.w.agenda.After(carryAgain, func() { m.carrying = false; l.carry(m) })
		return
	}
	d, _ := l.w.net.line(l.leader.name, m.name).takes()
	life := m.life
	l.w.agenda.After(d, func() {
		m.carrying = false
		if m.up && m.life == life {
			m.learn(last)
		}
		l.carry(m)
	})
}

// Check has the leader looked at, a little later: something about masters or the
// lines between them has changed.
func (l *ledger) Check() {
	if l.looking {
		return
	}
	l.looking = true
	l.w.agenda.After(leaseTime+upTo(l.w.dice.For("log"), leaseTime), func() {
		l.looking = false
		if l.leader != nil {
			if _, ok := l.majority(l.leader); ok {
				l.retryStuck()
				return
			}
		}
		l.Elect(nil)
	})
}

func (l *ledger) retryStuck() {
	stuck := l.stuck
	l.stuck = nil
	for _, p := range stuck {
		l.w.agenda.After(carryAgain, func() { l.settle(p, fateOrdinary) })
	}
}

// Elect makes a master the leader that reaches a majority: another one than the
// present leader if there is another, and to if it is not nil. If there is none,
// nobody leads until something changes.
func (l *ledger) Elect(to *masterNode) {
	var can []*masterNode
	for _, m := range l.w.masters {
		if _, ok := l.majority(m); ok && (m != l.leader || len(l.w.masters) == 1) {
			can = append(can, m)
		}
	}
	was := l.leader
	switch {
	case to != nil && slices.Contains(can, to):
		l.leader = to
	case len(can) > 0:
		l.leader = pick(l.w.dice.For("log"), can)
	default:
		if was != nil {
			if _, ok := l.majority(was); ok {
				return
			}
		}
		l.leader = nil
	}
	if l.leader == was && was != nil {
		return
	}
	l.term++
	stuck := l.stuck
	l.stuck = nil
	for _, p := range stuck {
		l.orphan(p)
	}
	if l.leader == nil {
		l.w.trace.Note(l.w.agenda.now, "log", "term %d: nobody leads", l.term)
		l.Check()
		return
	}
	l.w.trace.Note(l.w.agenda.now, "log", "term %d: %s leads", l.term, l.leader.name)
	for _, m := range l.w.masters {
		l.carry(m)
	}
}

// describeEntry says what an entry holds, for the Trace.
func describeEntry(e master.Entry) string {
	switch e := e.(type) {
	case master.PushEntry:
		return fmt.Sprintf("push of node %d inc %d, %d mutations, offset %d", e.Node, e.Incarnation, len(e.Mutations), e.OffsetMillis)
	case master.AdmitEntry:
		return fmt.Sprintf("admit node %d: %s", e.Node, e.Reason)
	case master.FreezeEntry:
		return fmt.Sprintf("freeze node %d: %s", e.Node, e.Reason)
	case master.TrimEntry:
		return fmt.Sprintf("trim %d", e.Rev)
	case master.ActivateEntry:
		return fmt.Sprintf("activate %d", e.Level)
	case master.ReportsEntry:
		return fmt.Sprintf("%d reports", len(e.Reports))
	}
	return fmt.Sprintf("%T", e)
}
