package replica

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// A person looks the records up that a list of losses names: by the id that the
// commands take.
func TestLoss_NamesTheRecordAsCommandsDo(t *testing.T) {
	m := newScripted(t)
	m.view(func(tx *store.Tx) {
		stamp := crm.Stamp{Rev: 9, Node: 1, Actor: "ana"}
		old := &crm.Record{Entity: catalog.Account, ID: crm.RecordID{1, 15: 2}, Stamp: stamp, Cells: []crm.Cell{{Field: accName, Value: crm.TextValue("Fjord"), Stamp: stamp}}}
		l := &lost{fork: 5}
		l.compare(tx.Schema(), old, nil, nil)
		if len(l.losses) != 1 {
			t.Fatalf("losses: %+v", l.losses)
		}
		line, err := json.Marshal(l.losses[0])
		if want := `"record":"` + old.ID.String() + `"`; err != nil || !strings.Contains(string(line), want) {
			t.Errorf("%s does not hold %s: %v", line, want, err)
		}
	})
}
