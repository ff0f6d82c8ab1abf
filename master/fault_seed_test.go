package master

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A poorLine dials a lab's masters for records; its connections break after a
// number of bytes, and may damage one.
type poorLine struct {
	w      *lab
	room   int // bytes until a connection breaks; 0: it does not
	damage int // a byte that arrives inverted, counted over all connections; 0: none
	got    int // bytes that arrived
	calls  int
}

func (p *poorLine) dial(ctx context.Context, addr string) (net.Conn, error) {
	p.calls++
	c, err := p.w.net.Host("Paris", "joiner").Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{connSeed}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &poorConn{Conn: c, line: p, room: p.room}, nil
}

type poorConn struct {
	net.Conn
	line *poorLine
	room int
}

func (c *poorConn) Read(b []byte) (int, error) {
	if c.line.room > 0 {
		if c.room == 0 {
			c.Close()
			return 0, net.ErrClosed
		}
		b = b[:min(len(b), c.room)]
	}
	n, err := c.Conn.Read(b)
	if at := c.line.damage - c.line.got; at > 0 && at <= n {
		b[at-1] ^= 1
	}
	c.line.got += n
	c.room -= n
	return n, err
}

// seederAt returns a seeder that asks the masters at the numbers, in order.
func (p *poorLine) seederAt(dir string, nodes ...int) *seeder {
	s := &seeder{dir: dir, dial: p.dial, log: ledgerConfig{}.withDefaults().Logger}
	for _, n := range nodes {
		s.peers = append(s.peers, raftAddress(n))
	}
	return s
}

// TestSeed_GoesOnWhereItBroke: a master joins over a line that keeps breaking, in
// a process that keeps ending, while the others go on. What arrived is not sent
// again, and Raft has only the last entries to send: without a seed it would have
// to install a snapshot.
func TestSeed_GoesOnWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		installs := map[int]*tally{4: {}, 5: {}}
		w := newFaultWorld(t, faultOptions{edit: func(n int, c *ledgerConfig) {
			c.TrailingLogs, c.SnapshotThreshold, c.SnapshotInterval = 100, 50, time.Second
			if n > 3 {
				c.SnapshotThreshold = 1 << 20 // it takes none itself
				c.Observe.Snapshot = func(time.Duration) { installs[n].add(1) }
			}
		}})
		for range 100 {
			for _, c := range w.writers {
				w.must(c.write(t.Context(), w))
			}
		}
		time.Sleep(5 * time.Second)
		dir := t.TempDir()
		line := &poorLine{w: w.lab, room: 5000}
		stop := w.work(400 * time.Millisecond)
		defer stop()
		err := line.seederAt(dir, 2).round(t.Context(), true)
		for range 200 {
			if err = line.seederAt(dir, 2, 3).round(t.Context(), false); err == nil {
				break
			}
		}
		w.must(err)
		stop()
		st, err := os.Stat(filepath.Join(dir, "master.db"))
		w.must(err)
		if most := int(st.Size()) + line.calls*(1+seedAnswerSize+1000); line.calls < 5 || line.got > most {
			t.Errorf("%d bytes arrived over %d connections for a file of %d", line.got, line.calls, st.Size())
		}
		if paths, _ := filepath.Glob(filepath.Join(dir, partialName)); len(paths) > 0 {
			t.Errorf("%v is left behind", paths)
		}

		w.ledgers[4] = &labLedger{n: 4, dir: dir, host: w.net.Host(city(4), "m4")}
		w.ledgers[4].host.Crash() // lab revives it
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, n := range []int{4, 5} {
			w.start(n)
			w.must(w.leader().addNonvoter(ctx, serverID(crm.NodeID(n)), raftAddress(n)))
			w.must(w.leader().addVoter(ctx, serverID(crm.NodeID(n)), raftAddress(n)))
		}
		w.prove(1, 2, 3, 4, 5)
		if got := installs[4].value(); got != 0 {
			t.Errorf("the seeded master was sent %d snapshots", got)
		}
		if got := installs[5].value(); got != 1 {
			t.Errorf("the other one was sent %d snapshots: the test shows nothing", got)
		}
	})
}

