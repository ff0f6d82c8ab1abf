package replica

import (
	"os"
	"path/filepath"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A backup is the masters' file and what they had of the branch.
type backup struct {
	path string
	node store.NodeState
	fork crm.Rev
}

// backup takes one, of masters that have heard of the branch.
func (b *branch) backup(m *scripted) backup {
	b.t.Helper()
	raw, err := os.ReadFile(m.db.Path())
	b.want(err, nil)
	out := backup{filepath.Join(b.t.TempDir(), "backup.db"), *m.states[replicaN], m.head()}
	b.want(os.WriteFile(out.path, raw, 0o600), nil)
	return out
}

// restore brings the masters, which must be cut off, back to the backup, as those
// of timeline 2.
func (b *branch) restore(m *scripted, from backup, version uint16) {
	b.t.Helper()
	b.want(m.db.Replace(from.path), nil)
	b.want(m.db.Update(func(tx *store.Tx) error {
		return tx.SetLineage(crm.Lineage{Timeline: 2, Forks: []crm.Fork{{Timeline: 1, Rev: from.fork}}})
	}), nil)
	m.set(func() { m.states[replicaN], m.timeline, m.proto = &from.node, 2, version })
}
