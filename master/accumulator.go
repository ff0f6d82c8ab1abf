package master

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// Masters compare their states, because neither hashicorp/raft (its issue 695)
// nor our own determinism is to be trusted blindly. The leader logs a mark: a
// StateEntry at which each master computes its accumulator. The voters send
// theirs to the leader, which logs them all. A master that then finds itself
// against a majority halts and keeps its files.

const (
	markEntries = 256             // entries after which the leader logs a mark, at most one a second
	pollTick    = time.Second     // how often the leader looks
	pollTime    = 3 * time.Second // how long it waits for votes
	keptMarks   = 16
)

// An Accumulator sums up everything that masters must agree on at a raft index.
type Accumulator [sha256.Size]byte

// A mark is this master's accumulator at a raft index.
type mark struct {
	raftIndex uint64
	rev       crm.Rev
	sum       Accumulator
}

// accumulate takes the SHA-256 of timeline, Rev, the digest of every territory
// and the state of every node, and from level 2 on of lineage, level and backup.
func accumulate(tx *store.Tx, rev crm.Rev) (sum Accumulator, err error) {
	t, err := tx.Timeline()
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, t), uint64(rev)))
	for t := range tx.Territories() {
		d, err := tx.Digest(t)
		if err != nil {
			return sum, err
		}
		h.Write(append(binary.BigEndian.AppendUint32(nil, uint32(t)), d[:]...))
	}
	for n, err := range tx.Nodes() {
		if err != nil {
			return sum, err
		}
		fmt.Fprintf(h, "%d %d %d %x %d %d %d %d %q\n", n.Node, n.Incarnation, n.LastSeq, n.LastHash, n.LastHLC, n.Cursor, n.LowBase, n.SeenMillis, n.Frozen)
	}
	if err := sumUp(h, tx); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// sumUp adds what a master of the first release does not know of, once there is
// none.
func sumUp(h io.Writer, tx *store.Tx) error {
	level, err := session.LevelIn(tx)
	if err != nil || level < levelTimelines {
		return err
	}
	l, err := tx.Lineage()
	if err != nil {
		return err
	}
	backup, err := tx.Meta(session.MetaBackup)
	if err != nil {
		return err
	}
	fmt.Fprintf(h, "%x %d %x\n", crm.AppendLineage(nil, l), level, backup)
	return nil
}

// compareState makes a mark, or judges this master by the votes on one.
func (f *FSM) compareState(raftIndex uint64, e StateEntry) error {
	if e.RaftIndex != 0 {
		return f.judgeVotes(e)
	}
	sum, err := accumulate(f.tx, f.rev)
	if err != nil {
		return err
	}
	m := mark{raftIndex, f.rev, sum}
	f.marks = append(f.marks, m)
	if len(f.marks) > keptMarks {
		f.marks = f.marks[1:]
	}
	f.sinceMark.Store(0)
	select {
	case f.marked <- m:
	default:
	}
	return nil
}

// judgeVotes halts this master if it is against a majority of the votes. Without
// one nobody can be blamed, and it only raises the alarm.
func (f *FSM) judgeVotes(e StateEntry) error {
	sum, votes := majority(e.Votes)
	if votes < len(e.Votes) {
		f.cfg.Logger.Error("masters disagree about the state", "raft_index", e.RaftIndex, "rev", e.Rev, "agree", votes, "votes", len(e.Votes))
		if f.cfg.Observe.Diverged != nil {
			f.cfg.Observe.Diverged(e.RaftIndex, e.Votes)
		}
	}
	i := slices.IndexFunc(f.marks, func(m mark) bool { return m.raftIndex == e.RaftIndex })
	if i < 0 || f.marks[i].sum == sum || 2*votes <= len(e.Votes) {
		return nil
	}
	return fmt.Errorf("%w: at raft index %d, rev %d its state differs from that of %d masters out of %d", errDiverged, e.RaftIndex, e.Rev, votes, len(e.Votes))
}