// TestSeed_FromAnotherMaster: the one that had sent the first half is gone, and
// the copy of the next one is another.
func TestSeed_FromAnotherMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 3, nil)
		c := first()
		w.mustDecide(c, 50, "a")
		w.settle(1, 2, 3)
		dir := t.TempDir()
		line := &poorLine{w: w, room: 5000}
		if err := line.seederAt(dir, 1).round(t.Context(), true); err == nil {
			t.Fatal("all arrived at once")
		}
		w.kill(w.ledgers[1])
		delete(w.ledgers, 1)
		w.mustDecide(c, 1, "b")
		w.settle(2, 3)
		line.room = 0
		if err := line.seederAt(dir, 1, 2).run(t.Context()); err != nil {
			t.Fatal(err)
		}
		at, err := appliedInFile(filepath.Join(dir, "master.db"))
		if err != nil || at != w.ledgers[2].fsm.published().at {
			t.Errorf("at %v, the master is at %v, %v", at, w.ledgers[2].fsm.published().at, err)
		}
		if noted, err := notedInstall(dir); err != nil || noted != at {
			t.Errorf("noted %v, %v", noted, err)
		}
	})
}

// TestSeed_DamagedOnItsWay: it does not become the records.
func TestSeed_DamagedOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 1, nil)
		w.mustDecide(first(), 20, "a")
		w.settle(1)
		dir := t.TempDir()
		line := &poorLine{w: w, damage: 9000}
		if err := line.seederAt(dir, 1).round(t.Context(), true); err == nil {
			t.Error("it was taken")
		}
		if _, err := os.Stat(filepath.Join(dir, "master.db")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is there: %v", err)
		}
		if err := line.seederAt(dir, 1).run(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestSeed_GivesUp: with nobody there it says so, and with ctx it ends.
func TestSeed_GivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLab(t, 1, nil)
		line := &poorLine{w: w}
		if err := line.seederAt(t.TempDir()).run(t.Context()); crm.CodeOf(err) != crm.CodeUnavailable {
			t.Errorf("without a master: %v", err)
		}
		w.kill(w.ledgers[1])
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := line.seederAt(t.TempDir(), 1).run(ctx); err == nil {
			t.Error("a dead master gave records")
		}
	})
}

// TestSeed_AMasterJoins: as a node does it. A master whose files are gone gets
// none: it would vote again on what it had forgotten.
func TestSeed_AMasterJoins(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		_, cert, err := r.join(r.token("hq", auth.RoleMaster), auth.RoleMaster, func(j *syncproto.Join) {
			j.Sync, j.Raft = syncAddress(3), raftAddress(3)
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		peers, err := r.leader().ListPeers(t.Context())
		if err != nil || len(peers) != 2 {
			t.Errorf("a master that does not run is in Raft: %v, %v", peers, err)
		}
		m := &rigMaster{cert: cert, dir: t.TempDir()}
		cfg := Config{Dir: m.dir, Node: cert, CA: r.ca, Dial: r.net.Host(rigCities[0], "m3").Dial}
		if err := Seed(t.Context(), cfg, []string{raftAddress(1), raftAddress(2)}); err != nil {
			t.Fatal(err)
		}
		before := r.leader().ledger.head()
		r.start(m, 3)
		if got := m.ledger.head(); got < before-2 {
			t.Errorf("it starts at rev %d, the leader is at %d", got, before)
		}
		r.waitFor("it to vote", func() bool {
			peers, err := r.leader().ListPeers(t.Context())
			return err == nil && len(peers) == 3 && peers[2].Suffrage == "voter"
		})
		r.commit(m, createAccount(newID(), "Fjord AS", "north"))

		r.kill(m)
		cfg.Dir, cfg.Dial = t.TempDir(), m.host.Revive().Dial
		if err := Seed(t.Context(), cfg, []string{raftAddress(1)}); crm.CodeOf(err) != CodeDistrusted {
			t.Errorf("a voter without files is told %v", err)
		}
	})
}

// The certificate of a master that was removed fetches no records any more.
func TestSeed_RefusesARemovedMaster(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		_, cert, err := r.join(r.token("hq", auth.RoleMaster), auth.RoleMaster, func(j *syncproto.Join) {
			j.Sync, j.Raft = syncAddress(2), raftAddress(2)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.leader().RemoveNode(t.Context(), "admin", 2); err != nil {
			t.Fatal(err)
		}
		cfg := Config{Dir: t.TempDir(), Node: cert, CA: r.ca, Dial: r.net.Host(rigCities[0], "m2").Dial}
		wantCode(t, Seed(t.Context(), cfg, []string{raftAddress(1)}), CodeDistrusted)
		if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) > 0 {
			t.Errorf("it has %v, %v", left, err)
		}
	})
}
