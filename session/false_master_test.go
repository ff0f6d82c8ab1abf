package session_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// inBatch makes a master lie in its final batches.
func inBatch(lie func(*world, *syncproto.Batch)) func(*world, syncproto.Frame) []syncproto.Frame {
	return func(w *world, f syncproto.Frame) []syncproto.Frame {
		if b, ok := f.(*syncproto.Batch); ok {
			lie(w, b)
		}
		return []syncproto.Frame{f}
	}
}

// inRecord makes a master lie about the one record that a batch carries, which
// then proves nothing.
func inRecord(lie func(*world, *crm.Record)) func(*world, syncproto.Frame) []syncproto.Frame {
	return inBatch(func(w *world, b *syncproto.Batch) {
		for i := range b.Items {
			it := &b.Items[i]
			rec, err := crm.DecodeRecord(it.Entity, it.ID, it.Body)
			w.must(err)
			lie(w, rec)
			it.Body = crm.AppendRecord(nil, rec)
		}
		b.Digests = nil
	})
}

// before makes a master say something first.
func before(lies ...syncproto.Frame) func(*world, syncproto.Frame) []syncproto.Frame {
	return func(_ *world, f syncproto.Frame) []syncproto.Frame { return append(slices.Clone(lies), f) }
}

// What a master may say that cannot be: the base stays the prefix it was, the
// edit that waits stays in the outbox, and is decided once when the master is
// honest again.
func TestAdversary_Master(t *testing.T) {
	restamp := func(rev crm.Rev) func(*world, *crm.Record) {
		return func(_ *world, r *crm.Record) {
			r.Stamp.Rev = rev
			for i := range r.Cells {
				r.Cells[i].Stamp.Rev = rev
			}
		}
	}
	for _, tt := range []struct {
		name string
		lie  func(*world, syncproto.Frame) []syncproto.Frame
		code crm.Code // why the branch ends the session; "": it goes on
	}{
		{"a batch that goes back", inBatch(func(_ *world, b *syncproto.Batch) { b.From, b.To = b.From-2, b.To-2 }), syncproto.CodeFrame},
		{"a batch that leaves out a rev", inBatch(func(_ *world, b *syncproto.Batch) { b.From++; b.To++ }), syncproto.CodeFrame},
		{"a batch of another timeline", inBatch(func(_ *world, b *syncproto.Batch) { b.Timeline++ }), syncproto.CodeFrame},
		{"it decides an edit that was never made", inBatch(func(_ *world, b *syncproto.Batch) { b.Decided = 1 << 40 }), syncproto.CodeFrame},
		{"it takes a decision back", inBatch(func(_ *world, b *syncproto.Batch) { b.Decided = 0 }), syncproto.CodeFrame},
		{"an outcome of an edit that was never made", inBatch(func(_ *world, b *syncproto.Batch) {
			b.Outcomes = []crm.Outcome{{Node: branchNode, Seq: 99, Rev: b.To, Kind: crm.Rejected, Code: crm.CodeInvalid}}
		}), syncproto.CodeFrame},
		{"a record of a rev to come", inRecord(restamp(1 << 40)), syncproto.CodeFrame},
		{"a record that is pending", inRecord(restamp(crm.Pending)), syncproto.CodeFrame},
		{"a record that goes back", inRecord(restamp(1)), syncproto.CodeFrame},
		{"bytes that are no record", inBatch(func(_ *world, b *syncproto.Batch) { b.Items[0].Body = []byte{1, 2, 3} }), syncproto.CodeFrame},
		{"a tombstone that lives", inBatch(func(_ *world, b *syncproto.Batch) { b.Items[0].Kind = syncproto.ItemDeleted }), syncproto.CodeFrame},
		{"a record that is another one's part", inBatch(func(_ *world, b *syncproto.Batch) { b.Items[0].ID[15]++; b.Items[0].Partial = true }), crm.CodeInternal},
		{"a record of no entity", inBatch(func(_ *world, b *syncproto.Batch) { b.Items[0].Entity = 60_000 }), crm.CodeInternal},
		{"another value", inBatch(func(w *world, b *syncproto.Batch) {
			rec, err := crm.DecodeRecord(b.Items[0].Entity, b.Items[0].ID, b.Items[0].Body)
			w.must(err)
			rec.Cells[0].Value = crm.TextValue("forged")
			b.Items[0].Body = crm.AppendRecord(nil, rec)
		}), crm.CodeInternal},
		{"a removed record", inBatch(func(_ *world, b *syncproto.Batch) { b.Items = nil }), crm.CodeInternal},
		{"a Hello", before(&syncproto.Hello{NextSeq: 1}), syncproto.CodeFrame},
		{"a Push", before(&syncproto.Push{First: 1, Mutations: [][]byte{make([]byte, 64)}}), syncproto.CodeFrame},
		{"a second Welcome", before(&syncproto.Welcome{Proto: 1, Timeline: 99, Incarnation: 9}), syncproto.CodeFrame},
		{"it took what was not sent", before(&syncproto.Pushed{Seq: 1 << 40}), ""},
		{"it waits for what was never made", before(&syncproto.Gap{Expected: 1 << 40}), ""},
		{"it is busy for an hour", before(&syncproto.Busy{RetryAfterMillis: 3_600_000}), ""},
		{"answers to what was not asked", before(&syncproto.Answer{ID: 99, Rev: crm.Pending - 1}, &syncproto.Heartbeat{Reply: true, ID: 99}), ""},
		{"a flood of questions", before(slices.Repeat([]syncproto.Frame{&syncproto.Heartbeat{T1: 1}}, 10_000)...), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			account := w.create(catalog.Account, accName, crm.TextValue("NORTHERN"), accTerr, crm.TextValue("north"))
			w.office(account)
			w.must(w.connect())
			w.must(w.pass(time.Second))
			w.commit(w.account("decided"))
			w.must(w.pass(time.Second))
			cursor := w.branch.Status().Cursor

			w.office(crm.Op{Kind: crm.OpPatch, Entity: catalog.Account, Record: account.Record, Seen: crm.Token{Timeline: 7, Rev: cursor},
				Cells: []crm.Input{{Field: accName, Value: crm.TextValue("Renamed")}}})
			w.mangle = func(f syncproto.Frame) []syncproto.Frame { return tt.lie(w, f) }
			err := w.deliverOne()
			if (err != nil) != (tt.code != "") || err != nil && crm.CodeOf(err) != tt.code {
				t.Errorf("ended with %v, want %q", err, tt.code)
			}
			if s := w.branch.Status(); err != nil && s.Cursor != cursor || s.Decided != 1 {
				t.Errorf("the base went from %d on to %d, %d edits decided", cursor, s.Cursor, s.Decided)
			}
			seq := w.commit(w.account("waits"))
			w.mangle = nil
			if tt.code != "" {
				w.must(w.connect())
			}
			w.must(w.pass(2 * time.Minute))
			w.equal()
			if o, ok, err := w.branch.Outcome(seq); err != nil || !ok || o.Kind != crm.Accepted {
				t.Errorf("the edit that waited: %+v %v %v", o, ok, err)
			}
		})
	}
}

