package master

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
)

// errUnknown is in the chain of a proposal's error if the proposal may yet be
// decided: propose it again, a repeat does no harm.
var errUnknown = session.ErrUnknown

// await starts a call of Raft and waits for it, or for ctx, which leaves the
// call to end by itself.
func await[F raft.Future](ctx context.Context, l *ledger, start func() F) (F, error) {
	type answer struct {
		future F
		err    error
	}
	answers := make(chan answer, 1)
	if !l.hold() {
		var none F
		return none, raft.ErrRaftShutdown
	}
	go func() {
		defer l.proposals.Done()
		f := start()
		answers <- answer{f, f.Error()}
	}()
	select {
	case a := <-answers:
		return a.future, a.err
	case <-ctx.Done():
		var none F
		return none, ctx.Err()
	}
}

// hold counts a call of Raft, unless the ledger is closing.
func (l *ledger) hold() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closing:
		return false
	default:
		l.proposals.Add(1)
		return true
	}
}

// outcome words an error of Raft for the caller.
func (l *ledger) outcome(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return &crm.Error{Code: crm.CodeNoLeader, Op: op, Message: "this master does not lead", Err: err}
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return &crm.Error{Code: crm.CodeUnavailable, Op: op, Message: "the leader is overloaded; nothing was changed", Err: err}
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, errHalted),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unknown(op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

func unknown(op string, err error) error {
	return &crm.Error{Code: crm.CodeTimeout, Op: op, Message: "it may yet be decided", Err: errors.Join(errUnknown, err)}
}

// propose puts e into the Raft log and returns what was decided, one Decided
// for each Mutation of a push up to the first gap, fork or fence, and the Raft
// index. It returns before the decision is committed to bbolt. Errors: of code
// no_leader on any master but the leader, too_large; any in whose chain
// errUnknown is leaves the outcome open; other codes mean that the entry was
// refused by every master alike.
func (l *ledger) propose(ctx context.Context, e Entry) ([]Decided, uint64, error) {
	b, err := EncodeEntry(e)
	if err != nil {
		return nil, 0, err
	}
	start := l.cfg.Now()
	f, err := await(ctx, l, func() raft.ApplyFuture { return l.raft.Apply(b, proposeTimeout) })
	if err != nil {
		err = l.outcome("propose entry", err)
		if _, told := errors.AsType[*crm.Error](err); !told {
			err = unknown("propose entry", err) // an append that failed may be on the disk, and decided after a restart
		}
		return nil, 0, err
	}
	v := f.Response().(Verdict)
	if observe := l.cfg.Observe.Decided; observe != nil {
		observe(l.cfg.Now().Sub(start))
	}
	if errors.Is(v.Err, errHalted) {
		return nil, f.Index(), l.outcome("propose entry", v.Err)
	}
	return v.Results, f.Index(), v.Err
}

// verify returns nil if this master led the cluster at some instant after the
// call began and everything decided before the call is committed to bbolt here:
// a read of db that follows is linearizable.
//
// Simple version: read the commit index, make sure that a majority still
// follows us, wait for the index. Two things are missing from it. A new leader
// does not know how far its predecessor had committed until an entry of its own
// term is; hence the barrier. And the index may be a follower's, which lags, if
// this master is elected between the two steps; hence both must be of one term.
func (l *ledger) verify(ctx context.Context) error {
	term, at, err := l.commitIndex(ctx)
	if err != nil {
		return l.outcome("verify leader", err)
	}
	if err := l.confirm(ctx, term); err != nil {
		return l.outcome("verify leader", err)
	}
	at, err = l.lastForFSM(at)
	if err != nil {
		return fmt.Errorf("verify leader: %w", err)
	}
	return l.fsm.wait(ctx, fmt.Sprintf("raft index %d", at), func(p published) bool { return p.at.index >= at })
}

// commitIndex returns a term and a commit index of it.
func (l *ledger) commitIndex(ctx context.Context) (term, at uint64, err error) {
	term, at = l.raft.CurrentTerm(), l.raft.CommitIndex()
	var last raft.Log
	if err := l.log.GetLog(at, &last); err == nil && last.Term == term {
		return term, at, nil
	}
	_, err = await(ctx, l, func() raft.Future { return l.raft.Barrier(proposeTimeout) })
	return term, l.raft.CommitIndex(), err
}

// confirm returns nil if this master led in that term since it was called.
func (l *ledger) confirm(ctx context.Context, term uint64) error {
	if _, err := await(ctx, l, l.raft.VerifyLeader); err != nil {
		return err
	}
	if l.raft.CurrentTerm() != term {
		return raft.ErrNotLeader
	}
	return nil
}

// lastForFSM returns the last index up to at whose entry reaches the FSM; Raft
// keeps its own no-ops and barriers to itself.
func (l *ledger) lastForFSM(at uint64) (uint64, error) {
	known := l.fsm.published().at.index
	for ; at > known; at-- {
		var e raft.Log
		err := l.log.GetLog(at, &e)
		if errors.Is(err, raft.ErrLogNotFound) {
			return known, nil // truncated: only what a snapshot covers is
		}
		if err != nil {
			return 0, err
		}
		if e.Type == raft.LogCommand || e.Type == raft.LogConfiguration {
			break
		}
	}
	return at, nil
}
