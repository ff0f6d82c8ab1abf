package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

const (
	opWireField    = "bytes to a branch for one field changed, TCP/IP included"
	opWireActivity = "bytes to a branch for an activity of 250 B created, TCP/IP included"
	opIdle         = "bytes to a branch on an idle link, TCP/IP included"
)

// wire measures what changes at head office cost on the way to a branch.
func (f *fed) wire(ctx context.Context) error {
	phone := func(n int) crm.Request { // of contacts that differ, or the feed would carry only the last state of one
		of := recordID(catalog.Contact, 1+n%f.size.contacts)
		return crm.Request{Actor: "bench", Intent: "contact.update", Ops: []crm.Op{{Kind: crm.OpPatch, Entity: catalog.Contact, Record: of,
			Seen: crm.Token{Rev: f.master.Status().Head}, Cells: []crm.Input{{Field: 27, Value: crm.PhoneValue(fmt.Sprintf("+%d%09d", 1+rand.IntN(98), rand.IntN(1e9)))}}}}}
	}
	activity := func(int) crm.Request { return newActivity(1+rand.IntN(f.size.big), someWords(14)) }
	for _, m := range []struct {
		operation string
		request   func(int) crm.Request
	}{{opWireField, phone}, {opWireActivity, activity}} {
		if !f.wants(m.operation) {
			continue
		}
		for _, together := range []int{1, 16, 256} {
			if err := f.send(ctx, m.operation, together, m.request); err != nil {
				return err
			}
		}
	}
	if f.wants(opWireField) || f.wants(opWireActivity) {
		f.note("wire: TLS records as written below TLS at both ends; each write counts as ⌈n/%d⌉ segments of %d B of IPv4 and TCP headers (timestamps); pure ACKs are not in it: at most one of %d B back for each segment", segment, segmentHeader, segmentHeader)
	}
	return nil
}

// someWords returns n random words of the data set, about 8 B each.
func someWords(n int) string {
	var list []string
	for range n {
		list = append(list, words[rand.IntN(len(words))])
	}
	return strings.Join(list, " ")
}

// send has changes decided together, waits until the branch has them and the
// link is quiet, and repeats that.
func (f *fed) send(ctx context.Context, operation string, together int, request func(int) crm.Request) error {
	times := f.edits
	if together > 1 {
		times = max(1, f.edits/4)
	}
	if err := f.quiet(ctx); err != nil {
		return err
	}
	before := f.link.read()
	for round := range times {
		rev, err := f.commitAll(ctx, together, func(n int) crm.Request { return request(round*together + n) })
		if err != nil {
			return err
		}
		if err := poll(ctx, func() error { return f.reached(rev) }); err != nil {
			return err
		}
		if err := f.quiet(ctx); err != nil {
			return err
		}
	}
	t, n := f.link.read().minus(before), int64(times*together)
	bound := int64(60)
	what := fmt.Sprintf("%d at once", together)
	if together == 1 {
		bound, what = 150, "alone"
	}
	f.add(row{operation: operation + ", " + what, ours: fmt.Sprintf("%d B (%d B of TLS in %.2f segments); back %d B", t.down.wire()/n, t.down.bytes/n, float64(t.down.segments)/float64(n), t.up.wire()/n),
		budget: fmt.Sprintf("≤ %d B", bound), met: t.down.wire()/n <= bound})
	return nil
}

func (f *fed) commitAll(ctx context.Context, together int, request func(int) crm.Request) (crm.Rev, error) {
	var mu sync.Mutex // protects last and failed
	var last crm.Rev
	var failed error
	var wg sync.WaitGroup
	for n := range together {
		wg.Go(func() {
			o, err := commit(ctx, f.master, request(n))
			mu.Lock()
			defer mu.Unlock()
			last = max(last, o.Rev)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	return last, failed
}

func (f *fed) reached(rev crm.Rev) error {
	if at := f.replica.Status().Cursor; at < rev {
		return fmt.Errorf("the branch is at %d, not at %d", at, rev)
	}
	return nil
}

// quiet waits until nothing has been sent for a while.
func (f *fed) quiet(ctx context.Context) error {
	for last := (traffic{}); ; {
		now := f.link.read()
		if now == last {
			return nil
		}
		last = now
		if err := wait(ctx, f.pause); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// idle watches the link while nobody does anything.
func (f *fed) idle(ctx context.Context) error {
	if !f.wants(opIdle) {
		return nil
	}
	if err := f.quiet(ctx); err != nil {
		return err
	}
	before, began := f.link.read(), time.Now()
	if err := wait(ctx, f.bench.idle); err != nil {
		return err
	}
	t, s := f.link.read().minus(before), time.Since(began).Seconds()
	down := float64(t.down.wire()) / s
	f.add(row{operation: opIdle, ours: fmt.Sprintf("%.1f B/s; back %.1f B/s, over %.0f s without gossip", down, float64(t.up.wire())/s, s), budget: "≤ 15 B/s", met: down <= 15})
	return nil
}
