package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tradepost-crm/tradepost/crm"
)

func TestLineage(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	want := func(l crm.Lineage) {
		t.Helper()
		read(t, db, j, func(r *Reader) error {
			got, err := r.Lineage()
			timeline, err2 := r.base.Timeline()
			if d := cmp.Diff(l, got); d != "" || err != nil || err2 != nil || timeline != l.Timeline {
				t.Errorf("timeline %d, %v, %v (-want +got):\n%s", timeline, err, err2, d)
			}
			return nil
		})
	}
	want(crm.Lineage{})
	update(t, db, func(tx *Tx) error { return tx.SetTimeline(7) })
	want(crm.Lineage{Timeline: 7})
	past := crm.Lineage{Timeline: 30, Forks: []crm.Fork{{Timeline: 10, Rev: 100}, {Timeline: 20, Rev: 150}}}
	update(t, db, func(tx *Tx) error { return tx.SetLineage(past) })
	want(past)
	update(t, db, func(tx *Tx) error { return tx.SetTimeline(30) })
	want(past)
	update(t, db, func(tx *Tx) error { return tx.SetTimeline(40) })
	want(crm.Lineage{Timeline: 40})
	checkBase(t, db)

	update(t, db, func(tx *Tx) error { return tx.SetMeta(metaLineage, []byte("damaged")) })
	view(t, db, func(tx *Tx) error {
		if _, err := tx.Lineage(); crm.CodeOf(err) != crm.CodeCorrupt {
			t.Errorf("a damaged lineage: %v", err)
		}
		return nil
	})
}

// A token names the timeline of the base it was read from, and the node only
// while the record shows an edit pending there.
func TestReader_Token(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	put(t, db, account(1, 16, 12, "decided"), account(2, 16, 13, "before"))
	update(t, db, func(tx *Tx) error { return tx.SetTimeline(1<<40 | 9) })
	edited := account(2, 16, crm.Pending, "after")
	edited.Stamp.Node, edited.Stamp.Seq = 3, 7
	edited.Cells[0].Stamp.Rev = 13
	view(t, db, func(tx *Tx) error {
		updateJournal(t, j, func(jtx *JTx) error { return jtx.PutOverlay(tx.Schema(), edited) })
		return nil
	})
	read(t, db, j, func(r *Reader) error {
		for id, want := range map[crm.RecordID]crm.Token{
			recordID(1): {Timeline: 9, Rev: 12},
			recordID(2): {Timeline: 9, Node: 3, Rev: 13, Seq: 7},
		} {
			rec, err := r.Record(entityAccount, id)
			if err != nil {
				return err
			}
			if got := r.Token(rec); got != want {
				t.Errorf("token %+v, want %+v", got, want)
			}
		}
		return nil
	})
	view(t, db, func(tx *Tx) error {
		rec, err := tx.Record(entityAccount, recordID(2))
		if err != nil {
			return err
		}
		if got, err := tx.Token(rec); got != (crm.Token{Timeline: 9, Rev: 13}) || err != nil {
			t.Errorf("decided: %+v, %v", got, err)
		}
		return nil
	})
}
