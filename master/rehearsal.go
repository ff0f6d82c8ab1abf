package master

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	// poisonAfter is how many processes must have ended in the rehearsal of a
	// Mutation until it is rejected: one may have been killed by chance.
	poisonAfter = 2
	// bareAfter is how many until not even what it would have changed is looked at.
	bareAfter = 2 * poisonAfter
)

// A rehearsal judges Mutations on trial before they are logged.
//
// What is logged every master evaluates, and once more whenever it starts: an
// edit that ends the process there (a stack that overflows, memory that runs out)
// would end the cluster. A panic is no such edit, evaluation recovers from it.
// So the leader first decides each Mutation against what it has committed and
// drops the result. If that ends its process, nothing has happened, and the file
// of suspects names the one Mutation that was under way. From the second time on
// it is not judged again but logged as poison, which every master rejects without
// looking at it.
//
// Invariant: one Mutation is under way at a time, so each crash has one suspect,
// and k poisonous edits end as many processes as poisonAfter times k of each
// master at most, wherever they stand.
//
// Its methods may be called by any goroutine.
type rehearsal struct {
	db      *store.DB
	rosters *session.Rosters
	log     *slog.Logger
	decide  func(crm.View, *crm.Mutation, crm.Env) (crm.Decision, error) // crm.Decide; tests end the process in it

	mu        sync.Mutex // protects the rest; held while a Mutation is under way
	suspects  *suspects
	roster    *session.Roster // that directory was read at
	directory directory
}

func openRehearsal(dir string, db *store.DB, rosters *session.Rosters, log *slog.Logger) (*rehearsal, error) {
	s, err := openSuspects(dir)
	if err != nil {
		return nil, err
	}
	for _, k := range s.known {
		log.Warn("this master has ended while it judged an edit", "node", k.node, "seq", k.seq, "times", k.times)
	}
	return &rehearsal{db: db, rosters: rosters, log: log, decide: crm.Decide, suspects: s}, nil
}

func (r *rehearsal) close() error { return r.suspects.close() }

// first returns what of a Submission may be logged in one entry: all of it, or
// the Mutations up to the first poison, which is marked. rest has no Mutations at
// the end. The error is of code unavailable, or forbidden if a Mutation came
// marked; nothing was changed.
func (r *rehearsal) first(s session.Submission, receivedMillis int64) (part, rest session.Submission, err error) {
	if err := unmarked(s); err != nil {
		return part, rest, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := trial{sub: s, receivedMillis: receivedMillis}
	fit, mark := len(s.Mutations), byte(0)
	err = r.db.View(func(tx *store.Tx) error {
		if err := r.prepare(tx, &t); err != nil {
			return err
		}
		for i, raw := range s.Mutations {
			if mark, err = r.rehearse(&t, raw); err != nil || mark != 0 {
				fit = i
				return err
			}
		}
		return nil
	})
	err = errors.Join(err, r.suspects.end())
	if err != nil {
		return part, rest, &crm.Error{Code: crm.CodeUnavailable, Op: "judge edits on trial", Message: "this master cannot; nothing was changed", Err: err}
	}
	part, rest = s, s
	if mark == 0 {
		rest.Mutations = nil
		return part, rest, nil
	}
	part.Mutations = append(s.Mutations[:fit:fit], append([]byte{mark}, s.Mutations[fit]...))
	rest.First, rest.Mutations = s.First+crm.Seq(fit)+1, s.Mutations[fit+1:]
	return part, rest, nil
}

// unmarked refuses Mutations that somebody else calls poison.
func unmarked(s session.Submission) error {
	for i, raw := range s.Mutations {
		if len(raw) > 0 && raw[0] >= bareMark {
			return &crm.Error{Code: crm.CodeForbidden, Op: "push", Item: fmt.Sprintf("edit %d of node %d", s.First+crm.Seq(i), s.Node), Message: "only the master that leads calls an edit poison"}
		}
	}
	return nil
}

// A trial is the rehearsal of one Submission. Its View answers with what the
// Mutations before would have written, as far as it is asked for records by id.
type trial struct {
	*store.Tx
	sub            session.Submission
	receivedMillis int64
	rev            crm.Rev
	last           store.NodeState
	who            *member
	written        map[crm.RecordID]*crm.Record
}

func (t *trial) Record(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	if r := t.written[id]; r != nil && r.Entity == e {
		return r, nil
	}
	return t.Tx.Record(e, id)
}

// prepare reads what the decisions depend on besides records.
func (r *rehearsal) prepare(tx *store.Tx, t *trial) (err error) {
	t.Tx, t.written = tx, map[crm.RecordID]*crm.Record{}
	if t.rev, err = tx.Rev(); err != nil {
		return err
	}
	if t.last, _, err = tx.Node(t.sub.Node); err != nil {
		return err
	}
	roster, err := r.rosters.At(tx)
	if err != nil {
		return err
	}
	if r.roster != roster {
		if r.directory, err = readDirectory(tx); err != nil {
			return err
		}
		r.roster = roster
	}
	t.who = r.directory[t.sub.Node]
	return nil
}

// rehearse returns the mark under which a Mutation is to be logged; 0: it is
// judged. Those that would not come to a decision are left to the entry.
func (r *rehearsal) rehearse(t *trial, raw []byte) (mark byte, err error) {
	m, err := readMutation(raw)
	if err != nil || t.who == nil || t.who.removed || m.withheld != nil || m.Seq <= t.last.LastSeq {
		return 0, nil
	}
	t.rev++
	env, err := t.who.env(t.Tx, t.rev, effectiveHLC(m.HLC, t.sub.OffsetMillis, t.receivedMillis, t.last.LastHLC))
	if err != nil {
		return 0, err
	}
	k := suspect{node: m.Node, seq: m.Seq, after: m.after}
	times := r.suspects.times(k)
	if times >= poisonAfter && env.Level < levelPoison {
		return 0, &crm.Error{Code: crm.CodeUnavailable, Op: "push", Item: m.item(), Message: "judging it ends the masters; it can be rejected once all of them are upgraded"}
	}
	if times >= bareAfter {
		return bareMark, nil
	}
	if err := r.suspects.begin(k); err != nil {
		return 0, err
	}
	if times >= poisonAfter {
		r.try(t, m, env, crm.DecidePoison)
		return poisonMark, nil
	}
	r.try(t, m, env, r.decide)
	return 0, nil
}

// try decides and keeps what would be written. What becomes of it counts when it
// is logged: also a panic, and an error of the store.
func (r *rehearsal) try(t *trial, m *mutation, env crm.Env, decide func(crm.View, *crm.Mutation, crm.Env) (crm.Decision, error)) {
	defer func() {
		if what := recover(); what != nil {
			r.log.Warn("an edit's rehearsal panicked", "node", m.Node, "seq", m.Seq, "panic", what)
		}
	}()
	dec, err := decide(t, m.Mutation, env)
	if err != nil {
		return
	}
	for _, w := range dec.Writes {
		t.written[w.ID] = w
	}
}
