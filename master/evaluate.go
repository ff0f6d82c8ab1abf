package master

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	// maxMillis is the last instant an HLC can hold, in Unix milliseconds.
	maxMillis = 1<<48 - 1
	// smallOffset is a clock offset, in milliseconds, that may be the error of
	// its measurement and is not corrected.
	smallOffset = 500
)

// evaluate applies one entry to the open transaction. A refusal is in the
// verdict; the error is the store's, or of a damaged entry.
func (f *FSM) evaluate(index uint64, entry []byte) (Verdict, error) {
	e, err := DecodeEntry(entry)
	if err != nil {
		return Verdict{}, err
	}
	if s, ok := e.(StateEntry); ok {
		return Verdict{}, f.compareState(index, s)
	}
	f.sinceMark.Add(1)
	return f.evaluateEntry(e)
}

func (f *FSM) evaluateEntry(e Entry) (Verdict, error) {
	switch e := e.(type) {
	case PushEntry:
		return f.push(e)
	case AdmitEntry:
		return f.admit(e)
	case ActivateEntry:
		return Verdict{}, f.activate(e)
	case ReportsEntry:
		return Verdict{}, f.reports(e)
	case TrimEntry:
		_, err := session.Trim(f.tx, e.Rev)
		return Verdict{}, err
	case FreezeEntry:
		return f.freeze(e)
	case BackupEntry:
		return f.backup(e)
	case TimelineEntry:
		return f.timeline(e)
	}
	panic(fmt.Sprintf("master: entry %T is not evaluated", e))
}

// raise sets a number that never falls.
func (f *FSM) raise(name string, n uint64) error {
	b, err := f.tx.Meta(name)
	if err != nil || len(b) == 8 && binary.BigEndian.Uint64(b) >= n {
		return err
	}
	return f.tx.SetMeta(name, binary.BigEndian.AppendUint64(nil, n))
}

func refuse(code crm.Code, op string, node crm.NodeID, message string) Verdict {
	return Verdict{Err: &crm.Error{Code: code, Op: op, Item: fmt.Sprintf("node %d", node), Message: message}}
}

// push judges a batch of Mutations, in order, up to the first that cannot be
// taken.
func (f *FSM) push(e PushEntry) (Verdict, error) {
	n, known, err := f.tx.Node(e.Node)
	if err != nil {
		return Verdict{}, err
	}
	if !known {
		return refuse(crm.CodeForbidden, "push", e.Node, "the node has never been admitted"), nil
	}
	before := n
	var v Verdict
	for _, raw := range e.Mutations {
		d, refusal, err := f.judge(&n, e, raw)
		if err != nil {
			return Verdict{}, err
		}
		if v.Err = refusal.Err; v.Err != nil {
			break
		}
		v.Results = append(v.Results, d)
		if d.Gap != 0 || d.Fork || d.Fenced != 0 {
			break
		}
	}
	if n != before {
		err = f.tx.SetNode(n)
	}
	return v, err
}

// judge takes one Mutation, or says why not. It moves n along.
func (f *FSM) judge(n *store.NodeState, e PushEntry, raw []byte) (Decided, Verdict, error) {
	who, err := f.member(e.Node)
	if err != nil {
		return Decided{}, Verdict{}, err
	}
	m, err := readMutation(raw)
	switch {
	case who == nil || who.removed:
		return Decided{}, refuse(crm.CodeForbidden, "push", e.Node, "the node is not part of the cluster"), nil
	case err != nil:
		return Decided{}, refuse(crm.CodeInvalid, "push", e.Node, err.Error()), nil
	case m.Node != e.Node || m.Seq == 0:
		return Decided{}, refuse(crm.CodeInvalid, "push", e.Node, fmt.Sprintf("it pushed edit %d of node %d", m.Seq, m.Node)), nil
	}
	if level, err := session.LevelIn(f.tx); err != nil || m.version() > level {
		return Decided{}, refuse(crm.CodeInvalid, "push", e.Node, fmt.Sprintf("edit %d is written in a version that not every master reads yet", m.Seq)), err
	}
	d, err := f.take(n, e, m, who)
	return d, Verdict{}, err
}

