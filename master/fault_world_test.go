package master

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A faultWorld is a lab whose masters stand on faulty disks and wires and end
// and start again, while writers go on.
type faultWorld struct {
	*lab
	rng     *rand.Rand
	disks   map[int]*faultDisk
	wires   map[int]*faultWire
	seen    map[int]int // failures of each master that were acted upon
	stalls  map[int]func()
	writers []*clerk
	bolt    bool
	bad     int // the master whose log is damaged; 0: none

	mu   sync.Mutex // protects live
	live map[int]*ledger
}

// A faultOptions says how a faultWorld is made.
type faultOptions struct {
	seed uint64
	bolt bool                         // bbolt logs; else raft-wal
	edit func(n int, c *ledgerConfig) // may be nil
}

// newFaultWorld bootstraps three voters, and a clerk at each of three nodes.
func newFaultWorld(t *testing.T, o faultOptions) *faultWorld {
	t.Helper()
	w := &faultWorld{rng: rand.New(rand.NewPCG(o.seed, 9)), disks: map[int]*faultDisk{}, wires: map[int]*faultWire{}, seen: map[int]int{}, stalls: map[int]func(){}, live: map[int]*ledger{}}
	w.lab = newLab(t, 3, func(n int, c *ledgerConfig) {
		if w.disks[n] == nil {
			w.disks[n], w.wires[n] = newFaultDisk(), newFaultWire()
		}
		w.wires[n].spoil(c)
		w.bolt = o.bolt
		c.OpenLog = func(dir string) (logStore, error) { return w.disks[n].open(w.logPath(dir), c.Fatal) }
		c.StateEvery = time.Second
		if o.edit != nil {
			o.edit(n, c)
		}
	})
	for n, l := range w.ledgers {
		w.live[n] = l.ledger
	}
	chief := &clerk{writer: first()}
	for i := range 3 {
		w.mustPropose(chief.push(chief.mutation(createOp(crm.EntityNode, map[crm.FieldID]crm.Value{
			crm.NodeSite: crm.TextValue("hq"), crm.NodeRole: crm.ChoiceValue("master"), crm.NodeStatus: crm.ChoiceValue("active")}))))
		c := &clerk{writer: &writer{node: crm.NodeID(i + 2), inc: 1}, revs: map[crm.Seq]crm.Rev{}}
		w.mustPropose(AdmitEntry{Node: c.node, Nonce: [16]byte{byte(i + 1)}})
		create := createOp(crm.EntitySite, map[crm.FieldID]crm.Value{crm.SiteName: crm.TextValue(fmt.Sprint("site ", i)), crm.SiteCity: crm.TextValue("0")})
		c.record = create.Record
		w.mustPropose(c.push(c.mutation(create)))
		w.writers = append(w.writers, c)
	}
	return w
}

// logPath returns where in dir a master's bbolt log is, "" for raft-wal.
func (w *faultWorld) logPath(dir string) string {
	if !w.bolt {
		return ""
	}
	return filepath.Join(dir, "log.db")
}

// A clerk is a writer that counts in a field of a record of its own.
type clerk struct {
	*writer
	record crm.RecordID
	revs   map[crm.Seq]crm.Rev // of what was acknowledged; 0: it had been decided before
}

