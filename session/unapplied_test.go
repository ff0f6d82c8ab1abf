package session_test

import (
	"fmt"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A replica that is slower than the masters is not sent one batch for each of
// their commits: beyond some thousand items, two batches wait at it and the rest
// comes in one. One that has little to apply is sent every commit at once.
func TestTalk_WhatASlowReplicaMissesComesInOne(t *testing.T) {
	w := newWorld(t)
	w.must(w.connect())
	w.must(w.pump())
	decide := func(items int) {
		for left := items; left > 0; left -= 250 {
			var ops []crm.Op
			for range min(left, 250) {
				ops = append(ops, w.create(catalog.Account, accName, crm.TextValue(fmt.Sprint(left)), accTerr, crm.TextValue("north")))
			}
			w.office(ops...)
		}
	}
	due := func() (batches []*syncproto.Batch) {
		act, err := w.down.Due()
		w.must(err)
		for _, f := range act.Send {
			if b, ok := f.(*syncproto.Batch); ok {
				batches = append(batches, b)
			}
		}
		return batches
	}
	for i := range 10 {
		decide(5)
		b := due()
		if len(b) != 1 || len(b[0].Items) != 5 {
			t.Fatalf("small commit %d is not sent at once: %v", i, b)
		}
		w.must(w.descend(b[0]))
	}
	w.must(w.pump())

	var waiting []*syncproto.Batch
	for i := range 5 {
		decide(1000)
		b := due()
		if sent := len(b) == 1; sent != (i < 2) {
			t.Fatalf("commit %d of 1,000 items: %d batches are sent", i, len(b))
		}
		waiting = append(waiting, b...)
	}
	w.must(w.descend(waiting[0]))
	if b := due(); len(b) > 0 {
		t.Fatal("a batch is sent before the replica reports")
	}
	reports, err := w.up.Due()
	w.must(err)
	for _, f := range reports {
		w.must(w.ascend(f))
	}
	w.must(w.descend(waiting[1])) // it comes first on the line
	items, final := 0, 0
	for range 5 { // parts of one
		for _, b := range due() {
			if items += len(b.Items); b.Final {
				final++
			}
			w.must(w.descend(b))
		}
	}
	if items != 3000 || final != 1 {
		t.Errorf("once it has room the replica is sent %d items in %d batches", items, final)
	}
	w.must(w.pump())
	w.equal()
}
