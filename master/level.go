package master

import (
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// levelTimelines is the level of decision logic from which on Mutations name
// their Timeline: every voter decodes version 2.
const levelTimelines = 2

// levelRelays is the level from which on a node may say in its own record where
// it serves others.
const levelRelays = 3

// speech returns what the masters' own edits are written in: the lineage of the
// records, and whether every voter reads that a Mutation names its Timeline.
func speech(tx *store.Tx) (l crm.Lineage, named bool, err error) {
	level, err := session.LevelIn(tx)
	if err != nil {
		return l, false, err
	}
	l, err = tx.Lineage()
	return l, level >= levelTimelines, err
}