// write has the next count decided, by whoever leads, however often it takes; it
// gives up when ctx ends.
func (c *clerk) write(ctx context.Context, w *faultWorld) error {
	raw := c.mutation(patch(crm.EntitySite, c.record, crm.SiteCity, crm.TextValue(fmt.Sprint(c.seq+1))))
	push := c.push(raw)
	for ctx.Err() == nil {
		for _, l := range w.candidates() {
			once, cancel := context.WithTimeout(ctx, 3*time.Second)
			d, _, err := l.propose(once, push)
			cancel()
			if err == nil {
				return c.note(d)
			}
			if code := crm.CodeOf(err); !errors.Is(err, errUnknown) && code != crm.CodeNoLeader && code != crm.CodeUnavailable {
				return fmt.Errorf("clerk %d, edit %d: %w", c.node, c.seq, err)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func (c *clerk) note(d []Decided) error {
	if len(d) != 1 || d[0].Kind != crm.Accepted || d[0].Gap != 0 || d[0].Fork || d[0].Fenced != 0 {
		return fmt.Errorf("clerk %d, edit %d became %+v", c.node, c.seq, d)
	}
	c.revs[c.seq] = d[0].Rev
	return nil
}

// candidates returns the masters that run, one that leads first.
func (w *faultWorld) candidates() (list []*ledger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(w.live)) {
		if _, _, self := w.live[n].leader(); self {
			list = append([]*ledger{w.live[n]}, list...)
		} else {
			list = append(list, w.live[n])
		}
	}
	return list
}

// work lets every clerk write until stop is called, which waits for them.
func (w *faultWorld) work(pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	for _, c := range w.writers {
		busy.Go(func() {
			for ctx.Err() == nil {
				if err := c.write(ctx, w); err != nil {
					w.t.Error(err)
					return
				}
				time.Sleep(pause)
			}
		})
	}
	return sync.OnceFunc(func() {
		cancel()
		busy.Wait()
	})
}

func (w *faultWorld) running(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live[n] != nil
}

// end ends a master's process at once. What bbolt had not committed is lost; with
// power, so is what the log's disk had not synced.
func (w *faultWorld) end(n int, power bool) {
	if !w.running(n) {
		return
	}
	w.mu.Lock()
	delete(w.live, n)
	w.mu.Unlock()
	l := w.ledgers[n]
	l.host.Crash()
	loseUncommitted(l.ledger)
	if w.rng.IntN(2) == 0 {
		w.disks[n].fail(syscall.EIO) // a write that hangs does not reach the disk
	}
	close(w.disks[n].ended)
	w.release(n)
	l.stop()
	w.disks[n].fail(nil)
	if power {
		w.disks[n].crash(w.rng)
	}
	w.seen[n] = len(l.failures())
}

func loseUncommitted(l *ledger) {
	l.fsm.mu.Lock()
	defer l.fsm.mu.Unlock()
	if l.fsm.failed == nil {
		l.fsm.failed = errHalted
	}
	if l.fsm.tx != nil {
		l.fsm.tx.Rollback()
		l.fsm.tx = nil
	}
}

// again starts a master that has ended.
func (w *faultWorld) again(n int) {
	if w.running(n) {
		return
	}
	if n == w.bad && w.refuses(n) {
		return
	}
	l := w.start(n)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live[n] = l.ledger
}

// refuses reports whether a master will not start on its files, as it should if
// they are damaged.
func (w *faultWorld) refuses(n int) bool {
	w.t.Helper()
	l := w.ledgers[n]
	l.host = l.host.Revive()
	try, err := openLedger(w.config(l))
	if err == nil {
		w.must(try.close())
		l.host.Crash()
		return false
	}
	w.t.Logf("master %d: %v", n, err)
	if code := crm.CodeOf(err); code != CodeDistrusted && code != crm.CodeCorrupt {
		w.t.Errorf("a damaged master refuses to start with code %q", code)
	}
	return true
}

func (w *faultWorld) release(n int) {
	if release := w.stalls[n]; release != nil {
		release()
		delete(w.stalls, n)
	}
}

// reap ends the masters that called Fatal, as their processes do.
func (w *faultWorld) reap() {
	w.t.Helper()
	for n, l := range w.ledgers {
		for _, err := range l.failures()[w.seen[n]:] {
			w.t.Logf("master %d: %v", n, err)
			if untrustworthy(err) && n != w.bad {
				w.t.Errorf("master %d distrusts sound files: %v", n, err)
			}
			w.end(n, w.rng.IntN(2) == 0)
		}
	}
}

// calm ends all faults and starts every master.
func (w *faultWorld) calm() {
	w.t.Helper()
	w.reap()
	w.net.HealAll()
	for n := range w.ledgers {
		w.release(n)
		w.disks[n].fail(nil)
		w.wires[n].slow(0)
		w.again(n)
	}
}

// prove demands, once all is calm, that the masters have equal states in which
// every edit that was acknowledged took effect once, and no edit did twice.
func (w *faultWorld) prove(nodes ...int) {
	w.t.Helper()
	w.mustDecide(first().after(w), 1, fmt.Sprint("calm at ", time.Now().UnixNano()))
	w.mustAgree(nodes...)
	for _, n := range nodes {
		w.proveOn(n)
	}
}

// after makes the first master's writer go on from what is decided.
func (c *writer) after(w *faultWorld) *writer {
	w.t.Helper()
	w.waitFor("a leader that knows the first node", func() bool {
		return w.leader().db().View(func(tx *store.Tx) error {
			st, _, err := tx.Node(c.node)
			c.seq, c.prev = st.LastSeq, st.LastHash
			return err
		}) == nil
	})
	return c
}

func (w *faultWorld) proveOn(n int) {
	w.t.Helper()
	err := w.ledgers[n].db().View(func(tx *store.Tx) error {
		head, err := tx.Rev()
		if err != nil {
			return err
		}
		decided := crm.Rev(1) // the timeline
		for st, err := range tx.Nodes() {
			if err != nil {
				return err
			}
			decided += crm.Rev(st.LastSeq)
		}
		if head != decided {
			w.t.Errorf("master %d is at rev %d, and its nodes' numbers add up to %d", n, head, decided)
		}
		return w.proveClerks(tx, n)
	})
	if err != nil {
		w.t.Error(err)
	}
}

func (w *faultWorld) proveClerks(tx *store.Tx, n int) error {
	w.t.Helper()
	by := map[crm.Rev]crm.NodeID{}
	for _, c := range w.writers {
		st, _, err := tx.Node(c.node)
		if err != nil {
			return err
		}
		rec, err := tx.Record(crm.EntitySite, c.record)
		if err != nil {
			return err
		}
		if got := rec.Value(crm.SiteCity).Str(); st.LastSeq > 1 && got != fmt.Sprint(st.LastSeq) {
			w.t.Errorf("master %d: clerk %d counted to %s in %d edits", n, c.node, got, st.LastSeq)
		}
		var last crm.Rev
		for _, seq := range slices.Sorted(maps.Keys(c.revs)) {
			rev := c.revs[seq]
			if seq > st.LastSeq {
				w.t.Errorf("master %d lacks edit %d of clerk %d, which was acknowledged", n, seq, c.node)
			}
			if other := by[rev]; rev != 0 && (other != 0 || rev <= last) {
				w.t.Errorf("edit %d of clerk %d was acknowledged as rev %d, after %d; clerk %d has it too", seq, c.node, rev, last, other)
			}
			by[rev], last = c.node, max(last, rev)
		}
	}
	return nil
}

// fault lets something happen to the cluster.
func (w *faultWorld) fault() {
	cities := []string{"Frankfurt", "Paris", "Amsterdam"}
	n := w.rng.IntN(3) + 1
	a, b := cities[n-1], cities[n%3]
	switch w.rng.IntN(16) {
	case 0:
		w.must(w.net.Cut(a, b))
	case 1:
		w.must(w.net.CutOneWay(a, b))
	case 2:
		w.must(w.net.Isolate(a))
	case 3, 4, 5:
		w.net.HealAll()
	case 6:
		w.wires[n].drop(w.rng)
	case 7:
		w.wires[n].mute()
	case 8:
		w.wires[n].slow(time.Duration(w.rng.IntN(400)) * time.Millisecond)
	case 9:
		w.wires[n].slow(0)
	case 10:
		if w.running(n) && w.stalls[n] == nil {
			w.stalls[n] = w.disks[n].stall()
		}
	case 11:
		w.release(n)
	case 12:
		w.end(n, w.rng.IntN(2) == 0)
	case 13:
		w.again(n)
	case 14:
		if w.running(n) {
			w.disks[n].fail(syscall.EIO)
		}
	case 15:
		w.handOver(n)
	}
}

// handOver asks a master to let another one lead, and does not wait.
func (w *faultWorld) handOver(n int) {
	w.mu.Lock()
	l := w.live[n]
	w.mu.Unlock()
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := l.transfer(ctx, ""); err != nil {
		w.t.Logf("master %d: %v", n, err)
	}
}

func (w *faultWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// shortLog makes a ledger take snapshots often and keep little of its log, so
// that a master which was away is sent the whole state.
func shortLog(c *ledgerConfig) {
	c.TrailingLogs, c.SnapshotThreshold, c.SnapshotInterval = 8, 16, 2*time.Second
}
