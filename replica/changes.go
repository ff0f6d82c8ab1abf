package replica

import (
	"context"

	"github.com/tradepost-crm/tradepost/crm"
)

// Subscribe returns the changes from now on, each after it can be read: edits
// taken here with Rev Pending, and decisions. See [store.Subscribers] for when
// the channel is closed. A bootstrap and a territory that comes whole may bring
// records without a change.
func (r *Replica) Subscribe(ctx context.Context) <-chan crm.Change { return r.changes.Subscribe(ctx) }
