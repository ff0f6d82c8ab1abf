package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// maxGroup bounds the requests of one journal transaction.
const maxGroup = 512

// A commit is one request on its way into the journal.
type commit struct {
	req     crm.Request
	also    func(*store.JTx) error // written with the Mutation; nil: nothing
	at      time.Time              // when it was asked for
	receipt crm.Receipt
	err     error
	done    chan struct{} // closed when receipt or err is set
}

// commits is the queue of a group commit. Whoever holds the turn writes what is
// queued, for all: while one caller waits for the disk the others queue up, so
// the groups grow with the load and nobody waits for company.
type commits struct {
	turn  chan struct{} // holds one token
	mu    sync.Mutex    // protects queue
	queue []*commit
}

func newCommits() *commits {
	c := &commits{turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

func (q *commits) add(c *commit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, c)
}

// take removes the next group.
func (q *commits) take() []*commit {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.queue), maxGroup)
	group := slices.Clone(q.queue[:n])
	q.queue = slices.Delete(q.queue, 0, n)
	return group
}

// withdraw removes c and reports whether it was still queued.
func (q *commits) withdraw(c *commit) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.queue, c)
	if i >= 0 {
		q.queue = slices.Delete(q.queue, i, i+1)
	}
	return i >= 0
}

// Commit takes an edit. When it returns a Receipt the edit is fsynced here, is
// seen by readers of this node, and will be decided by a master exactly once.
//
// The error is a *crm.Error with the code of the rule that the edit breaks,
// judged as the master will, on what this node knows; disk_full or another code
// of the store; too_large over crm.MaxMutation; or unavailable while the node
// has no data yet. After any error nothing was taken, but for unsynced, where the
// disk has not said whether it keeps the edit: readers see it, and a crash may
// take it back until a later edit is acknowledged. A document number left empty in
// a creation is given here, from the site's series.
func (r *Replica) Commit(ctx context.Context, req crm.Request) (crm.Receipt, error) {
	return r.commit(ctx, &commit{req: req})
}

func (r *Replica) commit(ctx context.Context, c *commit) (crm.Receipt, error) {
	if err := errors.Join(r.Ready(), r.journalSound()); err != nil {
		return crm.Receipt{}, err
	}
	c.at, c.done = r.cfg.Now(), make(chan struct{})
	r.commits.add(c)
	select {
	case <-c.done:
	case <-r.commits.turn:
		r.lead(c)
	case <-ctx.Done():
		if r.commits.withdraw(c) {
			return crm.Receipt{}, ctx.Err()
		}
		<-c.done
	}
	c.err = r.met(c.err)
	if c.err == nil {
		r.cfg.Metrics.ackTime.WithLabelValues("local").Observe(r.cfg.Now().Sub(c.at).Seconds())
	}
	return c.receipt, c.err
}

// lead writes what is queued until c is written, and passes the turn on.
func (r *Replica) lead(c *commit) {
	defer func() { r.commits.turn <- struct{}{} }()
	for !c.finished() {
		r.write(r.commits.take())
	}
}

func (c *commit) finished() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// write puts a group into the journal with one fsync and then answers it.
func (r *Replica) write(group []*commit) {
	for _, c := range group {
		c.err = errLost
		defer close(c.done)
	}
	var w *writer
	opened := r.gate.open()
	defer opened()
	err := r.journal.Update(func(j *store.JTx) error {
		return r.base.View(func(tx *store.Tx) (err error) {
			opened()
			if w, err = r.newWriter(j, tx); err != nil {
				return err
			}
			return w.takeAll(group)
		})
	})
	if errors.Is(err, errNothing) {
		err = nil
	} else if err == nil || crm.CodeOf(err) == crm.CodeUnsynced {
		r.written(w)
	}
	for _, c := range group {
		if err != nil {
			c.receipt, c.err = crm.Receipt{}, fmt.Errorf("save edit: %w", err)
		}
	}
}

// errLost is what the others of a group see if writing it panicked.
var errLost = &crm.Error{Code: crm.CodeInternal, Op: "save edit", Message: "the edit was not taken because of a bug"}

// written makes a group known that can be seen in the journal.
func (r *Replica) written(w *writer) {
	r.cfg.Metrics.batchSize.WithLabelValues("journal").Observe(float64(w.taken))
	r.lowerBase(w.low)
	if err := r.measureOutbox(); err != nil {
		r.cfg.Logger.Warn("the outbox could not be measured", "error", err)
	}
	r.advance(func(p *position) { p.last = w.id.NextSeq - 1 })
	r.changes.Publish(w.changed)
	nudge(r.kick)
}

// metaSpoken is the name in the journal of the protocol version that was agreed
// with the masters last: edits taken offline are written in it.
const metaSpoken = "spoken"

// spokenNamed is the version from which on Mutations name their Timeline.
const spokenNamed = 2

// errNothing rolls back a group of which nothing was taken.
var errNothing = errors.New("nothing to write")

// A writer takes one group in a journal transaction.
type writer struct {
	*folder
	r       *Replica
	id      store.Identity
	decided crm.Seq // of this node, in the base
	named   bool    // the masters read that a Mutation names its Timeline
	taken   int
	low     crm.Rev // the lowest Seen.Rev of what was taken; 0: none
	changed []crm.Change
}

