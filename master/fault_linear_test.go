package master

import (
	"cmp"
	"context"
	"errors"
	flags "flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

var porcupineOps = flags.Int("porcupine-ops", 4000, "how many operations the histories of reads have")

// TestReads_KeepTheirPromises has clients write and read a field of some records
// at three masters, through cuts, one-way cuts, broken and silent connections,
// disks that hang, crashes of the leader and of others, and changes of the lead.
// Reads of level leader must be linearizable with the writes, which porcupine
// decides; a session must see its own writes and never go back; a bounded read
// must not be staler than it was asked for.
func TestReads_KeepTheirPromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := playReads(t, *seed, *porcupineOps, false)
		if res := h.linearizable(30 * time.Second); res != porcupine.Ok {
			t.Errorf("porcupine says %s", res)
		}
		for _, err := range h.broken() {
			t.Error(err)
		}
		h.report(t)
	})
}

// TestReads_TheCheckersCanFail lets the clients read the file of whichever master
// they ask, whatever they demand. Every checker must notice.
func TestReads_TheCheckersCanFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := playReads(t, *seed, min(*porcupineOps, 1500), true)
		if res := h.linearizable(30 * time.Second); res != porcupine.Illegal {
			t.Errorf("porcupine says %s of stale reads", res)
		}
		found := map[crm.Level]int{}
		for _, err := range h.broken() {
			if b, ok := errors.AsType[*brokenPromise](err); ok {
				found[b.level]++
			}
		}
		if found[crm.Session] == 0 || found[crm.Bounded] == 0 {
			t.Errorf("broken promises that were found: %v", found)
		}
	})
}

// A visit is one operation of a client. Call and back are ticks of one counter,
// so that what happened before something else has a lower one.
type visit struct {
	client     int
	record     int
	value      string // written or read
	level      crm.Level
	call, back int64
	begun      time.Time
	ended      time.Time
	rev        crm.Rev // of the value
	unknown    bool    // a write that may or may not have happened
	least      crm.Rev // of a session read: the Rev it must at least show
	at         crm.Freshness
}

// writing is the level of a visit that writes.
const writing crm.Level = "write"

// maxStale is what bounded reads demand.
const maxStale = 3 * time.Second

// A history is what clients saw.
type history struct {
	tick atomic.Int64

	mu     sync.Mutex // protects the rest
	visits []visit
	failed map[crm.Level]int // operations that changed and showed nothing
	faults map[string]int
}

func (h *history) add(v visit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.visits = append(h.visits, v)
}

func (h *history) fail(l crm.Level) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed[l]++
}

// A field is the model of one record's field, a register.
type field struct {
	record int
	write  bool
	value  string
}

