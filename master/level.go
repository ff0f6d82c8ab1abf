package master

import (
	"context"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// levelTimelines is the level of decision logic from which on Mutations name
// their Timeline: every voter decodes version 2.
const levelTimelines = 2

// levelRelays is the level from which on a master may be kept from voting.
const levelRelays = 3

// levelPoison is the level from which on a Mutation may be logged as poison.
const levelPoison = 3

// levelBackups is the level from which on backups are announced.
const levelBackups = 2

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

// activate turns on a level. A master that does not know it halts: it would go
// another way than the others.
func (f *FSM) activate(e ActivateEntry) error {
	if err := f.knows(e.Level); err != nil {
		return err
	}
	return f.raise(session.MetaLevel, e.Level)
}

// knows returns an error of code protocol_version for a level above this
// master's.
func (f *FSM) knows(level uint64) error {
	if level <= uint64(f.cfg.Level) {
		return nil
	}
	return &crm.Error{Code: syncproto.CodeVersion, Op: "decide", Item: f.data.Path(), Message: fmt.Sprintf(
		"the masters have activated version %d, and this one knows %d at most; a cluster does not go back: upgrade this program, or raise its setting protocol", level, f.cfg.Level)}
}

// tendLevel activates the newest level that every master knows. All that Raft
// lists are asked, not only those that vote: each of them applies the log.
func (m *Master) tendLevel(ctx context.Context) error {
	var level uint16
	err := m.ledger.db().View(func(tx *store.Tx) (err error) {
		level, err = session.LevelIn(tx)
		return err
	})
	if err != nil || level >= m.cfg.Protocol {
		return err
	}
	known, err := m.knownLevel(ctx)
	if err != nil || known <= level {
		return err
	}
	m.log.Info("every master knows a newer version; it is activated", "version", known, "was", level)
	_, _, err = m.ledger.propose(ctx, ActivateEntry{Level: uint64(known)})
	return err
}

// knownLevel returns the newest level that every master of Raft's configuration
// knows, by what it says on a connection of now.
func (m *Master) knownLevel(ctx context.Context) (uint16, error) {
	servers, _, err := m.ledger.servers()
	if err != nil {
		return 0, err
	}
	known := m.cfg.Protocol
	for _, s := range servers {
		n := nodeOf(s.ID)
		if n == m.node {
			continue
		}
		knows, err := m.links.to(n).Knows(ctx)
		if err != nil {
			return 0, fmt.Errorf("ask %s which version it knows: %w", s.ID, err)
		}
		known = min(known, knows)
	}
	return known, nil
}
