package sim

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// epoch is when a run begins, by the masters' clocks.
var epoch = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// A node is what masters and replicas have in common: a process that lives and
// dies, a directory, a clock.
type node struct {
	w    *world
	name string
	id   crm.NodeID
	site string
	role auth.Role
	dir  string
	disk *disk

	up    bool
	life  int           // counts its processes: what an earlier one had in mind is void
	busy  time.Duration // until when it is stopped, as by a stalled disk
	ahead time.Duration // of its clock
	setAt time.Duration // when the clock was last set
	down  string        // why its process ended
}

// now is what the node's clock shows.
func (n *node) now() time.Time { return epoch.Add(n.w.agenda.now + n.ahead) }

// setClock sets the clock ahead of the others by d. Instants of the simulator
// have no monotonic part, as those of a process do, so a clock is set back by
// more than a little only while the process is down.
func (n *node) setClock(d time.Duration) {
	back := n.up && n.ahead-d > 5*time.Second
	if back {
		n.w.crash(n, "a kill, to set its clock back", true)
	}
	n.ahead, n.setAt = d, n.w.agenda.now
	if back {
		n.w.start(n)
	}
}

func (n *node) jitter(bound time.Duration) time.Duration {
	return upTo(n.w.dice.For("jitter "+n.name), bound-1)
}

// identity is what the node's certificate says.
func (n *node) identity() auth.Identity {
	return auth.Identity{Cluster: cluster, Role: n.role, Site: n.site, Node: uint32(n.id)}
}

// note adds an event of the node to the Trace.
func (n *node) note(format string, args ...any) {
	n.w.trace.Note(n.w.agenda.now, n.name, format, args...)
}

// after has the process do something later, if it still lives then.
func (n *node) after(d time.Duration, do func()) {
	life := n.life
	n.w.agenda.After(d, func() { n.resume(life, do) })
}

// resume has the process of that life do something, now or when it is no longer
// stopped.
func (n *node) resume(life int, do func()) {
	switch {
	case !n.up || n.life != life:
	case n.busy > n.w.agenda.now:
		n.w.agenda.At(n.busy, func() { n.resume(life, do) })
	default:
		n.run(do)
	}
}

// run calls do, in which the power may fail.
func (n *node) run(do func()) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case powerCut:
			n.w.crash(n, r.why, r.kill)
		default:
			panic(r)
		}
	}()
	do()
}

// options are those of the node's files. A file of the simulator is small, so
// little address space is mapped.
func (n *node) options() store.Options {
	return store.Options{InitialMmap: 8 << 20, Disk: n.disk.hooks(), Logger: n.w.logger(n.name)}
}

// logger returns what a node logs to: nothing, unless the run is watched.
func (w *world) logger(name string) *slog.Logger {
	if w.opts.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	strip := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.String("at", fmt.Sprintf("%.6f", w.agenda.now.Seconds()))
		}
		return a
	}
	return slog.New(slog.NewTextHandler(w.opts.Log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: strip})).With("at_node", name)
}

// size is what the node's files take, in bytes.
func (n *node) size() (total int64) {
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(n.dir, e.Name())); err == nil {
			total += info.Size()
		}
	}
	return total
}
