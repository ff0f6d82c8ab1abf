package replica

import (
	"context"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	// announceEvery is the time between two looks at the node's own record.
	announceEvery = 10 * time.Second
	// announceVersion is the version of the protocol from which on the masters let
	// a node say where it is reached.
	announceVersion = 3
)

// keepAnnounced makes the node's record say where it serves others, or that it
// does not. It says so once a session, in case the masters do not agree.
func (r *Replica) keepAnnounced(ctx context.Context) error {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	var in *Talk
	for {
		r.mu.Lock()
		t := r.link.talk
		r.mu.Unlock()
		if t != nil && t != in {
			done, err := r.Announce(ctx)
			if err != nil {
				r.cfg.Logger.Warn("the node's record was not brought up to date", "error", err)
			}
			if done || err != nil {
				in = t
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Announce makes the edit by which the node says where it serves others, or that
// it does not, and reports whether it had anything to say to the masters with
// whom it is in session. Run asks for it.
func (r *Replica) Announce(ctx context.Context) (done bool, err error) {
	r.mu.Lock()
	t := r.link.talk
	r.mu.Unlock()
	if t == nil || t.version < announceVersion || r.Ready() != nil {
		return false, nil
	}
	want := ""
	if r.cfg.Relay != nil {
		want = r.cfg.Relay.Address
	}
	var own serving.NodeFacts
	err = r.base.View(func(tx *store.Tx) error {
		ros, err := r.rosters.At(tx)
		if err == nil {
			own = ros.Nodes[r.cfg.ID.Node]
		}
		return err
	})
	if err != nil || !own.Active || own.Sync == want {
		return false, err
	}
	r.cfg.Logger.Info("the node says where it serves others", "address", want)
	_, err = r.Commit(ctx, crm.Request{Actor: "cluster", Intent: "node.announce", Ops: []crm.Op{{Kind: crm.OpPatch, Entity: crm.EntityNode, Record: own.Record,
		Seen: own.Token, Cells: []crm.Input{{Field: crm.NodeSync, Value: crm.TextValue(want)}}}}})
	return true, err
}