var register = porcupine.Model{
	Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
		by := map[int][]porcupine.Operation{}
		for _, op := range all {
			r := op.Input.(field).record
			by[r] = append(by[r], op)
		}
		for _, ops := range by {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return firstValue },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(field); in.write {
			return true, in.value
		}
		return output == state, state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

// linearizable asks porcupine about the writes and the reads of level leader. A
// write of which nobody knows may have happened at any time after its call, or
// never, which is the same as after everything else.
func (h *history) linearizable(patience time.Duration) porcupine.CheckResult {
	var ops []porcupine.Operation
	for _, v := range h.visits {
		op := porcupine.Operation{ClientId: v.client, Call: v.call, Return: v.back, Output: v.value, Input: field{v.record, v.level == writing, v.value}}
		if v.unknown {
			op.Return = math.MaxInt64
		}
		if v.level == writing || v.level == crm.Leader {
			ops = append(ops, op)
		}
	}
	return porcupine.CheckOperationsTimeout(register, ops, patience)
}

// A brokenPromise is a read that showed less than it had to.
type brokenPromise struct {
	visit
	missed string
}

func (b *brokenPromise) Error() string {
	return fmt.Sprintf("a read of level %s by client %d at %s saw rev %d, and in record %d %q of rev %d: %s",
		b.level, b.client, b.begun.Format("05.000"), b.at.Rev, b.record, b.value, b.rev, b.missed)
}

// broken returns the promises, other than linearizability, that were not kept.
func (h *history) broken() (found []error) {
	revs := h.revs()
	seen := map[int]crm.Rev{} // by client: the highest Rev its session was shown
	ordered := slices.Clone(h.visits)
	slices.SortFunc(ordered, func(a, b visit) int { return cmp.Compare(a.back, b.back) })
	for _, v := range ordered {
		if v.level == writing {
			continue
		}
		for _, rev := range revs[v.record] {
			if v.rev < rev && rev <= v.at.Rev {
				found = append(found, &brokenPromise{v, fmt.Sprintf("rev %d is of that record too", rev)})
			}
		}
		if v.level == crm.Session {
			if least := max(v.least, seen[v.client]); v.at.Rev < least {
				found = append(found, &brokenPromise{v, fmt.Sprintf("its session was at rev %d", least)})
			}
			seen[v.client] = max(seen[v.client], v.at.Rev)
		}
		if v.level == crm.Bounded {
			found = append(found, h.staler(v, revs)...)
		}
	}
	return found
}

// revs returns by record the Revs of its values that somebody has read. That of a
// write's receipt may be a later one, if the value was written over by then.
func (h *history) revs() map[int][]crm.Rev {
	out := map[int][]crm.Rev{}
	for _, v := range h.visits {
		if v.level != writing && !slices.Contains(out[v.record], v.rev) {
			out[v.record] = append(out[v.record], v.rev)
		}
	}
	return out
}

// staler returns what a bounded read should have known and did not.
func (h *history) staler(read visit, revs map[int][]crm.Rev) (found []error) {
	for _, w := range h.visits {
		if w.level == writing && w.rev > read.at.Rev && w.ended.Before(read.begun.Add(-maxStale)) && slices.Contains(revs[w.record], w.rev) {
			found = append(found, &brokenPromise{read, fmt.Sprintf("%q of rev %d was written until %s", w.value, w.rev, w.ended.Format("05.000"))})
		}
	}
	return found
}

func (h *history) report(t *testing.T) {
	t.Helper()
	n, unknown := map[crm.Level]int{}, 0
	for _, v := range h.visits {
		n[v.level]++
		if v.unknown {
			unknown++
		}
	}
	t.Logf("operations %v, %d writes of unknown outcome; failed %v; faults %v", n, unknown, h.failed, h.faults)
	for _, l := range []crm.Level{writing, crm.Leader, crm.Session, crm.Bounded} {
		if n[l] < *porcupineOps/50 {
			t.Errorf("only %d operations of level %s were checked", n[l], l)
		}
	}
}

// A faultRig is a rig whose masters stand on faulty disks and wires, with
// records to read and write.
type faultRig struct {
	*rig
	rng     *rand.Rand
	disks   map[int]*faultDisk
	wires   map[int]*faultWire
	stalls  map[int]func()
	records []crm.RecordID
	stale   bool // reads ask nobody

	mu   sync.Mutex // protects live
	live []*Master
}

const (
	faultRecords = 8
	firstValue   = "Fjord AS"
)

func newFaultRig(t *testing.T, seed uint64) *faultRig {
	r := &faultRig{rng: rand.New(rand.NewPCG(seed, 17)), disks: map[int]*faultDisk{}, wires: map[int]*faultWire{}, stalls: map[int]func(){}}
	r.rig = newRig(t, 3, func(n int, c *Config) {
		if r.disks[n] == nil {
			r.disks[n], r.wires[n] = newFaultDisk(), newFaultWire()
		}
		fatal := c.Fatal
		c.tune = func(l *ledgerConfig) {
			r.wires[n].spoil(l)
			l.OpenLog = func(string) (logStore, error) { return r.disks[n].open("", func(error) {}) }
		}
		c.Fatal = func(err error) {
			t.Logf("master %d: %v", n, err)
			if untrustworthy(err) {
				t.Errorf("master %d distrusts sound files: %v", n, err)
			}
			if fatal != nil {
				fatal(err)
			}
		}
	})
	for range faultRecords {
		id := newID()
		r.records = append(r.records, id)
		r.commit(r.leader(), createAccount(id, firstValue, "north"))
	}
	r.mayFail = true
	for _, m := range r.masters {
		r.awaitHead(m)
		r.live = append(r.live, m.Master)
	}
	return r
}

// anyMaster returns one that runs; nil if none does.
func (r *faultRig) anyMaster(rng *rand.Rand) *Master {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.live) == 0 {
		return nil
	}
	return r.live[rng.IntN(len(r.live))]
}

