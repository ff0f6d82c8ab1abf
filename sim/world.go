package sim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
)

// Options of a run.
type Options struct {
	Dir   string    // where the nodes' files are made; "" is the system's directory for temporary files
	Trace io.Writer // nil: the Trace is only hashed
	Log   io.Writer // what nodes log; nil: nothing
}

// A world is a cluster in one goroutine.
type world struct {
	opts     Options
	agenda   *agenda
	dice     *dice
	trace    *Trace
	net      *network
	record   *History
	model    *model // nil during the founding
	ledger   *ledger
	masters  []*masterNode
	branches []*branchNode // and copies of them
	desk     *desk
	template *Template
	dir      string
	backedUp uint64 // index of the last entry that the backup holds; 0: there is none
	backedAt time.Duration
	forks    []fork // of the log as it stands, oldest first
	level    uint64 // that the masters are to activate
	tending  bool   // a try to do so is due
	relayed  bool   // there is a relay, or was one

	acked  int
	counts map[string]int // what happened, by kind
	known  crm.Rev        // the newest Rev that anybody was told of
	thawed map[crm.NodeID]bool
	failed error // why the run ends
}

func newWorld(seed uint64, dir string, o Options) *world {
	a, d, t := &agenda{}, newDice(seed), newTrace(o.Trace)
	w := &world{opts: o, agenda: a, dice: d, trace: t, net: newNetwork(a, d, t), dir: dir, counts: map[string]int{}, thawed: map[crm.NodeID]bool{},
		record: &History{Sites: map[crm.NodeID]Site{}}}
	w.ledger, w.desk = &ledger{w: w}, &desk{w: w, screens: map[screenKey][]Screen{}}
	return w
}

// add makes the nodes of a plan, with their directories. Numbers are those that
// the founding gives.
func (w *world) add(p plan) error {
	for i := range p.masters {
		m := &masterNode{server: server{node: w.newNode(masterName(i), crm.NodeID(i+1), headOffice, auth.RoleMaster)}}
		w.masters = append(w.masters, m)
	}
	for i := range p.replicas {
		b := &branchNode{node: w.newNode(replicaName(i), crm.NodeID(p.masters+i+1), replicaName(i), auth.RoleReplica)}
		b.diskID = DiskID{Node: b.id}
		w.branches = append(w.branches, b)
	}
	for _, n := range w.nodes() {
		w.record.Sites[n.id] = Site{n.name, n.site, string(n.role)}
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) newNode(name string, id crm.NodeID, site string, role auth.Role) *node {
	n := &node{w: w, name: name, id: id, site: site, role: role, dir: filepath.Join(w.dir, name)}
	n.disk = &disk{n: n, rand: w.dice.For("disk " + name)}
	return n
}

func (w *world) nodes() (out []*node) {
	for _, m := range w.masters {
		out = append(out, m.node)
	}
	for _, b := range w.branches {
		out = append(out, b.node)
	}
	return out
}

// node returns the node of that name; copies have names of their own.
func (w *world) node(name string) *node {
	for _, n := range w.nodes() {
		if n.name == name {
			return n
		}
	}
	return nil
}

func (w *world) masterOf(n *node) *masterNode {
	i := slices.IndexFunc(w.masters, func(m *masterNode) bool { return m.node == n })
	if i < 0 {
		return nil
	}
	return w.masters[i]
}

func (w *world) branchOf(n *node) *branchNode {
	i := slices.IndexFunc(w.branches, func(b *branchNode) bool { return b.node == n })
	if i < 0 {
		return nil
	}
	return w.branches[i]
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf("%s: %w", when(w.agenda.now), fmt.Errorf(format, args...))
	}
}

// judge asks the invariants about the newest record of a kind.
func (w *world) judge(k kind) {
	if w.model == nil || w.failed != nil {
		return
	}
	if err := newest(w.record, k); err != nil {
		w.fail("%w", err)
	}
}

// count notes that something happened.
func (w *world) count(what string) { w.counts[what]++ }

// refusal records that the masters will not have a disk any more.
func (w *world) refusal(d DiskID, c crm.Code) {
	for _, r := range w.record.Refusals {
		if r.Disk == d && r.Code == c && r.Lifted == 0 {
			return
		}
	}
	w.count("error refused disk: " + string(c))
	w.record.Refusals = append(w.record.Refusals, Refusal{At: w.agenda.now, Disk: d, Code: c})
}

