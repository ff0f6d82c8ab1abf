package replica

import (
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// listed returns the addresses of the masters that the base knows: those that have
// joined since the last Welcome are among them.
func (r *Replica) listed() (out []string) {
	err := r.base.View(func(tx *store.Tx) error {
		for rec, err := range tx.Scan(crm.EntityNode) {
			if err != nil {
				return err
			}
			if rec.Value(crm.NodeRole).Str() == "master" && rec.Value(crm.NodeStatus).Str() != "removed" {
				out = append(out, rec.Value(crm.NodeSync).Str())
			}
		}
		return nil
	})
	if err != nil {
		r.cfg.Logger.Warn("the masters could not be read from the base", "error", err)
	}
	return out
}
