package master

import (
	"context"
	"errors"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Scrub is one step of a background verification of the file, as
// [store.DB.Scrub] describes it. A master cannot mend itself: what it decides on
// damaged records is wrong for all. After a finding it stops, keeps its files, and
// is to be replaced. It returns how many findings there were.
func (m *Master) Scrub(ctx context.Context, from []byte, budget int) (next []byte, n int, err error) {
	next, found, err := m.ledger.db().Scrub(ctx, from, budget)
	if len(found) > 0 {
		m.ledger.distrust(&crm.Error{Code: crm.CodeCorrupt, Op: "scrub", Item: m.ledger.db().Path(),
			Message: fmt.Sprintf("%d findings, the first: %s", len(found), found[0])})
	}
	return next, len(found), err
}

// met looks at the error of somebody who read the file, which it returns. Damage
// ends this master as a finding of the scrub does.
func (m *Master) met(err error) error {
	if e, ok := errors.AsType[*crm.Error](err); ok && e.Code == crm.CodeCorrupt && e.Item == m.ledger.db().Path() {
		m.ledger.distrust(err)
	}
	return err
}

// FileStats describes the master's file.
func (m *Master) FileStats() store.Stats { return m.ledger.db().Stats() }
