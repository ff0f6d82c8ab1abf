package session

import (
	"slices"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

func TestPlace_OrdersEntries(t *testing.T) {
	low, high := crm.RecordID{1}, crm.RecordID{2}
	ordered := []place{{}, {rev: 1}, {rev: 1, entity: 1, id: low}, {rev: 1, entity: 1, id: high}, {rev: 1, entity: 1, id: high, territory: 3}, {rev: 1, entity: 2}, atEnd(1), {rev: 2}}
	if !slices.IsSortedFunc(ordered, place.compare) {
		t.Error("places are out of order")
	}
}
