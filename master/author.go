package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// maxWaiting is how many requests wait for the author; more callers block.
const maxWaiting = 1024

// leaderPatience is how long a request waits for a leader before it fails.
const leaderPatience = 10 * time.Second

// retryAfter is the wait before something of unknown outcome is repeated, unless
// the leader changes before.
const retryAfter = 250 * time.Millisecond

// An author makes this master's own edits into Mutations and sees them decided.
//
// One batch is under way at a time; callers that come meanwhile share the next
// one. An unknown outcome is resolved by submitting the same bytes again until
// the cluster says what became of them. Each start of the process begins a new
// incarnation, so nothing that an earlier process still has on its way can take
// a number that this one gives.
type author struct {
	m       *Master
	queue   chan *intake
	stopped chan struct{} // closed when run has returned

	// Of the goroutine that runs the author:
	admitted    bool
	incarnation crm.Incarnation
	next        crm.Seq       // number of the next Mutation
	chain       crm.ChainHash // of the one before
	held        *intake       // did not fit into the batch before
	numbers     numbers
}

// An intake is a request on its way to being decided.
type intake struct {
	request crm.Request
	stage   atomic.Int32
	receipt crm.Receipt // set before stage is taken
	answer  chan authored
}

// The stages of an intake: whoever leaves waiting decides about it.
const (
	waiting   = 0
	taken     = 1 // it has a number
	abandoned = 2 // its caller went away
)

type authored struct {
	outcome crm.Outcome
	err     error
}

func newAuthor(m *Master) *author {
	return &author{m: m, queue: make(chan *intake, maxWaiting), stopped: make(chan struct{}), numbers: numbers{}}
}

// Commit has an edit decided. The Receipt holds the outcome, which may be a
// rejection. Errors are *crm.Error: with the code of the rule that the edit
// breaks by what is decided already; no_leader, unavailable or too_large, and
// nothing was changed; or timeout, if ctx ended first: then the edit will be
// decided, and [Master.Await] tells how.
func (m *Master) Commit(ctx context.Context, req crm.Request) (crm.Receipt, error) {
	start := m.now()
	if err := m.precheck(ctx, req); err != nil {
		return crm.Receipt{}, err
	}
	r, err := m.author.commit(ctx, req)
	if err == nil {
		m.cfg.Metrics.ack.WithLabelValues("cluster").Observe(m.now().Sub(start).Seconds())
	}
	return r, err
}

// precheck refuses what would be rejected anyway, without a round of Raft. What
// was decided a moment ago may not be committed to bbolt yet, so an edit that
// seems wrong is looked at again once it is.
func (m *Master) precheck(ctx context.Context, req crm.Request) error {
	err := m.prejudge(req)
	if err == nil {
		return nil
	}
	if err := m.ledger.waitRev(ctx, m.ledger.evaluated()); err != nil {
		return err
	}
	return m.prejudge(req)
}

func (m *Master) prejudge(req crm.Request) error {
	return m.ledger.db().View(func(tx *store.Tx) error {
		head, err := tx.Rev()
		if err != nil {
			return err
		}
		lineage, named, err := speech(tx)
		if err != nil {
			return err
		}
		mut := req.Mutation(m.node, lineage, named)
		mut.Seq = crm.Seq(crm.Pending)
		dec, err := crm.Decide(tx, mut, crm.Env{Rev: head + 1, HLC: crm.NewHLC(m.millis()), Home: crm.HeadOffice, Admin: true, Lineage: lineage, Level: m.cfg.Protocol})
		if err != nil {
			return err
		}
		if dec.Outcome.Kind == crm.Rejected {
			return &crm.Error{Code: dec.Outcome.Code, Op: req.Intent, Message: dec.Outcome.Message}
		}
		return nil
	})
}

