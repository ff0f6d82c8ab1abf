package sim

import (
	"fmt"
	"strconv"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A verb is something that a Script can do.
type verb struct {
	usage string
	least int  // words that it needs
	fault bool // it breaks something, or is there to
	do    func(*world, []string) error
}

// verbs are all of them. It is filled in by init because edits, which are among
// them, refer to verbs of their own.
var verbs map[string]verb

func init() {
	verbs = map[string]verb{
		"edit":  {"NODE NUMBER [old=N] OP [; OP]", 3, false, (*world).edit},
		"look":  {"REPLICA local|session|leader|bounded [MILLIS]", 2, false, (*world).look},
		"stock": {"REPLICA", 1, false, onBranch(func(b *branchNode) error { return b.take(false, false) })},

		"cut":     {"FROM TO", 2, true, (*world).cut},
		"split":   {"A B", 2, true, (*world).split},
		"isolate": {"NODE", 1, true, (*world).isolate},
		"mend":    {"A B", 2, false, (*world).mend},
		"heal":    {"NODE", 1, false, (*world).heal},
		"slow":    {"A B MILLIS", 3, true, (*world).slow},
		"lossy":   {"A B PERCENT", 3, true, (*world).lossy},
		"reset":   {"A B", 2, true, (*world).reset},
		"forget":  {"A B", 2, true, (*world).forget},
		"replay":  {"REPLICA NUMBER", 2, true, (*world).replay},
		"lie":     {"REPLICA NUMBER AS", 3, true, (*world).lie},

		"kill":    {"NODE", 1, true, onNode(func(n *node) { n.w.crash(n, "a kill", true) })},
		"power":   {"NODE", 1, true, onNode(func(n *node) { n.w.crash(n, "a loss of power", false) })},
		"trap":    {"NODE FILE|any before|torn|after|killed SKIP", 4, true, (*world).trap},
		"start":   {"NODE", 1, false, onNode(func(n *node) { n.w.start(n) })},
		"full":    {"NODE", 1, true, onNode(func(n *node) { n.disk.full = true })},
		"eio":     {"REPLICA FILE", 2, true, (*world).eio},
		"room":    {"NODE", 1, false, onNode(func(n *node) { n.disk.full = false })},
		"stall":   {"NODE MILLIS", 2, true, withMillis(func(n *node, d time.Duration) { n.disk.stall = d })},
		"clock":   {"NODE MILLIS", 2, true, withMillis((*node).setClock)},
		"copy":    {"REPLICA", 1, false, onBranch((*branchNode).copy)},
		"putback": {"REPLICA", 1, true, onBranch((*branchNode).putBack)},
		"clone":   {"REPLICA", 1, true, onBranch((*branchNode).clone)},
		"lose":    {"REPLICA", 1, true, onBranch((*branchNode).loseBase)},
		"flip":    {"REPLICA RECORD", 2, true, (*world).flip},
		"tamper":  {"REPLICA RECORD", 2, true, (*world).tamper},
		"drop":    {"REPLICA RECORD", 2, true, (*world).drop},

		"elect":    {"", 0, true, func(w *world, _ []string) error { w.ledger.Elect(nil); return nil }},
		"log":      {"lost|ambiguous|twice|late", 1, true, (*world).fated},
		"lag":      {"MASTER MILLIS", 2, true, (*world).lag},
		"activate": {"LEVEL", 1, false, (*world).activate},
		"release":  {"REPLICA VERSION", 2, false, (*world).release},
		"relay":    {"REPLICA", 1, false, (*world).relays},
		"trim":     {"", 0, false, (*world).trim},
		"backup":   {"MASTER", 1, false, (*world).backup},
		"rewind":   {"", 0, true, (*world).rewind},
	}
}

// onNode makes a verb of what is done to one node.
func onNode(do func(*node)) func(*world, []string) error {
	return func(w *world, words []string) error {
		n, err := w.named(words[0])
		if err == nil {
			do(n)
		}
		return err
	}
}

// onBranch makes a verb of what is done to one replica that is up.
func onBranch(do func(*branchNode) error) func(*world, []string) error {
	return func(w *world, words []string) error {
		n, err := w.named(words[0])
		if err != nil {
			return err
		}
		b := w.branchOf(n)
		if b == nil {
			return notReplica(n)
		}
		if b.up {
			n.run(func() { err = do(b) })
		}
		return err
	}
}

func notReplica(n *node) error { return fmt.Errorf("%s is no replica", n.name) }

func withMillis(do func(*node, time.Duration)) func(*world, []string) error {
	return func(w *world, words []string) error {
		d, err := millis(words[1])
		if err != nil {
			return err
		}
		return onNode(func(n *node) { do(n, d) })(w, words)
	}
}

func millis(word string) (time.Duration, error) {
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of milliseconds", word)
	}
	return time.Duration(n) * time.Millisecond, nil
}

func (w *world) named(name string) (*node, error) {
	if n := w.node(name); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("there is no node %q", name)
}

// edit asks a node for something; hq is a master that is up. A node that is down
// takes nothing.
func (w *world) edit(words []string) error {
	v, err := parseWish(words[1:])
	if err != nil {
		return err
	}
	n := w.asked(words[0])
	if n == nil || !n.up {
		w.count("edit not asked: the node is down")
		return nil
	}
	life := n.life
	n.resume(life, func() {
		if m := w.masterOf(n); m != nil {
			w.desk.askMaster(m, v)
			return
		}
		w.desk.askBranch(w.branchOf(n), v)
	})
	return nil
}

// asked returns the node that people mean: hq is any master that is up, and of
// several disks of one replica any.
func (w *world) asked(name string) *node {
	if name == headOffice {
		return w.headOffice()
	}
	var disks []*node
	for _, b := range w.branches {
		if w.record.Sites[b.id].Name == name {
			disks = append(disks, b.node)
		}
	}
	if len(disks) == 0 {
		return w.node(name)
	}
	return pick(w.dice.For("desk"), disks)
}

// headOffice returns a master that is up, nil if there is none.
func (w *world) headOffice() *node {
	var up []*node
	for _, m := range w.masters {
		if m.up {
			up = append(up, m.node)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return pick(w.dice.For("desk"), up)
}

// look reads at a replica.
func (w *world) look(words []string) error {
	d := crm.Demand{Level: crm.Level(words[1]), Session: w.desk.mark}
	if len(words) > 2 {
		var err error
		if d.MaxStale, err = millis(words[2]); err != nil {
			return err
		}
	}
	return onBranch(func(b *branchNode) error {
		b.resume(b.life, func() { b.lookAt(d) })
		return nil
	})(w, words)
}
