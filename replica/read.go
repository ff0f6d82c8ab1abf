package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Read calls fn once with a state that meets the demand, and says which state
// that was. The Reader and what hangs on it are fn's only until it returns; fn
// must not call the Replica, whose files may wait for fn's transactions to end.
//
// What a demand waits for it waits for as long as ctx lasts. The error is fn's,
// or has CodeStale if the demand could not be met in time or cannot be met at
// all, CodeUnavailable while the node has no data yet, or the store's code.
func (r *Replica) Read(ctx context.Context, d crm.Demand, fn func(*store.Reader) error) (crm.Freshness, error) {
	if err := r.filled(); err != nil {
		return crm.Freshness{}, err
	}
	if err := r.meet(ctx, d); err != nil {
		return crm.Freshness{}, err
	}
	var f crm.Freshness
	err := r.both(func(j *store.JTx, tx *store.Tx) error {
		rd, err := store.NewReader(tx, j)
		if err != nil {
			return err
		}
		if f, err = r.freshness(j, tx); err != nil {
			return err
		}
		return fn(rd)
	})
	return f, r.met(err)
}

// freshness describes what the two transactions show.
func (r *Replica) freshness(j *store.JTx, tx *store.Tx) (f crm.Freshness, err error) {
	if err := notWhole(tx); err != nil {
		return f, err
	}
	if f.Rev, err = tx.Rev(); err != nil {
		return f, err
	}
	if f.Timeline, err = tx.Timeline(); err != nil {
		return f, err
	}
	id, err := j.Identity()
	if err != nil {
		return f, err
	}
	depth, err := j.Depth()
	f.Node, f.Seq, f.Pending = id.Node, id.NextSeq-1, depth.Entries
	r.mu.Lock()
	f.AsOf, f.Connected = r.link.asOf, r.link.talk != nil
	r.mu.Unlock()
	return f, err
}

// meet waits until the files meet the demand.
func (r *Replica) meet(ctx context.Context, d crm.Demand) error {
	var err error
	switch d.Level {
	case "", crm.Local:
	case crm.Session:
		err = r.meetMark(ctx, d.Session)
	case crm.Bounded:
		err = r.meetBound(ctx, d.MaxStale)
	case crm.Leader:
		err = r.meetLeader(ctx)
	default:
		return &crm.Error{Code: crm.CodeInvalid, Op: "read", Item: string(d.Level), Message: "no such consistency level; there are local, session, bounded and leader"}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return stale(string(d.Level)+": not reached in time", err)
	}
	return err
}

func stale(message string, cause error) error {
	return &crm.Error{Code: crm.CodeStale, Op: "read", Message: message, Err: cause}
}

// until waits for ok, which is asked under r.mu at every change.
func (r *Replica) until(ctx context.Context, ok func() bool) error {
	for {
		moved := r.moved.wait()
		r.mu.Lock()
		met := ok()
		r.mu.Unlock()
		if met {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// meetMark waits for what a session has seen or written. Edits of this node are
// visible here from their acknowledgement on; those of another node are covered
// by the mark's Rev.
func (r *Replica) meetMark(ctx context.Context, m crm.Mark) error {
	p := r.position()
	if m.Timeline != 0 && m.Timeline != p.timeline && m.Timeline != p.reads().timeline {
		return stale("the masters were restored from a backup since the session token was given; read without it", nil)
	}
	if m.Node == r.cfg.ID.Node && r.renamed(m.Seq) > p.last {
		return stale(fmt.Sprintf("edit %d is not on this disk: it was rolled back", m.Seq), nil)
	}
	return r.until(ctx, func() bool {
		at := r.pos.reads()
		return (m.Timeline == 0 || m.Timeline == at.timeline) && at.rev >= m.Rev
	})
}

// meetBound waits until the base is known to be at most age behind the leader.
// Where what was heard last does not prove it, it asks.
func (r *Replica) meetBound(ctx context.Context, age time.Duration) error {
	since := r.cfg.Now().Add(-age)
	fresh := func() bool { return !r.link.asOf.Before(since) }
	var asked *session
	return r.until(ctx, func() bool {
		if fresh() {
			return true
		}
		if s := r.link.session; s != nil && s != asked {
			asked = s
			nudge(s.probe)
		}
		return false
	})
}

// meetLeader asks the leader how far a linearizable read must see, and waits to
// be there.
func (r *Replica) meetLeader(ctx context.Context) error {
	for {
		var s *session
		if err := r.until(ctx, func() bool { s = r.link.session; return s != nil }); err != nil {
			return err
		}
		rev, err := s.leaderRev(ctx)
		if errors.Is(err, errEnded) {
			if err := r.until(ctx, func() bool { return r.link.session != s }); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return r.until(ctx, func() bool { return !r.pos.isMoving() && r.pos.rev >= rev })
	}
}

// Ready returns nil if the node can read and write, else an error with
// CodeUnavailable that says what it waits for, or with CodeRemoved.
func (r *Replica) Ready() error {
	if r.isExpelled() {
		return errExpelled
	}
	return r.filled()
}

// filled returns nil if the node can read.
func (r *Replica) filled() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.pos.rev == 0 && r.pos.target > 0:
		return notReady(fmt.Sprintf("this node is being filled: %d of %d", r.pos.staged, r.pos.target))
	case r.pos.rev == 0:
		return notReady("this node has no data yet; it waits for a master")
	}
	return nil
}

func notReady(message string) error {
	return &crm.Error{Code: crm.CodeUnavailable, Op: "serve", Message: message}
}

// notWhole is Ready of a transaction.
func notWhole(tx *store.Tx) error {
	rev, err := tx.Rev()
	if err == nil && rev == 0 {
		err = notReady("this node has no data yet; it waits for a master")
	}
	return err
}
