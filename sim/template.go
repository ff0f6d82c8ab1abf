package sim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/store"
)

// A Template is a cluster as its founding leaves it: files to be copied, because
// founding takes a hundred times as long. It may be used by several goroutines.
type Template struct {
	plan     plan
	dir      string
	entries  []logged
	timeline uint64
	head     crm.Rev
	records  []*crm.Record // live and dead
	nodes    []store.NodeState
}

// accounts is how many customers a cluster is founded with.
const accounts = 12

// Found makes a cluster with its files below dir, which the caller removes when
// no run needs it any more.
func Found(dir string, masters, replicas int) (*Template, error) {
	p := plan{masters, replicas, accounts}
	w := newWorld(0, dir, Options{})
	if err := w.add(p); err != nil {
		return nil, err
	}
	t := &Template{plan: p, dir: dir}
	if err := w.found(p); err != nil {
		return nil, fmt.Errorf("found a cluster: %w", err)
	}
	if err := t.keep(w); err != nil {
		return nil, fmt.Errorf("found a cluster: %w", err)
	}
	for _, n := range w.nodes() {
		w.close(n, true)
	}
	return t, w.failed
}

// found has the first master decide the founding, and then brings up the others.
func (w *world) found(p plan) error {
	first := w.masters[0]
	w.start(first.node)
	w.ledger.leader, w.ledger.term = first, 1
	alone := w.masters
	w.masters = alone[:1]
	w.ledger.Propose(first, master.TimelineEntry{Timeline: 1, Cluster: cluster, Node: first.id, ReceivedMillis: first.now().UnixMilli(), Site: headOffice,
		Sync: first.name}, func(master.Verdict, uint64, error) {})
	w.run(w.agenda.now + time.Second)
	var refused error
	for _, req := range p.requests() {
		first.author.Commit(req, func(_ crm.Seq, o crm.Outcome, err error) {
			if refused == nil && (err != nil || o.Kind != crm.Accepted) {
				refused = fmt.Errorf("%s is %s: %s %w", req.Intent, o.Kind, o.Message, err)
			}
		})
	}
	for range 100 {
		w.run(w.agenda.now + time.Second)
		if len(first.author.queue) == 0 {
			break
		}
	}
	if refused != nil {
		return refused
	}
	w.masters = alone
	for _, n := range w.nodes() {
		w.start(n)
	}
	if !w.settle(settleWait) && w.failed == nil {
		return fmt.Errorf("it does not settle: %s", w.unsettled())
	}
	return w.failed
}

// keep remembers what the model needs of the founded cluster.
func (t *Template) keep(w *world) error {
	t.entries = slices.Clip(w.ledger.entries)
	return w.masters[0].fsm.DB().View(func(tx *store.Tx) error {
		live, dead, err := recordsIn(tx)
		if err != nil {
			return err
		}
		t.records = append(live, dead...)
		if t.head, err = tx.Rev(); err != nil {
			return err
		}
		for n, err := range tx.Nodes() {
			if err != nil {
				return err
			}
			t.nodes = append(t.nodes, n)
		}
		t.timeline, err = tx.Timeline()
		return err
	})
}

// world returns a cluster of copies of the files.
func (t *Template) world(seed uint64, o Options) (*world, error) {
	dir, err := os.MkdirTemp(o.Dir, "tradepost-sim-")
	if err != nil {
		return nil, err
	}
	w := newWorld(seed, dir, o)
	if err := w.add(t.plan); err != nil {
		return nil, err
	}
	for _, n := range w.nodes() {
		if err := copyDir(filepath.Join(t.dir, n.name), n.dir); err != nil {
			return nil, err
		}
	}
	w.template = t
	w.ledger.entries, w.ledger.term = t.entries, t.entries[len(t.entries)-1].term
	w.model = t.model()
	w.record.Timelines = []*Timeline{w.model.Timeline}
	return w, nil
}

// model returns what the masters hold.
func (t *Template) model() *model {
	m := newModel(newTimeline(t.timeline, t.head, slices.Values(t.records)), slices.Values(t.records))
	for _, n := range t.nodes {
		m.nodes[n.Node] = newModelNode(n.Incarnation, n.LastSeq, n.LastHash, n.LastHLC)
		m.nodes[n.Node].frozen = n.Frozen != ""
	}
	return m
}

// copyDir copies the files of a directory into another one.
func copyDir(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return out.Close()
}