func (r *Replica) newWriter(j *store.JTx, tx *store.Tx) (*writer, error) {
	if err := notWhole(tx); err != nil {
		return nil, err
	}
	if r.chainLost() {
		return nil, notReady("the journal is older than the base: this disk was rolled back; edits are taken again once a master was reached")
	}
	f, err := r.newFolder(j, tx)
	if err != nil {
		return nil, err
	}
	id, err := j.Identity()
	if err != nil {
		return nil, err
	}
	spoken, err := number(j, metaSpoken)
	if err != nil {
		return nil, err
	}
	decided, err := number(tx, metaDecided)
	return &writer{folder: f, r: r, id: id, decided: crm.Seq(decided), named: spoken >= spokenNamed}, err
}

// takeAll takes each request, judged on the state that the ones before it leave.
// An error is the store's; a request that breaks a rule fails alone.
func (w *writer) takeAll(group []*commit) (err error) {
	for _, c := range group {
		if c.err, err = w.take(c); err != nil {
			return err
		}
	}
	if w.taken == 0 {
		return errNothing
	}
	return w.j.SetIdentity(w.id)
}

// take returns what is wrong with the request, and apart from that the failures
// of the store.
func (w *writer) take(c *commit) (refusal, failure error) {
	m := c.req.Mutation(w.id.Node, w.lineage, w.named)
	m.Incarnation, m.Seq, m.Prev = w.id.Incarnation, w.id.NextSeq, w.id.Chain
	m.HLC, m.Schema = w.r.clock.Tick(), w.view.Schema().Version
	if err := w.vouch(m); err != nil {
		return failed(err)
	}
	encoded := crm.AppendMutation(nil, m)
	if refusal := readable(m, encoded); refusal != nil {
		return refusal, nil
	}
	dec, err := w.decide(m)
	if err != nil {
		return failed(err)
	}
	if err := refused(m, dec.Outcome); err != nil {
		return err, nil
	}
	if len(encoded)+numberRoom*len(m.Ops) > crm.MaxMutation {
		return &crm.Error{Code: crm.CodeTooLarge, Op: m.Intent, Message: fmt.Sprintf("the edit takes %d bytes and %d are allowed; save it in parts", len(encoded), crm.MaxMutation)}, nil
	}
	numbered, err := w.number(m)
	if err != nil {
		return nil, err
	}
	if numbered {
		if dec, err = w.decide(m); err != nil {
			return nil, err
		}
		if err := refused(m, dec.Outcome); err != nil {
			return nil, fmt.Errorf("with its number: %w", err)
		}
		encoded = crm.AppendMutation(encoded[:0], m)
	}
	return nil, w.keep(c, m, encoded, dec)
}

// failed returns err as take does: damage fails one request, for what the others
// of the group touch can be read.
func failed(err error) (refusal, failure error) {
	if _, damaged := errors.AsType[*store.Damage](err); damaged {
		return err, nil
	}
	return nil, err
}

// vouch adds to what the authors have seen this node's own edits, where the screen
// showed a record as the base has it: they are in it. Their Revs say that too, but
// mean nothing to masters that were restored and have lost them.
func (w *writer) vouch(m *crm.Mutation) error {
	for i := range m.Ops {
		op := &m.Ops[i]
		if op.Seen.Rev == 0 || op.Seen.Seq != 0 {
			continue
		}
		rec, err := w.tx.Record(op.Entity, op.Record)
		if err != nil {
			return err
		}
		if rec != nil && op.Seen.Rev >= rec.Stamp.Rev {
			op.Seen.Seq = w.decided
		}
	}
	return nil
}

// readable refuses what no master could decode: one such edit would block all
// that come after it. One that is too large is judged elsewhere.
func readable(m *crm.Mutation, encoded []byte) error {
	if len(encoded) > crm.MaxMutation {
		return nil
	}
	if _, err := crm.DecodeMutation(encoded); err != nil {
		return &crm.Error{Code: crm.CodeInvalid, Op: strings.ToValidUTF8(m.Intent, "?"), Message: "the edit cannot be sent", Err: err}
	}
	return nil
}

// keep writes the Mutation and what it makes of the records.
func (w *writer) keep(c *commit, m *crm.Mutation, encoded []byte, dec crm.Decision) error {
	chain := crm.Chain(m.Prev, encoded)
	if err := w.j.Append(store.Entry{Seq: m.Seq, At: c.at.UnixMilli(), Chain: chain, Bytes: encoded}); err != nil {
		return err
	}
	if err := w.overlay(m.Seq, dec); err != nil {
		return err
	}
	if c.also != nil {
		if err := c.also(w.j); err != nil {
			return err
		}
	}
	w.id.NextSeq, w.id.Chain, w.id.HLC = m.Seq+1, chain, m.HLC
	w.taken++
	w.low = lowestSeen(w.low, m)
	for _, rec := range dec.Writes {
		w.changed = append(w.changed, crm.Change{Entity: rec.Entity, Record: rec.ID, Rev: crm.Pending, Deleted: rec.Deleted})
	}
	c.receipt = crm.Receipt{Node: m.Node, Seq: m.Seq}
	return nil
}

// refused returns the error for an edit that the master would reject, or whose
// move it would park, if it knew no more than this node.
func refused(m *crm.Mutation, o crm.Outcome) error {
	if o.Kind == crm.Rejected || o.Kind == crm.Parked && o.Code == crm.CodeTransition {
		return &crm.Error{Code: o.Code, Op: m.Intent, Message: o.Message}
	}
	return nil
}
