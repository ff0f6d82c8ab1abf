package replica

import (
	"cmp"
	"errors"
	"slices"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
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

// That a node became a relay is seen in the batch that says so, also where the
// records before it were read just then, as Announce does.
func TestCircle_TurnedRelayAfterALook(t *testing.T) {
	r := open(t, newScripted(t), t.TempDir())
	at := func(rev crm.Rev, sync string) func(*store.Tx) error {
		return func(tx *store.Tx) error {
			stamp := crm.Stamp{Rev: rev}
			cells := []crm.Cell{{Field: crm.NodeNumber, Value: crm.IntegerValue(int64(replicaN)), Stamp: stamp}, {Field: crm.NodeSync, Value: crm.TextValue(sync), Stamp: stamp}}
			slices.SortFunc(cells, func(a, b crm.Cell) int { return cmp.Compare(a.Field, b.Field) })
			return tx.Put(&crm.Record{Entity: crm.EntityNode, ID: crm.RecordID{1, 15: 1}, Territory: crm.Shared, Entered: 2, Stamp: stamp, Cells: cells})
		}
	}
	err := r.base.Update(func(tx *store.Tx) error { return errors.Join(at(2, "")(tx), tx.SetRev(4)) })
	if err != nil {
		t.Fatal(err)
	}
	look := func() serving.NodeFacts {
		t.Helper()
		var facts serving.NodeFacts
		err := r.base.View(func(tx *store.Tx) error {
			ros, err := r.rosters.At(tx)
			if err == nil {
				facts = ros.Nodes[replicaN]
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return facts
	}
	if got := look(); got.Since != 2 || got.Sync != "" {
		t.Fatalf("before the batch: %+v", got)
	}
	err = r.base.Update(func(tx *store.Tx) error {
		if err := at(6, "lisbon:7400")(tx); err != nil {
			return err
		}
		c := &change{r: r.Replica, tx: tx, batch: &syncproto.Batch{From: 4, To: 6}}
		if turned, err := c.turnedRelay(replicaN); err != nil || !turned {
			t.Errorf("within the batch: %v %v", turned, err)
		}
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		t.Fatal(err)
	}
	if got := look(); got.Since != 2 {
		t.Errorf("what was not committed is remembered: %+v", got)
	}
}

var errRollback = errors.New("roll back")