func (a *author) commit(ctx context.Context, req crm.Request) (crm.Receipt, error) {
	in := &intake{request: req, answer: make(chan authored, 1)}
	gone := func(why error) (crm.Receipt, error) {
		return crm.Receipt{}, &crm.Error{Code: crm.CodeUnavailable, Op: req.Intent, Message: "nothing was changed", Err: why}
	}
	select {
	case a.queue <- in:
	case <-ctx.Done():
		return gone(ctx.Err())
	case <-a.stopped:
		return gone(errStopped)
	}
	var why error
	select {
	case d := <-in.answer:
		return in.done(d)
	case <-ctx.Done():
		why = ctx.Err()
	case <-a.stopped:
		why = errStopped
	}
	if in.stage.CompareAndSwap(waiting, abandoned) {
		return gone(why)
	}
	select {
	case d := <-in.answer:
		return in.done(d)
	default:
		return in.receipt, &crm.Error{Code: crm.CodeTimeout, Op: req.Intent, Message: "the edit is on its way and will be decided", Err: why}
	}
}

var errStopped = errors.New("this master is stopping")

func (in *intake) done(d authored) (crm.Receipt, error) {
	if d.err != nil {
		return crm.Receipt{}, d.err
	}
	in.receipt.Outcome = &d.outcome
	return in.receipt, nil
}

// run decides batch after batch until ctx ends.
func (a *author) run(ctx context.Context) error {
	defer close(a.stopped)
	for {
		first := a.held
		a.held = nil
		if first == nil {
			select {
			case <-ctx.Done():
				return nil
			case first = <-a.queue:
			}
		}
		if err := a.beAdmitted(ctx); err != nil {
			first.fail(err)
			continue
		}
		b, err := a.newBatch()
		if err != nil {
			first.fail(err)
			continue
		}
		a.gather(b, first)
		a.decide(ctx, b)
	}
}

func (in *intake) fail(err error) { in.answer <- authored{err: err} }

// beAdmitted gets the author an incarnation, once in the life of the process.
func (a *author) beAdmitted(ctx context.Context) error {
	if a.admitted {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	h := &syncproto.Hello{ProtoMin: syncproto.MinVersion, ProtoMax: a.m.cfg.Protocol, Cluster: a.m.id.Cluster, Node: a.m.node, NextSeq: 1, Sent: a.m.millis()}
	var f syncproto.Frame
	err := a.m.retry(ctx, func() (err error) {
		f, err = upstream{a.m}.Greet(ctx, h)
		return err
	})
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *syncproto.Welcome:
		a.admitted, a.incarnation, a.next, a.chain = true, f.Incarnation, f.LastSeq+1, f.LastHash
		return a.m.ledger.waitRev(ctx, f.Head)
	case *syncproto.Frozen:
		return &crm.Error{Code: crm.CodeFrozen, Op: "edit", Message: f.Reason}
	case *syncproto.Busy:
		return &crm.Error{Code: crm.CodeNoLeader, Op: "edit", Message: f.Reason}
	case *syncproto.Refused:
		return &crm.Error{Code: f.Code, Op: "edit", Message: f.Message}
	}
	return session.Unexpected(f)
}

// A batch is what one submission carries.
type batch struct {
	intakes []*intake
	sub     session.Submission
	chain   crm.ChainHash // after the last
	lineage crm.Lineage
	named   bool // the Mutations name their Timeline
}

func (a *author) newBatch() (*batch, error) {
	b := &batch{sub: session.Submission{Node: a.m.node, Incarnation: a.incarnation, First: a.next}, chain: a.chain}
	err := a.m.ledger.db().View(func(tx *store.Tx) (err error) {
		b.lineage, b.named, err = speech(tx)
		return err
	})
	return b, err
}