// playReads runs a cluster and clients until there are ops operations, and
// returns what they saw.
func playReads(t *testing.T, seed uint64, ops int, stale bool) *history {
	t.Helper()
	r := newFaultRig(t, seed)
	r.stale = stale
	h := &history{failed: map[crm.Level]int{}, faults: map[string]int{}}
	var left atomic.Int64
	left.Store(int64(ops))
	var clients sync.WaitGroup
	done := make(chan struct{})
	for i := range 8 {
		c := &client{n: i, r: r, h: h, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				c.visit()
				time.Sleep(time.Duration(c.rng.IntN(200)) * time.Millisecond)
			}
		})
	}
	go func() {
		clients.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			r.calm()
			return h
		case <-time.After(time.Duration(200+r.rng.IntN(2000)) * time.Millisecond):
			if stale {
				r.lag()
			} else {
				r.fault(h)
			}
		}
	}
}

// A client writes and reads, each time at any master.
type client struct {
	n    int
	r    *faultRig
	h    *history
	rng  *rand.Rand
	made int
	mark crm.Mark // of its session
}

func (c *client) visit() {
	m := c.r.anyMaster(c.rng)
	if m == nil {
		return
	}
	v := visit{client: c.n, record: c.rng.IntN(faultRecords), begun: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	v.call = c.h.tick.Add(1)
	switch n := c.rng.IntN(10); {
	case n < 4:
		c.write(ctx, m, v)
	case n < 7:
		c.read(ctx, m, v, crm.Demand{Level: crm.Leader})
	case n < 9:
		v.least = c.mark.Rev
		c.read(ctx, m, v, crm.Demand{Level: crm.Session, Session: c.mark})
	default:
		c.read(ctx, m, v, crm.Demand{Level: crm.Bounded, MaxStale: maxStale})
	}
}

func (c *client) write(ctx context.Context, m *Master, v visit) {
	c.made++
	v.level, v.value = writing, fmt.Sprintf("%d by %d", c.made, c.n)
	got, err := m.Commit(ctx, crm.Request{Actor: "client", Intent: "test", Ops: []crm.Op{patch(entityAccount, c.r.records[v.record], accountName, crm.TextValue(v.value))}})
	v.back, v.ended = c.h.tick.Add(1), time.Now()
	switch code := crm.CodeOf(err); {
	case err == nil && got.Outcome.Kind == crm.Accepted:
		v.rev = got.Outcome.Rev
		c.mark.Rev = max(c.mark.Rev, v.rev)
	case code == crm.CodeNoLeader, code == crm.CodeUnavailable, code == crm.CodeNotFound && got.Outcome == nil:
		c.h.fail(writing)
		return // nothing was changed: nobody decides, or this master is too far behind to know the record
	default:
		v.unknown = true
		if code != crm.CodeTimeout {
			c.r.t.Errorf("client %d: a write became %+v, %v", c.n, got.Outcome, err)
		}
	}
	c.h.add(v)
}

func (c *client) read(ctx context.Context, m *Master, v visit, d crm.Demand) {
	v.level = d.Level
	if c.r.stale {
		d = crm.Demand{Level: crm.Local}
	}
	var err error
	v.at, err = m.Read(ctx, d, func(rd *store.Reader) error {
		rec, err := rd.Record(entityAccount, c.r.records[v.record])
		if err != nil {
			return err
		}
		if rec == nil {
			return errors.New("the record is gone")
		}
		for _, cell := range rec.Cells {
			if cell.Field == accountName {
				v.value, v.rev = cell.Value.Str(), cell.Stamp.Rev
			}
		}
		return nil
	})
	v.back, v.ended = c.h.tick.Add(1), time.Now()
	if err != nil {
		c.h.fail(v.level)
		return
	}
	if v.level == crm.Session {
		c.mark.Timeline, c.mark.Rev = v.at.Timeline, max(c.mark.Rev, v.at.Rev)
	}
	c.h.add(v)
}

// fault lets something happen to the cluster.
func (r *faultRig) fault(h *history) {
	r.reap()
	n := r.rng.IntN(3) + 1
	if r.rng.IntN(2) == 0 {
		for _, m := range r.masters { // it is the leader that matters most
			if !m.dead && m.Leading() {
				n = int(m.node)
			}
		}
	}
	m, a, b := r.masters[n-1], rigCities[n%3], rigCities[(n+1)%3]
	faults := []struct {
		name string
		do   func()
	}{
		{"cut", func() { r.must(r.net.Cut(a, b)) }},
		{"one-way cut", func() { r.must(r.net.CutOneWay(a, b)) }},
		{"isolation", func() { r.must(r.net.Isolate(a)) }},
		{"heal", r.net.HealAll},
		{"heal", r.net.HealAll},
		{"pause", func() { // what it says and hears comes later, and its main loop waits for the disk: a leader does not notice that it leads no more
			release := r.disks[n].stall()
			r.must(r.net.Isolate(a))
			time.Sleep(time.Duration(r.rng.IntN(7000)) * time.Millisecond)
			r.net.HealAll()
			time.Sleep(time.Duration(r.rng.IntN(1000)) * time.Millisecond)
			release()
		}},
		{"crash", func() { r.end(m) }},
		{"start", func() { r.again(m) }},
		{"start", func() { r.again(m) }},
		{"transfer", func() {
			if !m.dead && m.Leading() {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				_ = m.TransferLeader(ctx, "") // without a majority it fails, and the clients see to the rest
			}
		}},
		{"drop", func() { r.wires[n].drop(r.rng) }},
		{"silence", func() { r.wires[n].mute() }},
		{"stall", func() {
			if !m.dead && r.stalls[n] == nil {
				r.stalls[n] = r.disks[n].stall()
			}
		}},
		{"release", func() { r.release(n) }},
	}
	f := faults[r.rng.IntN(len(faults))]
	h.faults[f.name]++
	f.do()
}

// lag leaves a follower behind for a while.
func (r *faultRig) lag() {
	r.must(r.net.Isolate(rigCities[int(r.follower().node)%3]))
	time.Sleep(3 * maxStale)
	r.net.HealAll()
}

func (r *faultRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *faultRig) release(n int) {
	if release := r.stalls[n]; release != nil {
		release()
		delete(r.stalls, n)
	}
}

// end crashes a master: what was not committed or synced is lost.
func (r *faultRig) end(m *rigMaster) {
	if m.dead {
		return
	}
	n := int(m.node)
	r.mu.Lock()
	r.live = slices.DeleteFunc(r.live, func(l *Master) bool { return l == m.Master })
	r.mu.Unlock()
	m.crashed.Store(true)
	m.host.Crash()
	loseUncommitted(m.ledger)
	close(r.disks[n].ended)
	r.release(n)
	r.kill(m)
	r.disks[n].crash(r.rng)
}

func (r *faultRig) again(m *rigMaster) {
	if !m.dead {
		return
	}
	r.start(m, int(m.node))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live = append(r.live, m.Master)
}

// reap ends the masters whose ledgers have called Fatal, as their processes do.
func (r *faultRig) reap() {
	for _, m := range r.masters {
		if !m.dead && m.ledger.stopped.Load() {
			r.end(m)
		}
	}
}

func (r *faultRig) calm() {
	r.reap()
	r.net.HealAll()
	for _, m := range r.masters {
		r.release(int(m.node))
		r.again(m)
	}
}
