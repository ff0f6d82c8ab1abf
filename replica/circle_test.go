package replica

import (
	"errors"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// What is staged about a record's state and about its leaving territories is kept
// apart, and read back as it came.
func TestStage_LeavingIsKeptApart(t *testing.T) {
	r := open(t, newScripted(t), t.TempDir())
	id := crm.RecordID{1, 15: 2}
	items := []syncproto.Item{
		{Kind: syncproto.ItemLeft, Entity: 20, ID: id, Rev: 3},
		{Kind: syncproto.ItemLeft, Entity: 20, ID: id, Rev: 5, Territory: 16},
		{Kind: syncproto.ItemRecord, Partial: true, Entity: 20, ID: id, Body: []byte{1, 2}},
		{Kind: syncproto.ItemLeft, Entity: 20, ID: id, Rev: 7, Territory: 17},
		{Kind: syncproto.ItemLeft, Entity: 20, ID: id, Rev: 9, Territory: 16},
	}
	want := []syncproto.Item{items[2], items[4], items[3]}
	var got []syncproto.Item
	err := r.base.Update(func(tx *store.Tx) error {
		for i := range items {
			if err := stageItem(tx, &items[i]); err != nil {
				return err
			}
		}
		for s, err := range tx.Staged() {
			if err != nil {
				return err
			}
			it, err := unstageItem(s)
			if err != nil {
				return err
			}
			got = append(got, it)
		}
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range got {
		if string(got[i].Body) != string(want[i].Body) || got[i].Kind != want[i].Kind || got[i].Partial != want[i].Partial || got[i].Rev != want[i].Rev || got[i].Territory != want[i].Territory || got[i].ID != id {
			t.Errorf("item %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

var errRollback = errors.New("roll back")