func (f *FSM) take(n *store.NodeState, e PushEntry, m *mutation, who *member) (Decided, error) {
	d := Decided{Outcome: crm.Outcome{Node: m.Node, Seq: m.Seq}}
	switch {
	case e.Incarnation != n.Incarnation:
		d.Fenced = n.Incarnation
		return d, nil
	case n.Frozen != "":
		d.Fork = true
		return d, nil
	case m.Seq <= n.LastSeq:
		return f.repeat(n, m)
	case m.Seq > n.LastSeq+1:
		d.Gap = n.LastSeq + 1
		return d, nil
	case m.Prev != n.LastHash:
		return f.fork(n, m), nil
	}
	return f.decideNext(n, e, m, who)
}

// repeat tells a Mutation that was decided before from another of its number, as
// far back as chain hashes are kept. Older repeats are trusted: a fork among them
// shows when it goes past the last Seq.
func (f *FSM) repeat(n *store.NodeState, m *mutation) (Decided, error) {
	hash, known := n.LastHash, true
	if m.Seq < n.LastSeq {
		var err error
		if hash, known, err = session.ChainIn(f.tx, m.Node, m.Seq); err != nil {
			return Decided{}, err
		}
	}
	if known && m.after != hash {
		return f.fork(n, m), nil
	}
	o, kept, err := f.tx.Outcome(m.Node, m.Seq)
	if !kept {
		o = crm.Outcome{Node: m.Node, Seq: m.Seq, Kind: crm.Accepted}
	}
	return Decided{Outcome: o, Duplicate: true}, err
}

// fork freezes a node whose numbers name two Mutations: its disk was cloned, or
// rolled back without being noticed.
func (f *FSM) fork(n *store.NodeState, m *mutation) Decided {
	n.Frozen = fmt.Sprintf("edit %d differs from the one decided under that number: two disks claim to be this node", m.Seq)
	f.tellFrozen(n.Node, n.Frozen)
	return Decided{Outcome: crm.Outcome{Node: m.Node, Seq: m.Seq}, Fork: true}
}

func (f *FSM) tellFrozen(n crm.NodeID, reason string) {
	f.cfg.Logger.Warn("node frozen or thawed", "node", n, "reason", reason)
	if f.cfg.Observe.Frozen != nil {
		f.cfg.Observe.Frozen(n, reason)
	}
}

// decideNext decides the Mutation that follows n.LastSeq. It takes the next Rev
// whatever comes of it.
func (f *FSM) decideNext(n *store.NodeState, e PushEntry, m *mutation, who *member) (Decided, error) {
	env, err := who.env(f.tx, f.rev+1, effectiveHLC(m.HLC, e.OffsetMillis, e.ReceivedMillis, n.LastHLC))
	if err != nil {
		return Decided{}, err
	}
	dec, err := f.safeDecide(m, env)
	if err != nil {
		return Decided{}, err
	}
	if err := f.put(dec); err != nil {
		return Decided{}, err
	}
	f.rev = env.Rev
	n.LastSeq, n.LastHash, n.LastHLC = m.Seq, m.after, env.HLC
	if err := f.tx.SetNode(*n); err != nil {
		return Decided{}, err
	}
	return Decided{Outcome: dec.Outcome}, session.SetChain(f.tx, m.Node, m.Seq, n.LastHash)
}

// effectiveHLC corrects a node's reading by its measured clock offset, clamps
// it to when the leader received it and keeps it rising for each node.
func effectiveHLC(h crm.HLC, offsetMillis, receivedMillis int64, last crm.HLC) crm.HLC {
	if offsetMillis > -smallOffset && offsetMillis < smallOffset {
		offsetMillis = 0
	}
	offsetMillis = max(-maxMillis, min(maxMillis, offsetMillis))
	ms := max(0, min(maxMillis, h.Millis()+offsetMillis))
	return max(min(crm.NewHLC(ms)|h&0xffff, crm.NewHLC(receivedMillis)), last+1)
}