// gather numbers first and what else waits, as much as one entry holds.
func (a *author) gather(b *batch, first *intake) {
	room := session.Room
	for in := first; in != nil; in = a.waiting() {
		var err error
		if in.request.Ops, err = a.give(in.request.Ops); err != nil {
			in.fail(err)
			continue
		}
		raw := a.encode(b, in)
		if len(raw) > crm.MaxMutation {
			in.fail(&crm.Error{Code: crm.CodeTooLarge, Op: in.request.Intent, Message: fmt.Sprintf("the edit takes %d bytes and %d are allowed; save it in parts", len(raw), crm.MaxMutation)})
			continue
		}
		if _, err := crm.DecodeMutation(raw); err != nil {
			in.fail(&crm.Error{Code: crm.CodeInvalid, Op: "edit", Message: "it cannot be sent", Err: err})
			continue
		}
		if room -= len(raw) + session.RoomHead; room < 0 {
			a.held = in
			break
		}
		in.receipt = crm.Receipt{Node: a.m.node, Seq: a.next + crm.Seq(len(b.intakes))}
		if !in.stage.CompareAndSwap(waiting, taken) {
			continue
		}
		b.intakes = append(b.intakes, in)
		b.sub.Mutations = append(b.sub.Mutations, raw)
		b.chain = crm.Chain(b.chain, raw)
	}
}

// waiting returns a request that waits now, or nil.
func (a *author) waiting() *intake {
	select {
	case in := <-a.queue:
		return in
	default:
		return nil
	}
}

func (a *author) encode(b *batch, in *intake) []byte {
	m := in.request.Mutation(a.m.node, b.lineage, b.named)
	m.Incarnation, m.Seq, m.Prev, m.HLC = a.incarnation, a.next+crm.Seq(len(b.intakes)), b.chain, a.m.clock.Tick()
	return crm.AppendMutation(nil, m)
}

// decide submits a batch until its outcome is known and answers its callers.
func (a *author) decide(ctx context.Context, b *batch) {
	if len(b.intakes) == 0 {
		return
	}
	exposed := false // some master may hold it in its log
	patience, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for {
		changed := a.m.ledger.leaderChanged()
		r, err := upstream{a.m}.Submit(ctx, b.sub)
		exposed = exposed || errors.Is(err, errUnknown)
		if err == nil {
			if b = a.settle(ctx, b, r, exposed); b == nil {
				return
			}
			continue
		}
		over := !session.Transient(err) || patience.Err() != nil
		if ctx.Err() != nil || over && !exposed {
			a.fail(b, err, exposed)
			return
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(retryAfter):
		}
	}
}

// fail answers all callers of a batch with one error. The numbers of a batch
// that no master has seen are given again; after a refusal the leader is asked
// which it has.
func (a *author) fail(b *batch, err error, exposed bool) {
	if exposed || !session.Transient(err) {
		a.admitted = false
	}
	if exposed {
		err = &crm.Error{Code: crm.CodeTimeout, Op: "edit", Message: "it may yet be decided", Err: err}
	}
	for _, in := range b.intakes {
		in.fail(err)
	}
}

// settle answers the callers of what the leader took. It returns what is left of
// the batch and may be submitted: nil if nothing is.
func (a *author) settle(ctx context.Context, b *batch, r session.Reply, exposed bool) *batch {
	done, rest := b.split(r.Last, a.chain)
	a.next, a.chain = a.next+crm.Seq(len(done.intakes)), done.chain
	a.answer(ctx, done, r)
	switch {
	case len(rest.intakes) == 0:
	case r.Fork:
		a.admitted = false
		a.fail(rest, &crm.Error{Code: crm.CodeFrozen, Op: "edit", Message: session.FrozenAdvice}, exposed)
	case !r.Taken() || len(done.intakes) == 0:
		a.admitted = false
		a.fail(rest, &crm.Error{Code: crm.CodeFenced, Op: "edit", Message: "another process runs with this master's number"}, exposed)
	default:
		return rest
	}
	return nil
}

// split parts a batch that follows chain into what is up to last and the rest.
func (b *batch) split(last crm.Seq, chain crm.ChainHash) (done, rest *batch) {
	n := 0
	if last >= b.sub.First {
		n = int(min(uint64(last-b.sub.First)+1, uint64(len(b.intakes))))
	}
	one, two := *b, *b
	one.intakes, two.intakes = b.intakes[:n], b.intakes[n:]
	one.sub.Mutations, two.sub.Mutations = b.sub.Mutations[:n], b.sub.Mutations[n:]
	two.sub.First += crm.Seq(n)
	one.chain = chain
	for _, raw := range one.sub.Mutations {
		one.chain = crm.Chain(one.chain, raw)
	}
	return &one, &two
}

