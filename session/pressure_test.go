package session_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

const accText = crm.FieldID(33)

// A slowDisk lets each commit of the masters' file take a while.
type slowDisk struct{ takes atomic.Int64 }

func (d *slowDisk) disk() *store.Disk {
	return &store.Disk{After: func(op store.DiskOp, path string) {
		if op == store.DiskCommit && filepath.Base(path) == "master.db" {
			time.Sleep(time.Duration(d.takes.Load()))
		}
	}}
}

// open opens a branch of its own that runs until ctx ends.
func (s *storm) open(ctx context.Context, wg *sync.WaitGroup, n int) *replica.Replica {
	s.t.Helper()
	id := s.nodes[n]
	r, err := replica.Open(replica.Config{Dir: s.t.TempDir(), ID: replica.ID{Cluster: "c1", Site: id.Site, Node: crm.NodeID(id.Node)},
		Store: store.Options{NoSync: true, InitialMmap: 1 << 20}, Masters: func() []string { return []string{"m1:7300"} },
		Dial: func(context.Context, string) (net.Conn, error) {
			if s.cut.Load() {
				return nil, errors.New("the line is cut")
			}
			near, far := net.Pipe()
			wg.Go(func() {
				defer far.Close()
				s.srv.Serve(ctx, far, syncproto.NewConn(far), id)
			})
			return near, nil
		}})
	s.must(err)
	wg.Go(func() {
		if err := r.Run(ctx); err != nil && ctx.Err() == nil {
			s.t.Errorf("branch %d: %v", n, err)
		}
	})
	return r
}

// TestBackPressure: many branches push more than the node may hold while its disk
// takes seconds for each decision. What is held stays bounded, branches are told
// to wait, every edit is acknowledged at once where it is made, and when the disk
// has recovered all is decided, once.
func TestBackPressure(t *testing.T) {
	const branches, offline, edits, size = 24, 128, 158, 8 << 10 // the first 128 are 24 MiB, and the node holds 16
	synctest.Test(t, func(t *testing.T) {
		var disk slowDisk
		s := newStormOn(t, disk.disk())
		for i := range branches {
			code := fmt.Sprint("t", i)
			s.office(s.create(crm.EntityTerritory, crm.TerritoryCode, crm.TextValue(code), crm.TerritoryName, crm.TextValue(code)))
			s.addSite(fmt.Sprint("site-", i), code)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var open []*replica.Replica
		for i := range branches {
			open = append(open, s.open(ctx, &wg, i))
		}
		defer func() {
			cancel()
			wg.Wait()
			for _, r := range open {
				s.must(r.Close())
			}
		}()
		s.await("all sessions", func() bool {
			return all(open, func(r *replica.Replica) bool { return r.Status().Connected })
		})

		s.cut.Store(true)
		s.srv.EndAll(errors.New("the line is cut"))
		s.mu.Lock()
		record := s.account("")
		s.mu.Unlock()
		head, body := s.fsm.Head(), strings.Repeat("x", size)
		// edit makes edit number i of every branch and returns the longest wait.
		edit := func(i int) (slowest time.Duration) {
			for n, r := range open {
				op := record
				op.Record[7], op.Record[8] = byte(i), 0x80|byte(n)
				op.Cells = []crm.Input{{Field: accName, Value: crm.TextValue(fmt.Sprint(n, " ", i))}, {Field: accText, Value: crm.TextValue(body)}}
				asked := time.Now()
				_, err := r.Commit(ctx, crm.Request{Actor: "bea", Intent: "test", Ops: []crm.Op{op}})
				s.must(err)
				slowest = max(slowest, time.Since(asked))
			}
			return slowest
		}
		for i := range offline {
			edit(i)
		}
		runtime.GC()
		before, peak, start, slowest := heapNow(), uint64(0), time.Now(), time.Duration(0)
		disk.takes.Store(int64(2 * time.Second))
		s.cut.Store(false)
		for i := range edits - offline {
			time.Sleep(time.Second)
			slowest = max(slowest, edit(offline+i))
			if i%10 == 5 {
				runtime.GC()
				peak = max(peak, heapNow())
			}
		}
		waiting := 0
		for _, r := range open {
			waiting += r.Status().Outbox.Entries
		}
		busy := s.refusal.of(crm.CodeUnavailable)
		disk.takes.Store(0)
		s.await("all edits to be decided", func() bool {
			return all(open, func(r *replica.Replica) bool {
				_, decided, err := r.Outcome(edits)
				return err == nil && decided
			})
		})
		if got := s.fsm.Head() - head; got != branches*edits {
			t.Errorf("%d decisions, want %d", got, branches*edits)
		}
		grew := int64(peak) - int64(before)
		t.Logf("%d branches with %d KiB each: slowest acknowledgement %v, %d edits waited after %v, %d pushes turned away, live heap at most %d MiB more with both ends, all decided after %v",
			branches, edits*size>>10, slowest, waiting, (edits-offline)*time.Second, busy, grew>>20, time.Since(start).Round(time.Second))
		if slowest > 100*time.Millisecond {
			t.Errorf("an edit was acknowledged after %v", slowest)
		}
		if busy == 0 || waiting == 0 {
			t.Errorf("%d pushes were turned away and %d edits waited: there was no pressure", busy, waiting)
		}
		if bound := int64(128 << 20); grew > bound {
			t.Errorf("the heap grew by %d MiB, want at most %d", grew>>20, bound>>20)
		}
	})
}

// await waits for ok, up to an hour.
func (s *storm) await(what string, ok func() bool) {
	s.t.Helper()
	for range 36_000 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("waited an hour in vain for %s", what)
}

func all[T any](list []T, ok func(T) bool) bool {
	for _, x := range list {
		if !ok(x) {
			return false
		}
	}
	return true
}

func heapNow() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