// majority returns the commonest accumulator and how many voted for it.
func majority(votes []StateVote) (sum Accumulator, n int) {
	count := map[Accumulator]int{}
	for _, v := range votes {
		count[v.Accumulator]++
	}
	for _, v := range votes {
		if count[v.Accumulator] > n {
			sum, n = v.Accumulator, count[v.Accumulator]
		}
	}
	return sum, n
}

// A poll is the leader's collection of votes on its last mark. Votes may come
// before the leader has reached the mark itself.
type poll struct {
	mark  mark // raftIndex 0: none is open
	since time.Time
	votes map[uint64]map[crm.NodeID]Accumulator // by raft index
}

func (p *poll) add(v voteCast) {
	if p.votes == nil {
		p.votes = map[uint64]map[crm.NodeID]Accumulator{}
	}
	if p.votes[v.raftIndex] == nil {
		p.votes[v.raftIndex] = map[crm.NodeID]Accumulator{}
	}
	p.votes[v.raftIndex][v.Node] = v.Accumulator
	if len(p.votes) > keptMarks {
		delete(p.votes, slices.Min(slices.Collect(maps.Keys(p.votes))))
	}
}

// vote takes the vote of another master.
func (l *ledger) vote(v voteCast) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.poll.add(v)
}

// compareLoop logs marks while this master leads, and votes on those of others.
func (l *ledger) compareLoop(ctx context.Context) {
	tick := time.NewTicker(pollTick)
	defer tick.Stop()
	var active time.Time // since when there has been something to compare
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-l.fsm.marked:
			l.castVote(ctx, m)
		case now := <-tick.C:
			if l.fsm.sinceMark.Load() == 0 {
				active = now
			}
			l.count(ctx, now)
			if n := l.fsm.sinceMark.Load(); n >= markEntries || n > 0 && now.Sub(active) >= l.cfg.StateEvery {
				l.proposeState(ctx, StateEntry{})
			}
		}
	}
}

// castVote opens the poll if this master leads, else sends its vote to the
// leader.
func (l *ledger) castVote(ctx context.Context, m mark) {
	v := voteCast{StateVote{nodeOf(l.cfg.ID), m.sum}, m.raftIndex}
	_, addr, self := l.leader()
	if self {
		l.mu.Lock()
		l.poll.mark, l.poll.since = m, time.Now()
		l.poll.add(v)
		l.mu.Unlock()
		return
	}
	if addr == "" || !slices.Contains(l.voters(), v.Node) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pollTime)
	defer cancel()
	if err := l.stream.sendVote(ctx, addr, v); err != nil {
		l.cfg.Logger.Warn("this master's state could not be sent for comparison", "to", addr, "error", err)
	}
}

func (l *ledger) voters() (ids []crm.NodeID) {
	servers, _, err := l.servers()
	if err != nil {
		return nil
	}
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, nodeOf(s.ID))
		}
	}
	return ids
}

// count logs the votes of the open poll once all are in or time is up.
func (l *ledger) count(ctx context.Context, now time.Time) {
	voters := l.voters()
	l.mu.Lock()
	m := l.poll.mark
	votes := l.poll.collect(voters)
	over := len(votes) == len(voters) || now.Sub(l.poll.since) >= pollTime
	if m.raftIndex != 0 && over {
		l.poll = poll{}
	}
	l.mu.Unlock()
	if m.raftIndex != 0 && over && len(votes) > 1 {
		l.proposeState(ctx, StateEntry{RaftIndex: m.raftIndex, Rev: m.rev, Votes: votes})
	}
}

// collect returns the votes of voters on the open mark, by node.
func (p *poll) collect(voters []crm.NodeID) (votes []StateVote) {
	for n, sum := range p.votes[p.mark.raftIndex] {
		if slices.Contains(voters, n) {
			votes = append(votes, StateVote{n, sum})
		}
	}
	slices.SortFunc(votes, func(a, b StateVote) int { return cmp.Compare(a.Node, b.Node) })
	return votes
}

// proposeState logs e if this master leads. Losing it does no harm.
func (l *ledger) proposeState(ctx context.Context, e StateEntry) {
	if _, _, self := l.leader(); !self {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	if _, _, err := l.propose(ctx, e); err != nil {
		l.cfg.Logger.Debug("comparison of masters put off", "error", err)
	}
}