func (f *FSM) put(dec crm.Decision) error {
	for _, r := range dec.Writes {
		if err := f.tx.Put(r); err != nil {
			return fmt.Errorf("write record %s: %w", r.ID, err)
		}
		if r.Entity == crm.EntityNode || r.Entity == crm.EntitySite || r.Entity == crm.EntityTerritory {
			f.directory = nil
		}
	}
	for _, r := range dec.Refused {
		if err := f.tx.SetRefused(r.Record, r.Attention); err != nil {
			return err
		}
	}
	if dec.Outcome.Kind == crm.Accepted {
		return nil
	}
	return f.tx.PutOutcome(dec.Outcome)
}

// safeDecide turns a panic into a rejection: a bug must not stop the node's
// queue, nor every master that replays the log. The bytes are kept.
func (f *FSM) safeDecide(m *mutation, env crm.Env) (dec crm.Decision, err error) {
	defer func() {
		what := recover()
		if what == nil {
			return
		}
		f.cfg.Logger.Error("a decision panicked; the edit is rejected and kept", "node", m.Node, "seq", m.Seq, "panic", what, "stack", string(debug.Stack()))
		if f.cfg.Observe.Panicked != nil {
			f.cfg.Observe.Panicked(m.Node, m.Seq, what)
		}
		dec = rejection(f.tx.Schema(), m.Mutation, env, crm.CodeInternal, "the edit could not be judged because of a bug; its content is kept at head office")
		err = f.tx.SetMeta(quarantineName(m.Node, m.Seq), m.raw)
	}()
	switch {
	case m.poison:
		return f.rejectPoison(m, env)
	case m.withheld != nil:
		return crm.DecideWithheld(f.tx, *m.withheld, env)
	}
	return f.decide(f.tx, m.Mutation, env)
}

// rejectPoison rejects a Mutation that a master's process did not survive, and
// keeps its bytes.
func (f *FSM) rejectPoison(m *mutation, env crm.Env) (crm.Decision, error) {
	f.cfg.Logger.Error("an edit brings down the masters that judge it; it is rejected and kept", "node", m.Node, "seq", m.Seq)
	if f.cfg.Observe.Panicked != nil {
		f.cfg.Observe.Panicked(m.Node, m.Seq, crm.CodePoison)
	}
	if err := f.tx.SetMeta(quarantineName(m.Node, m.Seq), m.raw); err != nil {
		return crm.Decision{}, err
	}
	if m.bare {
		return rejection(f.tx.Schema(), m.Mutation, env, crm.CodePoison, crm.PoisonAdvice), nil
	}
	return crm.DecidePoison(f.tx, m.Mutation, env)
}

func quarantineName(n crm.NodeID, s crm.Seq) string { return fmt.Sprintf("quarantine/%d/%d", n, s) }