// answer tells the callers of a batch that was decided how.
func (a *author) answer(ctx context.Context, b *batch, r session.Reply) {
	if len(b.intakes) == 0 {
		return
	}
	outcomes, err := a.outcomes(ctx, b, r)
	for i, in := range b.intakes {
		if err != nil {
			in.fail(&crm.Error{Code: crm.CodeTimeout, Op: "edit", Message: "it is decided, but this master does not know how yet", Err: err})
			continue
		}
		if outcomes[i].Code == crm.CodeDuplicateKey {
			clear(a.numbers) // another master of the site may have given the number
		}
		in.answer <- authored{outcome: outcomes[i]}
	}
}

// outcomes returns what became of each Mutation: the leader knows at once, other
// masters when they have applied it.
func (a *author) outcomes(ctx context.Context, b *batch, r session.Reply) ([]crm.Outcome, error) {
	out := make([]crm.Outcome, 0, len(b.intakes))
	for _, o := range r.Outcomes {
		if o.Rev != 0 {
			out = append(out, o)
		}
	}
	if len(out) == len(b.intakes) {
		return out, nil
	}
	last := b.sub.First + crm.Seq(len(b.intakes)) - 1
	err := a.m.waitFor(ctx, "an edit's outcome", func(tx *store.Tx) (bool, error) {
		st, _, err := tx.Node(a.m.node)
		if err != nil || st.LastSeq < last {
			return false, err
		}
		out = out[:0]
		for i, in := range b.intakes {
			o, err := decidedOutcome(tx, a.m.node, b.sub.First+crm.Seq(i), in.request.Ops)
			if err != nil {
				return false, err
			}
			out = append(out, o)
		}
		return true, nil
	})
	return out, err
}

// decidedOutcome returns the outcome of a decided Mutation. Acceptances are not
// kept: their Rev is that of a value that the Mutation set, or, where all have
// been set again since, one at which it was decided for certain.
func decidedOutcome(tx *store.Tx, node crm.NodeID, seq crm.Seq, ops []crm.Op) (crm.Outcome, error) {
	o, kept, err := tx.Outcome(node, seq)
	if kept || err != nil {
		return o, err
	}
	o = crm.Outcome{Node: node, Seq: seq, Kind: crm.Accepted}
	if o.Rev, err = tx.Rev(); err != nil {
		return o, err
	}
	for _, op := range ops {
		r, err := tx.Record(op.Entity, op.Record)
		if err != nil {
			return o, err
		}
		if r == nil {
			continue
		}
		for _, s := range slices.Concat([]crm.Stamp{r.Stamp}, stampsOf(r)) {
			if s.Node == node && s.Seq == seq {
				o.Rev = s.Rev
				return o, nil
			}
		}
	}
	return o, nil
}

func stampsOf(r *crm.Record) (out []crm.Stamp) {
	for _, c := range r.Cells {
		out = append(out, c.Stamp)
	}
	return out
}

// Await returns the outcome of this master's own Mutation once it is decided and
// readers of this master see it.
func (m *Master) Await(ctx context.Context, seq crm.Seq) (o crm.Outcome, err error) {
	err = m.waitFor(ctx, fmt.Sprintf("the outcome of edit %d", seq), func(tx *store.Tx) (bool, error) {
		st, _, err := tx.Node(m.node)
		if err != nil || st.LastSeq < seq {
			return false, err
		}
		o, err = decidedOutcome(tx, m.node, seq, nil)
		return true, err
	})
	return o, err
}

// retry calls try until it succeeds, fails for good, or ctx ends; it waits for
// another leader in between.
func (m *Master) retry(ctx context.Context, try func() error) error {
	for {
		changed := m.ledger.leaderChanged()
		err := try()
		if err == nil || !session.Transient(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-changed:
		case <-time.After(retryAfter):
		}
	}
}
