package replica

import (
	"errors"
	"maps"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// errUntold says that the base does not hold what a relay must know of the nodes
// below, and that the node above does not tell it any more.
var errUntold = errors.New("the relay was not told of the nodes below while it applied what they made")

// keepCircle keeps what the batch says of the nodes that this relay could serve.
// What it knows of them is whole: from the batch that begins to tell of them on,
// each batch is applied together with what it says of them. Where that was broken
// the base forgets them, and nobody is served.
//
// From the same batch on the base has every tombstone and marker; of a territory
// of which something came whole later, from there on.
func (c *change) keepCircle(position) error {
	self := c.r.cfg.ID.Node
	_, known, err := c.tx.Node(self)
	if err != nil {
		return err
	}
	if !c.told && !c.tells(self) {
		if !known {
			return nil
		}
		return c.tx.ClearNodes()
	}
	if !known && c.batch.From > 0 {
		new, err := c.turnedRelay(self)
		if err != nil {
			return err
		}
		if !new {
			return errUntold
		}
	}
	if err := serving.RaiseLevel(c.tx, c.version); err != nil {
		return err
	}
	for _, n := range c.batch.Nodes {
		if err := c.tx.SetNode(store.NodeState{Node: n.Node, Incarnation: n.Incarnation, LastSeq: n.LastSeq, LastHash: n.LastHash}); err != nil {
			return err
		}
	}
	if known {
		fresh := slices.Concat(c.whole, slices.Collect(maps.Keys(c.buckets)))
		return serving.Complete(c.tx, fresh, c.batch.To)
	}
	a, err := authorOf(c.tx, c.r.cfg.ID.Site)
	if err != nil {
		return err
	}
	return serving.Complete(c.tx, a.holds, c.batch.To)
}

// untold has the base fetched anew, which tells of everything.
func (r *Replica) untold(cause error) error {
	r.cfg.Logger.Error("the base is fetched anew, edits stay", "cause", cause)
	r.cfg.Metrics.resync.WithLabelValues("untold").Inc()
	return errors.Join(cause, r.resetBase())
}

// tells reports whether the batch tells of the node, which it does of this one
// when it begins to tell of all.
func (c *change) tells(self crm.NodeID) bool {
	return c.r.relay != nil && slices.ContainsFunc(c.batch.Nodes, func(n syncproto.NodeState) bool { return n.Node == self })
}

// turnedRelay reports whether this node became a relay within the batch: the node
// above has then told it of the nodes below from their beginning.
func (c *change) turnedRelay(self crm.NodeID) (bool, error) {
	ros, err := new(serving.Rosters).At(c.tx) // what is cached is of before the batch
	if err != nil {
		return false, err
	}
	return ros.Nodes[self].Since > c.batch.From, nil
}

// trim drops the tombstones and markers that nobody needs any more.
func (c *change) trim(position) error {
	if c.batch.Trimmed == 0 {
		return nil
	}
	n, err := serving.Trim(c.tx, c.batch.Trimmed)
	if n > 0 {
		c.r.cfg.Logger.Info("tombstones and markers were dropped", "upto", c.batch.Trimmed, "dropped", n)
	}
	return err
}
