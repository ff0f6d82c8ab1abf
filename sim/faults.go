package sim

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// Lines.

func (w *world) cut(words []string) error {
	return w.between(words, func(a, b string) { w.net.Cut(a, b) })
}

func (w *world) split(words []string) error {
	return w.between(words, func(a, b string) { w.net.Cut(a, b); w.net.Cut(b, a) })
}

func (w *world) mend(words []string) error {
	return w.between(words, func(a, b string) { w.net.Mend(a, b); w.net.Mend(b, a) })
}

func (w *world) reset(words []string) error {
	return w.between(words, w.net.Reset)
}

func (w *world) forget(words []string) error {
	return w.between(words, w.net.Forget)
}

// between does something to the lines between two nodes, and has the leader
// looked at.
func (w *world) between(words []string, do func(a, b string)) error {
	for _, name := range words[:2] {
		if _, err := w.named(name); err != nil {
			return err
		}
	}
	do(words[0], words[1])
	w.ledger.Check()
	return nil
}

func (w *world) isolate(words []string) error { return w.around(words[0], w.split) }

func (w *world) heal(words []string) error { return w.around(words[0], w.mend) }

// around does something to the lines between a node and all others.
func (w *world) around(name string, do func([]string) error) error {
	if _, err := w.named(name); err != nil {
		return err
	}
	for _, n := range w.nodes() {
		if n.name == name {
			continue
		}
		if err := do([]string{name, n.name}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) slow(words []string) error {
	d, err := millis(words[2])
	if err != nil {
		return err
	}
	return w.between(words, func(a, b string) {
		for _, l := range []*line{w.net.line(a, b), w.net.line(b, a)} {
			l.delay, l.jitter = d, d/4
		}
	})
}

func (w *world) lossy(words []string) error {
	percent, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	return w.between(words, func(a, b string) {
		w.net.line(a, b).loss, w.net.line(b, a).loss = float64(percent)/100, float64(percent)/100
	})
}

// replay has whoever serves a branch hear once more a push that it has heard in the same
// conversation.
func (w *world) replay(words []string) error {
	n, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	return onBranch(func(b *branchNode) error {
		for _, v := range w.servers() {
			s := v.served[b.id]
			if s == nil || len(s.pushes) == 0 {
				continue
			}
			f, err := syncproto.DecodeFrame(slices.Clone(s.pushes[n%len(s.pushes)]), s.end.spoken)
			if err != nil {
				return err
			}
			v.resume(v.life, func() { s.hear(f) })
		}
		return nil
	})(w, words)
}

// lie has somebody with a replica's certificate speak for another node: in the
// Hello, and with its own Hello and then edits of the other.
func (w *world) lie(words []string) error {
	liar, err := w.named(words[0])
	if err != nil {
		return err
	}
	victim, err := w.named(words[2])
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	e := w.desk.note(wish{id: EditID(id)}, liar.id, DiskID{Node: liar.id, Copy: -1})
	e.Forged = true
	own := &syncproto.Hello{ProtoMin: syncproto.MinVersion, ProtoMax: syncproto.MaxVersion, Cluster: cluster, Node: liar.id, NextSeq: 1, Sent: 1}
	if n := w.model.nodes[liar.id]; n != nil {
		own.Incarnation, own.NextSeq = n.incarnation, n.last+1000 // or it would be taken for an old copy of the disk
	}
	other := *own
	other.Node = victim.id
	seq, prev := crm.Seq(1), crm.ChainHash{}
	if n := w.model.nodes[victim.id]; n != nil {
		seq, prev = n.last+1, n.hash
	}
	forged := crm.AppendMutation(nil, &crm.Mutation{Node: victim.id, Incarnation: own.Incarnation, Seq: seq, Prev: prev, HLC: crm.NewHLC(epoch.UnixMilli()),
		Actor: e.ID.Actor(), Intent: "sim.lie", Ops: []crm.Op{{Kind: crm.OpDelete, Entity: catalog.Account, Record: idOf("account/a0")}}})
	for _, m := range w.masters {
		for _, h := range []*syncproto.Hello{own, &other} {
			w.net.Dial(liar.name, m.name, func(stream *end, err error) {
				if err != nil {
					return
				}
				say := func(f syncproto.Frame) {
					if err := stream.Send(f); err != nil {
						w.fail("%s cannot lie: %w", liar.name, err)
					}
				}
				stream.Hear = func(f syncproto.Frame) {
					if f.Kind() == syncproto.KindWelcome {
						say(&syncproto.Push{First: seq, Mutations: [][]byte{forged}})
					}
				}
				say(h)
				w.agenda.After(5*time.Second, stream.Close)
			})
		}
	}
	return nil
}

// Processes and disks.

// trap has a node die in an operation of its disk to come.
func (w *world) trap(words []string) error {
	skip, err := strconv.Atoi(words[3])
	if err != nil {
		return err
	}
	if !slices.Contains([]string{dieBefore, dieTorn, dieAfter, dieKilled}, words[2]) {
		return fmt.Errorf("%q is no way to die", words[2])
	}
	return onNode(func(n *node) {
		n.disk.ambush = &ambush{skip: skip, file: words[1], how: words[2]}
		if words[1] == "any" {
			n.disk.ambush.file = ""
		}
	})(w, words)
}

// eio has the next sync of a replica's file fail. What was written then is in the
// file, and nobody may rely on it; the node has to be started again.
func (w *world) eio(words []string) error {
	return onBranch(func(b *branchNode) error {
		b.disk.fails = words[1]
		return nil
	})(w, words)
}

func (b *branchNode) copyDir() string { return b.dir + ".copy" }

// copy keeps a copy of the node's files, as a backup of its disk would.
func (b *branchNode) copy() error {
	if err := os.RemoveAll(b.copyDir()); err != nil {
		return err
	}
	if err := os.MkdirAll(b.copyDir(), 0o700); err != nil {
		return err
	}
	b.copied = b.w.agenda.now
	return copyDir(b.dir, b.copyDir())
}

// putBack puts the copy in place of the node's files. What the node had
// acknowledged since the copy was made and no master has is gone with its disk.
func (b *branchNode) putBack() error {
	if _, err := os.Stat(b.copyDir()); err != nil {
		return nil // none was made
	}
	w := b.w
	w.crash(b.node, "a disk that was put back", false)
	if err := copyDir(b.copyDir(), b.dir); err != nil {
		return err
	}
	for e := range w.record.acked() {
		if e.Disk == b.diskID && e.At >= b.copied {
			e.Excused = "it was on a disk that was lost"
		}
	}
	b.diskID.Reset++
	w.agenda.After(between(w.dice.For("operator"), 0, 5*time.Second), func() { w.start(b.node) })
	return nil
}

// clone starts a second process on a copy of the node's files, with the same
// certificate.
func (b *branchNode) clone() error {
	w, copies := b.w, 0
	for _, o := range w.branches {
		if o.id == b.id {
			copies++
		}
	}
	c := &branchNode{node: w.newNode(fmt.Sprintf("%s-%d", b.name, copies), b.id, b.site, b.role), diskID: DiskID{Node: b.id, Copy: copies}, protocol: b.protocol, relay: b.relay, seqs: maps.Clone(b.seqs)}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if err := copyDir(b.dir, c.dir); err != nil {
		return err
	}
	c.ahead = b.ahead
	w.branches = append(w.branches, c)
	w.start(c.node)
	return nil
}

// loseBase has the node start without its base file.
func (b *branchNode) loseBase() error {
	b.w.crash(b.node, "a loss of its base", false)
	if err := os.Remove(b.path("base.db")); err != nil && !os.IsNotExist(err) {
		return err
	}
	b.rebased = true
	b.w.start(b.node)
	return nil
}

// The log.

func (w *world) fated(words []string) error {
	f := fate(words[0])
	if !slices.Contains([]fate{fateLost, fateUnknown, fateTwice, fateLate}, f) {
		return fmt.Errorf("%q is no fate of a proposal", words[0])
	}
	w.ledger.fates = append(w.ledger.fates, f)
	return nil
}

func (w *world) lag(words []string) error {
	d, err := millis(words[1])
	if err != nil {
		return err
	}
	return onNode(func(n *node) {
		if m := w.masterOf(n); m != nil {
			m.slow = d
		}
	})(w, words)
}

func (w *world) trim([]string) error {
	if m := w.ledger.leader; m != nil && m.up {
		m.resume(m.life, m.trim)
	}
	return nil
}

// backup keeps a copy of a master's file, as it is.
func (w *world) backup(words []string) error {
	return onNode(func(n *node) {
		m := w.masterOf(n)
		if m == nil || !m.up {
			return
		}
		err := m.fsm.DB().View(func(tx *store.Tx) error {
			f, err := os.Create(filepath.Join(w.dir, "backup.db"))
			if err != nil {
				return err
			}
			if _, err := tx.WriteTo(f); err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			w.fail("back up %s: %w", m.name, err)
		}
		w.backedUp, w.backedAt = m.fsm.Applied(), w.agenda.now
	})(w, words)
}

// rewind restores all masters from the backup: what was decided after it is gone
// at head office, and a new timeline begins.
func (w *world) rewind([]string) error {
	if w.backedUp == 0 {
		return nil
	}
	for _, m := range w.masters {
		if m.up {
			w.crash(m.node, "an administrator, who restores the masters", true)
		}
	}
	id := w.record.Newest().ID + 1
	w.forks = append(w.forks, fork{w.backedUp, id})
	edits := w.model.edits
	w.model = w.modelAt(w.backedUp)
	w.model.At, w.model.edits = w.agenda.now, edits
	w.record.Timelines = append(w.record.Timelines, w.model.Timeline)
	w.ledger.entries = slices.Clip(w.ledger.entries[:w.backedUp])
	w.ledger.leader, w.ledger.stuck = nil, nil
	for e := range w.record.acked() {
		if d := w.record.Timelines[len(w.record.Timelines)-2].Of(e.ID); w.record.Sites[e.Node].Role == roleMaster && (d == nil || d.Rev > w.model.Begin) {
			e.Excused = "head office took it, and the masters were restored from a backup"
		}
	}
	for _, m := range w.masters {
		if err := m.restore(filepath.Join(w.dir, "backup.db"), w.model.Lineage, w.backedUp); err != nil {
			return err
		}
	}
	for i := range w.record.Refusals {
		if r := &w.record.Refusals[i]; r.At >= w.backedAt && r.Lifted == 0 {
			r.Lifted = w.agenda.now // the masters do not know of it any more
		}
	}
	w.known, w.backedUp, w.level = w.model.Head(), 0, w.model.level
	w.tendLevel()
	return nil
}

// A fork is where a restore of the masters cut the log off and began a timeline.
type fork struct {
	index    uint64 // of the last entry before it
	timeline uint64
}

// restore puts a backup in place of the master's file, in a new timeline with the
// lineage, at the newest level, as master.Restoration does.
func (m *masterNode) restore(backup string, l crm.Lineage, applied uint64) error {
	path := filepath.Join(m.dir, "master.db")
	if err := copyFile(backup, path); err != nil {
		return err
	}
	db, err := store.Open(path, store.Options{NoSync: true})
	if err != nil {
		return err
	}
	if err := db.Update(func(tx *store.Tx) error {
		return errors.Join(tx.SetLineage(l), session.RaiseLevel(tx, syncproto.MaxVersion))
	}); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	m.known = applied
	m.w.start(m.node)
	return nil
}

// modelAt returns the model after the entry at the index, and after what forked
// there.
func (w *world) modelAt(index uint64) *model {
	m, forks := w.template.model(), w.forks
	for i := uint64(len(w.template.entries)); ; i++ {
		for len(forks) > 0 && forks[0].index == i {
			m.restored(forks[0].timeline)
			forks = forks[1:]
		}
		if i >= index {
			return m
		}
		e, err := master.DecodeEntry(w.ledger.entries[i].bytes)
		if err != nil {
			panic(fmt.Sprintf("sim: entry %d does not decode: %v", i+1, err))
		}
		m.apply(0, i+1, e)
	}
}