// rejection rejects m for a reason that crm.Decide does not know.
func rejection(schema *crm.Schema, m *crm.Mutation, env crm.Env, code crm.Code, message string) crm.Decision {
	sum := sha256.Sum256(fmt.Appendf(nil, "tradepost rejection v1 %d %d", m.Node, m.Seq))
	note := &crm.Record{Entity: crm.EntityAttention, ID: madeID(sum), Territory: env.Home, Schema: schema.Version, Entered: env.Rev,
		Stamp: crm.Stamp{Rev: env.Rev, HLC: env.HLC, Node: m.Node, Seq: m.Seq, Actor: m.Actor}}
	fill(note, map[crm.FieldID]crm.Value{
		crm.FieldCreatedAt: crm.InstantMillis(env.HLC.Millis()), crm.FieldCreatedBy: crm.TextValue(m.Actor),
		crm.AttentionKind: crm.ChoiceValue("rejected"), crm.AttentionStatus: crm.ChoiceValue("open"),
		crm.AttentionCode: crm.TextValue(string(code)), crm.AttentionMessage: crm.TextValue(message),
		crm.AttentionNode: crm.IntegerValue(int64(m.Node)), crm.AttentionSeq: crm.IntegerValue(int64(m.Seq)),
		crm.AttentionActor: crm.TextValue(m.Actor), crm.AttentionIntent: crm.TextValue(m.Intent),
	})
	dec := crm.Decision{Writes: []*crm.Record{note}, Outcome: crm.Outcome{Node: m.Node, Seq: m.Seq, Rev: env.Rev, Kind: crm.Rejected, Code: code, Message: message}}
	for _, op := range m.Ops {
		if op.Kind == crm.OpCreate {
			dec.Refused = append(dec.Refused, crm.Refusal{Record: op.Record, Attention: note.ID})
		}
	}
	return dec
}

// madeID shapes a hash into a record id (UUIDv8, RFC 9562 §5.8).
func madeID(sum [sha256.Size]byte) crm.RecordID {
	id := crm.RecordID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// fill sets the cells of a record that the masters make themselves.
func fill(r *crm.Record, values map[crm.FieldID]crm.Value) {
	for id, v := range values {
		if !v.IsNull() {
			r.Cells = append(r.Cells, crm.Cell{Field: id, Value: v, Stamp: r.Stamp})
		}
	}
	slices.SortFunc(r.Cells, func(a, b crm.Cell) int { return cmp.Compare(a.Field, b.Field) })
}

// admit gives a node's disk the next incarnation.
func (f *FSM) admit(e AdmitEntry) (Verdict, error) {
	who, err := f.member(e.Node)
	if err != nil {
		return Verdict{}, err
	}
	if who == nil || who.removed {
		return refuse(crm.CodeForbidden, "admit", e.Node, "the node is not part of the cluster"), nil
	}
	n, _, err := f.tx.Node(e.Node)
	if err != nil {
		return Verdict{}, err
	}
	name := fmt.Sprintf("admit/%d", e.Node)
	last, err := f.tx.Meta(name)
	if err != nil {
		return Verdict{}, err
	}
	again := n.Incarnation > 0 && string(last) == string(e.Nonce[:])
	if !again {
		n.Incarnation++
		f.cfg.Logger.Info("node admitted", "node", e.Node, "incarnation", n.Incarnation, "reason", e.Reason)
		if err := f.tx.SetMeta(name, e.Nonce[:]); err != nil {
			return Verdict{}, err
		}
	}
	d := Decided{Outcome: crm.Outcome{Node: e.Node, Seq: n.LastSeq, Kind: crm.Accepted}, Duplicate: again, Admitted: n.Incarnation}
	return Verdict{Results: []Decided{d}}, f.tx.SetNode(n)
}

// reports moves nodes' Cursors. A node that bootstraps again may fall back.
func (f *FSM) reports(e ReportsEntry) error {
	for _, r := range e.Reports {
		n, known, err := f.tx.Node(r.Node)
		if err != nil {
			return err
		}
		if !known {
			continue
		}
		n.Cursor, n.LowBase, n.SeenMillis = r.Cursor, r.LowBase, max(n.SeenMillis, r.SeenMillis)
		if err := f.tx.SetNode(n); err != nil {
			return err
		}
	}
	return nil
}

func (f *FSM) freeze(e FreezeEntry) (Verdict, error) {
	n, known, err := f.tx.Node(e.Node)
	if err != nil {
		return Verdict{}, err
	}
	if !known {
		return refuse(crm.CodeNotFound, "freeze", e.Node, "no such node"), nil
	}
	n.Frozen = e.Reason
	f.tellFrozen(e.Node, e.Reason)
	return Verdict{}, f.tx.SetNode(n)
}
