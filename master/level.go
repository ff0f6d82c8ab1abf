package master

import (
	"encoding/binary"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// levelTimelines is the level of decision logic from which on Mutations name
// their Timeline: every voter decodes version 2.
const levelTimelines = 2

// levelIn returns the level that the log has activated, 0 if none was.
func levelIn(tx *store.Tx) (uint64, error) {
	b, err := tx.Meta(metaLevel)
	if err != nil || len(b) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// speech returns what the masters' own edits are written in: the lineage of the
// records, and whether every voter reads that a Mutation names its Timeline.
func speech(tx *store.Tx) (l crm.Lineage, named bool, err error) {
	level, err := levelIn(tx)
	if err != nil {
		return l, false, err
	}
	l, err = tx.Lineage()
	return l, level >= levelTimelines, err
}