// deliverOne has the master send what is due, once.
func (w *world) deliverOne() error {
	w.t.Helper()
	act, err := w.down.Due()
	return w.do(act, err)
}

// A master that feeds a territory that the branch was not granted: nothing of it
// can be read, and its bytes are removed.
func TestAdversary_MasterFeedsAForeignTerritory(t *testing.T) {
	w := newWorld(t)
	w.must(w.connect())
	w.must(w.pass(time.Second))
	w.office(w.create(catalog.Account, accName, crm.TextValue("x"), accTerr, crm.TextValue("north")))
	lie := inRecord(func(_ *world, r *crm.Record) { r.Territory = 99 })
	w.mangle = func(f syncproto.Frame) []syncproto.Frame { return lie(w, f) }
	w.must(w.deliverOne())
	found, err := w.branch.Check(t.Context())
	if err != nil || len(found) > 0 {
		t.Errorf("check: %+v %v", found, err)
	}
	accounts := 0
	_, err = w.branch.Read(t.Context(), crm.Demand{}, func(r *store.Reader) (err error) {
		accounts, err = r.Count(catalog.Account)
		return err
	})
	if err != nil || accounts != 0 {
		t.Errorf("%d accounts can be read, %v", accounts, err)
	}
}

// A Welcome that cannot be is not believed: nothing of the node's files changes.
func TestAdversary_Welcome(t *testing.T) {
	for _, tt := range []struct {
		name string
		lie  func(*syncproto.Welcome)
	}{
		{"a head below the Cursor", func(w *syncproto.Welcome) { w.Head = 1 }},
		{"a backup above the head", func(w *syncproto.Welcome) { w.Backup = w.Head + 1 }},
		{"no incarnation", func(w *syncproto.Welcome) { w.Incarnation = 0 }},
		{"a version that was not offered", func(w *syncproto.Welcome) { w.Proto = 99 }},
		{"more chain hashes than edits", func(w *syncproto.Welcome) { w.Trail = make([]crm.ChainHash, 2) }},
		{"another history", func(w *syncproto.Welcome) { w.LastHash[0]++ }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.connect())
			w.must(w.pass(time.Second))
			w.commit(w.account("one"))
			w.must(w.pass(time.Second))
			w.hangUp()
			before, err := w.branch.Hello()
			w.must(err)
			answer := w.judge(before).(*syncproto.Welcome)
			tt.lie(answer)
			if _, err := w.branch.Greeted(before, answer, w.clock); err == nil {
				t.Error("it was believed")
			}
			after, err := w.branch.Hello()
			w.must(err)
			if after.Cursor != before.Cursor || after.NextSeq != before.NextSeq || after.Chain != before.Chain || after.Incarnation != before.Incarnation {
				t.Errorf("the node was %+v and is %+v", before, after)
			}
			w.must(w.connect())
			w.must(w.pass(time.Second))
			w.equal()
		})
	}
}