// start starts a node that is down.
func (w *world) start(n *node) {
	if n.up {
		return
	}
	var err error
	n.run(func() {
		if m := w.masterOf(n); m != nil {
			err = m.start()
		} else {
			err = w.branchOf(n).start()
		}
	})
	if err != nil {
		w.count("error start: " + string(crm.CodeOf(err)))
		w.trace.Note(w.agenda.now, n.name, "does not start: %s", crm.CodeOf(err))
		w.startFailed(n, err)
	}
}

// startFailed does what an administrator would: a base that is damaged is put
// away, for the masters to send it anew.
func (w *world) startFailed(n *node, err error) {
	if w.branchOf(n) != nil && crm.CodeOf(err) == crm.CodeDiskFull {
		return // it starts again when there is room
	}
	w.fail("%s does not start: %w", n.name, err)
}

// crash ends a node's process where it stands. What its disk holds then is what
// the disk says.
func (w *world) crash(n *node, why string, kill bool) {
	if !n.up && !n.disk.dead {
		return // it was down, and did not die while it started
	}
	n.up, n.down = false, why
	n.life++
	n.note("dies of %s", why)
	w.count("death " + why)
	n.disk.dead = true
	w.close(n, false)
	if err := n.disk.restore(); err != nil {
		w.fail("%s: %w", n.name, err)
	}
	w.net.Vanish(n.name, kill)
	w.ledger.Check()
}

// close closes a node's files. Of a dead node's the errors do not matter.
func (w *world) close(n *node, orderly bool) {
	var err error
	if m := w.masterOf(n); m != nil {
		err = m.stop(orderly)
	} else {
		err = w.branchOf(n).stop()
	}
	if err != nil && orderly {
		w.fail("%s does not stop: %w", n.name, err)
	}
}

// needs returns the Cursor of each replica, but of those whose files were put
// back or lost, or that the masters refuse because another disk has their number:
// these are sent everything.
func (w *world) needs() map[crm.NodeID]crm.Rev {
	out := map[crm.NodeID]crm.Rev{}
	for _, b := range w.branches {
		if s := b.shown; b.up && w.standing(b.diskID) == "" && b.diskID == (DiskID{Node: b.id}) && s.Timeline == w.model.ID && s.Rev > 0 {
			out[b.id] = s.Rev
		}
	}
	return out
}

// run lets time pass until the instant or a failure.
func (w *world) run(until time.Duration) {
	for w.failed == nil && w.agenda.Next(until) {
	}
}

// settle lets time pass until nothing differs any more, for limit at most.
func (w *world) settle(limit time.Duration) bool {
	for until := w.agenda.now + limit; w.failed == nil && w.agenda.now < until; {
		if w.unsettled() == "" {
			return true
		}
		w.run(w.agenda.now + 500*time.Millisecond)
	}
	return w.failed == nil && w.unsettled() == ""
}

// unsettled says what still differs, "" if nothing does.
func (w *world) unsettled() string {
	last := uint64(len(w.ledger.entries))
	if w.ledger.leader == nil {
		return "nobody leads"
	}
	if w.model != nil && w.model.level < w.level {
		return fmt.Sprintf("the log has level %d, not %d", w.model.level, w.level)
	}
	head := w.ledger.leader.fsm.Head()
	for _, m := range w.masters {
		switch {
		case !m.up:
			return m.name + " is down"
		case m.fsm.Applied() != last:
			return fmt.Sprintf("%s has committed entry %d of %d", m.name, m.fsm.Applied(), last)
		case len(m.author.queue) > 0:
			return m.name + " has an edit under way"
		}
	}
	for _, b := range w.branches {
		if why := b.unsettled(w.ledger.leader.timeline(), head); why != "" && b.retired == "" {
			return b.name + " " + why
		}
	}
	return ""
}

func (b *branchNode) unsettled(timeline uint64, head crm.Rev) string {
	if !b.up {
		return "is down"
	}
	switch s := b.rep.Status(); {
	case b.shown.Timeline != timeline || b.shown.Rev != head || s.Cursor != head:
		return fmt.Sprintf("is at rev %d of timeline %d, not at %d of %d", b.shown.Rev, b.shown.Timeline, head, timeline)
	case s.Outbox.Entries > 0:
		return fmt.Sprintf("has %d edits pending", s.Outbox.Entries)
	case len(b.damages()) > 0 || len(s.Suspect) > 0:
		return "is not mended"
	case b.untidy:
		return "has something to purge"
	}
	return ""
}

// finish closes all nodes and removes their files.
func (w *world) finish() error {
	for _, n := range w.nodes() {
		n.up = false
		n.life++
		n.disk.dead = true
		w.close(n, false)
	}
	return os.RemoveAll(w.dir)
}
